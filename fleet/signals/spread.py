"""How evenly work is spread over bots, and who is behind the errors. Pure arithmetic, no Redis."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import Literal

from pydantic import Field

from fleet import errors
from fleet.frozen import Frozen
from fleet.signals.catalogue import NOBODY, ErrorField

#: Busiest bots that a spread names.
TOP_BOTS = 5
#: Failures below which no verdict is given: one or two accuse nobody.
MIN_FAILURES = 3
#: A bot that has more than this share of all failures is the culprit.
BOT_SHARE = 0.5
#: An API that has at least this share of all failures is the culprit.
API_SHARE = 0.8

VerdictName = Literal["none", "one bot", "one API", "spread"]


class BotCount(Frozen):
    """A bot and how many tasks it completed."""

    bot: str
    completions: int


class Spread(Frozen):
    """How completions lie over bots."""

    bots: int
    min: int
    median: float
    max: int
    jain: float | None = Field(description="Jain's fairness index, 1/bots to 1 (all equal); None without completions.")
    idle: int = Field(description="Bots that completed nothing.")
    top: tuple[BotCount, ...] = Field(description="The busiest bots.")


class Verdict(Frozen):
    """Who is behind the failures, as far as counts can tell."""

    verdict: VerdictName
    culprit: str | None = None
    reason: str


def spread_of(counts: Mapping[str, int]) -> Spread:
    """Return the spread of a non-empty mapping bot -> completions."""
    numbers = list(counts.values())
    busiest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP_BOTS]
    return Spread(
        bots=len(numbers),
        min=min(numbers),
        median=statistics.median(numbers),
        max=max(numbers),
        jain=jain_index(numbers),
        idle=numbers.count(0),
        top=tuple(BotCount(bot=bot, completions=n) for bot, n in busiest if n),
    )


def jain_index(numbers: Iterable[int]) -> float | None:
    """Return (sum x)^2 / (n * sum x^2), Jain, Chiu and Hawe 1984: k of n bots with equal work give k/n."""
    values = list(numbers)
    squares: int = sum(map(mul, values, values))
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def gini_index(numbers: Iterable[int]) -> float | None:
    """Return Gini's index: 0 when all bots do the same, (n - 1) / n when one does everything; None without work."""
    values = sorted(numbers)
    total = sum(values)
    if not total:
        return None
    weighted: int = sum(map(mul, range(1, len(values) + 1), values))
    return 2 * weighted / (len(values) * total) - (len(values) + 1) / len(values)


def share_of(order: Sequence[int], share: float) -> float:
    """Return the quantile `share` (0 to 1) of sorted numbers, between neighbours by their distance; 0 without any."""
    if not order:
        return 0.0
    place = share * (len(order) - 1)
    low = int(place)
    high = min(low + 1, len(order) - 1)
    return order[low] + (order[high] - order[low]) * (place - low)


def verdict_of(failures: Mapping[ErrorField, int], *, bots: int, apis: int) -> Verdict:
    """Say whether one bot or one API is behind the failures.

    The rule, in this order: "none" without failures; "spread" for fewer than 3; "one bot" when more than half of all
    failures are its own (a provider's fault is no bot's) and it is not the only bot; "one API" when it has at least 80%
    of them, and either others are in use or at least 80% are a provider's fault by type (429, 5xx, timeout, refused
    key, no such model); else "spread".

    Counts only, no rates: a bot that simply did most of the work is accused too. Sequential tests per bot come with
    the bots' health.

    Args:
        failures: Final failures of tasks by bot, API and type.
        bots: Bots in the fleet.
        apis: `provider/model`s in use.
    """
    total = sum(failures.values())
    if total < MIN_FAILURES:
        few = f"{total} failure{'s' if total > 1 else ''}, fewer than {MIN_FAILURES}: too few to tell"
        return Verdict(verdict="spread", reason=few) if total else Verdict(verdict="none", reason="no task failed")
    bot, of_bot = _largest((field.bot, n) for field, n in failures.items() if not is_providers_fault(field.type))
    if bots > 1 and of_bot > BOT_SHARE * total:
        return Verdict(verdict="one bot", culprit=bot, reason=f"{of_bot} of {total} failures are {bot}'s")
    api, of_api = _largest((field.api, n) for field, n in failures.items())
    of_providers = sum(n for field, n in failures.items() if field.api == api and is_providers_fault(field.type))
    if of_api >= API_SHARE * total and (apis > 1 or of_providers >= API_SHARE * total):
        return Verdict(verdict="one API", culprit=api, reason=f"{of_api} of {total} failures are on {api}")
    widest = f"at most {of_bot} of {total} failures on one bot, {of_api} on one API"
    return Verdict(verdict="spread", reason=widest)


def is_providers_fault(type_name: str) -> bool:
    """True when an error of this type is charged to the provider, to our key there, or to the model that we name."""
    kind = getattr(errors, type_name, None)
    return getattr(kind, "blame", None) in ("provider", "key") or kind is errors.NotServed


def _largest(pairs: Iterable[tuple[str, int]]) -> tuple[str, int]:
    sums: Counter[str] = Counter()
    for name, number in pairs:
        if name != NOBODY:
            sums[name] += number
    return max(sums.items(), key=lambda item: (item[1], item[0]), default=("", 0))
