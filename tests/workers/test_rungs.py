"""Which rung of a ladder takes the next call: every reason, every condition, and what is told when none does."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import LimitSettings, RungSettings, When
from fleet.waits import CAUSES, Cause, Wait
from fleet.workers.rungs import CAUSES_OF, Route, Rung, beginning_with, choose, ladder_of
from tests.workers.fakes import FakeProvider


def a_route(name: str) -> Route:
    return Route(FakeProvider(["hi"]), "api", name, f"api/{name}/default", "", 60.0)


def a_ladder(*below: dict[str, Any], degrades: int | None = None) -> tuple[Rung, ...]:
    """Return a ladder of calls to models 0, 1, 2, ... and perhaps a text."""
    rungs = [RungSettings.model_validate(({} if "answer" in one else {"model": "m"}) | one) for one in below]
    routes = [None if rung.answer is not None else a_route(str(number)) for number, rung in enumerate(rungs, start=1)]
    limits = {
        f"api/{number}/default": LimitSettings(when_full="degrade" if number == degrades else "wait")
        for number in range(len(rungs) + 1)
    }
    return ladder_of(a_route("0"), list(zip(rungs, routes, strict=True)), limits)


def number_of(found: Rung | Wait) -> int | None:
    return found.number if isinstance(found, Rung) else None


@pytest.mark.parametrize("when", get_args(When))
@pytest.mark.parametrize("cause", CAUSES)
def test_a_rung_is_taken_for_the_causes_that_it_names_and_for_no_other(when: When, cause: Cause) -> None:
    found = choose(a_ladder({"when": [when]}), {0: Wait(cause)})
    assert number_of(found) == (1 if cause in CAUSES_OF[when] else None)


def test_every_cause_that_an_api_can_have_leads_down_by_some_condition() -> None:
    led = frozenset[Cause]().union(*CAUSES_OF.values())
    assert set(CAUSES) - led == {
        "time", "retry", "bots", "worker", "machine", "redis", "operator", "function", "document",
        "warming", "batch", "twin",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("below", "waits", "late", "expected"),
    [
        pytest.param([{}, {}], {}, (), 0, id="the pool's own while it is open"),
        pytest.param([{}, {}], {1: "outage"}, (), 0, id="a closed rung below says nothing"),
        pytest.param([{}, {}], {0: "outage"}, (), 1, id="the next one"),
        pytest.param([{}, {}], {0: "outage", 1: "key"}, (), 2, id="and the next, for another reason"),
        pytest.param([{"when": ["key"]}, {}], {0: "outage"}, (), 2, id="one that is not meant is passed over"),
        pytest.param([{}, {"when": ["key"]}], {0: "key", 1: "outage"}, (), None, id="each reason above must be meant"),
        pytest.param([{}, {"answer": "later"}], {0: "outage", 1: "money"}, (), 2, id="a text at last"),
        pytest.param([{}], {0: "hold"}, (), None, id="a 429 is no reason unless it is named"),
        pytest.param([{"when": ["limit"]}], {0: "hold"}, (), 1, id="it is named"),
        pytest.param([{"when": ["deadline"]}], {}, (0,), 1, id="too slow"),
        pytest.param([{}], {}, (0,), 0, id="too slow, and nobody is meant for that"),
        pytest.param([{"when": ["deadline"]}], {}, (0, 1), 0, id="both are too slow"),
        pytest.param([{"when": ["deadline"]}], {1: "outage"}, (0,), 0, id="too slow, and the faster one is closed"),
        pytest.param([{"when": ["deadline"]}], {0: "outage"}, (0,), None, id="closed is not slow"),
        pytest.param([{"when": ["outage", "deadline"]}, {"when": ["outage", "deadline"]}], {0: "outage"}, (1,), 2),
    ],
)
def test_the_first_rung_that_is_open_and_meant_takes_the_call(
    below: list[dict[str, Any]], waits: dict[int, Cause], late: tuple[int, ...], expected: int | None
) -> None:
    found = choose(a_ladder(*below), {number: Wait(cause) for number, cause in waits.items()}, frozenset(late))
    assert number_of(found) == expected


@pytest.mark.parametrize("cause", ["requests", "money"])
@pytest.mark.parametrize(("when_full_of", "expected"), [(0, 1), (1, None), (None, None)])
def test_a_full_budget_leads_down_unasked_where_its_limit_says_degrade(
    cause: Cause, when_full_of: int | None, expected: int | None
) -> None:
    ladder = a_ladder({"when": ["outage"]}, degrades=when_full_of)
    assert number_of(choose(ladder, {0: Wait(cause)})) == expected


def test_what_waits_on_all_rungs_tells_the_first_reason_and_opens_with_the_first_that_opens() -> None:
    own = Wait("key", 900.0, "api/0/default", "401", probe_every_s=60.0)
    other = Wait("outage", 100.0, "api/1/default", "503", probe_every_s=1.0)
    found = choose(a_ladder({}), {0: own, 1: other})
    assert found == Wait("key", 100.0, "api/0/default", "401", probe_every_s=1.0)


def test_a_wait_of_which_no_time_is_known_hides_none_that_has_one() -> None:
    found = choose(a_ladder({}), {0: Wait("configuration"), 1: Wait("money", 50.0, is_everyones=False)})
    assert found == Wait("configuration", 50.0, is_everyones=False)


@given(
    waits=st.dictionaries(st.integers(0, 3), st.sampled_from(["outage", "key", "money", "hold"])),
    whens=st.lists(st.sets(st.sampled_from(get_args(When)), min_size=1), min_size=3, max_size=3),
)
def test_no_call_goes_to_a_rung_that_waits_and_none_waits_while_its_own_is_open(
    waits: dict[int, Cause], whens: list[set[When]]
) -> None:
    ladder = a_ladder(*({"when": sorted(when)} for when in whens))
    found = choose(ladder, {number: Wait(cause, float(number)) for number, cause in waits.items()})
    if isinstance(found, Rung):
        assert found.number not in waits
        assert found.number == 0 or 0 in waits
    else:
        assert found.cause == waits[0]


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("degrades", [True, False])
def test_a_candidate_stands_in_for_nobody_and_the_others_stand_in_for_it(cause: Cause, degrades: bool) -> None:
    names = ("own", "other", "new")
    full = LimitSettings(when_full="degrade" if degrades else "wait")
    limits = {f"api/{name}/default": full for name in names}
    own, other, new = map(a_route, names)
    ladder = ladder_of(own, [], limits, others=[other], candidates=[new])
    shut = Wait(cause, degrades=degrades)
    assert isinstance(choose(ladder, {0: shut, -1: shut}), Wait), "nobody asks it but by a rollout"
    tried = beginning_with(ladder, "new")
    assert number_of(choose(tried, {})) == -2
    assert number_of(choose(tried, {-2: shut})) == (0 if cause in frozenset().union(*CAUSES_OF.values()) else None)
