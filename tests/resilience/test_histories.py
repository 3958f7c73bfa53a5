"""What holds whatever happens to a breaker: histories drawn by hypothesis, on a real Redis whose time is moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from fleet.resilience.layouts import (
    ALONE,
    FAILURE,
    OPEN,
    PROBE,
    STATE,
    SUCCESSES,
    WAS_OPENED,
    WITH_OTHERS,
    BreakerAt,
    BreakerReply,
    FailedCall,
    Successes,
)  # fmt: skip
from fleet.resilience.rules import BUDGET_S, IN_A_ROW, PROBE_US, RETRY_FLOOR, RETRY_SHARE
from fleet.resilience.scripts import DID_WELL, FAILED, PROBED
from fleet.store import keys
from fleet.store.client import connect, run_script
from tests.resilience.fleet_of_breakers import LIMIT

KEY = keys.breaker(LIMIT)


@dataclass
class Scripted:
    """One breaker; time passes as it is told, beyond the microseconds that the test takes."""

    client: redis.Redis
    passed_s: float = 0.0
    place: int = 0

    def wait(self, seconds: float) -> None:
        """Let time pass: all times of the state move back."""
        packed = self.client.hget(KEY, "state")
        self.passed_s += seconds
        if not isinstance(packed, bytes):
            return
        state = list(STATE.unpack(packed))[1:]
        for name, at in vars(BreakerAt).items():
            if name.endswith("_AT") and state[at - 1]:
                state[at - 1] = max(1.0, state[at - 1] - seconds * 1e6)
        self.client.hset(KEY, "state", STATE.pack(state))

    def fail(self, who: str, weight: int = WITH_OTHERS, is_probe: bool = False) -> BreakerReply:
        """Let a call fail."""
        self.place += 1
        call = FailedCall(weight=weight, is_probe=is_probe, place=self.place, since_us=0)
        packed = {"failure": FAILURE.pack(call), "successes": SUCCESSES.pack(Successes())}
        return self._run(FAILED, by="", who=who, cause="outage" if weight == WITH_OTHERS else "key", told="", **packed)

    def do_well(self, calls: int = 1, is_probe: bool = False) -> BreakerReply:
        """Let calls do well."""
        self.place += calls
        said = Successes(calls, self.place, age_us=0, began_age_us=1e13, is_probe=is_probe)
        return self._run(DID_WELL, by="w", successes=SUCCESSES.pack(said))

    def ask(self) -> BreakerReply:
        """Ask whether a call may go."""
        return self._run(PROBED, wants=1, silent_us=0, left_us=0)

    def _run(self, script: object, **arguments: object) -> BreakerReply:
        call = script.call(breaker=KEY, fingerprint="f", **arguments)  # type: ignore[attr-defined]
        return BreakerReply._make(run_script(self.client, script, *call))  # type: ignore[arg-type]


@pytest.fixture
def breaker(redis_url: str) -> Iterator[Scripted]:
    with connect(redis_url) as client:
        yield Scripted(client)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fail"), st.integers(0, 30)),
        st.tuples(st.just("key"), st.integers(0, 30)),
        st.tuples(st.just("well"), st.integers(1, 20)),
        st.tuples(st.just("ask"), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.1, 5, 61, 1000])),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_probes_keep_their_distance_and_no_breaker_opens_without_failures(
    breaker: Scripted, steps: list[tuple[str, float]]
) -> None:
    breaker.client.delete(KEY)
    breaker.passed_s, breaker.place = 0.0, 0
    failed_since, probed_at, is_open = 0, -1e9, False
    for what, number in steps:
        if what == "wait":
            breaker.wait(number)
        elif what in ("fail", "key"):
            heard = breaker.fail(f"task {number}", ALONE if what == "key" else WITH_OTHERS)
            failed_since += IN_A_ROW if what == "key" else 1
            if heard.turned == WAS_OPENED:
                assert failed_since >= IN_A_ROW
                assert heard.opens_at - heard.now >= PROBE_US - 1
                is_open = True
        elif what == "well":
            heard = breaker.do_well(int(number))
            assert (heard.code == OPEN) == is_open  # they were sent long ago: they close nothing
        else:
            heard = breaker.ask()
            assert (heard.code in (OPEN, PROBE)) == is_open
            if heard.code == PROBE:
                assert breaker.passed_s - probed_at >= 0.9
                probed_at = breaker.passed_s
    if is_open:
        heard = breaker.do_well(is_probe=True)
        assert heard.code != OPEN
        assert breaker.ask().code not in (OPEN, PROBE)


@given(steps=STEPS)
def test_the_retry_budget_is_never_overdrawn(breaker: Scripted, steps: list[tuple[str, float]]) -> None:
    breaker.client.delete(KEY)
    breaker.passed_s, breaker.place = 0.0, 0
    free, well = 0, 0
    for what, number in steps:
        if what == "wait":
            breaker.wait(number)
        elif what == "well":
            well += int(number)
            breaker.do_well(int(number))
        elif what in ("fail", "key"):
            heard = breaker.fail("one task alone")  # so that nothing opens
            free += heard.retry_at == 0
            assert heard.code != OPEN
    allowed = RETRY_FLOOR * (BUDGET_S + breaker.passed_s + 1) + RETRY_SHARE * well
    assert free <= allowed + 1
