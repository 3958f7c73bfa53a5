"""`fleet stats` on a real Redis, and the panels that other commands show too."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from rich.console import Console

from fleet.cli.main import main
from fleet.cli.operate.stats import render_signals
from fleet.config import PoolSettings, ProviderSettings, Settings
from fleet.signals import BudgetRow, Signals, Snapshot, WorkerReport
from fleet.signals.catalogue import ErrorField
from fleet.signals.windows import BOT_ROW, MINUTES, PERIOD, Period
from fleet.store import keys
from fleet.store.client import connect

SETTINGS = Settings(pools={"research": PoolSettings(bots=3), "review": PoolSettings(bots=2)})
NOW_S = 1_760_000_000.0


def snapshot_of(url: str, settings: Settings = SETTINGS) -> Snapshot:
    """Read a snapshot of a fleet that worked a little and has one bad bot with an odd model."""
    with connect(url) as client:
        totals = {"completions": 1234, "ok": 1200, "failed": 34, "simulated": 1200, "cost_usd_micros": 2_500_000}
        client.hset(keys.totals(), mapping={**totals, "input_tokens": 56789, "calls": 1250, "rate_limited": 7})
        client.set(keys.bot_rows("research"), b"".join(BOT_ROW.pack(done, *[0] * 9) for done in (0, 800, 400)))
        client.set(keys.bot_rows("review"), b"".join(BOT_ROW.pack(done, *[0] * 9) for done in (0, 34)))
        errors = {ErrorField("research-001", "acme/m[bold]|x", "BadAnswer").spell(): 30}
        errors |= {ErrorField(f"review-{n:03d}", "acme/m", "BadRequest").spell(): 1 for n in range(14)}
        client.hset(keys.errors("research"), mapping=errors)
        report = WorkerReport(name="w1@host", pid=77, cpu_percent=42, rss_mb=64, slots=60, busy=9, apart=2, at=NOW_S)
        client.hset(keys.workers(), "w1@host", report.model_dump_json())
        budgets = [
            BudgetRow("acme/m/default", rpm=600, tpm=90_000, used_rpm=300, used_tpm=45_000, held_until=NOW_S + 4),
            BudgetRow("free/m/default", rpm=None, tpm=None, used_rpm=None, used_tpm=None),
        ]
        return Signals(client, settings).read(budgets=budgets, now_s=NOW_S)


def text_of(snapshot: Snapshot, width: int = 120) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(render_signals(snapshot))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_three_panels_show_the_three_signals(redis_url: str) -> None:
    text = text_of(snapshot_of(redis_url))
    for expected in (
        "Completions",
        "1,234 done",
        "1,200 ok",
        "34 failed",
        "0 / 400 / 800",
        "0.600",
        "research-001 800",
    ):
        assert expected in text
    for expected in ("Errors", "one bot research-001", "30 of 44 failures", "BadAnswer", "and 5 more rows"):
        assert expected in text
    for expected in (
        "Resources",
        "9 of 60 busy slots",
        "42% CPU",
        "w1@host",
        "$2.5000 cost",
        "7 429s",
        "2 suspects apart",
    ):
        assert expected in text


def test_the_budget_of_each_api_is_shown_with_its_use_and_hold(redis_url: str) -> None:
    text = text_of(snapshot_of(redis_url))
    assert "300 of 600 (50%)" in text
    assert "45,000 of 90,000 (50%)" in text
    assert "held for 4 s after a 429" in text
    assert text.count("no limit") == 2


def test_names_with_brackets_are_shown_as_they_are(redis_url: str) -> None:
    assert "acme/m[bold]|x" in text_of(snapshot_of(redis_url))


def test_answers_by_the_simulator_are_said_to_be(redis_url: str) -> None:
    assert "Answers come from the simulator, not from a real provider: 1,200 of 1,234" in text_of(
        snapshot_of(redis_url)
    )
    real = Settings(
        providers={"acme": ProviderSettings(kind="openai")}, pools={"research": PoolSettings(provider="acme")}
    )
    assert "simulator" not in text_of(snapshot_of(redis_url, real))


def test_an_empty_fleet_is_shown_without_a_fuss(redis_url: str) -> None:
    with connect(redis_url) as client:
        text = text_of(Signals(client, SETTINGS).read())
    assert "no task failed" in text
    assert "0 workers" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(redis_url: str, width: int) -> None:
    assert max(map(len, text_of(snapshot_of(redis_url), width).splitlines())) <= width


def test_stats_as_json_is_the_snapshot_and_what_the_page_shows(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_of(redis_url)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    done = CliRunner().invoke(main, ["stats", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stderr == ""
    data = json.loads(done.stdout)
    known = {name: data[name] for name in Snapshot.model_fields}
    assert Snapshot.model_validate(known).completions.total == 1234
    assert data["totals"]["completions"] == 1234
    assert [row["pool"] for row in data["pools"]] == ["research", "writing", "review"]
    assert (data["error_matrix"]["verdict"]["verdict"], "bots" in data) == ("none", False)
    assert data["errors"]["verdict"]["culprit"] == "research-001"
    assert [row["limit"] for row in data["resources"]["budgets"]] == ["simulator/simulated-1/default"]


def test_stats_as_json_gives_every_bot_when_asked(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_of(redis_url)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    done = CliRunner().invoke(main, ["stats", "--json", "--bots"], catch_exceptions=False)
    table = json.loads(done.stdout)["bots"]
    assert dict(zip(table["name"][:3], table["completions"], strict=False)) == {
        "research-001": 800, "research-002": 400, "research-003": 0,
    }  # fmt: skip
    assert CliRunner().invoke(main, ["stats", "--bots"]).exit_code == 2


def test_stats_prints_the_panels(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_of(redis_url)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    done = CliRunner().invoke(main, ["stats"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "1,234 done" in done.stdout


def test_stats_of_a_window_say_which_and_count_nothing_else(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot_of(redis_url)
    minute = int(time.time() // 60)
    with connect(redis_url) as client:
        for ago, done in ((2, 7.0), (40, 30.0)):
            period = Period(minute - ago, *[done] * 15)
            client.setrange(keys.series("research"), (minute - ago) % MINUTES * PERIOD.size, PERIOD.pack(*period))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    done = CliRunner().invoke(main, ["stats", "--window", "15m"], catch_exceptions=False)
    assert done.stdout.count("last 15 minutes") == 3
    assert "7 done" in done.stdout and "7 failed tasks (100.0% of the tasks)" in done.stdout
    data = json.loads(CliRunner().invoke(main, ["stats", "--window", "1h", "--json"]).stdout)
    assert (data["window"]["name"], data["window"]["completions"]) == ("1h", 37)
    assert data["window"]["pools"]["research"]["calls"] == 37
    assert data["window"]["pools"]["review"]["calls"] == 0
    assert data["totals"]["completions"] == 1234  # what is not of the window stays as it was


def test_stats_without_a_redis_is_a_short_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", "redis://:secret@127.0.0.1:1/0")
    done = CliRunner().invoke(main, ["stats"])
    assert done.exit_code == 2
    assert done.stderr.startswith("fleet: redis.url")
    assert "secret" not in done.stderr


def test_importing_the_command_loads_neither_rich_nor_redis() -> None:
    code = "import sys, fleet.cli.operate.stats; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"rich", "redis", "celery", "psutil"} & set(done.stdout.split())
