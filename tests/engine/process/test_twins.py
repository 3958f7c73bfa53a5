"""Equal tasks of a deterministic kind, through real workers and the simulator: who is asked, who gets the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.cache_checks import cache_checks
from fleet.config import PersonaSettings
from fleet.economy.cache.reading import drop_all, kept_of, kinds_kept
from fleet.engine.operations.overview import open_overview
from fleet.models import BotResult
from fleet.signals.money.cached import CacheRow
from fleet.signals.money.metrics import money
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES
from tests.workers.simulator.running import running, send, total

WAIT_S = 60
CONFIG = """
[providers.api]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "TWINS_KEY"

[pools.research]
bots = 10
provider = "api"
model = "simulated-1"
max_output_tokens = 100

[limits."api/simulated-1"]
rpm = 1000000

[prices."api/simulated-1"]
input_usd_per_mtok = 1000
output_usd_per_mtok = 1000

[kinds.sums]
deterministic = true
by_persona = false

[kinds.of-persona]
deterministic = true
"""

ALIKE = """
[pools.alike]
bots = 10
provider = "api"
model = "simulated-1"

[pools.alike.persona]
archetypes = ["analytical"]
temperatures = [0.0]
context_windows_tokens = [16000]
"""


@pytest.fixture
def url(fleet_env: None, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A simulator, and settings that name it; nothing is kept before and after."""
    monkeypatch.setenv("TWINS_KEY", "test-key")
    with running(latency_ms=300) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        yield url
    with connect(redis_url) as client:
        for kind in kinds_kept(client):
            drop_all(client, kind)
    config.current.cache_clear()


def submit(count: int, prompt: str = "What is 2+3?", **fields: Any) -> list[Any]:
    from fleet.engine.tasks import submit_task

    return [submit_task.delay(prompt, **{"pool": "research", "kind": "sums", **fields}) for _ in range(count)]


def fleet(*words: str) -> Any:
    """Return what a command says with --json."""
    done = CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False, prog_name="fleet")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def results(handles: list[Any]) -> list[BotResult]:
    return [handle.get(timeout=WAIT_S) for handle in handles]


def kept(redis_url: str, kind: str = "sums") -> int:
    with connect(redis_url) as client:
        return kept_of(client, [kind])[0].answers


def ask(redis_url: str, **fields: Any) -> BotResult:
    """Return the result of a task that is asked, once its answer is kept."""
    before = kept(redis_url)
    (done,) = results(submit(1, **fields))
    assert done.status == "ok" and done.served_by == "call"
    wait_until(lambda: kept(redis_url) > before, WAIT_S, "its answer is kept")
    return done


def test_an_equal_task_gets_the_answer_without_a_bot_and_for_nothing(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker()
    first = ask(redis_url, metadata={"line": 1})
    assert first.cost_usd_picos
    worker.kill()
    start_worker()
    done = results(submit(5, metadata={"line": 2}, priority="high"))
    assert every(one.answer == first.answer and one.served_by == "cache" for one in done)
    assert every((one.bot, one.persona, one.attempts, one.cost_usd_picos) == (None, None, 0, 0) for one in done)
    assert every(one.metadata == {"line": 2} and one.model == first.model and one.pool == "research" for one in done)
    assert every(not one.usage.total_tokens and one.task_id != first.task_id for one in done)
    assert total(url)["calls"] == 1
    member = {"seat": "0123456789ab:1/2"}
    for other in (
        {"tenant": "acme"},
        {"kind": "default"},
        {"reuse": False},
        {"prompt": "What is 2+4?"},
        member,
        member,
    ):
        (another,) = results(submit(1, **other))
        assert another.served_by == "call", other
    assert total(url)["calls"] == 7


def test_where_the_persona_counts_an_answer_is_that_of_the_bot_and_where_it_does_not_nobody_is_checked_out(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    start_worker()
    done = results(submit(10, kind="of-persona"))
    assert {one.served_by for one in done} == {"call"} or len({one.bot for one in done}) < 11
    wait_until(lambda: kept(redis_url, "of-persona") == len({one.bot for one in done}), WAIT_S)
    again = results(submit(10, kind="of-persona"))
    by_bot = {one.answer for one in done}
    assert any(one.served_by == "cache" for one in again)
    assert every(one.answer in by_bot for one in again if one.served_by == "cache")
    with connect(redis_url) as client:
        assert not client.zcard(keys.bot_leases("research")), "who was checked out in vain is free"


def test_equal_tasks_at_once_wait_for_the_bot_of_their_persona_that_is_asked(
    url: str, start_worker: StartWorker, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url) + ALIKE)
    config.current.cache_clear()
    start_worker()
    start_worker()
    done = results(submit(40, pool="alike", kind="of-persona", prompt="Tell me a story."))
    assert sum(one.served_by == "call" for one in done) == total(url)["calls"] == 1, "all bots have one persona"
    assert every(one.answer == done[0].answer for one in done)
    before = total(url)["calls"]
    done = results(submit(60, kind="of-persona", prompt="What is 7+8?"))
    asked = [one for one in done if one.served_by == "call"]
    assert len({one.persona for one in asked}) > 1 and len({one.bot for one in asked}) == len(asked), "once for each"
    assert total(url)["calls"] - before == len(asked) <= 10
    with connect(redis_url) as client:
        assert not client.zcard(keys.bot_leases("alike")) + client.zcard(keys.bot_leases("research"))


def test_what_is_no_whole_answer_is_not_kept(url: str, start_worker: StartWorker, redis_url: str) -> None:
    start_worker()
    for _ in range(2):
        (cut,) = results(submit(1, prompt="Tell me a long story.", max_output_tokens=2))
        assert cut.served_by == "call" and cut.status == "degraded"
    send(url, "/failures?error_rate=1", {})
    (failed,) = results(submit(1, prompt="What is 5+5?", deadline_s=1, expires_at=None, max_cost_usd=1e-9))
    assert failed.status == "failed"
    assert kept(redis_url) == 0


def test_of_equal_tasks_at_once_one_is_asked_and_the_others_wait_in_redis_and_say_for_what(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    workers = [start_worker(), start_worker()]
    send(url, "/failures?hang_rate=1", {})
    handles = submit(40)

    def told() -> list[Any]:
        return [fleet("why", one.id) for one in handles]

    def at_work() -> int:
        with connect(redis_url) as client:
            return int(client.zcard(keys.bot_leases("research")))

    # All of them: one that is still on its way holds a bot for a moment, and would find the answer there at last.
    wait_until(lambda: sum(one["cause"] == "twin" for one in told()) == 39, WAIT_S, lambda: workers[0].log)
    first = {one["about"] for one in told() if one["cause"] == "twin"}
    assert len(first) == 1 and first < {one.id for one in handles}
    assert at_work() == 1, "who waits has no bot"
    urgent = submit(1, priority="critical")
    wait_until(lambda: at_work() == 2, WAIT_S, "the urgent one is asked, too")
    send(url, "/failures?hang_rate=0", {})
    workers[0].kill()
    workers[1].kill()
    start_worker(app=QUICK_LEASES)
    done = results(handles + urgent)
    assert every(one.status == "ok" and one.answer == done[0].answer for one in done)
    asked = [one for one in done if one.served_by == "call"]
    assert len(asked) <= 2 and total(url)["calls"] <= 4, "those that died, and one that was asked in their place"
    had_begun = {urgent[0].id, *first}  # and may come back after the other one has been answered in their place
    assert every(one.parked >= 1 for one in done if one.served_by == "cache" and one.task_id not in had_begun)


def test_many_equal_tasks_at_once_cost_one_call(url: str, start_worker: StartWorker, redis_url: str) -> None:
    start_worker()
    start_worker()
    began_s = time.monotonic()
    done = results([handle for n in range(10) for handle in submit(20, prompt=f"What is {n}+{n}?")])
    assert every(one.answer == str(2 * (n // 20)) for n, one in enumerate(done))
    assert sum(one.served_by == "call" for one in done) == total(url)["calls"] == 10
    assert time.monotonic() - began_s < 10, "they are woken, and wait for no lease"


def test_where_no_answer_can_be_kept_equal_tasks_do_not_wait_for_each_other_one_by_one(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    start_worker()
    done = results(submit(20, prompt="Tell me a long story.", max_output_tokens=2))
    assert every(one.status == "degraded" and one.served_by == "call" for one in done)
    assert kept(redis_url) == 0


def test_a_tenants_kept_answers_go_with_it(url: str, start_worker: StartWorker, redis_url: str) -> None:
    start_worker()
    ask(redis_url, tenant="acme")
    ask(redis_url, tenant="bolt")
    assert fleet("forget", "--tenant", "acme", "--dry-run")["stored"]["kept answers"] == 1
    assert kept(redis_url) == 2
    fleet("forget", "--tenant", "acme", "--yes")
    assert kept(redis_url) == 1
    assert results(submit(1, tenant="bolt"))[0].served_by == "cache"
    assert results(submit(1, tenant="acme"))[0].served_by == "call"


def test_every_face_tells_what_was_kept_and_saved(url: str, start_worker: StartWorker, redis_url: str) -> None:
    start_worker()
    before = {row["kind"]: row for row in fleet("cache")["kinds"]}["sums"]
    first = ask(redis_url, tenant="acme")
    hits = results(submit(3, tenant="acme"))
    (row,) = [row for row in fleet("cache", "list")["kinds"] if row["kind"] == "sums"]
    assert (row["answers"], row["hits"] - before["hits"], row["misses"] - before["misses"]) == (1, 3, 1)
    assert row["bytes"] > 100 and 0 < row["hit_share"] < 1
    saved = row["saved_usd"] - before["saved_usd"]
    assert saved == pytest.approx(3 * (first.cost_usd_picos or 0) / 1e12, rel=1e-3)
    (seen,) = [one for one in fleet("stats")["bill"]["cache"] if one["kind"] == "sums"]
    assert (seen["hits"], seen["misses"], seen["hit_share"]) == (row["hits"], row["misses"], row["hit_share"])
    with open_overview(config.current()) as overview:
        told = {metric.name: list(samples) for metric, samples in money(overview.read())}
    assert (("sums", "hit"), row["hits"]) in told["fleet_cache_tasks"] and told["fleet_cache_saved_usd"]
    why = fleet("why", hits[0].task_id)
    assert why["state"] == "finished" and "the kept answer of an equal task" in why["lines"][0]
    assert why["cost_usd_micros"] == 0 and why["bot"] is None
    assert fleet("cache", "clear", "--kind", "sums", "--tenant", "bolt") == {"dropped": 0}
    assert fleet("cache", "clear", "--tenant", "acme") == {"dropped": 1}
    assert fleet("cache", "clear") == {"dropped": 0}
    assert results(submit(1, tenant="acme"))[0].served_by == "call"
    wrong = CliRunner().invoke(main, ["cache", "clear", "--kind", "summs"])
    assert wrong.exit_code == 2 and "sums" in wrong.stderr


def test_doctor_warns_of_kinds_that_can_hardly_be_deterministic(url: str) -> None:
    settings = config.current()
    rows = [CacheRow(kind="sums", hits=0, misses=500, hit_share=0.0, saved_usd_micros=0)]
    found = {check.name: check for check in cache_checks(settings, rows)}
    assert found["kinds.sums: deterministic"].level == "warn" and "research" in found["kinds.sums: deterministic"].found
    assert found["kinds.sums: kept answers"].level == "warn" and "kinds.of-persona: kept answers" not in found
    cold = settings.pools["research"].model_copy(update={"persona": PersonaSettings(temperatures=(0.0,))})
    calm = settings.model_copy(update={"pools": {"research": cold}})
    assert {check.level for check in cache_checks(calm, ())} == {"ok"}
    assert list(cache_checks(settings.model_copy(update={"kinds": {}}), ())) == []


def test_a_run_asks_equal_lines_once_where_that_is_wanted_and_says_how_many(
    url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    lines = [{"id": str(n), "prompt": f"What is {n % 3}+4?", "metadata": {"n": n}} for n in range(30)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = str(tmp_path / "in.jsonl")
    plain = fleet("run", source, "-o", str(tmp_path / "plain.jsonl"), "--quiet")
    assert (plain["ok"], plain["of_equal_tasks"], total(url)["calls"]) == (30, 0, 30)
    once = fleet("run", source, "-o", str(tmp_path / "once.jsonl"), "--dedupe", "--quiet")
    assert (once["ok"], once["of_equal_tasks"], total(url)["calls"]) == (30, 27, 33)
    answers = [json.loads(line) for line in (tmp_path / "once.jsonl").read_text().splitlines()]
    assert {one["id"]: one["answer"] for one in answers} == {str(n): str(n % 3 + 4) for n in range(30)}
    assert every(one["metadata"] == {"n": int(one["id"])} for one in answers)
    marked = fleet("run", source, "-o", str(tmp_path / "marked.jsonl"), "--kind", "sums", "--quiet")
    assert (marked["ok"], marked["of_equal_tasks"], total(url)["calls"]) == (30, 27, 36)
