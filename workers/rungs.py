"""A pool's fallback ladder: which of its rungs takes the next call. Pure; what is known of each: `gateway.py`.

The first rung, number 0, is the pool's own provider and model. Each further one says for which reasons it is taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.config import LimitSettings, PoolSettings, RungSettings, When
from fleet.waits import Cause, Wait
from fleet.workers.ports import Provider

#: Which causes of a wait each condition of a rung means; too little time is none of them.
CAUSES_OF: Mapping[When, frozenset[Cause]] = {
    "outage": frozenset({"outage"}),
    "key": frozenset({"key", "credit", "configuration"}),
    "budget": frozenset({"requests", "money", "budget"}),
    "limit": frozenset({"hold", "limit"}),
    "deadline": frozenset(),
}
#: Of a process that can make all of its calls.
NONE_SHUT: Mapping[str, Wait] = {}


@dataclass(eq=False, slots=True)
class Route:
    """Where the calls of one pool go. Its key is read at each call: whoever renews keys puts another one there.

    Args:
        provider: The connected API.
        provider_name: Its name under [providers].
        model: Model, as the provider spells it.
        limit: `provider/model/key`, the limit that the calls belong to; the key by its label, never its value.
        api_key: Secret of the API; empty when it needs none.
        timeout_s: Seconds until one HTTP call is given up.
        simulated: True when the simulator answers.
        renew: Reads the key's source at once, for a key that was refused: True when another one is to be used now.
        keys: Where the provider has several keys, a route for each; its own limit and key are then those of the first.
    """

    provider: Provider
    provider_name: str
    model: str
    limit: str
    api_key: str = field(repr=False)
    timeout_s: float
    simulated: bool = False
    renew: Callable[[str], Awaitable[bool]] | None = None
    keys: tuple[Route, ...] = ()

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits of all its keys."""
        return tuple(key.limit for key in self.keys) or (self.limit,)

    def take(self, api_key: str) -> None:
        """Use this key from the next call on."""
        self.api_key = api_key

    @property
    def priced_as(self) -> str:
        return f"{self.provider_name}/{self.model}"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of a pool's ladder.

    Args:
        number: Its place; 0 is the pool's own, below that are the other models of its personas, and its candidates.
        route: Where its calls go; None: nowhere, `answer` is the answer.
        answer: A text instead of an answer.
        when: The conditions that it names.
        degrades: True when a used-up day of its own limit sends tasks on, whatever the rungs below name.
        shut: Why this process can make no call to it, as long as it lives; None: it can.
    """

    number: int
    route: Route | None
    answer: str = field(default="", repr=False)
    when: frozenset[When] = frozenset()
    degrades: bool = False
    shut: Wait | None = None

    @property
    def is_own(self) -> bool:
        """True unless it is a fallback."""
        return self.number <= 0

    @property
    def is_candidate(self) -> bool:
        """True for a model that a rollout may try: it stands in for none."""
        return self.number < 0 and not self.when

    @property
    def api(self) -> str:
        """Its `provider/model`, or that it is a text."""
        return self.route.priced_as if self.route is not None else "text"

    def takes(self, above: Rung, wait: Wait | None) -> bool:
        """True when this rung is taken for the reason why one above it is not.

        Args:
            above: The other rung.
            wait: Why it waits; None: it needs more time than is left.
        """
        if self.is_candidate:
            return False
        if wait is None:
            return "deadline" in self.when
        if (above.degrades or wait.degrades) and wait.cause in CAUSES_OF["budget"]:
            return True
        return any(wait.cause in CAUSES_OF[condition] for condition in self.when)


def ladder_of(
    own: Route,
    below: Sequence[tuple[RungSettings, Route | None]],
    limits: Mapping[str, LimitSettings],
    shut: Mapping[str, Wait] = NONE_SHUT,
    others: Sequence[Route] = (),
    candidates: Sequence[Route] = (),
) -> tuple[Rung, ...]:
    """Return a pool's ladder as it is configured.

    Args:
        own: The pool's own route.
        below: The rungs below it, each with its route; None for one that is a text.
        limits: Rates by `provider/model/key`.
        shut: Why this process can make no calls under a limit, by the same names.
        others: Routes to the other models of its personas: each stands in for the others, whatever they wait for.
        candidates: Routes to the models that a rollout may try: others stand in for them, they for none.
    """

    def degrades(route: Route | None) -> bool:
        return route is not None and any(limits[limit].when_full == "degrade" for limit in route.limits)

    def why_shut(route: Route | None) -> Wait | None:
        return None if route is None else shut.get(route.limit)

    rungs = (
        Rung(number, route, settings.answer or "", frozenset(settings.when), degrades(route), why_shut(route))
        for number, (settings, route) in enumerate(below, start=1)
    )
    every = frozenset(CAUSES_OF) - {"deadline"}
    models = (
        Rung(-n, route, when=every, degrades=degrades(route), shut=why_shut(route))
        for n, route in enumerate(others, start=1)
    )
    tried = (
        Rung(-n, route, degrades=degrades(route), shut=why_shut(route))
        for n, route in enumerate(candidates, start=1 + len(others))
    )
    stands_in = every if others or candidates else frozenset()
    first = Rung(0, own, when=stands_in, degrades=degrades(own), shut=why_shut(own))
    return (first, *models, *tried, *rungs)


def ladder_in_order(
    pool: PoolSettings,
    routes: Sequence[Route],
    limits: Mapping[str, LimitSettings],
    shut: Mapping[str, Wait] = NONE_SHUT,
) -> tuple[Rung, ...]:
    """Return a pool's ladder.

    Args:
        pool: Its settings.
        routes: Where its calls go, in the order of `Settings.calls_of`, which has no place for texts.
        limits: Rates by `provider/model/key`.
        shut: As in `ladder_of`.
    """
    own, *others = routes
    below = [(rung, None if rung.answer is not None else others.pop(0)) for rung in pool.fallback]
    most = len(others) - len(pool.candidates)
    return ladder_of(own, below, limits, shut, others[:most], others[most:])


def beginning_with(ladder: tuple[Rung, ...], model: str | None) -> tuple[Rung, ...]:
    """Return a ladder whose first rung is that of a persona's model; as it is when the pool has no such model."""
    mine = [rung for rung in ladder if rung.is_own and rung.route is not None and rung.route.model == model]
    return (*mine, *(rung for rung in ladder if rung not in mine))


def served_by_none(ladder: Sequence[Rung]) -> Wait | None:
    """Return why this process can serve no task of a pool, as long as it lives; None: one rung or another can."""
    found = choose(ladder, {rung.number: rung.shut for rung in ladder if rung.shut is not None})
    return found if isinstance(found, Wait) else None


def choose(ladder: Sequence[Rung], waits: Mapping[int, Wait], late: frozenset[int] = frozenset()) -> Rung | Wait:
    """Return the rung that takes the next call; when none does, why and until when the task waits.

    A rung counts only when it is taken for the reason of each closed rung above it; others are passed over. One that
    only needs more time than is left is asked all the same when no other is to be had.

    Args:
        ladder: All rungs, 0 first.
        waits: Why rungs wait, by number.
        late: Numbers of those that need more time than is left.

    Returns:
        A rung; or the cause of the first one, with the time and the cadence of the one that opens first.
    """
    closed: list[Rung] = []
    slow: Rung | None = None
    for rung in ladder:
        if any(not rung.takes(above, waits.get(above.number)) for above in closed):
            continue
        if rung.number not in waits:
            if rung.number not in late:
                return rung
            slow = slow or rung
        closed.append(rung)
    return slow or together([waits[rung.number] for rung in closed])


def together(waits: Sequence[Wait]) -> Wait:
    """Return what is told of rungs, or keys, that all wait: the first one's reason, until the soonest opens."""
    if len(waits) == 1:
        return waits[0]
    soonest = min(waits, key=lambda wait: float("inf") if wait.opens_at is None else wait.opens_at)
    return replace(
        waits[0],
        opens_at=soonest.opens_at,
        probe_every_s=soonest.probe_every_s,
        is_everyones=all(wait.is_everyones for wait in waits),
        lowest=max(wait.lowest for wait in waits),
    )
