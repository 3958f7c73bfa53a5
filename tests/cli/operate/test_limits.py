"""`fleet limits`, `fleet limits set` and `fleet simulate` as a shell sees them, on a real Redis."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.wait_checks import read_waits, wait_checks
from fleet.config import LimitSettings
from fleet.engine.admission.holds import PUT_HOLD, hold_call
from fleet.errors import DeadlineExceeded
from fleet.limiter import Limiter, open_limiter
from fleet.limiter.observing import EVERY_S
from fleet.rates import RateReading
from fleet.signals.unusual.alarms import Alarm, swap
from fleet.store import keys
from fleet.store.client import Store, connect, run_script
from fleet.waits import Wait

LIMIT = "simulator/simulated-1/default"


@pytest.fixture(autouse=True)
def state(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()


def fleet(*args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(args))
    assert done.exit_code == code, done.output
    return done


def grants_at_once(url: str, tries: int) -> int:
    """Return how many of `tries` calls a worker that was configured with the default gets without waiting."""

    async def ask() -> int:
        store = Store(url)
        limiter = Limiter(store, {LIMIT: LimitSettings(rpm=6_000_000, counting="bucket")})
        granted = 0
        for _ in range(tries):
            try:
                await limiter.acquire(LIMIT, tokens=1, timeout_s=0)
                granted += 1
            except DeadlineExceeded:
                pass
        await store.close()
        return granted

    return asyncio.run(ask())


def test_a_limit_that_is_set_live_holds_for_the_next_call_of_every_worker(redis_url: str) -> None:
    assert grants_at_once(redis_url, 5) == 5
    assert fleet("limits", "set", "simulator/simulated-1", "--rpm", "1").stdout == f"{LIMIT}: rpm 1\n"
    assert grants_at_once(redis_url, 5) <= 1
    fleet("limits", "set", LIMIT, "--tpm", "5000")
    shown = json.loads(fleet("limits", "--json").stdout)["limits"][0]
    assert (shown["limit"], shown["rpm"], shown["tpm"], shown["is_changed"]) == (LIMIT, 1, 5000, True)
    assert (
        fleet("limits", "set", LIMIT, "--reset").stdout
        == f"{LIMIT}: as configured; what was used today stays counted\n"
    )
    shown = json.loads(fleet("limits", "--json").stdout)["limits"][0]
    assert (shown["rpm"], shown["is_changed"]) == (6000, False)


def test_limits_shows_what_is_used_and_waiting(redis_url: str) -> None:
    grants_at_once(redis_url, 3)
    text = fleet("limits").stdout
    assert f"{LIMIT}\n" in text
    assert "of 6,000 in the last minute" in text
    assert "rate      " in text and "allowed at their mean size" in text
    assert "waiting   0 calls" in text
    assert "429s      0, last never" in text


def test_limits_say_which_of_them_are_held_low_for_unusual_use_and_what_ends_it(redis_url: str) -> None:
    alarm = Alarm("key", "simulator", time.time(), 5, 50, stage="throttled", held={LIMIT: (-1, 10)})
    with connect(redis_url) as client:
        assert swap(client, alarm.field_name, b"", alarm)
    held = f"{LIMIT} (held low, for its use is unusual: fleet keys resume simulator)"
    assert held in " ".join(fleet("limits").stdout.split())
    assert json.loads(fleet("limits", "--json").stdout)["limits"][0]["resumed_by"] == "fleet keys resume simulator"
    assert "resumed" in fleet("keys", "resume", "simulator").stdout
    assert "held low" not in fleet("limits").stdout


def test_limits_says_when_the_provider_allows_less_than_is_configured_and_what_others_use(redis_url: str) -> None:
    async def call() -> None:
        nothing = RateReading()
        async with open_limiter(redis_url, {LIMIT: LimitSettings(rpm=6000)}) as limiter:
            for left in (500, 100):
                grant = await limiter.acquire(LIMIT, tokens=1, timeout_s=1)
                rates = (RateReading(500, left, 60.0), nothing, nothing, nothing)
                limiter.observe(grant, rates)
                await asyncio.sleep(EVERY_S)

    asyncio.run(call())
    shown = json.loads(fleet("limits", "--json").stdout)["limits"][0]
    assert (shown["rpm"], shown["lowered"]) == (500, {"rpm": 6000})
    assert "6,000 is more than the provider allows: the provider's number holds" in fleet("limits").stdout


def test_limits_says_what_was_learnt_of_a_day_and_of_calls_at_once(redis_url: str) -> None:
    async def call() -> None:
        nothing = RateReading()
        async with open_limiter(redis_url, {LIMIT: LimitSettings(rpm=6000)}) as limiter:
            for used in (1, 2, 3):
                grant = await limiter.acquire(LIMIT, tokens=1, timeout_s=1)
                day = RateReading(10_000, 10_000 - used, used * 8.64)
                limiter.observe(grant, (day, nothing, nothing, nothing))
                limiter.settle(grant, used_tokens=1)
                await asyncio.sleep(EVERY_S)
            limiter.narrow(LIMIT, most=4)

    asyncio.run(call())
    shown = json.loads(fleet("limits", "--json").stdout)["limits"][0]
    assert (shown["rpm"], shown["lowered"], shown["paced_rpm"]) == (6000, {}, None)
    assert [(long["what"], long["limit"], long["left"], long["period_s"]) for long in shown["long"]] == [
        ("rpm", 10_000, 9997, 86_400.0)
    ]
    assert (shown["most_in_flight"], shown["in_flight_is_learnt"]) == (4, True)
    text = fleet("limits").stdout
    assert "provider  3 of 10,000 requests a day used" in text
    assert "in flight 0 of 4 (learnt: the provider refused more at once)" in text


def test_a_day_is_shown_used_and_allowed_in_its_own_unit_and_so_is_what_was_set(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config.Settings, "check_price", lambda self, name, where: None)

    async def call() -> None:
        async with open_limiter(redis_url, {LIMIT: LimitSettings(usd_per_day=0.2)}) as limiter:
            for _ in range(2):
                grant = await limiter.acquire(LIMIT, tokens=9, timeout_s=1, cost_usd_micros=12_000)
            limiter.settle(grant, used_tokens=5, cost_usd_micros=10_100)

    told = fleet("limits", "set", LIMIT, "--usd-per-day", "0.2", "--requests-per-day", "1000").stdout
    assert told == f"{LIMIT}: requests_per_day 1,000, usd_per_day $0.2000\n"
    asyncio.run(call())
    text = fleet("limits").stdout
    assert "  day       2 of 1,000 requests, " in text
    assert "  day       $0.0221 of $0.20, " in text and "at this pace" in text
    assert "  reserved  $0.0120 of that for calls in flight\n" in text
    shown = json.loads(fleet("limits", "--json").stdout)["limits"][0]
    assert (shown["used_requests"], shown["requests_per_day"]) == (2, 1000)
    assert shown["budgets"][0].startswith("$0.0221 of $0.20, ")
    (check,) = (one for one in wait_checks(read_waits(config.current())) if one.name == f"limit {LIMIT}: the day")
    assert check.found.startswith("$0.0221 of $0.20, ") and "2 of 1,000 requests, " in check.found
    assert (shown["used_usd_micros"], shown["usd_micros_per_day"]) == (pytest.approx(22_100), 200_000)


def test_a_hold_is_shown_with_who_told_of_it_and_released(redis_url: str) -> None:
    async def refuse() -> None:
        async with open_limiter(redis_url, {LIMIT: LimitSettings(rpm=6000)}) as limiter:
            limiter.penalise(LIMIT, retry_after_s=400)

    asyncio.run(refuse())
    assert "(429, Retry-After 400 s, at " in fleet("limits").stdout
    assert fleet("limits", "release", "simulator/simulated-1").stdout == f"{LIMIT}: not held any more\n"
    assert ", held" not in fleet("limits").stdout
    assert grants_at_once(redis_url, 1) == 1


@pytest.mark.parametrize(
    ("command", "opened"),
    [
        (("release", LIMIT), {"hold"}),
        (("set", LIMIT, "--requests-per-day", "9"), {"limit", "requests", "money"}),
        (("set", LIMIT, "--reset"), {"limit", "hold", "requests", "money"}),
    ],
)
def test_what_waits_because_of_a_limit_goes_as_it_is_changed_and_nothing_else(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], opened: set[str]
) -> None:
    monkeypatch.setattr("fleet.engine.operations.levers.FRESH_S", 0.0)  # no worker tells of an old reason here
    in_an_hour = time.time() + 3600
    waits: list[Wait] = [Wait(cause, in_an_hour, LIMIT) for cause in ("limit", "hold", "requests", "money", "outage")]
    lifted = set()
    with connect(redis_url) as client:
        queue = keys.queue(next(iter(config.current().pools)))
        for wait in waits:
            run_script(client, PUT_HOLD, *hold_call(queue, wait))
            fleet("limits", *command)
            if not client.exists(keys.hold(queue)):
                lifted.add(wait.cause)
            client.delete(keys.hold(queue))
        foreign = Wait("hold", in_an_hour, "simulator/other/default")
        run_script(client, PUT_HOLD, *hold_call(queue, foreign))
        fleet("limits", *command)
        assert client.exists(keys.hold(queue))
    assert lifted == opened


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("nobody/nothing", "--rpm", "5"), "expected one of simulator/simulated-1/default, got 'nobody/nothing'"),
        ((LIMIT,), "expected at least one number to set, or --reset alone"),
        ((LIMIT, "--rpm", "5", "--reset"), "expected at least one number to set, or --reset alone"),
    ],
)
def test_a_wrong_set_says_what_was_expected(args: tuple[str, ...], expected: str) -> None:
    assert expected in fleet("limits", "set", *args, code=2).output


def test_simulate_tells_what_limits_give_without_any_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", "redis://127.0.0.1:1/0")
    told = json.loads(fleet("simulate", "--rpm", "600", "--bots", "50", "--seconds", "60", "--json").stdout)
    assert 0.97 < told["requests_used"] <= 1.03
    assert told["wait_s"]["p50"] == pytest.approx(4.0, abs=0.6)
    text = fleet("simulate", "--tpm", "60000", "--bots", "20", "--critical", "2").stdout
    assert "of --tpm)" in text
    assert "critical calls" in text
    assert "█" in text


@pytest.mark.parametrize(
    "args",
    [(), ("--rpm", "5", "--tokens", "many"), ("--rpm", "5", "--tokens", "9-3"), ("--rpm", "5", "--critical", "999")],
)
def test_simulate_refuses_what_it_cannot_play(args: tuple[str, ...]) -> None:
    assert "expected" in fleet("simulate", *args, code=2).output
