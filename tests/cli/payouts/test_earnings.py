"""`fleet payouts report` and `revoke` on a real ledger: exact amounts, and sums that are those of the ledger."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.config.payouts.tables import PayoutSettings
from fleet.earnings.ledger import rows_ever
from fleet.engine.operations.money.billing import Billing
from fleet.store.client import connect
from tests.earnings.test_ledger import CONFIG, at_now, finish


@pytest.fixture(autouse=True)
def earned(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks have earned a hundredth of a token each."""
    (tmp_path / "fleet.toml").write_text(CONFIG)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    finish(redis_url, *(at_now(task_id=f"t{number}") for number in range(3)), of=config.current())


def fleet(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["payouts", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_reports_sum_to_the_ledger(redis_url: str) -> None:
    assert "0.01 taken back from alice, earned by research-001" in fleet("revoke", "t1", "--why", "copied")
    assert json.loads(fleet("revoke", "t1", "--why", "copied", "--json"))["done"] == "was taken back"
    (line,) = json.loads(fleet("report", "--json"))["lines"]
    assert (line["tasks"], line["earned"], line["taken_back"], line["paid"]) == (2, "0.03", "0.01", "0")
    with connect(redis_url) as client:
        total = sum(row.units * count for row, count in rows_ever(client).items())
    assert int(line["units_earned"]) - int(line["units_taken_back"]) == total
    (row,) = csv.DictReader(io.StringIO(fleet("report", "--csv", "--by-day")))
    assert (row["payee"], row["earned"], row["day"]) == ("alice", "0.03", time.strftime("%Y-%m-%d", time.gmtime()))
    assert "alice" in fleet("report") and "alice" not in fleet("report", "--payee", "bob")


def test_the_deed_is_an_event_and_what_earned_nothing_is_refused() -> None:
    fleet("revoke", "t2", "--why", "wrong")
    assert "earning_revoked" in fleet_events()
    assert "expected a task that has earned something" in fleet("revoke", "x", "--why", "y", code=1)
    assert "expected --since before --until" in fleet(
        "report", "--since", "2026-02-01", "--until", "2026-01-01", code=2
    )


def test_a_task_says_what_it_has_earned_and_sums_are_shown_by_network_without_a_name(redis_url: str) -> None:
    told = CliRunner().invoke(main, ["why", "t1"]).output
    assert "it has earned 0.01 on bsc for alice, by research-00" in told
    assert "no payout that has not failed has it: `fleet payouts due` says why" in told
    fleet("revoke", "t1", "--why", "copied its answer")
    assert "copied its answer" in CliRunner().invoke(main, ["why", "t1"]).output
    with connect(redis_url) as client:
        (row,) = Billing(config.current()).read(client, time.time(), {}).earned
        none = config.current().model_copy(update={"payouts": PayoutSettings()})
        assert Billing(none).read(client, time.time(), {}).earned == ()
    assert (row.network, row.tasks, row.tokens, row.unpaid) == ("bsc", 2, "0.02", "0.02")
    assert "alice" not in row.model_dump_json()


def fleet_events() -> str:
    return CliRunner().invoke(main, ["events", "--json"]).output
