"""Tasks that say by when they need answers, through a real worker: the cheapest lane, and the next one at once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.economy.lanes.prefixes import step_of
from fleet.engine.messages.producer import submit_many
from fleet.models import BotResult
from fleet.store import lane_keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send, total

WAIT_S = 120
CONFIG = """
[providers.openai]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "LANE_KEY"

[pools.work]
bots = 10
provider = "openai"
model = "gpt-sim"

[limits."openai/gpt-sim"]
rpm = 1000000

[prices."openai/gpt-sim"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.6

[prices."openai/gpt-sim".tiers.flex]
input_usd_per_mtok = 0.075
output_usd_per_mtok = 0.3

[prices."openai/gpt-sim".tiers.priority]
input_usd_per_mtok = 0.3
output_usd_per_mtok = 1.2
"""


def answers(count: int, **options: object) -> list[BotResult]:
    """Ask, and return the results in order."""
    from fleet.engine.app import app

    tasks = ({"prompt": f"What is {n} + {n}?", "pool": "work", "kind": "sum", **options} for n in range(count))
    return [app.AsyncResult(task_id).get(timeout=WAIT_S) for task_id in list(submit_many(tasks))]


def test_flex_is_taken_when_there_is_time_and_its_want_of_room_costs_nothing_and_holds_nobody(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    with running() as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url))
        config.current.cache_clear()
        worker = start_worker()

        def tiers(found: list[BotResult]) -> set[str | None]:
            assert every(result.status == "ok" and result.parked == 0 for result in found)
            return {result.tier for result in found}

        assert tiers(answers(20)) == {None}
        assert tiers(answers(20, by_s=3600)) == {"flex"}
        assert tiers(answers(5, by_s=3600, tier="priority")) == {"priority"}, "who names a tier has chosen"
        assert tiers(answers(20, by_s=70)) == {None}, "flex may take a quarter of an hour"

        send(url, "/failures?flex_busy_rate=1", method="POST")
        before = total(url)
        found = answers(60, by_s=3600)
        after = total(url)
        assert tiers(found) == {None}
        tried = sum(result.attempts for result in found) - len(found)
        assert 1 <= tried <= 20, "each slot may meet it once before it is known here"
        assert after["served"] - before["served"] == 60
        assert (after["billed_usd_picos"] - before["billed_usd_picos"]) == sum(one.cost_usd_picos or 0 for one in found)
        assert "hold_put" not in worker.log and "breaker" not in worker.log.lower().replace("breakers", "")

        # A task that has named the tier itself waits for it, and no neighbour waits with it.
        submit_many([{"prompt": "What is 2 + 2?", "pool": "work", "tier": "flex"}])
        assert tiers(answers(20)) == {None}
        assert "hold_put" not in worker.log


def test_a_dry_run_tells_each_lane_and_a_wrong_time_is_refused_in_words(
    fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    config.current.cache_clear()
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"What is {n}?", "kind": "sum"}) + "\n" for n in range(10)))

    def run(*more: str) -> str:
        done = CliRunner().invoke(main, ["run", str(asked), "--pool", "research", "--dry-run", *more])
        return done.stdout if done.exit_code == 0 else done.output

    (row,) = json.loads(run("--by", "8h", "--json"))["lanes"]
    costs = {offer["lane"]: offer["cost_usd_picos"] for offer in row["offers"]}
    assert (row["takes"], row["tasks"], row["by_s"]) == ("flex", 10, 28_800)
    assert costs["flex"] * 2 == pytest.approx(costs["standard"], rel=0.01)
    shown = " ".join(run("--by", "8h").split())
    assert row["pool"] == "research" and "10 tasks of research, " in shown
    assert "needed within 8 h: flex" in shown and "> flex" in shown
    assert json.loads(run("--json"))["lanes"] == []
    for wrong in ("soon", "0", "-3h", "9w", "nan"):
        assert "expected a time like 90s, 15m, 8h or 2d" in run("--by", wrong)


BATCHES = """
[prices."openai/gpt-sim".tiers.batch]
input_usd_per_mtok = 0.05
output_usd_per_mtok = 0.2

[lanes]
batch_after_s = 0.2
"""


def test_tasks_with_a_day_of_time_go_in_a_batch_hold_no_slot_and_come_back_by_the_same_door(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    clock = {"clock_speed": 20_000.0, "batch_median_s": 20_000.0, "batch_p95_s": 40_000.0, "batch_factor": 1 / 3}
    with running(**clock) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url) + BATCHES)
        config.current.cache_clear()
        worker = start_worker()
        found = answers(60, by_s=90_000)
        assert every(result.status == "ok" and result.parked >= 1 for result in found), worker.log
        assert {(result.tier, result.served_by, result.attempts) for result in found} == {("batch", "batch", 1)}
        assert len({result.bot for result in found}) > 5, "each bot has asked with its own persona"
        assert [result.answer for result in found[:3]] == ["0", "2", "4"]
        counted = total(url)
        assert counted["served"] == 60
        assert counted["billed_usd_picos"] == pytest.approx(sum(one.cost_usd_picos or 0 for one in found), rel=1e-6)
        (line,) = json.loads(CliRunner().invoke(main, ["bill", "--by", "tier", "--json"]).stdout)["lines"]
        assert (line["tier"], line["calls"]) == ("batch", 60)
        assert worker.log.count("batch_made") == worker.log.count("batch_over") <= 3
        assert send(url, "/v1/files").json["data"] == [], "its words are deleted at the vendor's"

        assert {result.tier for result in answers(5, by_s=80_000)} == {"flex"}, "a batch promises a day, no less"


CACHED = """
[prices."openai/gpt-sim".tiers.flex]
input_usd_per_mtok = 0.075
cached_usd_per_mtok = 0.075
output_usd_per_mtok = 0.3
"""


def test_a_warm_document_takes_the_lane_with_a_discount_for_it_and_a_cold_one_of_the_same_kind_another(
    redis_url: str, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    with running(cached_usd_per_mtok=0.015) as url:
        usual = CONFIG.split("[prices", maxsplit=1)[0]
        prices = '[prices."openai/gpt-sim"]\ninput_usd_per_mtok = 0.15\ncached_usd_per_mtok = 0.015\n'
        text = f"{usual}{prices}output_usd_per_mtok = 0.6\n{CACHED}"
        (tmp_path / "fleet.toml").write_text(text.format(url=url))
        config.current.cache_clear()
        start_worker()
        warm, cold = (stored(tmp_path, f"{name} says that all is well. " * 900) for name in ("Ann", "Bob"))
        assert {one.tier for one in answers(12, context=[warm])} == {None}

        def taken(context: str) -> set[str | None]:
            return {one.tier for one in answers(1, context=[context], by_s=3600)}

        # The first that says by when it is needed makes its worker read what is known.
        with connect(redis_url) as client:
            wait_until(lambda: client.hgetall(lane_keys.lane_reads(step_of(time.time()))), 30, "nothing was counted")
        wait_until(lambda: taken(warm) == {None}, 150, "the warm document never took the usual lane")
        assert taken(cold) == {"flex"}

        (tmp_path / "asked.jsonl").write_text('{"prompt": "Is it?", "kind": "sum"}\n')
        asked = ["run", str(tmp_path / "asked.jsonl"), "--pool", "work", "--dry-run", "--by", "1h", "--json"]
        rows = [
            json.loads(CliRunner().invoke(main, [*asked, "--context", one]).stdout)["lanes"] for one in (warm, cold)
        ]
        assert [(row["takes"], bool(row["prefix"])) for (row,) in rows] == [("standard", True), ("flex", False)]


def stored(tmp_path: Path, text: str) -> str:
    """Store a document, return its id."""
    file = tmp_path / "document.md"
    file.write_text(text)
    done = CliRunner().invoke(main, ["context", "add", str(file), "--json"])
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["contexts"][0]["id"])


def test_tasks_that_name_a_cold_document_go_in_one_batch_and_wait_for_no_cache_when_they_are_back(
    start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    clock = {"clock_speed": 20_000.0, "batch_median_s": 20_000.0, "batch_p95_s": 40_000.0, "batch_factor": 1 / 3}
    with running(**clock) as url:
        windows = '\n[pools.work.persona]\ncontext_windows_tokens = [32768]\n\n[limits."openai/gpt-sim"]'
        text = CONFIG.format(url=url).replace('\n[limits."openai/gpt-sim"]', windows)
        (tmp_path / "fleet.toml").write_text(text + BATCHES)
        config.current.cache_clear()
        words = "The harbour of Oland has nine cranes and a pilot who knows the tides of the northern sound. " * 250
        added = CliRunner().invoke(main, ["context", "add", "-"], input=words).stdout.strip()
        worker = start_worker()
        found = answers(30, by_s=90_000, context=[added])
        assert every(result.status == "ok" and result.served_by == "batch" for result in found), worker.log
        assert total(url)["served"] == 30
        assert worker.log.count("batch_made") <= 6


def test_a_dry_run_says_that_what_a_budget_counts_goes_in_no_batch(
    fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANE_KEY", "test-key")
    (tmp_path / "fleet.toml").write_text(CONFIG.format(url="http://127.0.0.1:9") + BATCHES)
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    config.current.cache_clear()
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "What is 2 + 2?", "kind": "sum"}\n')

    def batch(*more: str) -> tuple[str, str]:
        words = ["run", str(asked), "--pool", "work", "--dry-run", "--by", "30h", "--json", *more]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        (row,) = json.loads(done.stdout)["lanes"]
        return row["takes"], next(one["why_not"] for one in row["offers"] if one["lane"] == "batch")

    assert batch() == ("batch", "")
    takes, why_not = batch("--max-usd", "5")
    assert takes == "flex" and why_not.startswith("--max-usd ($5.00) would hold back")
