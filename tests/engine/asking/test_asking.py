"""Asks on a real fleet: distinct bots, one outcome, nothing asked or paid that is not needed, nothing that hangs."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from click.testing import CliRunner

import fleet
from fleet.asking import Seat
from fleet.cli.main import main
from fleet.engine.asking.ask import _Ask
from fleet.engine.asking.question import AskTerms
from fleet.engine.asking.recent import read_recent
from fleet.engine.messages.desk import desk_here
from fleet.engine.messages.envelope import task_id_in
from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask
from fleet.roster import quarantine, release
from fleet.store import answer_keys, keys
from fleet.store.client import connect
from tests.engine.asking.conftest import SLOW_S, AskStage
from tests.waiting import wait_until


def test_four_of_seven_bots_that_agree_are_enough_and_no_bot_is_asked_twice() -> None:
    found = fleet.ask_fleet("What is 6 * 7?", pools=["quick"])
    assert (found.answer, found.status, found.why_over) == ("42", "ok", "fixed")
    assert (found.n, found.asked, found.answered, found.failed, found.cancelled) == (7, 4, 4, 0, 0)
    assert found.agreement == 1
    assert len({one.bot for one in found.members}) == 4
    assert found.cost_usd_picos and found.cost_usd_picos == sum(one.cost_usd_picos or 0 for one in found.members)


def test_members_are_dealt_out_to_several_pools_and_models() -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=6, pools=["quick", "few", "torn"], stop="shadow")
    assert [one.pool for one in found.members].count("few") == 2
    assert len({one.bot for one in found.members}) == 6
    assert {one.model for one in found.members} == {"simulator/simulated-1", "torn/torn-1"}
    assert found.why_over == "heard"
    assert found.adaptive == (3, True)


def test_a_pool_with_as_many_bots_as_members_has_each_of_them_answer_once() -> None:
    for _ in range(5):
        found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["few"], stop="shadow")
        assert sorted(one.bot or "" for one in found.members) == ["few-001", "few-002", "few-003"]


def test_dissent_is_reported_and_answers_that_mean_the_same_are_one() -> None:
    found = fleet.ask_fleet("Tea or coffee?", n=30, pools=["torn"], stop="shadow")
    assert found.counted == "tea" and found.answer == "Tea."
    (other,) = found.dissent
    assert other.counted == "coffee" and 0 < other.votes < 15
    assert found.agreement == pytest.approx(1 - other.votes / 30)
    assert set(other.bots).isdisjoint(found.sides[0].bots)


def test_members_that_are_not_needed_are_stopped_and_not_waited_for(stage: AskStage) -> None:
    started = time.monotonic()
    before = stage.served(stage.slow)
    found = fleet.ask_fleet("What is 6 * 7?", n=5, pools=["quick", "quick", "slow"], at_once=5)
    assert time.monotonic() - started < SLOW_S
    assert (found.answer, found.why_over) == ("42", "fixed")
    (gone,) = [one for one in found.members if one.pool == "slow"]
    assert gone.status == "cancelled"
    with connect(stage.server.url) as client:
        assert json.loads(client.get(keys.result(gone.task_id)) or b"{}").get("status") in (None, "REVOKED")
        wait_until(lambda: client.hlen(keys.unacked()) == 0, 10, lambda: "the stopped member is let go")
        wait_until(lambda: not client.hlen(keys.bot_claims("slow")), 10, lambda: "its bot is free")
        stored = json.loads(client.get(keys.result(gone.task_id)) or b"{}")
    assert stored["status"] == "REVOKED"
    assert stage.served(stage.slow) == before, "its call was stopped, and is not paid"


def test_members_that_wait_never_start_once_the_outcome_is_fixed(stage: AskStage) -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=7, pools=["quick", "quick", "quick", "never"], at_once=7)
    assert found.answer == "42" and found.cancelled >= 1
    with connect(stage.server.url) as client:
        for one in found.members:
            if one.pool == "never":
                assert json.loads(client.get(keys.result(one.task_id)) or b"{}")["status"] == "REVOKED"


def test_a_quorum_is_enough_when_others_are_late() -> None:
    started = time.monotonic()
    found = fleet.ask_fleet("What is 6 * 7?", n=4, pools=["quick", "never"], quorum=2, deadline_s=3, stop="shadow")
    assert time.monotonic() - started < 8
    assert (found.status, found.answer, found.why_over) == ("degraded", "42", "deadline")
    assert (found.answered, found.cancelled) == (2, 2)


def test_without_a_quorum_there_is_a_typed_failure_in_time_and_the_answers_are_handed_back() -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=4, pools=["quick", "never"], quorum=3, deadline_s=2)
    assert (found.status, found.answer) == ("failed", None)
    assert found.error is not None and found.error.type == "NoQuorum"
    assert "expected 3 answers within 2 s, got 2: 2 had no answer in time" in found.error.message
    assert [one.answer for one in found.members if one.status == "ok"] == ["42", "42"]


def test_members_that_fail_are_replaced_by_other_bots_and_the_outcome_says_so(stage: AskStage) -> None:
    (stage.folder / "moods").write_text("2")
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["moody"], at_once=1)
    assert (found.status, found.answer, found.why_over) == ("ok", "42", "fixed")
    assert (found.replaced, found.failed, found.asked, found.answered) == (2, 0, 2, 2)
    assert [one.status for one in found.members] == ["failed", "failed", "ok", "ok"]
    assert len({one.bot for one in found.members}) == 4, "no bot is asked twice"


def test_an_ask_is_told_to_people_without_its_words_and_its_members_name_it(stage: AskStage) -> None:
    (stage.folder / "moods").write_text("1")
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["moody"], at_once=1, kind="sums", metadata={"mine": "yes"})
    with connect(stage.server.url) as client:
        raw = client.lindex(answer_keys.recent_asks(), 0)
        [kept] = read_recent(client, 1)
    assert b'"42"' not in raw and b"6 * 7" not in raw
    assert (kept.ask_id, kept.status, kept.kind, kept.replaced, kept.spared) == (found.ask_id, "ok", "sums", 1, 1)
    assert kept.line == "2 of 2 agree, asked 2 of 3, 1 replaced: the rest could not change it"
    assert [(one.side, one.error) for one in kept.members] == [(None, "BotFunctionFailed"), (0, None), (0, None)]
    told = json.loads(CliRunner().invoke(main, ["why", kept.members[1].task_id, "--json"]).stdout)
    assert told["ask"] == found.ask_id
    shown = CliRunner().invoke(main, ["asks", "show", found.ask_id]).stdout
    assert "answer 1" in shown and "BotFunctionFailed" in shown
    assert found.ask_id in CliRunner().invoke(main, ["asks"]).stdout
    result = fleet.submit_task.AsyncResult(kept.members[1].task_id).get(timeout=5)
    assert result.metadata == {"mine": "yes", "ask": found.ask_id}


def test_where_all_fail_spare_bots_run_out_and_that_is_told(stage: AskStage) -> None:
    (stage.folder / "moods").write_text("100")
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["moody"])
    assert (found.status, found.replaced, found.failed) == ("failed", 2, 3)
    assert found.error is not None and "got 0: 5 failed with BotFunctionFailed" in found.error.message
    assert len({one.bot for one in found.members}) == 5


def test_a_member_whose_only_bot_is_in_quarantine_is_replaced_before_its_time_is_over(stage: AskStage) -> None:
    with connect(stage.server.url) as client:
        quarantine(client, "few", "few-001", by="ann")
        try:
            found = [
                fleet.ask_fleet("What is 6 * 7?", n=2, pools=["few"], quorum=2, stop="shadow", deadline_s=40)
                for _ in range(8)
            ]
        finally:
            release(client, "few", "few-001")
    assert {(one.status, one.answered, one.failed, one.cancelled) for one in found} == {("ok", 2, 0, 0)}
    assert {member.bot for one in found for member in one.members} == {"few-002", "few-003"}
    assert sum(one.replaced for one in found) >= 1 and max(one.took_ms for one in found) < 20_000


def test_a_member_that_runs_ends_although_its_only_bot_is_put_into_quarantine_meanwhile(stage: AskStage) -> None:
    """It was stopped after a second and asked anew, so it was paid for twice."""
    with ThreadPoolExecutor(1) as threads, connect(stage.server.url) as client:
        asked = threads.submit(
            fleet.ask_fleet, "What is 6 * 7?", n=14, pools=["slow"], quorum=14, stop="shadow", deadline_s=60
        )
        wait_until(lambda: client.hlen(keys.bot_claims("slow")) == 14, 20, "all of them run")
        out = sorted(name.decode() for name in client.hvals(keys.bot_claims("slow")))[:3]
        for bot in out:
            quarantine(client, "slow", bot, by="ann")
        try:
            found = asked.result(60)
        finally:
            for bot in out:
                release(client, "slow", bot)
    assert (found.status, found.answered, found.replaced, found.cancelled) == ("ok", 14, 0, 0)
    assert {*out} <= {one.bot for one in found.members}


@pytest.mark.parametrize("has_come", [True, False])
def test_a_result_that_comes_while_bots_are_looked_at_is_not_dropped(stage: AskStage, has_come: bool) -> None:
    async def is_still_heard(client: redis.Redis) -> bool:
        asked = _Ask(AskTerms(BotTask.parse("What is 6 * 7?"), n=2, pools=["few"]), await desk_here(), ["few"])
        seat = Seat.read(str(asked._members[0].task.seat))
        (bot,) = asked._replacements._bots_of(seat, "few")
        member = asyncio.get_running_loop().create_future()
        asked._waiting[member] = (0, "a-task-that-waits")
        if has_come:
            member.set_result({})
        quarantine(client, "few", bot, by="ann")
        try:
            await asked._free_stuck()
        finally:
            release(client, "few", bot)
        return member in asked._waiting

    with connect(stage.server.url) as client:
        assert asyncio.run(is_still_heard(client)) is has_come


def test_a_member_that_failed_by_the_question_is_not_replaced(stage: AskStage) -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], max_cost_usd=1e-9)
    assert (found.status, found.replaced) == ("failed", 0)
    assert {one.error.type for one in found.members if one.error} == {"TooExpensive"}


def test_answers_without_what_is_counted_have_no_vote() -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], count_by=r"Answer: (\d+)")
    assert found.error is not None and "3 had nothing to count" in found.error.message
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], count_by=r"\d")
    assert (found.counted, found.answer) == ("2", "42")


def longest(results: list[BotResult]) -> str:
    return max((one.answer or "" for one in results), key=len)


async def first(results: list[BotResult]) -> str:
    return results[0].answer or ""


def raising(results: list[BotResult]) -> str:
    raise ValueError(f"{len(results)} answers")


@pytest.mark.parametrize("aggregate", [longest, first, f"{__name__}:longest", f"{__name__}.first"])
def test_a_function_of_the_users_own_makes_the_answer(aggregate: Any) -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], aggregate=aggregate)
    assert (found.status, found.answer, found.asked) == ("ok", "42", 3)


def test_a_function_that_raises_is_told_and_the_answers_are_not_lost() -> None:
    found = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], aggregate=raising)
    assert found.error is not None and found.error.type == "BotFunctionFailed"
    assert "ValueError: 3 answers" in found.error.message
    assert [one.answer for one in found.members] == ["42"] * 3


def test_a_judge_that_has_answered_nothing_itself_chooses_the_best() -> None:
    found = fleet.ask_fleet("Tea or coffee?", n=12, pools=["torn"], aggregate="judge")
    assert found.answer in ("Tea.", "coffee")
    assert found.judge is not None and found.judge not in {one.bot for one in found.members}
    assert found.status == "ok"
    agreed = fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], aggregate="judge")
    assert (agreed.answer, agreed.judge) == ("42", None)


def test_weights_are_learnt_from_asks_whose_answer_was_known(stage: AskStage) -> None:
    for _ in range(12):
        fleet.ask_fleet("Tea or coffee?", n=6, pools=["torn"], stop="shadow", right="coffee", kind="drinks")
    with connect(stage.server.url) as client:
        rows = client.lrange(answer_keys.asks("drinks"), 0, -1)
        assert len(rows) == 12 and client.ttl(answer_keys.asks("drinks")) > 0
        assert not [row for row in rows if b"tea" in row.lower() or b"coffee" in row.lower()], "no words are kept"
    found = fleet.ask_fleet("Tea or coffee?", n=6, pools=["torn"], aggregate="weighted", kind="drinks")
    assert found.chance is not None and found.chance < 0.5, "this model is mostly wrong here, and the record knows"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"n": 0}, "n: expected a whole number from 1 to 100, got 0"),
        ({"n": 3, "quorum": 4}, "quorum: expected a whole number from 1 to 3"),
        ({"pools": ["few"], "n": 4}, "n: expected at most as many members in pool few as it has bots, 3, got 4"),
        ({"pools": ["nowhere"]}, "pools: expected some of .*, got 'nowhere'"),
        ({"pools": "quick"}, "pools: expected a list of names"),
        ({"aggregate": "best"}, "aggregate: expected majority, weighted, judge, a function or its dotted path"),
        ({"aggregate": "json:nothing"}, "aggregate: .* has no attribute 'nothing'"),
        ({"stop": "soon"}, "stop: expected one of shadow, fixed, adaptive, got 'soon'"),
        ({"count_by": "("}, "count_by: expected a regular expression"),
        ({"deadline_s": -1}, "deadline_s: expected more than 0"),
        ({"at_once": 9}, "at_once: expected a whole number from 1 to 7"),
        ({"idempotency_key": "k"}, "idempotency_key: expected none"),
        ({"prioritty": "high"}, "prioritty: unknown field"),
    ],
)
def test_what_is_no_ask_is_refused_before_anything_is_queued(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidTask, match=told):
        fleet.ask_fleet("What is 1+1?", **options)


def test_asking_from_asyncio_blocks_no_loop_and_takes_the_same_options() -> None:
    async def go() -> None:
        with pytest.raises(RuntimeError, match="ask_fleet_async"):
            fleet.ask_fleet("What is 1+1?")
        task = BotTask(prompt="What is 6 * 7?", kind="sums", pool="quick")
        asks = [fleet.ask_fleet_async(task, n=3) for _ in range(20)]
        assert [one.answer for one in await asyncio.gather(*asks)] == ["42"] * 20

    asyncio.run(go())


def test_cancelling_an_ask_cancels_its_members(stage: AskStage) -> None:
    async def go() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await fleet.ask_fleet_async("What is 6 * 7?", n=3, pools=["never"])

    asyncio.run(go())
    with connect(stage.server.url) as client:
        ids = [task_id_in(message) for message in client.lrange(f"{keys.queue('never')}\x06\x162", 0, -1)]
        stored = [json.loads(client.get(keys.result(task_id)) or b"{}") for task_id in ids if task_id]
    assert len(stored) >= 2 and {one.get("status") for one in stored} == {"REVOKED"}


def test_asks_and_members_that_were_spared_are_counted(stage: AskStage) -> None:
    def totals() -> list[int]:
        with connect(stage.server.url) as client:
            found = client.hmget(keys.totals(), ["asks", "asks_failed", "members_asked", "members_spared"])
        return [int(one or 0) for one in found]

    before = totals()
    fleet.ask_fleet("What is 6 * 7?", n=7, pools=["quick"])
    fleet.ask_fleet("What is 6 * 7?", n=3, pools=["quick"], count_by="nothing")
    assert [now - then for now, then in zip(totals(), before, strict=True)] == [2, 1, 7, 3]
