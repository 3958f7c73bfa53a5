"""Why tasks wait: read from a real Redis, in the places where the transport and the plane put it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from fleet.cli.setup.wait_checks import wait_checks
from fleet.config import LimitSettings, PoolSettings, Settings, ToolSettings
from fleet.engine.admission.gates import CLOSED, Waiting, set_gate
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import envelope, task_headers
from fleet.engine.operations.obstacles import ADVICE, PoolStanding, headline, lines_of, told_line, when
from fleet.engine.operations.overview import Overview
from fleet.engine.operations.story import Story, tell
from fleet.engine.operations.task_facts import gather
from fleet.engine.operations.waits import SAMPLES, look
from fleet.errors import KeyRejected
from fleet.limiter import LimitSnapshot
from fleet.models import Priority
from fleet.resilience import Breakers
from fleet.signals.metrics import exposition
from fleet.signals.recorder import SILENT_S, WorkerReport
from fleet.signals.unusual.alarms import Alarm, swap
from fleet.signals.view import WaitLine
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import CAUSES, LASTING, Cause, Wait
from tests.every import every

SETTINGS = Settings(
    pools={"a": PoolSettings(bots=3, model="m1"), "b": PoolSettings(bots=2, model="m2")},
    limits={"simulator/m1": LimitSettings(rpm=60)},
)
LIMIT = "simulator/m1/default"
STOCK = "tools/stock/default"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as opened:
        serve(opened, "fleet.a", "fleet.b", "celery")
        yield opened


def serve(
    client: redis.Redis, *queues_of: str, name: str = "w1", shut: dict[Wait, tuple[str, ...]] | None = None,
    silent_s: float = 0.0, **fields: Any,
) -> None:  # fmt: skip
    """Let one worker report that takes from these queues."""
    name = f"{name}@{socket.gethostname()}"
    report = WorkerReport(
        name=name, pid=os.getpid(), cpu_percent=1, rss_mb=1, slots=1, busy=0, at=time.time() - silent_s,
        queues=queues_of,
        shut={wait.to_json(): pools for wait, pools in (shut or {}).items()}, **fields,
    )  # fmt: skip
    client.hset(keys.workers(), name, report.model_dump_json())


def message_of(task_id: str, pool: str = "a", priority: int = 2) -> bytes:
    body = json.dumps([[], {"prompt": "a secret question", "pool": pool}, {}]).encode()
    return envelope(
        task_id=task_id, queue=keys.queue(pool), priority=priority, headers=task_headers(task_id), body=body
    )


def queue(client: redis.Redis, count: int, *, pool: str = "a", priority: int = 2) -> None:
    for number in range(count):
        client.lpush(
            queues.list_key(keys.queue(pool), priority), message_of(f"{pool}{priority}-{number}", pool, priority)
        )


def hold(client: redis.Redis, wait: Wait, *, pool: str = "a") -> None:
    """Hold a pool, as the plane does."""
    client.set(keys.hold(keys.queue(pool)), wait.to_json(), px=600_000)


def park(client: redis.Redis, task_id: str, reason: str, opens_at: float, *, pool: str = "a") -> None:
    """Park one task, as the plane does."""
    entry = f"{queues.list_key(keys.queue(pool), 2)}\n{reason}\n".encode() + message_of(task_id, pool)
    client.hset(keys.parked(), task_id, entry)
    client.zadd(keys.parked_order(keys.queue(pool)), {task_id: opens_at})


def waits_of(client: redis.Redis) -> tuple[WaitLine, ...]:
    return look(client, client, SETTINGS).lines


def told(client: redis.Redis) -> list[tuple[Any, ...]]:
    return [(line.pool, line.cause, line.tasks) for line in waits_of(client)]


def story_of(client: redis.Redis, task_id: str) -> Story:
    return tell(gather(task_id, state=client, broker=client, settings=SETTINGS))


def test_a_pool_says_which_tool_its_tasks_wait_for_in_their_slots(client: redis.Redis, redis_url: str) -> None:
    tools = {"stock": ToolSettings(base_url="http://127.0.0.1:9"), "mail": ToolSettings(base_url="http://127.0.0.1:9")}
    settings = SETTINGS.model_copy(update={"tools": tools})
    for name, at_stock in (("w1", 3), ("w2", 1)):
        serve(client, "fleet.a", "fleet.b", name=name, tool_waits={"a": {STOCK: at_stock, "tools/mail/default": 1}})
    asyncio.run(open_breaker(redis_url, STOCK))
    stock, mail = look(client, client, settings).lines
    assert (stock.pool, stock.cause, stock.tasks, stock.in_slots, stock.short) == ("a", "key", 0, 4, "tool stock")
    assert stock.line.startswith("the tool stock: there is no key that the provider takes (")
    assert stock.advice.startswith("give [tools.stock] a key that works")
    assert (mail.cause, mail.in_slots, mail.line) == ("limit", 2, "the tool mail: the limit lets calls go one by one")
    assert headline([stock, mail], time.time()) == ""


def test_a_pool_says_how_many_of_its_calls_wait_for_a_first_answer_and_so_does_a_task_of_it(
    client: redis.Redis,
) -> None:
    serve(client, "fleet.a", "fleet.b", tool_waits={"a": {LIMIT: 3}})
    (line,) = waits_of(client)
    assert (line.pool, line.cause, line.tasks, line.in_slots, line.about) == ("a", "outage", 0, 3, LIMIT)
    assert "it may answer nothing" in line.line
    assert (
        f'fleet_limit_doubted_calls{{limit="{LIMIT}"}} 3.0'
        in exposition(Overview(SETTINGS, state=client, broker=client).read()).decode()
    )


def test_where_no_key_of_a_provider_serves_what_waits_all_say_so_with_the_count(client: redis.Redis) -> None:
    serve(client, "fleet.a", "fleet.b")
    queue(client, 3)
    hold(client, Wait("key", time.time() + 5, "[providers.one]", "key a1b2 is revoked"))
    seen = look(client, client, SETTINGS)
    (line,) = seen.lines
    assert line.line == "no key of one serves the tasks that wait: key a1b2 is revoked"
    assert line.advice.startswith("give the provider a key that works: `fleet keys rotate one`")
    (found,) = wait_checks(seen)
    assert found.found.startswith("3 tasks of a: no key of one serves the tasks that wait: key a1b2 is revoked")


def test_tasks_that_only_wait_for_their_turn_wait_for_nothing(client: redis.Redis) -> None:
    queue(client, 3)
    assert waits_of(client) == ()
    assert headline(waits_of(client), time.time()) == ""
    story = story_of(client, "a2-0")
    assert (story.state, story.cause, story.opens_at) == ("queued", None, None)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_hold_is_told_with_its_tasks_its_time_and_what_to_do(client: redis.Redis, cause: Cause) -> None:
    opens_at = time.time() + 400
    queue(client, 4)
    queue(client, 1, pool="b")
    hold(client, Wait(cause, opens_at, LIMIT, "Retry-After 400 s"))
    (line,) = waits_of(client)
    assert (line.pool, line.cause, line.tasks, line.opens_at) == ("a", cause, 4, opens_at)
    assert line.about == LIMIT and "Retry-After 400 s" in line.line
    story = story_of(client, "a2-1")
    assert (story.cause, story.about, story.told, story.opens_at) == (cause, LIMIT, "Retry-After 400 s", opens_at)
    assert every(
        "Retry-After 400 s" in part and "in 7 min" in part for part in (story.lines[-1], told_line(line, time.time()))
    )
    assert "it waits with 3 others because" in story.lines[-1]
    assert ADVICE[cause].partition("{")[0] in story.lines[-2]


def test_a_pool_that_its_workers_cannot_serve_tells_why_until_one_comes_that_can(client: redis.Redis) -> None:
    why = Wait("key", None, "one/m1/default", "expected a key in the variable X, got nothing: set it")
    serve(client, "fleet.b", "celery", shut={why: ("a",)})
    (line,) = waits_of(client)  # before anything waits
    assert (line.pool, line.cause, line.about, line.tasks, line.is_lasting) == ("a", "key", "one/m1/default", 0, True)
    queue(client, 3)
    (line,) = waits_of(client)
    assert (line.tasks, line.opens_at, line.told) == (3, None, why.told)
    story = story_of(client, "a2-0")
    assert (story.cause, story.told, story.is_lasting) == ("key", why.told, True)
    assert "start them again" in story.lines[-2] and "variable X" in story.lines[-1]
    serve(client, "fleet.a", "celery", name="w2")
    assert waits_of(client) == ()


def test_tasks_of_a_worker_that_has_fallen_silent_wait_for_one_though_it_is_not_given_up_yet(
    client: redis.Redis,
) -> None:
    queue(client, 3)
    serve(client, "fleet.b", "celery", name="w2")
    assert told(client) == []
    serve(client, "fleet.a", "celery", silent_s=SILENT_S + 2)
    assert told(client) == [("a", "worker", 3)]
    assert story_of(client, "a2-0").cause == "worker"
    view = Overview(SETTINGS, state=client, broker=client).read()
    assert (view.resources.slots, len(view.resources.workers)) == (1, 2)
    sentences = {one.kind: (one.severity, one.sentence) for one in view.diagnoses}
    assert sentences["pool_unserved"] == ("critical", "No live worker serves pool a, 3 tasks wait")


def test_a_hold_that_lets_urgent_tasks_pass_counts_the_others_only(client: redis.Redis) -> None:
    queue(client, 2, priority=Priority.HIGH)
    queue(client, 5, priority=Priority.BULK)
    hold(client, Wait("money", time.time() + 60, LIMIT, lowest=Priority.NORMAL))
    assert told(client) == [("a", "money", 5)]
    assert story_of(client, "a1-0").cause is None
    assert story_of(client, "a4-0").cause == "money"


def test_each_waiting_task_is_counted_for_one_reason_the_one_that_must_go_first(client: redis.Redis) -> None:
    queue(client, 2, priority=Priority.CRITICAL)
    queue(client, 3, priority=Priority.LOW)
    hold(client, Wait("outage", time.time() + 1, LIMIT))
    set_gate(client, "fleet.a", lowest=Priority.HIGH)
    assert told(client) == [("a", "operator", 3), ("a", "outage", 2)]
    serve(client, "fleet.b", "celery")
    assert told(client)[0] == ("a", "worker", 5)
    assert "no live worker serves pool a" in story_of(client, "a3-0").lines[-1]


def test_parked_tasks_are_told_by_cause_each_with_its_first_opening(client: redis.Redis) -> None:
    now = time.time()
    for number in range(3):
        wait = Wait("retry", now + 30 + number, LIMIT, is_everyones=False)
        park(client, f"r{number}", wait.to_json(), now + 30 + number)
    park(client, "eta", "time", now + 900)
    lines = {line.cause: line for line in waits_of(client)}
    assert {cause: (line.tasks, line.parked) for cause, line in lines.items()} == {"retry": (3, 3), "time": (1, 1)}
    assert lines["retry"].opens_at == now + 30
    story = story_of(client, "r2")
    assert (story.state, story.cause, story.opens_at) == ("parked", "retry", pytest.approx(now + 32, abs=0.01))
    assert "it waits with 2 others because" in story.lines[-1]
    assert story_of(client, "eta").cause == "time"
    assert headline(waits_of(client), now).startswith("3 tasks wait: ")


def test_many_parked_tasks_are_told_from_a_sample(client: redis.Redis) -> None:
    now, many = time.time(), SAMPLES * 3
    with client.pipeline(transaction=False) as pipe:
        for number in range(many):
            reason = Wait("retry" if number % 4 else "money", now + number, LIMIT, is_everyones=False).to_json()
            pipe.hset(keys.parked(), str(number), f"fleet.a\n{reason}\n{{}}")
            pipe.zadd(keys.parked_order("fleet.a"), {str(number): now + number})
        pipe.execute()
    client.config_resetstat()
    lines = {line.cause: line.tasks for line in waits_of(client)}
    looked = client.info("commandstats")["cmdstat_zrange"]["calls"]
    assert sum(lines.values()) == pytest.approx(many, abs=2)
    assert lines["retry"] > lines["money"] > 0
    assert looked <= SAMPLES


def test_a_pool_whose_bots_are_all_out_says_so_and_when_the_first_comes_back(client: redis.Redis) -> None:
    queue(client, 2)
    back_at = time.time() + 300
    client.zadd(keys.quarantined("a"), {"a-001": back_at * 1e6, "a-002": float("inf")})
    assert waits_of(client) == ()
    client.zadd(keys.quarantined("a"), {"a-003": (back_at + 9) * 1e6})
    next_look = Wait("bots", time.time() + 60, "a", probe_every_s=1.0)
    for hold in (None, next_look):
        if hold is not None:
            client.set(keys.hold("fleet.a"), hold.to_json())
        (line,) = waits_of(client)
        assert (line.cause, line.tasks, line.opens_at) == ("bots", 2, pytest.approx(back_at, abs=0.01))
        assert "`fleet bots release --pool a`" in line.advice and "resume" not in line.advice
        view = Overview(SETTINGS, state=client, broker=client).read()
        (pool,) = (one for one in view.pools if one.pool == "a")
        assert pool.waiting == 2 and pool.drain is not None
        assert pool.drain.short == f"opens {datetime.fromtimestamp(back_at, UTC):%H:%M} UTC" or "-" in pool.drain.short


def test_a_used_up_day_is_told_in_its_own_unit_until_midnight() -> None:
    limit = LimitSnapshot(
        limit=LIMIT, rpm=None, tpm=None, used_rpm=0.0, used_tpm=0.0, queue_s=0.0, held_until=None, granted=0,
        granted_tokens=0, refused=0, refused_at=None, requests_per_day=500, usd_micros_per_day=20_000_000,
    )  # fmt: skip
    day = replace(limit, used_requests=500, used_usd_micros=20_000_001.0)
    now_s = 10 * 86_400 + 3600.0
    pool = PoolStanding("a", backlog=Waiting((0, 0, 7, 0, 0), None), limit=day)
    (line,) = lines_of(pool, now_s)
    assert (line.cause, line.tasks, line.opens_at) == ("requests", 7, 11 * 86_400)
    assert "requests_per_day: 500 of 500 used" in line.line
    (money,) = lines_of(replace(pool, limit=replace(day, used_requests=499)), now_s)
    assert (money.cause, money.told) == ("money", "usd_per_day: $20.0000 of $20.00 used")
    assert list(lines_of(replace(pool, limit=replace(limit, used_requests=499)), now_s)) == []


def test_a_full_limit_names_what_fleet_toml_says_of_it(client: redis.Redis) -> None:
    queue(client, 2)
    for room in ("0 0 0 0 0 7", "2 2 2 2 2 7"):  # used up, and made anew a moment ago
        client.set(keys.room("fleet.a"), room, px=5000)
        (line,) = waits_of(client)
        assert (line.cause, line.about, line.told, line.tasks) == ("limit", LIMIT, "rpm = 60", 2)


def test_an_open_breaker_is_a_reason_before_the_first_task_has_met_it(client: redis.Redis, redis_url: str) -> None:
    queue(client, 3)
    asyncio.run(open_breaker(redis_url))
    (line,) = waits_of(client)
    assert (line.cause, line.about, line.tasks, line.is_lasting) == ("key", LIMIT, 3, True)
    assert "invalid api key" in line.told
    view = Overview(SETTINGS, state=client, broker=client).read()
    assert [limit.breaker for limit in view.limits if limit.limit == LIMIT] == ["open"]
    assert f'fleet_breaker_state{{limit="{LIMIT}"}} 3.0' in exposition(view).decode()


async def open_breaker(url: str, limit: str = LIMIT) -> None:
    """Let calls of several tasks fail for what is everybody's."""

    async def closed(_: str) -> None:
        raise AssertionError("nothing did well")

    store = Store(url)
    breakers = Breakers(store, {limit: "fingerprint"}, on_closed=closed)
    try:
        for task in range(20):
            error = KeyRejected("invalid api key")
            if (await breakers.failed(limit, error, who=f"t{task}", since_s=1.0, place=task)).wait:
                return
        raise AssertionError("it has not opened")
    finally:
        await breakers.close()
        await store.close()


def test_a_reason_that_a_later_release_wrote_stops_no_reader(client: redis.Redis) -> None:
    queue(client, 1)
    client.set(keys.hold("fleet.a"), json.dumps({"cause": "sunspots", "opens_at": 1.0}))
    (line,) = waits_of(client)
    assert line.cause == "configuration" and "cannot read" in line.told  # it stops the queue all the same
    client.delete(keys.hold("fleet.a"))
    park(client, "odd", "sunspots", time.time() + 60)
    assert waits_of(client) == ()
    assert story_of(client, "odd").state == "parked"


def test_what_does_not_pass_by_itself_is_told_as_such(client: redis.Redis) -> None:
    soon, later = time.time() + 60, time.time() + 86_400
    lasting = set()
    for cause in CAUSES:
        hold(client, Wait(cause, soon, LIMIT))
        lasting |= {line.cause for line in waits_of(client) if line.is_lasting}
    assert lasting == set(LASTING) - {"operator"}  # a pause with an end ends
    hold(client, Wait("credit", later, LIMIT))
    assert waits_of(client)[0].is_lasting  # the provider has said when, and nobody waits a day for it
    client.delete(keys.hold("fleet.a"))
    set_gate(client, "fleet.a", lowest=CLOSED)
    assert waits_of(client)[0].is_lasting
    set_gate(client, "fleet.a", lowest=CLOSED, for_s=600)
    assert not waits_of(client)[0].is_lasting


def test_a_task_whose_time_has_come_waits_for_what_stops_its_pool(client: redis.Redis) -> None:
    park(client, "due", Wait("retry", 1.0, LIMIT, is_everyones=False).to_json(), time.time() - 5)
    serve(client, "fleet.b", "celery")
    assert story_of(client, "due").cause == "worker"


@pytest.mark.parametrize(
    ("cause", "left_s", "probe_every_s", "text"),
    [
        ("hold", 30, 0, "until 13:47:10 UTC, in 30 s"),
        ("bots", 300, 0, "until 13:51 UTC, in 5 min"),
        ("money", 200_000, 0, "until 1970-01-14 21:20 UTC, in 2 days"),
        ("key", 58, 0, "tried again at 13:47:38 UTC, in 58 s"),
        ("limit", 2, 0, "the next in 2 s"),
        ("limit", -1, 0, ""),
        ("hold", -1, 0, "they go on now"),
        ("outage", -1, 2, "one is tried every 2 s"),
    ],
)
def test_the_time_is_said_as_people_say_it(cause: Cause, left_s: float, probe_every_s: float, text: str) -> None:
    assert when(1_000_000 + left_s, 1_000_000, cause=cause, probe_every_s=probe_every_s) == text
    assert when(None, 0, cause=cause) == ""


def test_what_waits_for_a_limit_that_is_held_low_for_unusual_use_says_so_and_is_told_once(client: redis.Redis) -> None:
    alarm = Alarm("key", "simulator", time.time(), 5, 50, stage="throttled", held={LIMIT: (-1, 10)})
    assert swap(client, alarm.field_name, b"", alarm)
    queue(client, 5)
    client.set(keys.hold(keys.queue("a")), Wait("limit", time.time() + 30, LIMIT, "no room sooner").to_json(), ex=60)
    (line,) = look(client, client, SETTINGS, ["a"]).lines
    assert line.line == f"{LIMIT}: the limit lets calls go one by one (rpm = 60, for its use is unusual)"
    assert line.advice == "run `fleet keys resume simulator`"
    (found,) = Overview(SETTINGS, state=client, broker=client).read().diagnoses
    assert (found.kind, found.tasks) == ("use_unusual", 5)
