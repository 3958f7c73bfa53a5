"""The moving windows on a real Redis: what finished tasks add, what time takes away, and what never grows."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models import BotResult, TaskError
from fleet.signals import windows
from fleet.signals.counted import sums
from fleet.signals.series import hours_in, last_hour, minutes_in, series_of, spent_in
from fleet.signals.windows import BOT_ROW, MINUTES, PERIOD, Period
from fleet.store import keys
from tests.signal_truth import untruths
from tests.signals.working_fleet import SETTINGS, WorkingFleet

RESULTS = st.lists(
    st.fixed_dictionaries(
        {
            "pool": st.sampled_from("ab"),
            "bot": st.integers(1, 3),
            "error": st.sampled_from(["", "", "BadAnswer", "ProviderUnavailable", "AnErrorOfAUsersOwn"]),
            "calls": st.dictionaries(st.sampled_from(["RateLimited", "ProviderUnavailable"]), st.integers(1, 3)),
            "usage": st.fixed_dictionaries({"input_tokens": st.integers(0, 9), "output_tokens": st.integers(0, 9)}),
            "cost_usd_micros": st.none() | st.integers(0, 10**9),
            "queued_ms": st.none() | st.integers(0, 10**12),
            "ran_ms": st.integers(0, 10**9),
        }
    ),
    max_size=12,
)


def now_s(client: redis.Redis) -> float:
    """Return the time of Redis; waits out the last seconds of a minute, so that a test stays within one."""
    seconds = int(client.time()[0])
    if seconds % 60 > 55:
        time.sleep(61 - seconds % 60)
    return float(client.time()[0])


@settings(max_examples=15)
@given(tasks=RESULTS)
def test_windows_agree_with_results_whatever_was_finished_also_twice(
    redis_url: str, client: redis.Redis, tasks: list[dict[str, Any]]
) -> None:
    client.flushall()
    fleet = WorkingFleet(redis_url, client)
    for made in tasks:
        fleet.finish(1, **made)
    again = [result.model_copy(update={"answer": "another"}) for result in fleet.results[::2]]
    fleet.repeat(again)  # discarded, but paid for
    fleet.repeat(fleet.results[::3])  # the very same: counts nothing
    assert list(untruths(client, SETTINGS, fleet.results)) == []


def test_a_lie_is_found(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    working_fleet.finish(3, pool="a", bot=1)
    assert not list(untruths(client, SETTINGS, working_fleet.results))
    assert list(untruths(client, SETTINGS, working_fleet.results[1:]))
    client.hincrby(keys.pool_totals("a"), "ok", 1)
    assert any(line.startswith("total of ok") for line in untruths(client, SETTINGS, working_fleet.results))


def test_a_minute_that_is_over_goes_to_its_hour_when_its_place_is_needed(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    minute = int(now_s(client) // 60)
    old = Period(minute - MINUTES, *[7.0] * 15)
    client.setrange(keys.series("a"), minute % MINUTES * PERIOD.size, PERIOD.pack(*old))
    working_fleet.finish(2, pool="a", bot=1)
    minutes, hours = periods_in(client)
    assert {slot.number: slot.completions for slot in minutes if slot.number} == {minute: 2}
    assert {slot.number: slot.completions for slot in hours if slot.number} == {(minute - MINUTES) // 60: 7}
    this_hour, that_hour = minute // 60, (minute - MINUTES) // 60
    assert hours_told(client, range(that_hour, this_hour + 1))[:: this_hour - that_hour] == [7, 2]


def test_minutes_of_hours_ago_that_wait_to_be_folded_count_in_their_hour(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    minute = int(now_s(client) // 60)
    for ago, done in ((0, 1.0), (130, 2.0), (131, 4.0), (60 * 30, 8.0)):
        old = Period(minute - ago, *[done] * 15)
        client.setrange(keys.series("a"), (minute - ago) % MINUTES * PERIOD.size, PERIOD.pack(*old))
    last, first = minute // 60, (minute - 131) // 60
    assert sum(hours_told(client, range(first, last + 1))) == 7
    one = series_of(client.get(keys.series("a")) or b"")  # type: ignore[arg-type]
    assert last_hour(one, now_s=minute * 60).completions == 1
    assert spent_in(one, range(first, last + 1)) == 7


def periods_in(client: redis.Redis) -> tuple[list[Period], list[Period]]:
    """Return the minutes and the hours of pool `a` as they lie in Redis."""
    periods = [Period(*numbers) for numbers in PERIOD.iter_unpack(client.get(keys.series("a")))]  # type: ignore[arg-type]
    return periods[:MINUTES], periods[MINUTES:]


def hours_told(client: redis.Redis, numbers: range) -> list[float]:
    """Return the completions of hours as people are told them."""
    series = [series_of(client.get(keys.series(pool)) or b"") for pool in "ab"]  # type: ignore[arg-type]
    return [hour.completions for hour in hours_in(series, minutes_in(series, now_s(client)), numbers)]


def test_minutes_of_one_hour_add_up_in_it(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    minute = int(now_s(client) // 60)
    hour = (minute - MINUTES) // 60
    place = (MINUTES + hour % windows.HOURS) * PERIOD.size
    client.setrange(keys.series("a"), place, PERIOD.pack(hour, *[5.0] * 15))
    client.setrange(keys.series("a"), minute % MINUTES * PERIOD.size, PERIOD.pack(minute - MINUTES, *[7.0] * 15))
    working_fleet.finish(1, pool="a", bot=1)
    _, hours = periods_in(client)
    assert [slot.completions for slot in hours if slot.number] == [12]


@pytest.mark.parametrize(("hours_ago", "this", "last"), [(0, 5, 3), (1, 1, 4), (2, 1, 0)])
def test_a_bots_hour_moves_on(
    working_fleet: WorkingFleet, client: redis.Redis, hours_ago: int, this: int, last: int
) -> None:
    hour = int(now_s(client) // 3600)
    client.setrange(keys.bot_rows("a"), BOT_ROW.size, BOT_ROW.pack(9, 0, 0, hour - hours_ago, 4, 3, 1.0, 0, 0, 0))
    working_fleet.finish(1, pool="a", bot=1)
    rows = windows.bot_rows_of(client.get(keys.bot_rows("a")), 3)
    assert (rows.completions[1], rows.hour[1], rows.this_hour[1], rows.last_hour[1]) == (10, hour, this, last)


def test_of_the_hour_before_only_the_part_within_sixty_minutes_counts() -> None:
    rows = windows.bot_rows_of(BOT_ROW.pack(0, 0, 0, 100, 10, 40, 0, 0, 0, 0), 0)
    assert rows.per_hour(100 * 3600 + 900) == [10 + 30]
    assert rows.per_hour(101 * 3600 + 1800) == [5]
    assert rows.per_hour(102 * 3600) == [0]


def test_a_bot_remembers_its_last_four_tasks(working_fleet: WorkingFleet) -> None:
    ids = working_fleet.finish(6, pool="a", bot=2, ran_ms=12)
    ids += working_fleet.finish(1, pool="a", bot=2, error="BadAnswer")
    working_fleet.finish(1, pool="a", bot=3)
    tasks = working_fleet.overview.bot("a-002").tasks
    assert [task.task_id for task in tasks] == ids[:2:-1]
    assert [task.status for task in tasks] == ["failed", "ok", "ok", "ok"]
    assert tasks[1].ran_ms == 12


def test_keys_do_not_grow_with_tasks_nor_with_names_that_a_stranger_invents(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    def weight() -> tuple[int, int]:
        names = [name for name in client.scan_iter("{fleet*}:*") if not name.endswith(b"failures")]
        return len(names), sum(client.memory_usage(name, samples=0) for name in names)

    working_fleet.finish(20, pool="a", bot=3, error="BadAnswer")
    working_fleet.finish(1, pool="a", bot=3, error="Invented0", model="invented-0")
    client.setrange(keys.pool_recent("a"), windows.kept_of(2) * windows.RECENT_ENTRY.size - 1, b"\0")  # its full size
    before = weight()
    for number in range(1, 30):
        working_fleet.finish(1, pool="a", bot=3, error=f"Invented{number}", model=f"invented-{number}")
    after = weight()
    assert after[0] == before[0]
    assert after[1] < before[1] + 64  # a longer number here and there


def test_ids_that_are_long_or_not_ascii_are_cut_and_nothing_breaks(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    error = TaskError(type="BadAnswer", message="m")
    for task_id in ("x" * 5000, "ß" * 40, "a|b,\n\0", ""):
        result = BotResult(
            task_id=task_id, status="failed", error=error, bot="a-001", pool="a", provider="simulator", model="m1",
            finished_at=1.0,
        )  # fmt: skip
        working_fleet.repeat([result])
    detail = working_fleet.overview.bot("a-001")
    assert [len(task.task_id.encode(errors="replace")) <= 40 for task in detail.tasks] == [True] * 4
    assert len(detail.failures) == 4


def test_recent_completions_and_failures_are_the_last_thousand(
    working_fleet: WorkingFleet, client: redis.Redis
) -> None:
    working_fleet.finish(40, pool="a", bot=1)
    client.hincrby(keys.pool_totals("b"), "completions", 990)  # as if it had done that much before
    working_fleet.finish(20, pool="b", bot=1, error="BadAnswer")
    recent, _ = sums.newest_recent([(client.get(keys.pool_recent(pool)), windows.RECENT) for pool in "ab"])  # type: ignore[misc]
    by_pool = windows.names_by_checksum(["a", "b"])
    assert [by_pool[entry.pool] for entry in recent].count("b") == 20
    assert len(recent) <= windows.RECENT
    client.rpush(keys.pool_failures("b"), *[f"1.0|{n}" for n in range(windows.RECENT)])
    working_fleet.finish(1, pool="b", bot=1, error="BadAnswer")
    assert client.llen(keys.pool_failures("b")) == windows.RECENT


def test_durations_of_more_than_an_hour_ago_are_forgotten(working_fleet: WorkingFleet, client: redis.Redis) -> None:
    working_fleet.finish(3, pool="a", bot=1, ran_ms=1000, queued_ms=None)
    now = now_s(client)
    raw = client.get(keys.sketch("a"))
    queued, _, ran = windows.sketches_of(raw, now_s=now)
    assert (sum(queued), sum(ran)) == (0, 3)
    assert sum(windows.sketches_of(raw, now_s=now + 4300)[2]) == 0
