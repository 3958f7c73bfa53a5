"""`fleet simulate` with tasks, as a shell sees it: other settings are tried, and nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main


def simulate(*arguments: str, code: int = 0) -> Any:
    config.current.cache_clear()
    done = CliRunner().invoke(main, ["simulate", *arguments])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments and not code else done.output


def test_other_limits_slots_and_arrivals_are_tried_and_what_decides_is_named(tmp_path: Path, fleet_home: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(300)))
    slow = simulate(str(source), "--rpm", "600", "--latency-s", "1", "--json")
    assert (slow["tasks"], slow["done"], slow["learnt"], slow["stopped"]) == (300, 300, False, [])
    assert slow["seconds"] == pytest.approx(31, rel=0.1)
    assert slow["binds"] == "requests a minute of simulator/simulated-1 decide"
    assert slow["wait_s"]["p50"] == pytest.approx(15, rel=0.2)
    few = simulate(str(source), "--slots", "3", "--latency-s", "1", "--json")
    assert (few["slots"], few["binds"]) == (3, "slots decide")
    assert few["seconds"] == pytest.approx(100, rel=0.15)
    assert simulate(str(source), "--bots", "10", "--json")["slots"] == 12
    calm = simulate(str(source), "--per-minute", "60", "--latency-s", "1", "--json")
    assert calm["wait_s"]["p95"] < 0.1 and calm["seconds"] == pytest.approx(300, rel=0.03)
    text = simulate(str(source), "--rpm", "600")
    assert "300 tasks over 120 slots" in text and "nothing was sent" in text
    assert not (fleet_home / "redis.json").exists()


def test_a_days_money_is_tried_on_a_number_of_tasks_and_ends_them() -> None:
    told = simulate("--tasks", "2000", "--tokens", "1000-1000", "--used", "0.1", "--usd-per-day", "0.1", "--json")
    # 1,000 at $0.15 and 51 at $0.60 a million are 181 micro-dollars
    (stop,) = told["stopped"]
    assert stop["by"] == "the day's money"
    assert stop["after"] == pytest.approx(0.1e6 / 180.6, rel=0.06)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--tasks", "5", "--critical", "1"), "--critical: expected neither IN nor --tasks beside it"),
        (("--rpm", "5", "--slots", "1"), "--slots: expected IN or --tasks beside it, got neither"),
        (("--tasks", "5", "--pool", "nowhere"), "--pool: expected one of"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], expected: str) -> None:
    assert expected in simulate(*arguments, code=2)
