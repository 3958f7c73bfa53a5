"""How breakers stand, as people see it: the view, and `fleet limits reset-breaker` on a real Redis."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.errors import KeyRejected, NotSoon, ProviderUnavailable
from fleet.resilience import read_breakers, read_breakers_now
from fleet.resilience.fingerprint import DIGITS, fingerprint_of
from fleet.resilience.pace import LEAST_CALLS, Pace
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.resilience.fleet_of_breakers import LIMIT, member
from tests.resilience.test_breakers import shift

SIMULATED = "simulator/simulated-1/default"


def test_a_view_tells_state_reason_time_and_counts(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            (new,) = await read_breakers(one.store, [LIMIT])
            assert (new.state, new.wait, new.since, new.well_at, new.failed) == ("closed", None, None, None, 0)
            assert new.is_closed
            await one.tell("good", times=2)
            await one.fail("late", ProviderUnavailable("no answer", timed_out=True))
            await one.open(KeyRejected("401: not this key"))
            (view,) = await read_breakers(one.store, [LIMIT])
            assert (view.state, view.tries, view.well, view.timed_out) == ("open", 1, 3, 1)
            assert view.failed >= 2
            assert view.calls == {"well": 3, "late": 1, "key": view.failed - 1}
            assert view.wait is not None
            assert (view.wait.cause, view.wait.told) == ("key", "401: not this key")
            assert view.since is not None
            assert abs(view.since - time.time()) < 60
            shift(redis_url, back_s=61)
            (view,) = await read_breakers(one.store, [LIMIT])
            assert view.state == "half-open"
            one.breakers._known[LIMIT].believed_until = 0
            assert await one.breakers.admit(LIMIT)
            await one.do_well("probe", is_probe=True)
            with connect(redis_url) as client:
                (view,) = read_breakers_now(client, [LIMIT])
            assert (view.state, view.wait, view.failed, view.tries) == ("ramping", None, 0, 0)

    asyncio.run(work())


def test_an_operator_closes_a_breaker_and_the_gates_of_its_pools_open(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    held = Wait("key", time.time() + 900, SIMULATED, "401", probe_every_s=900)
    money = Wait("money", time.time() + 900, SIMULATED)

    async def break_it() -> None:
        async with member(redis_url, limit=SIMULATED) as one:
            await one.open(KeyRejected("401"))

    async def goes() -> bool:
        async with member(redis_url, limit=SIMULATED) as one:
            try:
                return await one.breakers.admit(SIMULATED) is False
            except NotSoon:
                return False

    asyncio.run(break_it())
    assert not asyncio.run(goes())
    with connect(redis_url) as client:
        client.set(keys.hold(keys.queue("research")), held.to_json())
        client.set(keys.hold(keys.queue("writing")), money.to_json())
        done = CliRunner().invoke(main, ["limits", "reset-breaker", "simulator/simulated-1", "--json"])
        assert (done.exit_code, json.loads(done.stdout)) == (0, {"limit": SIMULATED, "was_open": True})
        assert client.get(keys.hold(keys.queue("research"))) is None
        assert client.get(keys.hold(keys.queue("writing"))) is not None  # not the breaker's
        assert b"breaker_closed" in [fields[b"event"] for _, fields in client.xrange(keys.events())]
    assert asyncio.run(goes())
    again = CliRunner().invoke(main, ["limits", "reset-breaker", SIMULATED])
    assert again.stdout == f"{SIMULATED}: it was closed already\n"
    wrong = CliRunner().invoke(main, ["limits", "reset-breaker", "nobody/none"])
    assert wrong.exit_code != 0
    assert SIMULATED in wrong.output


def test_a_fingerprint_changes_with_key_and_settings_and_tells_neither() -> None:
    provider = config.ProviderSettings(kind="openai", base_url="https://a.example/v1")
    first = fingerprint_of(provider, "sk-1")
    assert first == fingerprint_of(provider, "sk-1")
    assert len(first) == DIGITS
    others = [fingerprint_of(provider, f"sk-{k}") for k in range(2, 12)]
    assert first not in others
    assert fingerprint_of(provider.model_copy(update={"base_url": "https://b.example/v1"}), "sk-1") != first
    many = [fingerprint_of(provider, str(k)) for k in range(300_000)]
    assert len(set(many)) < 70_000  # several keys have the same: none can be told from it


def test_a_model_is_slow_by_its_own_pace_only() -> None:
    pace = Pace()
    for _ in range(LEAST_CALLS):
        assert not pace.is_slow(500.0, 10)  # nothing is known yet
    pace = Pace()
    for k in range(200):
        assert not pace.is_slow(1 + 0.02 * (100 + k), 100 + k)
    assert not pace.is_slow(1 + 0.02 * 4000, 4000)  # long, and as fast as ever
    assert not pace.is_slow(12, 150)
    assert pace.is_slow(30, 150)
    assert [pace.is_slow(30, 150) for _ in range(100)] == [True] * 100  # what is slow does not become usual


def test_answers_of_one_length_have_a_pace_too() -> None:
    pace = Pace()
    for _ in range(50):
        assert not pace.is_slow(2.0, 100)
    assert pace.is_slow(11.0, 100)
    assert not pace.is_slow(20.0, 1000)
