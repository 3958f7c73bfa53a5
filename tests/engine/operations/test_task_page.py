"""One task as the page opens it: its steps, what can be done about it, its texts, and what a look costs Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import redis

from fleet.config import PoolSettings, Settings
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import BEFORE, QUEUED_AT
from fleet.engine.operations.dead import read_dead
from fleet.engine.operations.task_page import TaskPage, read_task
from fleet.engine.outcomes import dead_letter_office
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice
from fleet.engine.outcomes.dead_letters import Burial, Death, bury
from fleet.engine.transport.parking.parked import PUBLISH_LATER, publish_later_call
from fleet.engine.transport.withdrawal.message_search import HEADS_MOST
from fleet.models import BotResult, TaskError
from fleet.outcome import Before
from fleet.signals.ahead.dead_view import told_cost
from fleet.signals.windows import MINUTES, PERIOD, Period
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.usage import Usage
from tests.burials import keep
from tests.engine.operations.test_story import BODY, finish, hold, message_of, queue

SETTINGS = Settings(pools={"research": PoolSettings(bots=3), "review": PoolSettings(bots=2)})
RESEARCH = queues.list_key("fleet.research", 2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as opened:
        yield opened


def page_of(client: redis.Redis, task_id: str, *, thorough: bool = False, texts: bool = False) -> TaskPage:
    return read_task(task_id, client, client, SETTINGS, is_thorough=thorough, with_texts=texts)


def steps_of(page: TaskPage) -> list[tuple[str, float | None]]:
    return [(step.name, step.took_s) for step in page.story.steps]


def die(client: redis.Redis, task_id: str, *, reason: str = "BadAnswer", pool: str = "research") -> Burial:
    error = TaskError(type=reason, message="expected an answer, got none")
    result = finish(client, task_id, status="failed", error=error, pool=pool)
    burial = bury(result, headers={}, body=BODY)
    assert burial is not None
    keep(client, burial, SETTINGS)
    return burial


def test_the_steps_of_a_finished_task_are_told_with_their_times(client: redis.Redis) -> None:
    result = finish(
        client, "t1", queued_ms=2000, ran_ms=1500, limited_ms=500, parked=2, provider="acme", model="m",
        usage=Usage(input_tokens=10, output_tokens=5), cost_usd_micros=12, cost_usd_picos=12_000_000,
    )  # fmt: skip
    page = page_of(client, "t1")
    assert steps_of(page) == [
        ("queued", 2.0), ("parked", None), ("checkout", None), ("limit", 0.5), ("call", 1.0), ("judge", None),
        ("finish", None),
    ]  # fmt: skip
    queued, *_, call, judge, end = page.story.steps
    assert queued.at == pytest.approx(result.finished_at - 3.5)
    assert end.at == result.finished_at
    assert (call.told, judge.told) == ("2 provider calls of acme/m, your code and the judging included", "ok")
    assert (page.story.parked, page.story.tokens, page.story.cost_usd_micros) == (2, 15, 12)
    assert page.deeds == ()


def test_the_steps_of_a_task_that_waits_are_told_by_what_travels_with_it(client: redis.Redis) -> None:
    before = Before(
        attempts=3, failed={"RateLimited": 2}, limited_ms=400, ran_ms=900, parked=4, cost_usd_picos=7_000_000
    )
    headers = {QUEUED_AT: time.time() - 60, BEFORE: before.model_dump(mode="json")}
    at = time.time() + 500
    message = message_of("t1", **headers)
    call = publish_later_call("fleet.research", RESEARCH, 2, message, task_id="t1", at=at)
    run_script(client, PUBLISH_LATER, *call)
    page = page_of(client, "t1")
    assert [name for name, _ in steps_of(page)] == ["queued", "parked", "limit", "call", "parked"]
    assert page.story.steps[0].took_s == pytest.approx(60, abs=5)
    assert page.story.steps[3].told == "3 provider calls so far, 2 of them failed"
    assert (page.story.cost_usd_micros, page.story.state, page.deeds) == (7, "parked", ("cancel",))


def test_what_can_be_done_depends_on_where_the_task_is(client: redis.Redis) -> None:
    queue(client, "waits")
    hold(client, message_of("held"))
    die(client, "dead")
    deeds = {task: page_of(client, task).deeds for task in ("waits", "held", "dead", "nobody")}
    assert deeds == {"waits": ("cancel",), "held": ("cancel", "stop"), "dead": ("replay", "purge"), "nobody": ()}


def test_earlier_deaths_of_a_task_are_steps_of_it(client: redis.Redis) -> None:
    burial = die(client, "t1")
    lives = (Death(at=5.0, bot="research-001", error="ProviderUnavailable"), *burial.letter.history)
    keep(client, Burial(burial.letter.model_copy(update={"history": lives}), burial.body), SETTINGS)
    steps = page_of(client, "t1").story.steps
    assert [(step.name, step.at, step.told) for step in steps[:1]] == [
        ("died", 5.0, "ProviderUnavailable by research-001")
    ]
    assert [step.name for step in steps].count("died") == 1  # the last death is the result's
    client.delete(keys.result("t1"))
    assert [step.name for step in page_of(client, "t1").story.steps] == ["died", "died"]


def test_prompts_and_answers_are_shown_only_where_they_may_be(client: redis.Redis) -> None:
    queue(client, "waits")
    finish(client, "done", answer="a secret answer")
    die(client, "dead")
    for task in ("waits", "done", "dead"):
        assert "secret" not in page_of(client, task).model_dump_json()
    texts = {task: page_of(client, task, texts=True).texts for task in ("waits", "done", "dead")}
    shown = {task: (one.prompt, one.answer) for task, one in texts.items() if one is not None}
    assert shown == {
        "waits": ("a secret question", None), "done": (None, "a secret answer"), "dead": ("a secret question", None),
    }  # fmt: skip


def test_a_page_looks_at_the_heads_of_100_000_waiting_tasks_and_not_through_them(client: redis.Redis) -> None:
    queue(client, "next")
    for start in range(0, 99_998, 10_000):
        client.lpush(RESEARCH, *(f"filler {number}" for number in range(start, min(start + 10_000, 99_998))))
    queue(client, "last")
    page_of(client, "next")  # loads the scripts
    client.config_resetstat()
    page = page_of(client, "last")
    calls = {name: row["calls"] for name, row in client.info("commandstats").items()}
    assert (page.story.state, page.story.is_search_complete) == ("unknown", False)
    assert 0 < page.story.looked_at <= HEADS_MOST
    assert sum(number for name, number in calls.items() if name != "cmdstat_exists") < 30, calls
    assert calls["cmdstat_lrange"] == 1
    assert page_of(client, "next").story.ahead == 0
    found = page_of(client, "last", thorough=True).story
    assert (found.state, found.ahead) == ("queued", 99_999)


def test_dead_letters_are_counted_by_pool_and_reason_with_what_replaying_them_may_cost(client: redis.Redis) -> None:
    for number in range(3):
        die(client, f"a{number}")
    die(client, "b", reason="Poison")
    die(client, "c", pool="review")
    die(client, "d", pool="gone")
    minute = Period(*[0.0] * len(Period._fields))._replace(
        number=time.time() // 60, completions=8, ok=8, cost_usd_micros=4000
    )
    client.setrange(keys.series("research"), int(minute.number % MINUTES) * PERIOD.size, PERIOD.pack(*minute))
    office = DeadLetterOffice(client, client, SETTINGS)
    groups = read_dead(office, client, SETTINGS, pool=None, reason=None)
    assert [(one.pool, one.reason, one.count, one.replay_usd_micros) for one in groups] == [
        ("research", "BadAnswer", 3, 1500), ("-", "BadAnswer", 1, None), ("research", "Poison", 1, 500),
        ("review", "BadAnswer", 1, None),
    ]  # fmt: skip
    assert groups[0].newest_at == pytest.approx(time.time(), abs=5)
    rest = "and what 2 of pools without an answer in the last two days cost"
    assert told_cost(groups) == f"about $0.0020, {rest}"
    assert [one.pool for one in read_dead(office, client, SETTINGS, pool="review", reason=None)] == ["review"]
    assert read_dead(office, client, SETTINGS, pool=None, reason="Expired") == ()


def test_a_pools_letters_are_counted_however_many_groups_are_before_it(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task, pool in (("t1", "gone"), ("t2", "research"), ("t3", "review")):
        die(client, task, pool=pool)
    monkeypatch.setattr(dead_letter_office, "MOST_GROUPS", 2)
    office = DeadLetterOffice(client, client, SETTINGS)
    assert sorted(group.pool for group in office.groups()) == ["-", "research"]
    assert [(group.pool, group.letters) for group in office.groups(pool="review")] == [("review", 1)]
    assert office.groups(pool="rev") == ()


def test_a_letter_whose_time_is_over_is_not_counted(client: redis.Redis) -> None:
    die(client, "old")
    short = Settings(pools=SETTINGS.pools, dead_letters={"expires_s": 60})  # type: ignore[arg-type]
    (place,) = (one for one in client.zrange(keys.dead_letter_order(), 0, -1) if one.startswith(b"b:"))
    client.zrem(keys.dead_letter_order(), place)
    client.zadd(keys.dead_letter_order(), {b"b:research:BadAnswer|0000000000000005|old": 0})
    assert DeadLetterOffice(client, client, short).groups() == ()


def test_a_result_that_cannot_be_read_has_no_steps(client: redis.Redis) -> None:
    client.set(keys.result("t1"), json.dumps({"status": "SUCCESS", "result": [1, 2]}))
    assert page_of(client, "t1").story.steps == ()
    assert isinstance(finish(client, "t2"), BotResult)
