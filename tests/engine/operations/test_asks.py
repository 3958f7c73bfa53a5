"""Which ask a task is a member of, and when doctor warns of asks that come to nothing. Pure."""

from __future__ import annotations

import time

import pytest

from fleet.cli.setup.ask_checks import ask_checks
from fleet.engine.asking.recent import RecentAsk, RecentMember
from fleet.engine.messages.envelope import fresh_envelope, task_body
from fleet.engine.operations.asks.board import ask_of, failing
from fleet.models import BotResult, BotTask

ASK = "0123456789ab"


def ask(status: str = "ok", *, at: float = 1000.0, errors: tuple[str, ...] = ()) -> RecentAsk:
    members = tuple(RecentMember(task_id="t", status="failed", error=error) for error in errors)
    return RecentAsk(
        ask_id=ASK, at=at, kind="sums", status=status, aggregate="majority", why_over="fixed",  # type: ignore[arg-type]
        n=3, asked=3, answered=3, took_ms=5, members=members,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "found"), [({"ask": ASK}, ASK), ({}, None), ({"ask": "no id"}, None), ({"ask": 7}, None)]
)
def test_a_member_names_its_ask_by_its_result_or_its_message(metadata: dict[str, object], found: str | None) -> None:
    result = BotResult(task_id="t", status="ok", finished_at=1.0, metadata=metadata)
    task = BotTask(prompt="a", metadata=metadata)
    message = fresh_envelope(task_id=ASK, queue="q", priority=2, body=task_body(task, "p"), queued_at=1.0)
    assert ask_of(result, None) == found
    assert ask_of(None, message) == found
    assert ask_of(None, b"no message") is None and ask_of(None, None) is None


def test_many_asks_without_an_outcome_are_told_with_what_their_members_failed_of() -> None:
    well, bad = [ask()] * 12, [ask("failed", errors=("BadAnswer", "BadAnswer", "Expired"))] * 3
    assert failing([*well, *bad], 1000.0) == (3, 15, "BadAnswer")
    assert failing([*well, *bad[:1]], 1000.0) is None, "one of 13 is less than a fifth"
    assert failing(bad, 1000.0) is None, "three tell nothing"
    assert failing([*well, *bad], 1000.0 + 90_000) is None, "that was yesterday"


def test_doctor_warns_of_them_and_is_silent_where_nobody_asks() -> None:
    now_s = time.time()
    assert list(ask_checks([])) == []
    assert [one.level for one in ask_checks([ask(at=now_s)])] == ["ok"]
    [found] = ask_checks([ask("failed", at=now_s, errors=("Expired",))] * 10)
    assert found.level == "warn" and "10 of the newest 10" in found.found and "Expired" in found.found
