"""`fleet budgets`: listed with the limits' days, set and reset live, and what doctor says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.wait_checks import read_waits, wait_checks
from fleet.engine.operations import budgets as office
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect

FILE = """
[pools.a]
bots = 2
[budgets.fleet]
usd_per_day = 5
usd_in_all = 50
[budgets."tenant:*"]
usd_per_month = 3
[limits."simulator/simulated-1"]
usd_per_day = 7
"""


@pytest.fixture(autouse=True)
def quick(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of one pool; commands do not wait until workers have heard of a change, for there is none."""
    configure(tmp_path, FILE)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setattr(office, "HEARD_S", 0.0)


def configure(folder: Path, text: str) -> None:
    (folder / "fleet.toml").write_text(text)
    config.current.cache_clear()


def fleet(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    return done.output


def rows(*arguments: str) -> dict[str, Any]:
    return {row["scope"]: row for row in json.loads(fleet("budgets", *arguments, "--json"))["budgets"]}


def test_budgets_are_listed_above_the_days_of_limits() -> None:
    found = rows()
    assert list(found) == ["fleet", "tenant:*", "limit:simulator/simulated-1/default"]
    assert (found["fleet"]["usd_per_day"], found["fleet"]["usd_in_all"], found["fleet"]["usd_per_hour"]) == (
        5,
        50,
        None,
    )
    assert found["limit:simulator/simulated-1/default"]["usd_per_day"] == 7
    assert found["fleet"]["spent"] == {"usd_per_day": 0.0, "usd_in_all": 0.0}
    told = fleet("budgets").splitlines()
    assert told[0].split() == [
        "BUDGET",
        "FOR",
        "SPENT",
        "ALLOWED",
        "RESERVED",
        "REQUESTS",
        "ALLOWED",
        "AT",
        "THIS",
        "PACE",
    ]
    assert [line.split()[0] for line in told[1:]] == ["fleet", "in", "tenant:*", "simulator/simulated-1/default"]
    assert list(rows("show", "fleet")) == ["fleet"]
    assert list(rows("show", "tenant:acme")) == ["tenant:acme"]  # however many are fuller
    assert list(rows("show", "simulator/simulated-1")) == ["limit:simulator/simulated-1/default"]


def test_set_and_reset_print_json_also_when_nothing_is_limited_afterwards() -> None:
    assert rows("set", "pool:a", "--usd-per-day", "5")["pool:a"]["usd_per_day"] == 5
    assert rows("reset", "pool:a") == {}
    assert rows("set", "fleet", "--usd-per-day", "0", "--usd-in-all", "0") == {}
    assert rows("reset", "fleet")["fleet"]["usd_in_all"] == 50


def test_what_is_set_wins_over_the_file_until_it_is_reset_and_is_an_event(redis_url: str) -> None:
    assert fleet("budgets", "set", "fleet", "--usd-per-day", "20", "--when-full", "stop bulk") == (
        'fleet: usd_per_day = 20, usd_in_all = 50, when_full = "stop bulk"\n'
    )
    assert rows()["fleet"]["is_live"] and rows()["fleet"]["usd_per_day"] == 20
    assert "fleet (set live)" in fleet("budgets")
    assert fleet("budgets", "set", "bot:a-001", "--usd-per-hour", "0.5") == "bot:a-001: usd_per_hour = 0.5\n"
    assert fleet("budgets", "set", "fleet", "--usd-per-day", "0", "--usd-in-all", "0") == "fleet: not limited\n"
    assert "fleet" not in rows()
    told = fleet("budgets", "reset", "fleet")
    assert told == "fleet: as configured; what it has spent stays counted\n"
    assert (rows()["fleet"]["usd_per_day"], rows()["fleet"]["is_live"]) == (5, False)
    assert "forgotten" in fleet("budgets", "reset", "bot:a-001", "--spent")
    with connect(redis_url) as client:
        events: Any = client.xrange(keys.events())
    assert [event[b"event"].decode() for _, event in events] == [catalogue.BUDGET_CHANGED.name] * 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("set", "pools:a", "--usd-per-day", "1"), "the nearest known one is `pool`"),
        (("set", "pool:b", "--usd-per-day", "1"), "expected a pool that there is, got 'b'"),
        (("set", "fleet"), "expected at least one amount to set, or --when-full"),
        (("set", "pool:a", "--when-full", "degrade"), "when_full: expected a budget that can be used up, got none for"),
        (("set", "fleet", "--usd-per-day", "2e9"), "expected 0, for not limited, or $0.000001 to $1,000,000,000"),
        (("show", "pool:a"), "expected one that has a budget (fleet, tenant:*), got 'pool:a'"),
        (("reset", "everyone"), "expected a scope of fleet, pool:NAME"),
    ],
)
def test_what_is_no_budget_is_refused_with_the_right_spelling(arguments: tuple[str, ...], told: str) -> None:
    assert told in fleet("budgets", *arguments, code=2)


def test_a_budget_that_counts_a_model_without_a_price_is_not_set(tmp_path: Path) -> None:
    provider = '[providers.house]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
    configure(tmp_path, f'{provider}[pools.a]\nprovider = "house"\nmodel = "m"\n')
    told = fleet("budgets", "set", "pool:a", "--usd-per-day", "1", code=2)
    assert 'budgets."pool:a": expected a price of the model, got none for house/m' in told


def test_doctor_names_what_holds_and_is_not_what_the_file_says() -> None:
    fleet("budgets", "set", "fleet", "--usd-per-day", "20")
    checks = {check.name: check for check in wait_checks(read_waits(config.current()))}
    told = checks["budget fleet: other settings elsewhere"]
    assert "fleet.toml says usd_per_day = 5, usd_in_all = 50, but usd_per_day = 20, usd_in_all = 50 holds" in told.found
