"""A task's story on a real Redis: each place a task can be in, and what stands in its way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fleet.config import BudgetSettings, PoolSettings, Settings, ToolSettings
from fleet.economy.bill.notes import packed_note
from fleet.economy.bill.unknown import written
from fleet.engine.admission.gates import CLOSED, open_gate, read_gates, read_waiting, set_gate
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import BEFORE, envelope, fresh_envelope, task_headers
from fleet.engine.operations.story import Story, tell
from fleet.engine.operations.task_facts import gather
from fleet.engine.outcomes.dead_letters import bury
from fleet.engine.outcomes.stored import revoked_meta
from fleet.engine.transport import leases
from fleet.engine.transport.held import find_held
from fleet.engine.transport.parking.parked import PUBLISH_LATER, publish_later_call
from fleet.engine.transport.withdrawal.message_search import HEADS_MOST, find_queued
from fleet.entries import Entry
from fleet.errors import StoreError
from fleet.limiter.limiter import LimitSnapshot
from fleet.limiter.snapshot import LongLimit
from fleet.models import BotResult, Priority, TaskError
from fleet.outcome import Before
from fleet.roster import Roster
from fleet.scaling import Decision
from fleet.scaling.wanted import WantedSlots
from fleet.signals.recorder import WorkerReport
from fleet.store import bill_keys, keys, schedule_keys
from fleet.store.client import Store, connect, run_script
from fleet.usage import Usage
from tests.burials import keep
from tests.engine.operations.test_waits import open_breaker

SETTINGS = Settings(pools={"research": PoolSettings(bots=3), "review": PoolSettings(bots=2)})
BODY = json.dumps([[], {"prompt": "a secret question", "pool": "research"}, {}]).encode()
CALLS = "simulator/simulated-1/default"
WORKER = f"w1@{socket.gethostname()}"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as opened:
        report = WorkerReport(name=WORKER, pid=os.getpid(), cpu_percent=1, rss_mb=1, slots=1, busy=0, at=time.time())
        opened.hset(keys.workers(), WORKER, report.model_dump_json())
        yield opened


def message_of(task_id: str, *, priority: int = 2, queue: str = "fleet.research", **headers: Any) -> bytes:
    head = task_headers(task_id) | headers
    return envelope(task_id=task_id, queue=queue, priority=priority, headers=head, body=BODY)


def queue(client: redis.Redis, *task_ids: str, priority: int = 2, name: str = "fleet.research") -> None:
    for task_id in task_ids:
        client.lpush(queues.list_key(name, priority), message_of(task_id, priority=priority, queue=name))


def hold(client: redis.Redis, message: bytes, *, tag: str = "tag:0:1", age_s: float = 1.0, priority: int = 2) -> str:
    entry = queues.list_key("fleet.research", priority).encode() + b"\n" + message
    client.hset(keys.unacked(), tag, entry)
    seconds, micros = client.time()
    client.zadd(keys.unacked_index(), {tag: seconds + micros / 1e6 - age_s})
    return tag


def finish(client: redis.Redis, task_id: str, **fields: Any) -> BotResult:
    known = {"task_id": task_id, "status": "ok", "pool": "research", "bot": "research-002", "attempts": 2}
    result = BotResult.model_validate({**known, "ran_ms": 1500, "finished_at": time.time() - 60, **fields})
    client.set(keys.result(task_id), json.dumps({"status": "SUCCESS", "result": result.model_dump(mode="json")}))
    return result


def story_of(
    client: redis.Redis,
    task_id: str,
    limit_of: Callable[[str], LimitSnapshot | None] = lambda pool: None,
    settings: Settings = SETTINGS,
) -> Story:
    return tell(gather(task_id, state=client, broker=client, settings=settings, limit_of=limit_of))


def text_of(story: Story) -> str:
    return "\n".join(story.lines)


def test_a_waiting_task_tells_its_queue_and_what_is_before_it(client: redis.Redis) -> None:
    queue(client, "u1", "u2", priority=0)
    queue(client, "a", "b", "mine", "c")
    story = story_of(client, "mine")
    assert (story.state, story.pool, story.queue, story.priority) == ("queued", "research", "fleet.research", "normal")
    assert story.ahead == 4
    assert "2 ahead of it, and 2 more urgent ones" in text_of(story)
    assert story.gate == "open"


def test_a_waiting_task_tells_of_the_gate_and_of_missing_workers(client: redis.Redis) -> None:
    queue(client, "mine")
    set_gate(client, "fleet.research", lowest=Priority.HIGH.value, for_s=600)
    client.delete(keys.workers())
    text = text_of(story_of(client, "mine"))
    assert "the gate of fleet.research is high and above, for" in text
    assert "no worker is reporting" in text
    set_gate(client, "fleet.research", lowest=Priority.NORMAL.value)
    assert "the gate" not in text_of(story_of(client, "mine"))


def test_a_held_task_tells_who_holds_it_until_when_and_which_bot_works_on_it(
    client: redis.Redis, redis_url: str
) -> None:
    tag = hold(client, message_of("mine"), tag=f"{socket.gethostname()}.{os.getpid()}.abc:3:1")
    before = story_of(client, "mine")
    assert (before.state, before.worker) == ("held", f"{WORKER} (pid {os.getpid()})")
    assert before.lease_left_s == pytest.approx(leases.LEASE_S - 1, abs=0.9)
    assert "no bot is known to work on it" in text_of(before)

    async def check_out() -> str:
        store = Store(redis_url)
        checkout = await Roster(store, SETTINGS).check_out("research", task_id="mine", token=tag)
        await store.close()
        assert checkout is not None
        return checkout.bot

    bot = asyncio.run(check_out())
    story = story_of(client, "mine")
    assert (story.state, story.bot) == ("running", bot)
    assert f"bot {bot} works on it" in text_of(story)


def test_a_task_of_a_dead_worker_tells_that_its_lease_ran_out(client: redis.Redis) -> None:
    hold(client, message_of("mine"), age_s=leases.LEASE_S + 5)
    story = story_of(client, "mine")
    assert not story.suspect and story.lease_left_s is not None and story.lease_left_s < 0
    assert "the lease ran out 5" in text_of(story)


@pytest.mark.parametrize("where", ["waits", "held"])
def test_a_suspect_says_so_while_it_waits_and_while_it_runs(client: redis.Redis, where: str) -> None:
    message = message_of("mine")
    if where == "held":
        hold(client, message, tag=f"host.1.abc:3:1{leases.SUSPECT}")
    else:
        queue(client, "mine")
        (message,) = client.lrange("fleet.research\x06\x162", 0, -1)
        client.hset(keys.suspects(), hashlib.sha1(message).hexdigest(), "gone fleet.research\x06\x162")
    story = story_of(client, "mine")
    assert story.suspect and "suspect: its worker died while it ran; it runs apart" in text_of(story)


def test_a_countdown_is_told_from_where_it_is_parked(client: redis.Redis) -> None:
    message = message_of("mine", eta="2030-01-01T00:00:00+00:00")
    name, at = keys.queue("research"), 1893456000.0
    call = publish_later_call(name, queues.list_key(name, 2), 2, message, task_id="mine", at=at)
    run_script(client, PUBLISH_LATER, *call)
    story = story_of(client, "mine")
    assert (story.state, story.pool, story.priority, story.opens_at) == ("parked", "research", "normal", at)
    assert "it is parked beside fleet.research, priority normal, until 2030-01-01 00:00 UTC" in text_of(story)
    client.set(keys.gate(name), "-1")
    assert "the gate of fleet.research is closed" in text_of(story_of(client, "mine"))


def test_a_task_tells_which_limit_is_used_up(client: redis.Redis) -> None:
    limit = LimitSnapshot("acme/m/default", 60, None, 60.0, 0.0, 7.0, time.time() + 30, 1, 1, 1, None)
    queue(client, "mine")
    text = text_of(story_of(client, "mine", lambda pool: limit if pool == "research" else None))
    assert "the limit acme/m/default (60 of 60 requests a minute), held for" in text
    assert "its next call goes in 7 s" in text


def test_a_task_tells_of_calls_at_once_and_of_a_day_that_is_nearly_used(client: redis.Redis) -> None:
    day = LongLimit("rpm", 10_000, 100, 86_400.0, None, time.time())
    limit = LimitSnapshot(
        "acme/m/default", 500, None, 3.0, 0.0, 0.0, None, 9, 9, 1, None, in_flight=4, most_in_flight=4,
        in_flight_is_learnt=True, long=(day,), paced_rpm=0.5,
    )  # fmt: skip
    queue(client, "mine")
    text = text_of(story_of(client, "mine", lambda pool: limit))
    assert "4 of 4 calls at once, learnt from a refusal" in text
    assert "100 of 10,000 requests a day left, so 0.5 calls a minute" in text


def with_costs(message: bytes, **fields: Any) -> bytes:
    """Return a message that had two calls before, of a task with these fields."""
    before = Before(attempts=2, failed={"ProviderDown": 1}, cost_usd_picos=2_000_000_000)
    found = json.loads(message)
    found["headers"][BEFORE] = before.model_dump(mode="json", exclude_defaults=True)
    body = json.dumps([[], {"prompt": "a secret question", "pool": "research", **fields}, {}]).encode()
    return json.dumps(found | {"body": base64.b64encode(body).decode()}).encode()


def leave_call(client: redis.Redis, task_id: str, *, ago_s: float, usd_micros: float, limit: str = CALLS) -> None:
    """Note a call that left so long ago, as `acquire.lua` does."""
    asked = Entry("t", task_id, "research", "research-001", "", "", "", limit, "", Usage(), 1, "unknown", 0.0, "")
    note = packed_note(asked, writer="w", process="p")
    seconds, micros = client.time()
    text = f"{(seconds - ago_s) * 1e6 + micros:.0f} {usd_micros} {note}"
    client.hset(keys.limit_keys(limit).open, f"ticket-{task_id}", text)


def test_a_task_at_work_tells_what_it_has_cost_what_is_left_and_which_call_has_no_answer(client: redis.Redis) -> None:
    hold(client, with_costs(message_of("mine"), max_cost_usd=0.05))
    leave_call(client, "mine", ago_s=31, usd_micros=3000)
    leave_call(client, "other", ago_s=99, usd_micros=9000)
    story = story_of(client, "mine")
    assert (story.attempts, story.cost_usd_micros, story.cost_left_usd_micros) == (2, 2000, 45_000)
    assert [(call.api, call.reserved_usd_micros) for call in story.under_way] == [("simulator/simulated-1", 3000)]
    text = text_of(story)
    assert "so far it has had 2 provider calls, $0.002" in text
    assert "of its max_cost_usd = $0.0500, $0.0450 is left" in text
    assert re.search("its call to simulator/simulated-1 has had no answer for 3[1-9] s", text)
    assert "it is given up after 120 s (timeout_s), $0.0030 is reserved for it" in text
    assert "answers nothing" not in text


def test_a_task_whose_worker_died_in_a_call_says_that_nobody_knows_its_cost(client: redis.Redis) -> None:
    for number, task in enumerate(("mine", "mine", "other", "not mine")):
        entry = Entry(
            f"e{number}", task, "research", "research-001", "", "", "", CALLS, "", Usage(), 3 * 10**9, "unknown", 1.0
        )
        client.hset(bill_keys.unknown(), f"e{number}", written(entry))
    client.hset(bill_keys.unknown(), "e9", "-1700000000")
    hold(client, message_of("mine"))
    story = story_of(client, "mine")
    assert story.unknown_calls == 2
    assert "2 calls of it are unknown, $0.006 reserved: cut off, or the worker died" in text_of(story)
    assert "unknown, " not in text_of(story_of(client, "third"))


def test_a_task_tells_what_is_left_of_what_its_pools_tasks_may_cost(client: redis.Redis) -> None:
    capped = Settings(pools={"research": PoolSettings(bots=2, max_cost_usd=0.01)})
    hold(client, with_costs(message_of("mine")))
    assert "of its max_cost_usd = $0.0100, $0.0080 is left" in text_of(story_of(client, "mine", settings=capped))


STOCK = "tools/stock/default"


def test_a_running_task_tells_which_tool_it_asks_and_which_is_down(client: redis.Redis, redis_url: str) -> None:
    tools = {"stock": ToolSettings(base_url="http://127.0.0.1:9", timeout_s=7)}
    own = Settings(pools={"research": PoolSettings(bots=2, function="my_bots:answer")}, tools=tools)
    hold(client, message_of("mine"))
    leave_call(client, "mine", ago_s=3, usd_micros=0, limit=STOCK)
    story = story_of(client, "mine", settings=own)
    assert [(call.api, call.timeout_s) for call in story.under_way] == [("tools/stock", 7)]
    assert "waits in its slot" not in text_of(story)
    asyncio.run(open_breaker(redis_url, STOCK))
    told = text_of(story_of(client, "mine", settings=own))
    assert "what it asks waits in its slot for the tool stock: " in told
    assert "tool stock" not in text_of(story_of(client, "mine", settings=SETTINGS.model_copy(update={"tools": tools})))


def test_a_task_whose_api_answers_nobody_says_so(client: redis.Redis) -> None:
    hold(client, message_of("mine"))
    leave_call(client, "mine", ago_s=31, usd_micros=3000)
    row = WorkerReport.read(client.hget(keys.workers(), WORKER) or b"")
    silent = row.model_copy(update={"unanswered": {CALLS: (9, 31.0)}})
    client.hset(keys.workers(), WORKER, silent.model_dump_json())
    assert "; simulator/simulated-1 answers nothing just now" in text_of(story_of(client, "mine"))


def test_a_running_task_says_that_its_call_waits_for_a_first_answer_or_that_its_own_may_have_none(
    client: redis.Redis,
) -> None:
    hold(client, message_of("mine"))
    row = WorkerReport.read(client.hget(keys.workers(), WORKER) or b"")
    doubts = row.model_copy(update={"tool_waits": {"research": {CALLS: 2}}})
    client.hset(keys.workers(), WORKER, doubts.model_dump_json())
    told = text_of(story_of(client, "mine"))
    assert (
        "what it asks waits in its slot for simulator/simulated-1/default: the provider fails or does not answer"
        in told
    )
    assert "(it may answer nothing: " in told
    leave_call(client, "mine", ago_s=3, usd_micros=0)
    told = text_of(story_of(client, "mine"))
    assert "what it asks waits" not in told
    assert "; simulator/simulated-1 answers nothing just now" in told


def test_a_waiting_task_tells_what_the_budgets_that_count_it_have_left(client: redis.Redis) -> None:
    settings = SETTINGS.model_copy(update={"budgets": {"tenant:*": BudgetSettings(usd_per_day=2)}})
    client.lpush(queues.list_key("fleet.research", 2), with_costs(message_of("mine"), tenant="acme"))
    story = tell(gather("mine", state=client, broker=client, settings=settings))
    assert [budget.scope for budget in story.budgets] == ["tenant:acme"]
    assert "the budget of tenant:acme has $2.00 left: $0.00 of $2.00 a day, lasts at this pace" in text_of(story)
    assert story.cost_left_usd_micros is None and not story.under_way


def test_a_finished_task_tells_who_answered_and_never_what(client: redis.Redis) -> None:
    finish(client, "mine", answer="a secret answer", queued_ms=300)
    story = story_of(client, "mine")
    assert (story.state, story.bot, story.attempts) == ("finished", "research-002", 2)
    assert "it ended 60 s ago, ok, by research-002" in text_of(story)
    assert "2 provider calls in 1.5 s; it had waited 300 ms" in text_of(story)
    assert "secret" not in story.model_dump_json()


def test_a_finished_task_tells_what_was_cut_from_its_prompt_and_what_its_model_was_not_asked(
    client: redis.Redis,
) -> None:
    finish(client, "mine", cut_tokens=1234, left_out=("seed", "top_p"))
    story = story_of(client, "mine")
    assert (story.cut_tokens, story.left_out) == (1234, ("seed", "top_p"))
    assert "1,234 tokens were cut from its prompt" in text_of(story)
    assert "it was asked without seed, top_p" in text_of(story)
    finish(client, "whole")
    assert "cut from" not in text_of(story_of(client, "whole"))


def test_a_dead_task_tells_of_its_error_and_its_letter(client: redis.Redis) -> None:
    error = TaskError(type="DeadlineExceeded", message="expected an answer within 5.0 s, got none")
    result = finish(client, "mine", status="failed", error=error)
    burial = bury(result, headers={}, body=BODY)
    assert burial is not None
    keep(client, burial, SETTINGS)
    story = story_of(client, "mine")
    assert (story.state, story.error, story.is_dead_letter) == ("failed", "DeadlineExceeded", True)
    assert "DeadlineExceeded: expected an answer within 5.0 s" in text_of(story)
    assert "it is a dead letter (DeadlineExceeded): `fleet dead show mine`" in text_of(story)
    client.delete(keys.result("mine"))
    assert story_of(client, "mine").state == "failed"


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"blame": "unknown"}, "(nobody can tell whose fault it was)"),
        ({"blame": "provider", "passes": True}, "(charged to: provider; it passes by itself)"),
        (
            {"blame": "key", "passes": True, "passes_at": 1796083200},
            "(charged to: key; it passes at 2026-12-01 00:00:00 UTC)",
        ),
    ],
)
def test_a_failed_task_tells_whose_fault_it_was_and_when_it_passes(
    client: redis.Redis, facts: dict[str, Any], told: str
) -> None:
    finish(
        client, "mine", status="failed", error=TaskError.model_validate({"type": "KeySpent", "message": "m", **facts})
    )
    story = story_of(client, "mine")
    assert f"KeySpent: m {told}" in text_of(story)
    assert (story.blame, story.passes_at) == (facts["blame"], facts.get("passes_at"))


def test_a_task_that_an_earlier_release_found_to_be_poison_is_found_there(client: redis.Redis) -> None:
    client.lpush(keys.poison(), message_of("other"), message_of("mine"))
    story = story_of(client, "mine")
    assert story.state == "poison" and "found it to be poison" in text_of(story)


def test_a_task_that_was_put_aside_because_its_end_has_passed_is_found_there(client: redis.Redis) -> None:
    client.lpush(keys.over(), message_of("other"), message_of("mine"))
    story = story_of(client, "mine")
    assert story.state == "queued" and "its end had passed before its turn came" in text_of(story)


def test_who_wants_an_answer_at_once_waits_for_no_search_of_all_that_was_put_aside(client: redis.Redis) -> None:
    client.lpush(keys.over(), message_of("mine"), *[message_of("other")] * HEADS_MOST)
    client.rpush(keys.over(), *[message_of("other")] * HEADS_MOST)
    found = [
        gather("mine", state=client, broker=client, settings=SETTINGS, is_quick=is_quick).is_over
        for is_quick in (True, False)
    ]
    assert found == [False, True]


def test_a_task_of_the_inbox_and_one_that_was_passed_on_say_so(client: redis.Redis) -> None:
    queue(client, "inbound", name="celery")
    story = story_of(client, "inbound")
    assert (story.state, story.queue, story.pool) == ("queued", "celery", None)
    queue(client, "passed")
    client.set(keys.passed_on("passed"), 1)
    assert "came through the inbox" in text_of(story_of(client, "passed"))


def test_an_unknown_task_tells_what_that_can_mean(client: redis.Redis) -> None:
    story = story_of(client, "nobody")
    assert story.state == "unknown"
    assert "never submitted, its result has expired" in text_of(story)
    assert "redis.url" in text_of(story)
    assert "idempotency" not in text_of(story)
    client.set(keys.submitted("nobody"), 1)
    assert "idempotency key is taken" in text_of(story_of(client, "nobody"))


def test_a_task_that_celery_ended_is_told_with_its_state(client: redis.Redis) -> None:
    client.set(keys.result("gone"), revoked_meta("gone", reason="revoked", at=1.0))
    assert story_of(client, "gone").state == "revoked"
    error = {"exc_type": "ChordError", "exc_message": ["a member failed"], "exc_module": "celery.exceptions"}
    client.set(keys.result("body"), json.dumps({"status": "FAILURE", "result": error}))
    story = story_of(client, "body")
    assert story.state == "failed" and "state FAILURE ChordError" in text_of(story)


def test_a_result_that_is_not_fleets_is_said_to_be(client: redis.Redis) -> None:
    client.set(keys.result("own"), json.dumps({"status": "SUCCESS", "result": [1, 2]}))
    story = story_of(client, "own")
    assert story.state == "finished" and "another Celery task" in text_of(story)


def test_a_search_is_bounded_and_says_how_far_it_went(client: redis.Redis) -> None:
    queue(client, *(f"t{number}" for number in range(300)))
    assert find_queued(client, "t299", SETTINGS, most=299).found is None
    bounded = find_queued(client, "t299", SETTINGS, most=299)
    assert (bounded.complete, bounded.looked_at) == (False, 299)
    whole = find_queued(client, "t299", SETTINGS, most=300)
    assert whole.found is not None and whole.found.place == 299
    nowhere = find_queued(client, "nobody", SETTINGS, most=300)
    assert (nowhere.found, nowhere.complete, nowhere.looked_at) == (None, True, 300)


@pytest.mark.parametrize("place", [0, 1, 63, 64, 65, 500, 1063, 1064, 2999])
def test_every_place_of_a_long_queue_is_found(client: redis.Redis, place: int) -> None:
    queue(client, *(f"t{number}" for number in range(3000)))
    found = find_queued(client, f"t{place}", SETTINGS).found
    assert found is not None and found.place == place


def test_a_task_is_found_however_its_id_is_spelled_and_not_by_its_childrens_ids(client: redis.Redis) -> None:
    at = queues.list_key("fleet.research", 2)
    client.lpush(at, message_of("child", root_id="mine", parent_id="mine"))
    client.lpush(at, json.dumps(json.loads(message_of('é"\\'))))
    client.lpush(at, message_of("ü"))
    client.lpush(at, fresh_envelope(task_id="mine", queue="fleet.research", priority=2, body=BODY, queued_at=1.0))
    places = {}
    for task_id in ('é"\\', "ü", "mine", "child"):
        found = find_queued(client, task_id, SETTINGS).found
        assert found is not None
        places[task_id] = found.place
    assert places == {"child": 0, 'é"\\': 1, "ü": 2, "mine": 3}


def test_a_held_task_is_found_among_thousands(client: redis.Redis) -> None:
    for number in range(2500):
        client.hset(keys.unacked(), f"tag{number}", b"fleet.review\x06\x163\n" + message_of(f"t{number}"))
    held = find_held(client, "t2024")
    assert held is not None
    assert (held.tag, held.queue, held.priority, held.renewed_at) == ("tag2024", "fleet.review", 3, None)
    assert find_held(client, "nobody") is None


def test_a_gate_that_is_set_is_what_is_read_and_opening_it_wakes_the_workers(client: redis.Redis) -> None:
    set_gate(client, "q1", lowest=CLOSED)
    set_gate(client, "q2", lowest=1, for_s=60)
    closed, narrow, absent = read_gates(client, ["q1", "q2", "q3"])
    assert [str(closed), absent.is_open, closed.stops(0), narrow.stops(1), narrow.stops(2)] == [
        "closed", True, True, False, True,
    ]  # fmt: skip
    assert str(narrow).startswith("high and above, for ") and narrow.left_s == pytest.approx(60, abs=1)
    assert open_gate(client, "q1") and not open_gate(client, "q1")
    assert client.xlen(keys.bell()) == 1
    client.set(keys.gate("q1"), "ajar")
    with pytest.raises(StoreError, match="expected a priority number or -1, got b'ajar'"):
        read_gates(client, ["q1"])


def test_what_waits_is_counted_by_priority_with_the_age_of_the_oldest(client: redis.Redis) -> None:
    for at in (50.5, 20.25):
        message = fresh_envelope(task_id="t", queue="fleet.research", priority=3, body=BODY, queued_at=at)
        client.lpush(queues.list_key("fleet.research", 3), message)
    client.lpush(queues.list_key("fleet.research", 0), b"no message of ours")
    first, second = read_waiting(client, ["fleet.research", "fleet.review"])
    assert (first.counts, first.oldest_at, first.total) == ((1, 0, 0, 2, 0), 50.5, 3)
    assert (second.total, second.oldest_at) == (0, None)


def test_a_task_that_waits_for_its_turn_hears_that_more_slots_are_wanted(client: redis.Redis) -> None:
    queue(client, "t1")
    assert "slots wanted" not in "\n".join(story_of(client, "t1").lines)
    decision = Decision(at=time.time(), slots=12, workers=1, reason="research: 90 tasks wait")
    wanted = WantedSlots(decision=decision, crew=1, slots=1, each=1)
    client.set(schedule_keys.wanted(), wanted.model_dump_json(), ex=60)
    told = "12 slots wanted, 1 there: research: 90 tasks wait; the fleet grows as far as it may (`fleet scaling`)"
    assert told in story_of(client, "t1").lines
