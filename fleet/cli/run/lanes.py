"""Which lanes the tasks of a file would take, and what each lane offers them: for `fleet run --dry-run --by`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fleet.config import Settings
from fleet.economy.estimate import Estimate, Part, Weighed
from fleet.economy.habits import Experience, Funds
from fleet.economy.lanes.access import lanes_of_api
from fleet.economy.lanes.choice import LANES, LATER, UNLEARNT, Lane, LaneFacts, Offer, Shape, choose, offers
from fleet.economy.lanes.prefixes import with_prefix
from fleet.economy.lanes.times import timed_as, with_times
from fleet.economy.prices import Price
from fleet.quoting import counted

#: Digits by which a beginning is told to a person.
SHOWN_DIGITS = 8


@dataclass(frozen=True, slots=True)
class LaneRow:
    """Tasks of one pool, model and kind that have the same time, and what lanes offer one of them on average.

    Those of a beginning of which it is known what caches hold stand apart: `prefix` is its name.
    """

    pool: str
    api: str
    kind: str
    by_s: float
    tasks: int
    offered: tuple[Offer, ...]
    prefix: str = ""

    @property
    def taken(self) -> Offer:
        """The lane that they would take."""
        return choose(self.offered)

    def picos(self, offer: Offer) -> int:
        """Return what all of them would cost in a lane, in 10^-12 dollars."""
        return (offer.usd_picos or 0) * self.tasks


def lane_rows(
    asked: Iterable[Weighed], expected: Estimate, settings: Settings, price: Price, known: Experience
) -> list[LaneRow]:
    """Return the rows of tasks that say by when they need their answers, the most tasks first.

    A task that names a tier itself has chosen its lane.

    Args:
        asked: All tasks.
        expected: What they will take on the usual lane.
        settings: Which kind an API is of.
        price: Cost of one call.
        known: What the fleet has learnt.
    """
    seen = {(api, prefix) for api, _, prefix in known.prefixes}
    groups = Counter(
        (one.pool, one.api, one.kind, one.by_s, one.prefix if (one.api, one.prefix) in seen else "")
        for one in asked if one.by_s is not None and not one.tier
    )  # fmt: skip
    parts = {(part.pool, part.api, part.kind): part for part in expected.parts}
    rows = []
    for (pool, api, kind, by_s, prefix), tasks in groups.items():
        if by_s is not None:
            offered = _offered(parts[pool, api, kind], by_s, prefix, expected, settings, price, known)
            rows.append(LaneRow(pool, api, kind, by_s, tasks, offered, prefix))
    return sorted(rows, key=lambda row: -row.tasks)


def _offered(
    part: Part, by_s: float, prefix: str, expected: Estimate, settings: Settings, price: Price, known: Experience
) -> tuple[Offer, ...]:
    given, made = (round(figure.expected / part.tasks) for figure in (part.input_tokens, part.output_tokens))
    ends = expected.duration.seconds
    at_once_s = known.latency_s(part.pool, part.kind).high if ends is None else ends.high
    learnt: dict[Lane, LaneFacts] = {
        lane: known.lanes.get((part.api, part.kind, lane), UNLEARNT) for lane in LANES
    }  # fmt: skip
    for later in LATER:
        learnt[later] = with_times(learnt[later], known.batches.get(timed_as(part.api, later)))
    for lane in ("standard", "priority"):
        learnt[lane] = learnt[lane].at_once(at_once_s)
    learnt = with_prefix(learnt, known.prefixes, part.api, prefix)
    has = lanes_of_api(settings, part.api) - (LATER if settings.pools[part.pool].own_bot else set())
    found = offers(
        Shape(given, made, prefix_tokens=given), by_s, lambda usage, tier: price(part.api, usage, tier), learnt,
        has=has,
    )  # fmt: skip
    fund = next((one for one in known.funds if one.pays(part.pool, part.api)), None)
    return found if fund is None else tuple(_counted(offer, fund) for offer in found)


def _counted(offer: Offer, fund: Funds) -> Offer:
    """Return an offer to tasks whose calls are counted before they are sent: those go in no batch."""
    if offer.lane != "batch" or not offer.is_possible:
        return offer
    return replace(offer, why_not=f"{fund.about} would hold back the most that it may cost until the batch is over")


def lanes_json(rows: Iterable[LaneRow]) -> list[dict[str, Any]]:
    """Return rows for programs."""
    return [
        {
            "pool": row.pool, "model": row.api, "kind": row.kind, "by_s": row.by_s, "tasks": row.tasks,
            "takes": row.taken.lane, "prefix": row.prefix,
            "offers": [
                {
                    "lane": offer.lane, "within_s": round(offer.within_s, 1), "why_not": offer.why_not,
                    "cost_usd_picos": None if offer.usd_picos is None else row.picos(offer),
                }
                for offer in row.offered
            ],
        }
        for row in rows
    ]  # fmt: skip


def lane_lines(rows: Iterable[LaneRow], usd: Callable[[float], str], length: Callable[[float], str]) -> Iterator[str]:
    """Yield rows for a person; `usd` and `length` write money and time."""
    for row in rows:
        taken = row.taken
        what = f"{counted(row.tasks, 'task')} of {row.pool}, {row.api}, kind {row.kind}"
        what += f", beginning {row.prefix[:SHOWN_DIGITS]}" if row.prefix else ""
        yield f"lanes     {what}, needed within {length(row.by_s)}: {taken.lane}"
        for offer in row.offered:
            cost = "no price" if offer.usd_picos is None else usd(row.picos(offer))
            why = f": {offer.why_not}" if offer.why_not and offer.why_not != cost else ""
            mark = ">" if offer is taken else " "
            yield f"        {mark} {offer.lane:<13} {cost}, within {length(offer.within_s)}{why}"
