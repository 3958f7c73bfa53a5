"""The scripts against their Python model, and what they guarantee about any window of time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import LimitSettings
from fleet.limiter.limiter import ACQUIRE, PENALISE, SETTLE
from fleet.limiter.limits import Pace
from fleet.store import keys
from fleet.store.client import Script, connect
from tests.limiter import model

DAY_US = 86_400_000_000
_names = (f"provider/model/key-{number}" for number in itertools.count())

paces = st.builds(
    LimitSettings,
    rpm=st.none() | st.integers(1, 100_000),
    tpm=st.none() | st.integers(100, 100_000_000),
    burst=st.floats(0.0001, 1),
).map(Pace.of)
draws = st.floats(0, 1, exclude_max=True)
acquires = st.tuples(st.just("acquire"), st.integers(0, 100_000), draws, st.integers(0, DAY_US))
settles = st.tuples(st.just("settle"), st.integers(0, 100_000), st.integers(0, 100_000), st.booleans())
penalties = st.tuples(st.just("penalise"), st.integers(0, 3_600_000_000))
#: How far clocks may be from now when an example begins, in microseconds.
offsets = st.none() | st.integers(-DAY_US, DAY_US) | st.integers(-2_000_000, 2_000_000)


@pytest.fixture
def client(redis_url: str) -> Any:
    with connect(redis_url) as client:
        yield client


def run(client: redis.Redis, script: Script, key: str, args: Sequence[Any]) -> list[int]:
    reply: Any = client.eval(script.text, 1, key, *args)
    return [int(value) for value in reply]


def state_of(client: redis.Redis, key: str) -> model.State:
    fields: Any = client.hgetall(key)
    return {name.decode(): int(value) for name, value in fields.items()}


def arguments(pace: Pace, step: tuple[Any, ...]) -> tuple[Script, Any, list[Any]]:
    """Return script, model and ARGV of one drawn step, as `Limiter` would send them."""
    match step:
        case ("acquire", tokens, draw, max_wait):
            sizes = [tokens, pace.request_us, pace.tokens_us(tokens), pace.request_burst_us, pace.token_burst_us]
            return ACQUIRE, model.acquire, [*sizes, pace.jitter_us, draw, max_wait]
        case ("settle", reserved, used, was_sent):
            back_us = pace.tokens_us(reserved) - pace.tokens_us(used)
            return SETTLE, model.settle, [back_us, reserved - used, int(was_sent), used, pace.token_burst_us]
        case (_, hold_us):
            return PENALISE, model.penalise, [hold_us, pace.request_us, pace.request_burst_us, pace.token_burst_us]
    raise AssertionError(step)


@given(
    pace=paces,
    clocks=st.fixed_dictionaries({"r": offsets, "t": offsets, "p": offsets}),
    minutes_ago=st.none() | st.integers(0, 3),
    steps=st.lists(acquires | settles | penalties, min_size=1, max_size=12),
)
def test_every_script_does_what_its_model_does(
    client: redis.Redis, pace: Pace, clocks: dict[str, int | None], minutes_ago: int | None, steps: list[Any]
) -> None:
    key = keys.limit(next(_names))
    seconds, micros = client.time()
    now = int(seconds) * 1_000_000 + int(micros)
    expected: model.State = {name: now + off for name, off in clocks.items() if off is not None}
    if minutes_ago is not None:
        expected |= {"m": now // model.MINUTE_US - minutes_ago, "mr": 3, "mt": 400, "lr": 5, "lt": 600}
    if expected:
        client.hset(key, mapping={name: str(value) for name, value in expected.items()})
    for step in steps:
        script, predict, args = arguments(pace, step)
        reply = run(client, script, key, args)
        assert reply == predict(expected, args, reply[2])
        found = state_of(client, key)
        assert found == {name: value for name, value in expected.items() if name in found}
        assert {name for name, value in expected.items() if value} <= set(found)


@given(
    pace=paces.filter(lambda pace: not pace.is_unlimited),
    calls=st.lists(st.tuples(st.integers(1, 20_000), draws), min_size=2, max_size=60),
    hold_at=st.none() | st.integers(0, 59),
)
def test_no_window_of_sends_exceeds_rate_times_window_plus_burst(
    client: redis.Redis, pace: Pace, calls: list[tuple[int, float]], hold_at: int | None
) -> None:
    key = keys.limit(next(_names))
    burst_us = pace.token_burst_us + pace.jitter_us
    sends = []
    for number, (tokens, draw) in enumerate(calls):
        if number == hold_at:
            run(client, *_of(PENALISE, key, arguments(pace, ("penalise", 500_000))))
        _, wait, now = run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", tokens, draw, 10**15))))
        sends.append((now + wait, pace.tokens_us(tokens)))
    sends.sort()
    largest_us = max(tokens_us for _, tokens_us in sends)
    for first in range(len(sends)):
        requests_us = tokens_us = 0
        for at, cost_us in sends[first:]:
            window_us = at - sends[first][0]
            requests_us += pace.request_us
            tokens_us += cost_us
            assert requests_us <= window_us + max(burst_us, pace.request_us)
            assert tokens_us <= window_us + max(burst_us, largest_us + pace.jitter_us)


@given(pace=paces, tokens=st.lists(st.integers(1, 20_000), min_size=1, max_size=20))
def test_slots_are_given_first_come_first_served(client: redis.Redis, pace: Pace, tokens: list[int]) -> None:
    key = keys.limit(next(_names))
    slots = []
    for amount in tokens:
        _, wait, now = run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", amount, 0.0, 10**15))))
        slots.append(now + wait)
    assert slots == sorted(slots)


@given(tpm=st.integers(1_000, 100_000_000), tokens=st.integers(1, 50_000), burst=st.floats(0.0001, 1))
def test_calls_of_any_size_use_the_whole_rate(client: redis.Redis, tpm: int, tokens: int, burst: float) -> None:
    pace = Pace.of(LimitSettings(tpm=tpm, burst=burst))
    key = keys.limit(next(_names))
    latest_us = 0
    for _ in range(20):
        _, wait, now = run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", tokens, 0.0, 10**15))))
        latest_us = max(now, latest_us + pace.tokens_us(tokens))  # a queue without any burst, never idle
        assert now + wait <= latest_us


@given(pace=paces, tokens=st.integers(1, 50_000), hold_us=st.integers(0, 10**9))
def test_a_refused_acquire_writes_nothing(client: redis.Redis, pace: Pace, tokens: int, hold_us: int) -> None:
    key = keys.limit(next(_names))
    run(client, *_of(PENALISE, key, arguments(pace, ("penalise", hold_us + 60_000_000))))
    before = state_of(client, key)
    assert run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", tokens, 0.5, 30_000_000))))[0] == 0
    assert state_of(client, key) == before


@given(pace=paces.filter(lambda pace: not pace.is_unlimited), hold_us=st.integers(1_000_000, 10**10))
def test_after_a_penalty_nobody_goes_early_and_the_burst_is_gone(client: redis.Redis, pace: Pace, hold_us: int) -> None:
    key = keys.limit(next(_names))
    _, held_us, now = run(client, *_of(PENALISE, key, arguments(pace, ("penalise", hold_us))))
    sends = []
    for _ in range(10):
        _, wait, at = run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", 100, 0.0, 10**15))))
        sends.append(at + wait)
    assert held_us == hold_us
    for number, send in enumerate(sends):
        after_us = send - now - hold_us
        assert after_us >= number * pace.request_us
        assert after_us >= number * pace.tokens_us(100) + min(pace.tokens_us(100), pace.token_burst_us)


@given(pace=paces, steps=st.lists(acquires | penalties, min_size=1, max_size=5))
def test_a_limit_outlives_its_deepest_reservation(client: redis.Redis, pace: Pace, steps: list[Any]) -> None:
    key = keys.limit(next(_names))
    for step in steps:
        script, _, args = arguments(pace, step)
        _, _, now = run(client, script, key, args)
        state = state_of(client, key)
        if state:
            deepest_us = max(state.get(name, 0) for name in "rtp")
            ttl_ms: Any = client.pttl(key)
            assert ttl_ms * 1000 > max(deepest_us - now, 0) + 6 * DAY_US


def test_clocks_keep_every_microsecond(client: redis.Redis) -> None:
    pace = Pace.of(LimitSettings(rpm=60))
    key = keys.limit(next(_names))
    _, _, now = run(client, *_of(ACQUIRE, key, arguments(pace, ("acquire", 1, 0.0, 0))))
    assert state_of(client, key)["r"] == now + 1_000_000


def _of(script: Script, key: str, drawn: tuple[Script, Any, list[Any]]) -> tuple[Script, str, list[Any]]:
    assert drawn[0] is script
    return script, key, drawn[2]
