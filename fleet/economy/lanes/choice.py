"""Which lane a call takes: the one of least expected cost that has its answer in time. Pure.

Never a fixed order. A warm prefix on the usual lane can be cheaper than a batch that starts cold, and some models give
cached tokens no discount in a batch.

Weakness: tokens of one call are taken as they are on average, so one that crosses a step of its price list is priced
on one side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from fleet.usage import Usage

#: The ways to a model, the slowest first.
Lane = Literal["batch", "background-8h", "background-2h", "flex", "standard", "priority"]
LANES: tuple[Lane, ...] = get_args(Lane)
#: How a lane is priced: by its tier; None: the usual one.
TIER_OF: Mapping[Lane, str | None] = {lane: None if lane == "standard" else lane for lane in LANES}
#: Background responses: the window that each asks for, and its seconds. OpenAI aims at them, and promises nothing.
WINDOW_OF: Mapping[Lane, tuple[str, float]] = {"background-8h": ("8h", 28_800.0), "background-2h": ("2h", 7200.0)}
#: Lanes whose tasks leave their slots, and are answered later.
LATER: frozenset[Lane] = frozenset({"batch", *WINDOW_OF})
#: Seconds that both vendors promise a batch: all that is known of one before any has ended.
PROMISED_S = 86_400.0
#: Seconds within which 19 of 20 answers are there, before any has come: flex waits for capacity, others answer.
UNLEARNT_S: Mapping[Lane, float] = {
    "batch": PROMISED_S, "flex": 900.0, "standard": 60.0, "priority": 60.0,
    **{lane: seconds for lane, (_, seconds) in WINDOW_OF.items()},
}  # fmt: skip
#: Lanes that tasks take to an API of each kind; a price decides whether a model has them.
LANES_OF: Mapping[str, frozenset[Lane]] = {
    "openai": frozenset(LANES),
    "simulator": frozenset(LANES),
    "anthropic": frozenset({"batch", "standard"}),
}
#: Of any other.
USUAL: frozenset[Lane] = frozenset({"standard"})

#: `provider/model`, kind and lane.
Way = tuple[str, str, Lane]
#: Gives what usage costs in a tier, in 10^-12 dollars; None: it has no price there.
PriceOf = Callable[[Usage, str | None], int | None]


@dataclass(frozen=True, slots=True)
class Shape:
    """A call as it will be asked, in tokens.

    Args:
        input_tokens: All input.
        output_tokens: All output.
        prefix_tokens: Of the input: what other calls begin with as well, so that a cache may hold it.
    """

    input_tokens: int
    output_tokens: int
    prefix_tokens: int


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """What the fleet has learnt of one lane.

    Args:
        within_s: Seconds within which 19 of 20 answers were there; None: not known.
        hit: Share of the prefix that was read from the provider's cache.
        written: Share of the prefix that was written to it, at a surcharge where the vendor takes one.
        rescued: Share of its tasks that were sent on the usual lane in the end, because their time ran out.
        twice: Share of its tasks that were paid here as well as there.
        output_tokens: Of an answer, on average; 0: not known.
        calls: That this was learnt from; 0: nothing was.
    """

    within_s: float | None = None
    hit: float = 0.0
    written: float = 0.0
    rescued: float = 0.0
    twice: float = 0.0
    output_tokens: int = 0
    calls: int = 0

    def at_once(self, within_s: float | None) -> LaneFacts:
        """Return it for a lane that answers at once, with what is known of its time."""
        return self if within_s is None else replace(self, within_s=within_s)


#: Nothing: its prefix is cold, nothing is rescued.
UNLEARNT = LaneFacts()


@dataclass(frozen=True, slots=True)
class Offer:
    """What a lane offers for one call.

    Args:
        lane: Which.
        usd_picos: What the call is expected to cost, in 10^-12 dollars; None: it has no price there.
        within_s: Seconds within which the answer is expected.
        why_not: Why the call does not take it, whatever it costs; empty: it may.
    """

    lane: Lane
    usd_picos: int | None
    within_s: float
    why_not: str = ""

    @property
    def is_possible(self) -> bool:
        """True when the call may take it."""
        return not self.why_not


def offers(
    shape: Shape,
    by_s: float,
    price: PriceOf,
    learnt: Mapping[Lane, LaneFacts],
    *,
    has: Collection[Lane] = frozenset(LANES),
) -> tuple[Offer, ...]:
    """Return what each lane offers, the slowest first.

    Args:
        shape: The call.
        by_s: Seconds until its answer is needed.
        price: What usage costs.
        learnt: What is known of lanes; one that is missing is taken as cold.
        has: Lanes that the call's API has.
    """
    usual = _cost(shape, "standard", price, learnt.get("standard", UNLEARNT))
    return tuple(_offer(lane, shape, by_s, price, learnt.get(lane, UNLEARNT), usual, lane in has) for lane in LANES)


def choose(offered: Collection[Offer]) -> Offer:
    """Return the lane that a call takes: the cheapest possible one, of equals the quickest; else the usual one."""
    possible = [offer for offer in offered if offer.is_possible]
    if not possible:
        return next(offer for offer in offered if offer.lane == "standard")
    return min(possible, key=lambda offer: (offer.usd_picos or 0, offer.within_s, offer.lane != "standard"))


def _offer(
    lane: Lane, shape: Shape, by_s: float, price: PriceOf, known: LaneFacts, usual: int | None, is_there: bool
) -> Offer:
    within_s = UNLEARNT_S[lane] if known.within_s is None else known.within_s
    own = usual if lane == "standard" else _cost(shape, lane, price, known)
    if own is not None and usual is not None and lane != "standard":
        own = round(own * (1 - known.rescued + known.twice) + usual * known.rescued)
    why_not = ""
    if not is_there:
        why_not = "Fleet does not take it there"
    elif own is None:
        why_not = "no price"
    elif usual is None and lane != "standard":
        why_not = "the usual lane has no price to compare with"
    elif within_s > by_s:
        why_not = "too slow"
    return Offer(lane, own, within_s, why_not)


def _cost(shape: Shape, lane: Lane, price: PriceOf, known: LaneFacts) -> int | None:
    """Return what a call costs there, with as much of its prefix read and written as is usual."""
    read = round(shape.prefix_tokens * known.hit)
    usage = Usage(
        input_tokens=shape.input_tokens,
        output_tokens=shape.output_tokens,
        cached_tokens=read,
        cache_write_tokens=min(shape.prefix_tokens - read, round(shape.prefix_tokens * known.written)),
    )
    return price(usage, TIER_OF[lane])
