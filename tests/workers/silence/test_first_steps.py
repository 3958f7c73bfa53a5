"""Tasks whose API is down turn to the next rung one by one at first; none waits for a rung that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from fleet.workers.rungs import Route, Rung
from fleet.workers.silence.first_steps import ANEW_S, DOUBLING_S, FirstSteps
from tests.every import every
from tests.workers.fakes import FakeBreakers, FakeProvider

OWN, OTHER, ITS_SECOND = "api-0/m/default", "api-1/m/default", "api-1/m/second"
CALLS = 40


def ladder() -> tuple[Rung, ...]:
    routes = [Route(FakeProvider(["x"]), f"api-{n}", "m", limit, "", 60.0) for n, limit in enumerate((OWN, OTHER))]
    return (Rung(0, routes[0]), Rung(1, routes[1]), Rung(2, None, "later"))


@dataclass
class House:
    """Steps of one process, and when each call left."""

    breakers: FakeBreakers = field(default_factory=FakeBreakers)
    left: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = FirstSteps(self.breakers)
        self.steps.know({"research": ladder()})

    def go(self, count: int = CALLS, limits: Sequence[str] = (OTHER,)) -> list[asyncio.Task[None]]:
        return [asyncio.ensure_future(self._call(limits)) for _ in range(count)]

    async def _call(self, limits: Sequence[str]) -> None:
        began = asyncio.get_running_loop().time()
        await self.steps.turn(limits)
        self.left.append(asyncio.get_running_loop().time() - began)


def run(body: Callable[[House], Awaitable[None]]) -> None:
    async def work() -> None:
        await body(House())

    asyncio.run(work())


@pytest.mark.parametrize(
    ("pool", "limits", "answers", "are_due"),
    [("research", [OTHER], False, True), ("research", [OTHER], True, False), ("research", [OWN], False, False),
     ("writing", [OTHER], False, False)],
)  # fmt: skip
def test_only_calls_to_a_fallback_rung_that_has_answered_nothing_lately_take_steps(
    pool: str, limits: list[str], answers: bool, are_due: bool
) -> None:
    async def body(house: House) -> None:
        house.breakers.answers = answers
        assert house.steps.are_due(pool, limits) is are_due

    run(body)


def test_the_first_goes_at_once_and_all_are_gone_after_a_second_and_a_half() -> None:
    async def body(house: House) -> None:
        calls = house.go()
        await asyncio.sleep(DOUBLING_S / 2)
        assert len(house.left) == 1
        await asyncio.gather(*calls)
        assert sum(after < 2 * DOUBLING_S - 0.05 for after in house.left) <= 4
        assert max(house.left) < 6 * DOUBLING_S

    run(body)


def test_with_the_first_answer_all_go_at_once() -> None:
    async def body(house: House) -> None:
        calls = house.go()
        await asyncio.sleep(DOUBLING_S / 2)
        house.steps.answered(OWN)
        assert sum(call.done() for call in calls) == 1
        house.steps.answered(OTHER)
        await asyncio.wait_for(asyncio.gather(*calls), DOUBLING_S)

    run(body)


def test_the_answer_of_any_key_of_a_rung_lets_all_go_that_wait_for_the_rung() -> None:
    async def body(house: House) -> None:
        calls = [*house.go(CALLS // 2, [OTHER, ITS_SECOND]), *house.go(CALLS // 2, [ITS_SECOND])]
        await asyncio.sleep(DOUBLING_S / 2)
        assert sum(call.done() for call in calls) == 1, "the keys of a rung are not tried side by side"
        house.steps.answered(ITS_SECOND)
        await asyncio.wait_for(asyncio.gather(*calls), DOUBLING_S)
        house.steps.answered(OTHER)

    run(body)


def test_a_call_that_is_cancelled_while_it_waits_keeps_nobody_else() -> None:
    async def body(house: House) -> None:
        first, *others, last = house.go()
        await first
        for call in others:
            call.cancel()
        await asyncio.wait_for(last, 6 * DOUBLING_S)

    run(body)


def test_after_a_pause_the_next_go_one_by_one_again() -> None:
    async def body(house: House) -> None:
        await asyncio.gather(*house.go())
        calls = house.go(2)
        await asyncio.sleep(0.1)
        assert every(call.done() for call in calls), "the road is full by now"
        house.steps._crowds[OTHER].asked_at -= ANEW_S + 1
        calls = house.go()
        await asyncio.sleep(0.01)
        assert sum(call.done() for call in calls) == 1
        await asyncio.gather(*calls)

    run(body)
