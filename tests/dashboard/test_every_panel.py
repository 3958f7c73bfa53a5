"""Every figure of every panel, read from the page in a browser, beside what the providers and the results say.

At rest they are equal. After each kill they differ by at most the calls that were in flight, which the bill calls
unknown, at what was reserved for them.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.models import BotResult
from fleet.money import PICOS
from fleet.store.client import connect
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, WorkerProcess
from tests.workers.simulator import running as simulators
from tests.workers.simulator.running import send

#: Slots of each worker: as many calls may be in flight when it is killed.
SLOTS = 4
#: Median time of an answer (ms): so short that many calls end in the quarter of a second until the bill has them.
LATENCY_MS = 60
#: Share by which a sum may differ that the page rounds to three digits.
ROUNDED = 0.005
#: Dollars for a million tokens: so much that no bot's cost is below what the page tells.
PRICES = {"input_usd_per_mtok": 500.0, "output_usd_per_mtok": 2000.0}
CONFIG = """
[redis]
url = "{redis}"
[worker]
slots = {slots}
[providers.alpha]
kind = "simulator"
base_url = "{alpha}"
api_key_file = "{folder}/key"
[providers.alpha.scope]
pools = ["good", "long"]
requests_per_day = 5000
[providers.beta]
kind = "simulator"
base_url = "{beta}"
[prices."alpha/m-1"]
input_usd_per_mtok = 500
output_usd_per_mtok = 2000
[limits."alpha/m-1"]
rpm = 60000
usd_per_day = 900
[budgets."pool:good"]
usd_per_day = 2000
[pools.good]
bots = 6
provider = "alpha"
model = "m-1"
[pools.long]
bots = 4
provider = "alpha"
model = "m-1"
[pools.bad]
bots = 3
provider = "beta"
model = "m-2"
max_attempts = 1
[kinds.same]
deterministic = true
by_persona = false
[health]
watch = false
"""


@dataclass
class Stack:
    """A running fleet and what was queued on it."""

    folder: Path
    redis: RedisServer
    page: Browser
    ledgers: dict[str, str]
    workers: list[WorkerProcess] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def start(self) -> None:
        options = ("-c", str(SLOTS))
        self.workers.append(WorkerProcess(self.folder, *options, app=QUICK_LEASES).wait_ready())

    def queue(self, pool: str, count: int, **fields: Any) -> None:
        first = len(self.ids)
        self.ids += submit_many([{"prompt": f"What is 2+{first + n}?", "pool": pool, **fields} for n in range(count)])

    def switch(self, provider: str, **options: float) -> None:
        told = "&".join(f"{name}={value}" for name, value in options.items())
        send(self.ledgers[provider], f"/failures?{told}", {})

    def ledger(self, provider: str) -> Counter[str]:
        """Return what a provider counts: calls, their ends, tokens and money."""
        return Counter(send(self.ledgers[provider], "/ledger").json["total"])

    @property
    def results(self) -> list[BotResult]:
        with connect(self.redis.url) as client:
            metas = [json.loads(row) for key in client.scan_iter("celery-task-meta-*") if (row := client.get(key))]
        return [BotResult.model_validate(meta["result"]) for meta in metas if meta["status"] == "SUCCESS"]

    def kill_all(self) -> None:
        """kill -9."""
        while self.workers:
            self.workers.pop().kill()

    def agrees(self, *, cut: int = 0) -> int:
        """Wait until the page says what is so, with so many calls cut at most; return how many it calls unknown."""

        def wrong() -> list[str]:
            unknown = self.page.text("#bill-unknown")
            calls = before(unknown, "call") if self.page.find("#bill-unknown").is_displayed() else 0.0
            truth = Truth(self.results, self.ledger("alpha"), self.ledger("beta"), cut)
            return differences(self.page, truth, unknown_usd=before(unknown, " reserved") if calls else 0.0)

        try:
            wait_until(lambda: not wrong(), 60)
        except AssertionError:
            self.page.picture("failure")
            counted_there = {name: +self.ledger(name) for name in self.ledgers}
            raise AssertionError(f"the page is wrong in: {wrong()}; the providers count {counted_there}") from None
        found = self.page.text("#bill-unknown")
        return int(before(found, "call"))

    def finish(self) -> None:
        wait_until(lambda: len(self.results) == len(self.ids), 90, lambda: self.workers[-1].log)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with ExitStack() as ends:
        redis = RedisServer(tmp_path)
        ends.callback(redis.stop)
        ledgers = {
            name: ends.enter_context(simulators.running(latency_ms=LATENCY_MS, **PRICES)) for name in ("alpha", "beta")
        }
        send(ledgers["beta"], "/odd?name=moderated&share=1", {})
        (tmp_path / "key").touch(0o600)
        (tmp_path / "key").write_text("sk-test-0123456789abcdef")
        (tmp_path / "fleet.toml").write_text(CONFIG.format(redis=redis.url, folder=tmp_path, slots=SLOTS, **ledgers))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        monkeypatch.setenv("FLEET_HOME", str(tmp_path / ".fleet"))
        config.current.cache_clear()
        flower = ends.enter_context(running(tmp_path, redis.url))
        chrome = start_chromium()
        ends.callback(chrome.quit)
        whole = Stack(tmp_path, redis, Browser(chrome), ledgers)
        ends.callback(lambda: [worker.kill() for worker in whole.workers])
        for _ in range(2):
            whole.start()
        password = (tmp_path / ".fleet" / "flower.password").read_text().strip()
        whole.page.look()
        whole.page.open(flower.url, f"fleet:{password}")
        whole.page.click("#as-table")
        yield whole


def numbers(text: str) -> list[float]:
    """Return all numbers of a text; one that is only told to be less is told as half of it."""
    found = re.findall(r"(<?)\$?(\d[\d,]*(?:\.\d+)?)", text)
    return [float(number.replace(",", "")) / (2 if below else 1) for below, number in found]


def after(text: str, words: str) -> float:
    """Return the number that stands behind these words."""
    return numbers(text.split(words, 1)[1])[0]


def before(text: str, words: str) -> float:
    """Return the number that stands before these words; 0 where they are not said."""
    head, found, _ = text.partition(words)
    return numbers(head)[-1] if found else 0.0


def rows(page: Browser, selector: str) -> dict[str, str]:
    """Return the texts of a list by its keys."""
    found = page.script(
        "return [...document.querySelectorAll(arguments[0])].map((one) => [one.dataset.key, one.textContent])", selector
    )
    return {key: " ".join(text.split()) for key, text in found}


def table(page: Browser) -> list[dict[str, str]]:
    """Return the rows of the table of bots."""
    heads = page.texts("#bot-table thead th")
    cells = page.script("""return [...document.querySelectorAll("#bot-table tbody tr")].map(
        (row) => [...row.cells].map((cell) => cell.textContent))""")  # fmt: skip
    return [dict(zip(heads, row, strict=True)) for row in cells]


def of_bots(bots: list[dict[str, str]], column: str) -> float:
    return sum(numbers(one[column])[0] for one in bots if one[column] != "–")


def counted(page: Browser) -> dict[str, list[float]]:
    """Return what each panel says of each thing that is counted, by name of the thing."""
    ok, degraded, failed, ever = numbers(page.text("#completed"))
    tasks, calls, limited = (numbers(one)[0] for one in page.texts("#failed .swatch"))
    bots = table(page)
    done = {pool: after(text, "done/h") for pool, text in rows(page, "#pools > li").items()}
    return {
        "results": [ever, ok + degraded + failed, sum(done.values())],
        "failed tasks": [
            failed,
            tasks,
            of_bots(bots, "failed"),
            numbers(page.texts("#matrix tfoot .sum")[-1])[0],
            before(page.text("#matrix-note"), "failed task"),
            sum(numbers(chip)[0] for chip in page.texts("#types .chip")),
            before(page.text("#dead-note"), "task"),
            sum(numbers(row)[0] for row in page.texts("#dead .figures b")),
        ],
        "failed calls": [calls, of_bots(bots, "failed calls")],
        "429s": [limited],
        "calls": [before(page.text("#bill-note"), "call")],
        "calls of alpha": [numbers(page.text("#keys .uses"))[0]],
        "calls with a document": [before(page.text("#contexts-note"), "call")],
        "answers of the cache": [before(page.text("#bill-note"), "tasks got the answer")],
        "in hand": [of_bots(bots, "in hand"), numbers(page.text("#busy"))[0]],
        **{f"results of {pool}": [n] for pool, n in done.items()},
        **{f"results of {one['bot']}": numbers(one["in all"]) for one in bots},
    }


def charged(page: Browser) -> dict[str, list[float]]:
    """Return what each panel says of money, in dollars: what is settled, and (in budgets) what may have been spent."""
    day = rows(page, "#limits > li")["alpha/m-1/default"].split("day $")[1]
    pools = rows(page, "#cost-pools > li")
    bill = {key.split("|")[0]: text for key, text in rows(page, "#bill-rows > li").items()}
    heads = [numbers(page.text(one))[0] for one in ("#cost-hour", "#cost-day", "#bill-hour", "#bill-day")]
    notes = [after(page.text("#cost-note"), "in all"), before(page.text("#bill-note"), " in all")]
    return {
        "money": [*heads, *notes, of_bots(table(page), "cost")],
        **{f"money of {pool}": [numbers(text)[-1], before(bill[pool], " today")] for pool, text in pools.items()},
        "budget of alpha": [numbers(day)[0]],
        "budget of good": [before(page.text("#budgets"), " of $2,000.00 a day")],
    }


@dataclass(frozen=True)
class Truth:
    """What providers and results say, and how many calls were in flight when workers were killed."""

    tasks: list[BotResult]
    alpha: Counter[str]
    beta: Counter[str]
    cut: int = 0

    def counted(self) -> Iterator[tuple[str, float, float]]:
        """Yield the name of a thing, its number, and by how much the page may be off."""
        yield "results", len(self.tasks), 0  # a task ends once, whoever dies
        yield "failed tasks", sum(one.status == "failed" for one in self.tasks), 0
        yield "failed calls", self.alpha["errors_5xx"] + self.beta["bad_requests"], self.cut
        yield "429s", self.alpha["refused_429"], self.cut
        yield "calls", self.alpha["calls"] + self.beta["calls"], self.cut
        yield "calls of alpha", self.alpha["calls"], self.cut
        yield "calls with a document", sum(one.pool == "long" for one in self.tasks), self.cut
        yield "answers of the cache", sum(one.served_by == "cache" for one in self.tasks), 0
        yield "in hand", 0, 0
        for of in ("pool", "bot"):
            for name, n in Counter(getattr(one, of) for one in self.tasks if getattr(one, of)).items():
                yield f"results of {name}", n, 0

    def charged(self) -> Iterator[tuple[str, float, bool]]:
        """Yield the name of a sum of money, in dollars, and whether the reservation of unknown calls may be in it."""
        billed = Counter[str]()
        for one in self.tasks:
            billed[one.pool] += one.spent_usd_picos
        for pool, picos in billed.items():
            yield f"money of {pool}", picos / PICOS, False
        told = (self.alpha["billed_usd_picos"] + self.alpha["cut_billed_usd_picos"]) / PICOS
        yield "money", told, False
        yield "budget of alpha", told, True
        yield "budget of good", billed["good"] / PICOS, True


def differences(page: Browser, truth: Truth, *, unknown_usd: float = 0) -> list[str]:
    """Return what the page says that is not so, a line each; money may be off by what is reserved for unknown calls."""
    wrong, said = [], counted(page)
    for name, right, slack in truth.counted():
        wrong += [
            f"{name}: {one:g}, not {right:g}" for one in said.pop(name, [math.nan]) if not abs(one - right) <= slack
        ]
    wrong += [f"{name}: {ones}, of which nobody knows" for name, ones in said.items() if any(ones)]
    money = charged(page)
    for name, right, may_hold in truth.charged():
        least, most = right * (1 - ROUNDED) - unknown_usd, right * (1 + ROUNDED) + unknown_usd * may_hold
        wrong += [f"{name}: ${one:g}, not ${right:g}" for one in money.pop(name) if not least <= one <= most]
    return wrong + [f"{name}: {ones}, of which nobody knows" for name, ones in money.items() if any(ones)]


def test_every_figure_of_every_panel_is_the_ledgers_and_each_kill_costs_the_calls_in_flight(stack: Stack) -> None:
    page, document = stack.page, stack.folder / "rules.md"
    document.write_text("The house has many rules, and each of them is short. " * 400)
    told = CliRunner().invoke(main, ["context", "add", str(document), "--json"])
    (context,) = json.loads(told.stdout)["contexts"]
    stack.queue("good", 30)
    stack.queue("bad", 6)
    stack.queue("long", 12, context=[context["id"]])
    stack.queue("good", 1, kind="same", prompt="Which team?")
    stack.finish()
    stack.queue("good", 4, kind="same", prompt="Which team?")
    stack.switch("alpha", error_rate=0.3)
    stack.queue("good", 10)
    stack.finish()
    stack.switch("alpha", error_rate=0)
    stack.agrees()
    assert stack.ledger("alpha")["errors_5xx"] > 0 and stack.ledger("beta")["bad_requests"] == 6
    assert not page.find("#bill-unknown").is_displayed()

    stack.switch("alpha", hang_rate=1)
    sent = stack.ledger("alpha")["calls"]
    stack.queue("good", 2)
    stack.queue("long", 1)
    wait_until(lambda: stack.ledger("alpha")["calls"] == sent + 3, 30, "three calls are in flight")
    page.wait(lambda: page.text("#busy") == "3 / 8", "three slots are busy")
    stack.kill_all()
    stack.switch("alpha", hang_rate=0)
    stack.start()
    stack.finish()
    assert stack.agrees(cut=3) == 3, "those that hung are unknown, and no other"

    stack.queue("good", 60)
    wait_until(lambda: stack.ledger("alpha")["calls"] >= sent + 20, 30, "it is at work")
    stack.kill_all()
    stack.start()
    stack.finish()
    most = 3 + SLOTS
    assert stack.agrees(cut=most) <= most
    assert any("worker lost" in event for event in page.texts("#events li"))
    page.picture("every-panel")
