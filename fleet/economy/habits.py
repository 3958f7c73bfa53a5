"""What is known of calls before they are made: how long answers of a kind are, how a model counts, what a limit gives.

Plain values, and how a few answers become one. Who reads them from Redis: `engine/operations/expecting/`; what is
made of them: `estimate.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from fleet.economy.lanes.choice import LaneFacts, Way
from fleet.economy.lanes.prefixes import Begun

#: Kind of tasks that name none: they may have nothing in common.
DEFAULT_KIND = "default"
#: Standard deviations from the mean to the ends of a range: 19 of 20 figures lie between them.
Z = 2.0
#: Answers of a kind below which their length is not taken for known; what five are worth to a mean that forgets.
LEAST_ANSWERS, LEAST_WORTH = 5, 1.5
#: Least share whose logarithm says anything. Variance of a logarithm beyond which the upper end would fall again.
LEAST_SHARE, WIDEST = 1e-6, 4.0
#: Share by which answers of another file, and further answers of the same one, may be longer or shorter all the same.
DRIFT, OWN_DRIFT = 0.10, 0.03


class Range(NamedTuple):
    """A figure: what is expected, and between what it lies in 19 of 20 cases."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, number: float) -> Self:
        """Return a figure that is known."""
        return cls(number, number, number)

    def plus(self, other: Range) -> Range:
        """Return the sum of both, as if both were at their ends together: rather too wide than too narrow."""
        return Range(*(one + more for one, more in zip(self, other, strict=True)))

    def times(self, other: Range) -> Range:
        """Return the product of both, likewise."""
        return Range(*(one * factor for one, factor in zip(self, other, strict=True)))


#: True tokens per estimated one: of a model of which nothing is known (English prose has 0.93, Python source 0.65,
#: German on an older vocabulary 1.2: `workers/context.py`), and of the simulator, which counts as we do.
UNKNOWN_RATIO, SIMULATED_RATIO = Range(0.65, 0.93, 1.2), Range(0.98, 1.0, 1.02)
#: Paid calls that a task takes: of plain tasks, of those with a JSON schema (one repair), of a function of the user's.
PLAIN_CALLS, JSON_CALLS, FUNCTION_CALLS = Range(1.0, 1.01, 1.05), Range(1.0, 1.03, 1.25), Range(1.0, 2.0, 6.0)
#: Seconds to an answer where none has come yet.
UNKNOWN_LATENCY_S = Range(0.5, 4.0, 30.0)


@dataclass(frozen=True, slots=True)
class Habit:
    """How much of the longest answer that they ask for calls of one kind get.

    Args:
        share: On average.
        deviation: Standard deviation from call to call.
        answers: Answers that this is worth.
        ratio: True input tokens per estimated one, all calls of a task together; None: not known from here.
        ratio_deviation: Standard deviation of that from task to task.
        price: What they cost as a share of their tokens' full price: caches make it less.
        is_own: It comes from answers to the very file.
    """

    share: float
    deviation: float
    answers: float
    ratio: float | None = None
    ratio_deviation: float = 0.0
    price: float = 1.0
    is_own: bool = False

    def is_good_for(self, kind: str) -> bool:
        """True when it tells something of tasks of this kind: those without a kind may be anything."""
        return self.answers >= LEAST_WORTH and (self.is_own or kind != DEFAULT_KIND)

    def input_ratio(self, tasks: int) -> Range | None:
        """Return the true input tokens per estimated one of so many tasks together; None: not known from here."""
        if self.ratio is None:
            return None
        doubt = 1 + 2 / max(1.0, self.answers)
        of_mean = self.ratio_deviation / math.sqrt(max(1.0, self.answers))
        error = math.hypot(OWN_DRIFT * self.ratio, of_mean * doubt, self.ratio_deviation / math.sqrt(max(1, tasks)))
        return Range(max(0.0, self.ratio - Z * error), self.ratio, self.ratio + Z * error)

    def range(self, spread: float) -> Range:
        """Return the share of many calls together.

        Args:
            spread: Root of the sum of the squares of their longest answers, as a share of the sum: 1 of one call.
        """
        if self.share < LEAST_SHARE:
            return Range(0.0, self.share, max(self.share, self.deviation * Z))
        drift = (OWN_DRIFT if self.is_own else DRIFT) * self.share
        error = math.hypot(self.deviation / math.sqrt(max(1.0, self.answers)), drift, self.deviation * spread)
        error *= 1 + 2 / max(1.0, self.answers)
        # Lengths have a long tail to the right: log-normal, with this mean and this deviation.
        squared = min(WIDEST, math.log1p((error / self.share) ** 2))
        middle, factor = self.share * math.exp(-squared / 2), math.exp(Z * math.sqrt(squared))
        return Range(min(self.share, middle / factor), self.share, min(1.0, max(self.share, middle * factor)))


def habit_of(shares: Iterable[float], ratios: Iterable[float], price: float = 1.0) -> Habit:
    """Return what answers to the very file tell of its other lines.

    Args:
        shares: Of the longest answer, of each.
        ratios: True input tokens per estimated one, of each.
        price: What they cost of their tokens' full price.
    """
    known = list(shares)
    share, deviation = _mean_and_deviation(known)
    ratio, ratio_deviation = _mean_and_deviation(list(ratios))
    return Habit(share, deviation, len(known), ratio, ratio_deviation, price, is_own=True)


def _mean_and_deviation(numbers: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(numbers) / len(numbers)
    return mean, math.sqrt(math.fsum((one - mean) ** 2 for one in numbers) / max(1, len(numbers) - 1))


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a limit gives. Rates are a minute; None: not limited.

    Args:
        rpm: Requests.
        tpm: Tokens, input and output together.
        input_tpm: Input tokens.
        output_tpm: Output tokens.
        in_flight: Calls at the same time.
        burst_s: Seconds' worth of calls that go at once.
        wait_s: Seconds until the next call may go.
    """

    rpm: float | None = None
    tpm: float | None = None
    input_tpm: float | None = None
    output_tpm: float | None = None
    in_flight: float | None = None
    burst_s: float = 0.0
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Funds:
    """What may be spent: of a limit's day, or of a budget.

    Args:
        about: What a person calls it.
        left: What is left of it now, in `unit`.
        each: What there is again from one opening to the next; 0: there is none.
        opens_in_s: Seconds until then; None: never by itself.
        period_s: Seconds from one opening to the next.
        api: The `provider/model` whose calls it pays; None: see `pools`.
        pools: Pools whose tasks it pays; empty: all.
        unit: Dollars in 10^-12, or requests.
    """

    about: str
    left: float
    each: float
    opens_in_s: float | None
    period_s: float
    api: str | None = None
    pools: frozenset[str] = frozenset()
    unit: str = "usd"
    tenant: str = ""

    def pays(self, pool: str, api: str, tenant: str = "") -> bool:
        """True when a call of this pool to this model, for this tenant, is paid from it."""
        if self.tenant:
            return tenant == self.tenant
        return api == self.api if self.api is not None else not self.pools or pool in self.pools


@dataclass(frozen=True, slots=True)
class Experience:
    """All that is known of a fleet beforehand. What is left out is not known.

    Args:
        habits: By `provider/model` and kind.
        ratios: True input tokens per estimated one, by `provider/model`.
        calls: Paid calls a task, by pool.
        latencies_s: Seconds to an answer, by pool and kind; kind "" stands for all others.
        rooms: By `provider/model`.
        funds: What may be spent.
        slots: Tasks at work at the same time.
        processes: Worker processes.
        backlog: Waiting tasks that go before, by pool.
        opinions: Bots that a task is given to at most, while answers seem bad.
        lanes: Of lanes, by `provider/model`, kind and lane.
        prefixes: Of beginnings of prompts, by `provider/model`, lane and name.
        batches: Of the times of batches, by `provider/model`.
        is_learnt: False: no Redis was asked.
    """

    habits: Mapping[tuple[str, str], Habit] = field(default_factory=dict)
    ratios: Mapping[str, Range] = field(default_factory=dict)
    calls: Mapping[str, Range] = field(default_factory=dict)
    latencies_s: Mapping[tuple[str, str], Range] = field(default_factory=dict)
    rooms: Mapping[str, Capacity] = field(default_factory=dict)
    funds: tuple[Funds, ...] = ()
    slots: int = 1
    processes: int = 1
    backlog: Mapping[str, int] = field(default_factory=dict)
    opinions: int = 1
    lanes: Mapping[Way, LaneFacts] = field(default_factory=dict)
    prefixes: Mapping[Begun, LaneFacts] = field(default_factory=dict)
    batches: Mapping[str, LaneFacts] = field(default_factory=dict)
    is_learnt: bool = False

    def latency_s(self, pool: str, kind: str) -> Range:
        """Return the seconds to an answer."""
        latencies = self.latencies_s
        return latencies.get((pool, kind)) or latencies.get((pool, "")) or UNKNOWN_LATENCY_S
