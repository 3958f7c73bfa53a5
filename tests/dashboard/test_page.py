"""The Fleet tab in a real browser over a running fleet: what it shows is true, and its buttons do what they say."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from selenium.webdriver.common.keys import Keys

from fleet import config
from fleet.cli.main import main
from fleet.config import PoolSettings, Settings
from fleet.engine.admission.gates import CLOSED, open_gate, set_gate
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.engine.outcomes.dead_letters import letter_keys
from fleet.models import BotResult, bot_name
from fleet.money import PICOS, micros_of
from fleet.roster import Checkout
from fleet.signals.catalogue import tool_errors_of
from fleet.signals.metrics import exposition
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.usage import Usage
from fleet.vault import key_fingerprint
from fleet.waits import Wait
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import Flower, running
from tests.every import every
from tests.redis_server import RedisServer
from tests.test_times import SAID
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess
from tests.workers.simulator import running as simulators
from tests.workers.simulator.running import send

#: Finds texts that are hard to read.
CONTRAST = Path(__file__).with_name("contrast.js")
#: A model's name that a careless page would take for HTML.
HOSTILE = "<b>m<b>"
#: A key, which the page never has.
KEY = "sk-canary-0123456789abcdef"
CONFIG = """
[redis]
url = "{redis}"
socket_timeout_s = 1
[worker]
slots = 20
[providers.alpha]
kind = "simulator"
base_url = "{alpha}"
api_key_file = "{key}"
[providers.alpha.scope]
pools = ["good"]
requests_per_day = 5000
[providers.beta]
kind = "simulator"
base_url = "{beta}"
[limits."alpha/m-1"]
rpm = 6000
[budgets."pool:good"]
usd_per_day = 20
[pools.good]
bots = 6
provider = "alpha"
model = "m-1"
[pools.bad]
bots = 3
provider = "beta"
model = "{model}"
max_attempts = 1
[tools.stock]
base_url = "http://127.0.0.1:9"
api_key_file = "{key}-not-there"
"""


@dataclass
class Stack:
    """A running fleet of two APIs, one of which refuses every prompt, and all results it has given."""

    redis: RedisServer
    flower: Flower
    login: str
    worker: WorkerProcess
    ledgers: dict[str, str]
    config: Path
    results: list[BotResult] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """What its processes are told."""
        return {"FLEET_CONFIG": str(self.config), "FLEET_HOME": str(self.config.parent / ".fleet")}

    def queue(self, tasks: Sequence[dict[str, Any]]) -> list[str]:
        return list(submit_many([{"prompt": "What is 2+2?", **task} for task in tasks]))

    def collect(self, ids: list[str]) -> list[BotResult]:
        """Wait for the results of these tasks and keep them."""
        names = [keys.result(task_id) for task_id in ids]
        with connect(self.redis.url) as client:
            wait_until(lambda: every(client.mget(names)), 30, "all tasks have a result")
            rows = [json.loads(row)["result"] for row in client.mget(names)]  # type: ignore[union-attr]
        new = [BotResult.model_validate(row) for row in rows]
        self.results += new
        return new

    def ledger(self, provider: str) -> dict[str, int]:
        return send(self.ledgers[provider], "/ledger").json["total"]  # type: ignore[no-any-return]

    def count(self, **wanted: str) -> int:
        return sum(all(getattr(one, name) == value for name, value in wanted.items()) for one in self.results)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    driver = start_chromium()
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def running_stack(tmp_path_factory: pytest.TempPathFactory, chrome: Browser) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("page")
    with ExitStack() as stack:
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        alpha = stack.enter_context(simulators.running(latency_ms=20))
        beta = stack.enter_context(simulators.running())
        send(beta, "/odd?name=moderated&share=1", {})
        file, key = folder / "fleet.toml", folder / "key"
        key.touch(0o600)
        key.write_text(KEY)
        file.write_text(CONFIG.format(redis=redis.url, alpha=alpha, beta=beta, model=HOSTILE, key=key))
        env = {"FLEET_CONFIG": str(file), "FLEET_HOME": str(folder / ".fleet")}
        worker = WorkerProcess(folder, env=env)
        stack.callback(worker.kill)
        flower = stack.enter_context(running(folder, redis.url, env=env))
        worker.wait_ready()
        login = f"fleet:{(folder / '.fleet' / 'flower.password').read_text().strip()}"
        whole = Stack(redis, flower, login, worker, {"alpha": alpha, "beta": beta}, file)
        yield whole
        whole.worker.kill()


@pytest.fixture
def fleet(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack, to which this test may submit."""
    monkeypatch.setenv("FLEET_CONFIG", str(running_stack.config))
    config.current.cache_clear()
    return running_stack


@pytest.fixture
def page(fleet: Stack, chrome: Browser) -> Iterator[Browser]:
    """The Fleet page, open; a test fails when the browser had anything to complain about."""
    chrome.look()
    chrome.open(fleet.flower.url, fleet.login)
    yield chrome
    assert chrome.complaints() == []


def dollars(micros: int) -> str:
    """Spell money below a dollar as the page does."""
    return f"${micros / 1e6:.3g}"


def pool_text(page: Browser, pool: str, part: str) -> str:
    return page.text(f'#pools li[data-key="{pool}"] {part}')


def agree(fleet: Stack, page: Browser, picos: int, *, calls: int) -> None:
    """The page, the metrics, the totals, the shell and the bill say the same, to the last digit where they have all."""
    with open_overview(config.current()) as overview:
        wait_until(lambda: overview.read().bill.ever.calls == calls, 10, "every call is in the bill")
        view = overview.read()
    assert (view.bill.ever.usd_picos, view.bill.ever.unknown_calls, view.bill.ever.unpriced_calls) == (picos, 0, 0)
    assert micros_of(picos) == view.totals["cost_usd_micros"] == view.cost.total_usd_micros
    metrics = exposition(view).decode()
    assert f'fleet_bill_usd_total{{model="alpha/m-1",pool="good"}} {picos / PICOS}' in metrics.splitlines()
    told = CliRunner().invoke(main, ["bill", "--by", "bot", "--json"], prog_name="fleet")
    assert json.loads(told.stdout)["total"]["usd_picos"] == picos
    page.wait(lambda: page.text("#bill-note").startswith(f"{calls} calls today"), "the page has every call")
    assert page.text("#bill-day") == dollars(micros_of(picos))
    assert page.text('#bill-rows li[data-key="good|alpha/m-1"] b').startswith(f"{dollars(micros_of(picos))} this hour")
    assert not page.find("#bill-unknown").is_displayed()


def agree_but_for(fleet: Stack, page: Browser, *, in_flight: int) -> None:
    """After a kill page and ledger differ by the calls that were in flight: unknown, at what they reserved."""
    ledgers = [fleet.ledger(name) for name in fleet.ledgers]
    calls, billed = (sum(one[name] for one in ledgers) for name in ("calls", "billed_usd_micros"))
    with open_overview(config.current()) as overview:
        wait_until(
            lambda: abs(micros_of(overview.read().bill.ever.usd_picos) - billed) <= 1, 10,
            "what was settled is what was billed",
        )  # fmt: skip
        bill = overview.read().bill.ever
    assert (bill.unknown_calls, bill.unknown_usd_picos > 0) == (in_flight, True)
    assert abs(bill.calls - calls) <= in_flight, "calls"
    page.wait(lambda: page.text("#bill-note").startswith(f"{bill.calls:,} calls today"), "the page has every call")
    shown = float(page.text("#bill-day").removeprefix("$"))
    assert abs(shown * PICOS - bill.usd_picos) <= PICOS // 100_000, "both round their last digit"
    assert re.match(f"{in_flight} calls unknown, .*\\$[0-9.]+ reserved", page.text("#bill-unknown"))


def test_every_panel_shows_what_the_ledger_and_the_results_say(fleet: Stack, page: Browser) -> None:
    assert page.script("return document.getElementById('first-run').hidden") is False  # nothing was submitted yet
    assert page.text("#first-line") == 'fleet submit "What is 2+2?"'
    page.click("#first-copy")
    page.wait(lambda: page.text("#first-copy") in ("Copied", "Selected: copy it"), "the line is copied or selected")
    page.picture("first-run")
    results = fleet.collect(fleet.queue([{"pool": "good"}] * 40 + [{"pool": "bad"}] * 6))
    alpha, beta = fleet.ledger("alpha"), fleet.ledger("beta")
    assert (alpha["served"], beta["bad_requests"]) == (40, 6)
    page.wait(lambda: page.text("#completed") == "40 ok0 degraded6 failed46 ever", "it counts all results")
    assert page.script("return document.getElementById('first-run').hidden")

    assert page.text("#failed-of") == "of the last minute's tasks failed"
    assert 0 < float(page.text("#failed-share").removesuffix("%")) <= 100
    assert float(page.text("#rate")) > 0
    assert page.text("#failed") == f"6 failed tasks{beta['bad_requests']} failed calls of ended tasks0 429s among them"
    assert page.text("#verdict") == "! prompts: bad"
    assert page.text("#verdict-why").startswith("6 of 46 tasks of the last 5 minutes failed on ")
    assert page.texts("#findings li") == []
    assert page.find("#all-well").is_displayed()
    assert page.texts("#matrix thead th") == ["bot", f"beta/{HOSTILE}", "all"]
    assert page.script("return document.querySelectorAll('#matrix thead b').length") == 0
    failures = Counter(one.bot for one in results if one.status == "failed")
    shown = {
        row[0]: int(row[1]) for row in zip(page.texts("#matrix tbody th"), page.texts("#matrix .sum"), strict=False)
    }
    assert shown == failures
    assert page.texts("#types .chip") == ["BadRequest 6"]

    assert "done/h 40" in pool_text(page, "good", ".figures")
    assert "failed 0%" in pool_text(page, "good", ".figures")
    assert "failed 100%" in pool_text(page, "bad", ".figures")
    limit = page.text('#limits li[data-key="alpha/m-1/default"] .use b')
    used, _, allowed = limit.partition(" of ")
    assert 0 < int(used) <= alpha["calls"]
    assert allowed == "6,000"

    spent = micros_of(sum(one.spent_usd_picos for one in results))
    assert abs(spent - alpha["billed_usd_micros"]) <= 1  # half a micro-dollar may be rounded either way
    assert f"in all {dollars(spent)}, " in page.text("#cost-note")
    assert page.text('#cost-pools li[data-key="good"] b').startswith(f"{dollars(spent)}/h")
    assert page.texts("#budgets b.cut") == ["pool:good"]
    assert page.text("#budgets .muted") == f"${spent / 1e6:,.4f} of $20.00 a day, lasts at this pace"
    agree(fleet, page, sum(one.spent_usd_picos for one in results), calls=46)
    assert page.text("#slots") == "slots busy"
    assert page.text("#busy").endswith("/ 20")
    assert page.text("#workers").startswith("1 worker;")
    assert any("worker started" in event for event in page.texts("#events li"))

    page.click("#as-table")
    in_all = page.texts("#bot-table thead th").index("in all")
    rows = page.script(f"""return [...document.querySelectorAll("#bot-table tbody tr")].map(
        (row) => [row.cells[0].textContent, Number(row.cells[{in_all}].textContent)])""")
    assert {bot: n for bot, n in rows if n} == Counter(one.bot for one in results)
    page.click("#as-table")
    page.picture("light")

    for window, words, bars in (("15m", "last 15 minutes", 15), ("24h", "last 24 hours", 24), ("1h", "last hour", 60)):
        page.click(f'#windows button[data-key="{window}"]')
        assert page.texts("#h-completions small, #h-errors small") == [words] * 2
        assert page.find("#spark-completions").get_attribute("aria-label").startswith(f"{bars} bars")  # type: ignore[union-attr]
        assert page.text("#completed") == "40 ok0 degraded6 failed46 ever"


def test_keys_are_told_by_fingerprint_with_what_of_their_scope_is_used(fleet: Stack, page: Browser) -> None:
    fleet.collect(fleet.queue([{"pool": "good"}] * 2))
    page.wait(lambda: int(page.text("#keys .uses").split(" ")[0] or 0) >= 2, "what of the scope is used")
    assert page.texts("#keys b.cut") == ["alpha", "tools/stock"] and page.texts("#keys .pill") == ["serves", "waits"]
    assert page.texts("#keys code") == [key_fingerprint("alpha", KEY), ""]
    told = page.text('#keys li[data-key="alpha"] > .muted')
    assert "serves pools good; 5,000 requests a day" in told and "in 1 process" in told and "old" in told
    assert "key-not-there" in page.text('#keys li[data-key="tools/stock"] .why')
    with connect(fleet.redis.url) as client:
        seen = str(client.hgetall(keys.workers()))
    assert KEY not in page.script("return document.documentElement.outerHTML") + seen
    assert key_fingerprint("alpha", KEY) in seen
    found = json.loads(CliRunner().invoke(main, ["keys", "list", "--json"]).stdout)["keys"]
    (row,) = [one for one in found if one["key"] == "alpha"]
    assert row["in_workers"]["fingerprints"] == [row["fingerprint"]] and row["in_workers"]["workers"] == 1
    for theme, width in (("light", 1440), ("dark", 1440), ("light", 360)):
        page.look(width=width, theme=theme)
        page.picture(f"keys-{theme if width > 360 else 'phone'}")
    page.look()


def test_failed_requests_to_tools_are_told_by_type_below_the_failed_tasks(fleet: Stack, page: Browser) -> None:
    assert page.text("#tool-errors") == ""
    gone = tool_errors_of("tools/gone", "RateLimited")  # fleet.toml no longer has it
    two, one = (tool_errors_of("tools/stock", kind) for kind in ("ProviderUnavailable", "RateLimited"))
    with connect(fleet.redis.url) as client:
        client.hset(keys.totals(), mapping={two.name: 2, one.name: 1, gone.name: 9})
        page.wait(
            lambda: (
                page.text("#tool-errors")
                == "tools/stock: 3 requests failed since counting began: ProviderUnavailable 2, RateLimited 1"
            ),
            "the tool's failures are told",
        )
        client.hdel(keys.totals(), two.name, one.name, gone.name)


def test_pausing_and_resuming_a_pool_by_clicks(fleet: Stack, page: Browser) -> None:
    page.click('#pools li[data-key="good"] button')
    page.wait(lambda: pool_text(page, "good", ".gate") == "paused", "the gate is closed")
    ids = fleet.queue([{"pool": "good", "priority": name} for name in ("critical", "critical", "high", "bulk")])
    backlog = '#pools li[data-key="good"] .backlog'
    said = "4 waiting: 2 critical, 1 high, 0 normal, 0 low, 1 bulk"
    page.wait(lambda: page.find(backlog).get_attribute("aria-label") == said, "it counts what waits")
    assert "oldest –" not in pool_text(page, "good", ".figures")
    assert "in flight none, 6 bots" in pool_text(page, "good", ".figures")
    page.script("""document.querySelector('#pools li[data-key="good"] .pause').focus()""")
    focused = "return document.activeElement.getAttribute('aria-label')"
    page.press(Keys.SPACE)
    page.wait(lambda: pool_text(page, "good", ".gate") == "open", "a key opens the gate")
    page.wait(lambda: page.script(focused) == "Pause good", "the button keeps the focus")
    page.press("u")
    page.wait(lambda: pool_text(page, "good", ".gate") == "paused", "a key brings back what was")
    page.press(Keys.SPACE)
    page.wait(lambda: pool_text(page, "good", ".gate") == "open", "the gate is open")
    fleet.collect(ids)
    done = f"{fleet.count(status='ok')} ok"
    page.wait(lambda: page.text("#completed").startswith(done), "it counts what was finished")
    page.wait(lambda: any("pool resumed" in event for event in page.texts("#events li")), "it tells so")
    marked = page.find("#spark-completions").get_attribute("aria-label")
    assert "pool resumed good, by fleet" in (marked or "") or "pool paused good, by fleet" in (marked or "")
    assert page.script("return document.querySelectorAll('#spark-completions path.mark-line.action').length") >= 1


def test_a_pause_in_part_is_undone_from_the_toast_and_a_selection_is_quarantined_with_a_reason_and_back(
    fleet: Stack, page: Browser
) -> None:
    gate = lambda: pool_text(page, "good", ".gate")  # noqa: E731
    page.click('#pools li[data-key="good"] button:last-of-type')
    page.find('#sure select[aria-label="What waits"]').send_keys("what is less urgent than normal")
    page.find('#sure select[aria-label="How long"]').send_keys("for 10 minutes")
    assert page.script(CONTRAST.read_text()) == []
    page.picture("pause")
    page.click("#sure .action")
    page.wait(lambda: gate().startswith("normal and above"), "it is paused in part")
    assert "min left" in gate()
    page.click("#toast button")
    page.wait(lambda: gate() == "open", "undone")

    page.click("#choose")
    page.find("#find").send_keys("good-00")
    page.click("#chosen button:nth-of-type(1)")  # all shown
    assert page.text("#chosen b") == "6 bots chosen"
    page.click_cell(5)
    page.wait(lambda: page.text("#chosen b") == "5 bots chosen", "a click on a chosen bot lets it go")
    for width, theme in ((1440, "light"), (360, "dark")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"chosen-{theme}")
    page.look()
    page.click("#chosen button:nth-of-type(3)")
    page.click("#sure .action")
    assert page.script("return document.getElementById('sure').open"), "a reason is asked for"
    page.find("#sure input").send_keys("odd since noon")
    page.click("#sure .action")
    page.wait(lambda: "quarantined 5" in pool_text(page, "good", ".figures"), "all five are out")
    told = "bots good-001, good-002, good-003, good-004, good-005, pool good, reason odd since noon, by fleet"
    page.wait(lambda: any(told in event for event in page.texts("#events li")), "one event tells it")
    page.click("#toast button")
    page.wait(lambda: "quarantined" not in pool_text(page, "good", ".figures"), "all are back")
    page.click("#choose")
    assert page.script("return document.getElementById('chosen').hidden")
    page.find("#find").send_keys(Keys.CONTROL, "a", Keys.BACKSPACE)


def test_what_tasks_wait_for_stands_on_top_and_beside_their_pool(fleet: Stack, page: Browser) -> None:
    queue = keys.queue("good")
    with connect(fleet.redis.url) as client:
        set_gate(client, queue, lowest=CLOSED)
        wait = Wait("hold", time.time() + 400, "alpha/m-1/default", "429, Retry-After 400 s")
        client.set(keys.hold(queue), wait.to_json(), px=400_000)
        try:
            ids = fleet.queue([{"pool": "good"}] * 3)
            said = ", 3 tasks wait: none starts until it is resumed"
            page.wait(lambda: any(one.endswith(said) for one in page.texts("#findings .said")), "the finding")
            hidden = page.script("return document.getElementById('waits').hidden")
            assert hidden, "what a finding says is not said again"
            mine = page.texts('#pools li[data-key="good"] .reasons li')
            assert "3 tasks wait: an operator has paused the pool" in mine
            (held,) = (line for line in mine if "429, Retry-After 400 s" in line)
            assert held.startswith("alpha/m-1/default: ") and "UTC, in 7 min" in held
            for width, theme in ((1280, "light"), (390, "dark")):
                page.look(width=width, height=900, theme=theme)
                assert page.script("return document.documentElement.scrollWidth") <= width
                assert page.script(CONTRAST.read_text()) == []
                page.picture(f"waits-{theme}")
        finally:
            client.delete(keys.hold(queue))
            open_gate(client, queue)
    fleet.collect(ids)
    page.wait(lambda: page.texts("#findings .said") == [], "nothing waits any more")
    assert page.texts('#pools li[data-key="good"] .reasons li') == []
    assert pool_text(page, "good", ".gate") == "open"


def test_a_click_quarantines_a_bot_which_gets_no_task_until_it_is_released(fleet: Stack, page: Browser) -> None:
    page.click_cell(0)
    page.wait(lambda: page.text("#bot-name") == "good-001", "the bot is open")
    page.wait(lambda: page.script("return Boolean(document.querySelector('#bot form'))"), "the bot is drawn")
    assert "temperature" in page.text("#bot")
    page.find("#bot input").send_keys("<i>odd</i>")
    page.click("#bot form button")
    page.wait(lambda: page.text("#bot .pill") == "quarantined", "the bot is quarantined")
    page.picture("bot")
    page.press(Keys.ESCAPE)
    assert page.script("return document.getElementById('bot').open") is False
    page.wait(lambda: "× quarantined 1" in page.text("#heat-legend"), "the map marks it")
    assert "quarantined 1" in pool_text(page, "good", ".figures")
    told = "bot quarantined good-001 pool good, reason <i>odd</i>, by fleet"
    page.wait(lambda: any(told in event for event in page.texts("#events li")), "the event tells it")
    out = fleet.collect(fleet.queue([{"pool": "good"}] * 24))
    assert {one.bot for one in out} == {f"good-{number:03d}" for number in range(2, 7)}

    page.script("document.getElementById('heat').focus()")
    page.press(Keys.HOME, Keys.ENTER)
    page.wait(lambda: page.text("#bot .action") == "Release", "the keyboard opens it too")
    page.click("#bot .action")
    page.wait(lambda: page.text("#bot .pill") == "idle", "the bot is released")
    back = fleet.collect(fleet.queue([{"pool": "good"}] * 12))
    assert "good-001" in {one.bot for one in back}


def in_every_look(page: Browser, name: str) -> None:
    """Look at the page in light, in dark and on a phone: it fits, and every text is readable."""
    for look, width, theme in (("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"{name}-{look}")
    page.look()


def test_a_task_is_opened_by_its_link_its_address_and_its_id_and_cancelled(fleet: Stack, page: Browser) -> None:
    (dead,) = fleet.collect(fleet.queue([{"pool": "bad"}]))
    page.wait(lambda: page.texts("#events [data-task]"), "an event names a task")
    page.click("#events [data-task]")
    page.wait(lambda: page.text("#task .pill") == "failed", "the link opens it")
    assert "BadRequest" in page.text("#task .said")
    assert page.texts("#task .steps b")[-2:] == ["judge", "finish"]
    assert page.texts("#task .act button") == ["Replay", "Throw away"]
    assert "dashboard.show_texts" in page.text("#task")
    page.press(Keys.ESCAPE)

    page.find("#task-id").send_keys(dead.task_id, Keys.ENTER)
    page.wait(lambda: page.text("#task code") == dead.task_id, "the search field opens it")
    assert page.script("return location.hash") == f"#task={dead.task_id}"
    page.wait(lambda: page.text("#task .pill") == "failed", "it is drawn")
    in_every_look(page, "task")
    page.press(Keys.ESCAPE)

    with connect(fleet.redis.url) as client:
        set_gate(client, keys.queue("good"), lowest=CLOSED)
        try:
            (waits,) = fleet.queue([{"pool": "good"}])
            page.script("location.hash = arguments[0]", "find=pool%3Dgood%20state%3Dwaiting")
            page.wait(lambda: page.texts("#found-tasks [data-task]"), "the address finds it")
            assert page.script("return document.querySelector('#found-tasks [data-task]').dataset.task") == waits
            assert page.text("#found-note").startswith("1 task of ")
            in_every_look(page, "found")
            page.find("#task-id").clear()
            page.find("#task-id").send_keys("error=BadRequest", Keys.ENTER)
            page.wait(lambda: dead.task_id[:8] in page.text("#found-tasks"), "the search field finds what failed")
            page.click("#found-close")
            page.wait(lambda: not page.find("#found").is_displayed(), "it is closed")
            drains = '#pools li[data-key="good"] [data-key="backlog"] b'
            page.wait(lambda: page.text(drains) == "stands still", "the pool says when its backlog is gone")
            page.script("location.hash = arguments[0]", f"task={waits}")
            page.wait(lambda: page.text("#task .pill") == "queued", "the address opens it")
            assert page.text("#task .said li").startswith("it waits because an operator has paused the pool")
            assert page.texts("#task .steps b") == ["queued"]
            page.click("#task .act button")
            page.wait(lambda: page.text("#task .pill") == "revoked", "it is cancelled")
            page.press(Keys.ESCAPE)
        finally:
            open_gate(client, keys.queue("good"))


def test_dead_letters_are_replayed_and_thrown_away_after_a_look_at_the_cost(fleet: Stack, page: Browser) -> None:
    with connect(fleet.redis.url) as client:
        client.delete(*letter_keys().values())
        ids = [one.task_id for one in fleet.collect(fleet.queue([{"pool": "bad"}] * 3))]
        line = '#dead li[data-key="BadRequest"]'
        page.wait(lambda: page.text(f"{line} .figures b") == "3", "they are counted by reason")
        page.click(f"{line} .link")
        page.wait(lambda: len(page.texts(f"{line} .letters [data-task]")) == 3, "the newest are listed")
        page.click(f"{line} .quiet")
        page.wait(lambda: "Queue 3 tasks again? Nobody knows what that costs" in page.text(f"{line} .asked"), "it asks")
        in_every_look(page, "dead")
        client.delete(*map(keys.result, ids))
        page.click(f"{line} .asked .action")
        fleet.collect(ids)
        page.wait(lambda: any("dead replayed" in event for event in page.texts("#events li")), "the event tells it")
        page.wait(lambda: page.text(f"{line} .figures b") == "3", "they have died again")
        page.click(f"{line} .line .quiet:last-child")
        assert "Their messages go for good" in page.text(f"{line} .asked")
        page.click(f"{line} .asked .danger")
        page.wait(lambda: page.script("return document.getElementById('dead-panel').hidden"), "no letter is left")


def test_what_is_filtered_and_sorted_is_what_is_shown(page: Browser) -> None:
    page.press("/")
    page.press(*"BAD-0")
    assert page.text("#bots-shown") == "3 of 9"
    page.script("""const sort = document.getElementById("sort"); sort.value = "failed";
        sort.dispatchEvent(new Event("change")); document.getElementById("find").value = "";
        document.getElementById("find").dispatchEvent(new Event("input"))""")
    page.click("#as-table")
    assert every(name.startswith("bad-") for name in page.texts("#bot-table tbody th")[:3])
    page.click("#as-table")


#: Elements of the page that scroll by themselves; the table of bots may be wider than a phone.
SCROLLERS = """return [...document.querySelectorAll(".fleet *")].filter((node) => {
  const { overflowY, overflowX } = getComputedStyle(node);
  return node.offsetParent && ((/auto|scroll/.test(overflowY) && node.scrollHeight > node.clientHeight + 1)
    || (/auto|scroll/.test(overflowX) && node.scrollWidth > node.clientWidth + 1));
}).map((node) => node.outerHTML.slice(0, 90))"""
#: Controls that a finger misses.
SMALL = """return [...document.querySelectorAll(".fleet :is(button, select, input, summary)")].filter((node) => {
  const { width, height } = node.getBoundingClientRect();
  return node.offsetParent && (width < 44 || height < 44);
}).map((node) => node.outerHTML.slice(0, 90))"""
#: Controls below 24 px whose neighbours are so near that a circle of 24 px around it touches another one; links in text
#: may be smaller.
TINY = """const all = [...document.querySelectorAll("main :is(button, select, input, summary, [tabindex])")].filter(
    (node) => node.offsetParent && !node.disabled);
const boxes = all.map((node) => node.getBoundingClientRect());
const near = (a, b) => {
  const x = a.x + a.width / 2, y = a.y + a.height / 2;
  return Math.hypot(Math.max(b.left - x, 0, x - b.right), Math.max(b.top - y, 0, y - b.bottom)) < 12;
};
return all.filter((node, i) => (boxes[i].width < 24 || boxes[i].height < 24)
    && !all.some((other) => other !== node && other.contains(node) && other.tabIndex < 0)
    && boxes.some((box, k) => k !== i && !all[i].contains(all[k]) && !all[k].contains(all[i]) && near(boxes[i], box))
).map((node) => node.outerHTML.slice(0, 90))"""
#: Where each column ends.
ENDS = """return [...document.querySelectorAll(".column")].map(
    (one) => [...one.children].filter((card) => card.offsetParent).at(-1)?.getBoundingClientRect().bottom
).filter((end) => end !== undefined)"""
#: Cards of each column, and the largest hole between two of them in pixels.
HOLES = """const all = [...document.querySelectorAll(".column")].filter((one) => one.offsetParent && one.firstChild);
return all.map((one) => Math.max(0, ...[...one.children].slice(1).map((card, i) =>
    card.getBoundingClientRect().top - one.children[i].getBoundingClientRect().bottom)))"""

#: The largest blank foot of a card of each column in pixels.
FEET = """const all = [...document.querySelectorAll(".column")].filter((one) => one.offsetParent && one.firstChild);
const end = (node) => node.getBoundingClientRect().bottom;
return all.map((one) => Math.max(...[...one.children].filter((card) => !card.hidden).map((card) =>
    end(card) - Math.max(...[...card.children].map(end)))))"""


def complaints_of_axe(page: Browser) -> list[str]:
    """Return what axe-core finds on our part of the page: rule, and the element; Flower's own bar aside.

    The newest axe-core that a Python package without a browser of its own brings is of 2022 (4.4). A newer one, such as
    `package/axe.min.js` of `npm pack axe-core`, is used when the variable AXE_CORE names it, with the rules of WCAG 2.2
    that are off by default. With 4.14.1 it found nothing on 29 November 2026.
    """
    packaged = next(file for file in files("axe_core_python").iterdir() if file.name == "axe.min.js")
    source = Path(os.environ["AXE_CORE"]).read_text() if "AXE_CORE" in os.environ else packaged.read_text()
    page.script(f"{source}; window.axe = axe")
    found = page.chrome.execute_async_script(
        """const sizes = axe.getRules().some(({ ruleId }) => ruleId === "target-size");
        const rules = sizes ? { "target-size": { enabled: true } } : {};
        const ours = {include: [['main'], ['dialog'], ['#toast']]};
        axe.run(ours, {resultTypes: ['violations'], rules}).then(arguments[0])"""
    )  # type: ignore[no-untyped-call]
    return [f"{one['id']}: {node['html'][:120]}" for one in found["violations"] for node in one["nodes"]]


@pytest.mark.parametrize(
    ("name", "width", "theme", "columns"),
    [
        ("dark", 1440, "dark", 2),
        ("phone", 390, "light", 1),
        ("small-phone", 360, "dark", 1),
        ("wide", 1920, "light", 3),
    ],
)
def test_it_fits_every_control_has_a_name_and_every_text_is_readable(
    page: Browser, name: str, width: int, theme: str, columns: int
) -> None:
    page.look(width=width, height=844, theme=theme)
    page.wait(lambda: len(page.script(HOLES)) == columns, "the cards stand in their columns")
    assert max(page.script(HOLES)) < 20
    apart_px = 4 if columns < 3 else 420  # the third stands beside the map, and few cards may be too short for it
    page.wait(lambda: max(page.script(ENDS)) - min(page.script(ENDS)) < apart_px, "the columns end at one line")
    assert max(page.script(FEET)) < 80, "the room that is left is between rows, not below them"
    assert page.script(SCROLLERS) == []
    assert page.script("return document.documentElement.dataset.bsTheme") == theme
    assert page.script("return document.documentElement.scrollWidth") <= width
    nameless = page.script("""return [...document.querySelectorAll(".fleet :is(button, select, input)")].filter(
        (node) => node.offsetParent
          && !(node.textContent.trim() || node.getAttribute("aria-label") || node.closest("label"))
      ).map((node) => node.outerHTML)""")
    assert nameless == []
    assert page.script(CONTRAST.read_text()) == []
    assert complaints_of_axe(page) == []
    above, below = page.script("""const style = getComputedStyle(document.documentElement);
        return [style.scrollPaddingTop, style.scrollPaddingBottom].map(parseFloat)""")
    bar = page.script("return document.querySelector('.navbar').getBoundingClientRect().height")
    assert bar <= above and below >= 60, "what gets the focus is not below the bar, nor the toast (2.4.11)"
    assert page.script(TINY) == [], "targets of 24 px, as WCAG 2.2 has it (2.5.8)"
    if width < 560:
        page.chrome.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        assert page.script("return matchMedia('(pointer: coarse)').matches")
        assert page.script(SMALL) == []
        assert page.script("return document.documentElement.scrollWidth") <= width
        page.picture(name)
        page.chrome.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    summary = page.script("return document.getElementById('pool-summary').getBoundingClientRect()")
    first = page.script("return document.querySelector('.signals .card').getBoundingClientRect()")
    assert (summary["height"] > 0 and summary["bottom"] <= first["top"]) is (width < 560)
    page.picture(name)


def test_every_time_is_of_utc_as_in_the_sentences_wherever_the_browser_is(page: Browser) -> None:
    page.chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Kathmandu"})  # 5 h 45 min ahead
    try:
        page.chrome.refresh()
        page.wait(lambda: page.version, "it is drawn")
        now_s = time.time()
        minutes = [time.strftime("%H:%M", time.gmtime(now_s - ago_s)) for ago_s in (0, 60)]
        assert page.text("#foot").removeprefix("Read from Redis at ")[:5] in minutes
        assert page.script("return document.getElementById('spark-completions').tipAt(1)")[:9] in [
            f"{minute} UTC" for minute in minutes
        ]
        told = page.find("#events time").get_attribute("title") or ""
        assert told[:10] == time.strftime("%Y-%m-%d", time.gmtime(now_s)) and told.endswith(" UTC")
    finally:
        page.chrome.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_lengths_of_time_are_told_as_in_the_sentences(page: Browser) -> None:
    told = page.script("""return import(document.querySelector('link[href*="draw.js"]').href)
        .then(({ duration }) => arguments[0].map(duration))""", [*SAID])  # fmt: skip
    assert told == [*SAID.values()]


def test_old_figures_never_look_new_when_redis_hangs(fleet: Stack, page: Browser) -> None:
    assert page.text("#status") == "live"
    fleet.redis.freeze()
    try:
        page.wait(lambda: page.text("#status").startswith("stale"), "it says that its figures are old")
        assert "These are the figures of" in page.text("#trouble")
        page.picture("redis-hangs")
    finally:
        fleet.redis.thaw()
    page.wait(lambda: page.text("#status") == "live", "it is live again")
    assert page.script("return document.getElementById('trouble').hidden")


def shows(page: Browser, name: str, *, said: str) -> None:
    """Wait until a finding is told, and take its pictures: light, dark, and on a phone."""
    page.wait(lambda: any(text.startswith(said) for text in page.texts("#findings .said")), said)
    for width, theme in ((1440, "light"), (1440, "dark"), (360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"diagnosis-{name}-{theme if width > 360 else 'phone'}")
    page.look()


def test_an_outage_prompts_that_fail_and_a_dead_worker_are_each_said_in_one_sentence(
    fleet: Stack, page: Browser
) -> None:
    beta = fleet.ledgers["beta"]
    send(beta, "/odd?name=moderated&share=0", {})
    for url in fleet.ledgers.values():
        send(url, "/failures?error_rate=1", {})
    ids = fleet.queue([{"pool": "good"}] * 30 + [{"pool": "bad"}] * 30)
    shows(page, "outage", said="All 2 APIs are down since ")
    assert fleet.ledger("alpha")["errors_5xx"] + fleet.ledger("beta")["errors_5xx"] <= 60
    assert page.text("#verdict") == "! provider: all APIs"
    assert "answered 5" not in page.text("#verdict-why"), "the finding has said what the provider answered"
    assert page.texts('#limits [data-key="next grant"] b').count("when a probe does well") == 2
    assert "diagnosis critical" in (page.find("#diagnosis").get_attribute("class") or "")
    page.click("#findings li .copy")
    send(beta, "/odd?name=moderated&share=1", {})
    for url in fleet.ledgers.values():
        send(url, "/failures?error_rate=0", {})
    fleet.collect(ids)
    shows(page, "prompts", said="Prompts of bad fail on every bot that takes them since ")
    send(fleet.ledgers["alpha"], "/failures?hang_rate=1", {})
    before = fleet.ledger("alpha")["calls"]
    more = fleet.queue([{"pool": "good"}] * 3)
    wait_until(lambda: fleet.ledger("alpha")["calls"] == before + 3, 30, "three calls are in flight")
    fleet.worker.kill()
    killed_s = time.monotonic()
    send(fleet.ledgers["alpha"], "/failures?hang_rate=0", {})
    more += fleet.queue([{"pool": "good"}] * 3)
    shows(page, "no-worker", said="No worker lives since ")
    print(f"dead worker told after {time.monotonic() - killed_s:.1f} s")
    assert (page.text("#busy"), pool_text(page, "good", ".gate")) == ("0 / 0", "no worker")
    assert page.text('#pools li[data-key="good"] [data-key="backlog"] b') == "stands still"
    page.click('#pools li[data-key="good"] button')
    page.wait(lambda: pool_text(page, "good", ".gate") == "paused", "the pool is paused")
    page.wait(lambda: any("Pool good is paused" in text for text in page.texts("#diagnosis .said")), "it says so")
    page.script("document.getElementById('more-findings').open = true")
    page.click('#diagnosis .does[aria-label="Resume good"]')
    page.wait(lambda: pool_text(page, "good", ".gate") != "paused", "its button opens it")
    fleet.worker = WorkerProcess(fleet.config.parent, env=fleet.env).wait_ready()
    fleet.collect(more)
    page.wait(lambda: page.text("#bill-unknown").startswith("3 calls unknown"), "what was in flight is unknown", 60)
    agree_but_for(fleet, page, in_flight=3)
    page.look(width=360)
    page.picture("bill-unknown")
    assert (
        page.script("""return [...document.querySelectorAll(".fleet .use b")].filter((node) => node.offsetParent
        && node.getBoundingClientRect().right > node.closest(".card").getBoundingClientRect().right).length""")
        == 0
    )
    page.look()


def finish(url: str, settings: Settings, numbers: range) -> None:
    """Record results of bots of these numbers, as workers do."""

    async def run() -> None:
        store = Store(url)
        try:
            completion = Finisher(store, settings)
            for index in numbers:
                pool = "few" if index % 10 == 0 else "many"
                result = BotResult(
                    task_id=f"t{index}", status="ok", bot=bot_name(pool, index), pool=pool, provider="simulator",
                    model="simulated-1", served_by="call", usage=Usage(input_tokens=10, output_tokens=5), attempts=1,
                    ran_ms=100 + index, finished_at=time.time(),
                )  # fmt: skip
                await completion.finish(
                    Finish(result, checkout=Checkout(f"t{index}", pool, bot_name(pool, index), f"k{index}"))
                )
        finally:
            await store.close()

    asyncio.run(run())


def test_ten_thousand_bots_are_drawn_and_kept_up_to_date(
    chrome: Browser, tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(pools={"many": PoolSettings(bots=8000), "few": PoolSettings(bots=2000)})
    finish(redis_url, settings, range(1, 501))
    env = {"FLEET_POOLS": '{"many": {"bots": 8000}, "few": {"bots": 2000}}', "FLEET_HOME": str(tmp_path)}
    with running(tmp_path, redis_url, env=env) as flower:
        chrome.look()
        chrome.open(flower.url, f"fleet:{(tmp_path / 'flower.password').read_text().strip()}")
        assert chrome.text("#bots-shown") == "10,000"
        assert chrome.text("#completed").endswith("500 ever")
        began_s = time.monotonic()
        finish(redis_url, settings, range(501, 502))
        chrome.wait(lambda: chrome.text("#completed").endswith("501 ever"), "the next result shows")
        shown_s = time.monotonic() - began_s
        drawn_ms: set[float] = set()

        def redrawn() -> bool:
            drawn_ms.add(float(chrome.script("return document.body.dataset.drawnMs")))
            return len(drawn_ms) >= 3

        chrome.wait(redrawn, "it was drawn three times")
        chrome.picture("10,000")
        with capsys.disabled():
            print(f"\n10,000 bots: drawn in {min(drawn_ms):.0f} ms, a new result shown after {shown_s:.1f} s")
        assert min(drawn_ms) < 1000
        assert chrome.complaints() == []
