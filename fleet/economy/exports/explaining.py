"""Which differences calls of unknown cost explain, and what each of them is then taken to have cost. Pure.

Weakness: an export tells sums only. Which of several unknown calls was counted, and how much, is never known; their
difference is spread over them by what was reserved for each, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from fleet.economy.exports.export import CLASSES
from fleet.economy.exports.matching import Cell, CellPlace, Finding, Resolution
from fleet.entries import Entry
from fleet.usage import Usage

#: Cost of usage in 10^-12 dollars by `provider/model` and tier (None: the usual one); None: no price.
Price = Callable[[str, Usage, str | None], int | None]


def explained(
    cells: Sequence[Cell], classes: Sequence[str], price: Price, is_early: Callable[[Cell], bool] = lambda cell: False
) -> list[Finding]:
    """Return what came of each cell.

    A call near midnight may be of one day here and of the next one there. So where the days of a model don't agree by
    themselves, all of them together may.

    Args:
        cells: In order of their places.
        classes: Of usage, that the export tells.
        price: Cost of a call, for an export without amounts.
        is_early: True of a cell that may not be counted in full there yet: nothing is concluded from what it lacks.
    """
    found: dict[CellPlace, Finding] = {}
    for _, group in groupby(sorted(cells, key=_series), key=_series):
        days = list(group)
        findings = _of_days(days, classes, price)
        if any(is_early(one.cell) and one.verdict in ("explained", "differs") for one in findings):
            due = _of_days([cell for cell in days if not is_early(cell)], classes, price)
            findings = [*due, *(Finding(cell, "too early", _EARLY) for cell in days if is_early(cell))]
        found |= {finding.cell.place: finding for finding in findings}
    return [found[cell.place] for cell in cells]


_EARLY = "it had not ended 6 hours before the file was written: more may be counted"


def _of_days(days: Sequence[Cell], classes: Sequence[str], price: Price) -> list[Finding]:
    findings = [explain(cell, classes, price) for cell in days]
    if len(days) > 1 and any(finding.verdict == "differs" for finding in findings):
        return _over_days(days, classes, price) or findings
    return findings


def _series(cell: Cell) -> tuple[str, str]:
    return cell.place.account, cell.place.model


def _over_days(days: Sequence[Cell], classes: Sequence[str], price: Price) -> list[Finding] | None:
    """Return the findings of days that agree together; None when they do not."""
    together = Cell(days[0].place._replace(day=""))
    for cell in days:
        together.add(cell)
    finding = explain(together, classes, price)
    if finding.verdict == "differs":
        return None
    resolved = {id(one.before): one for one in finding.resolutions}
    return [
        Finding(
            cell,
            "explained" if resolved else finding.verdict,
            "agrees over all days: calls near midnight are of another day there",
            tuple(resolved[id(entry)] for entry in cell.unknown if id(entry) in resolved),
        )
        for cell in days
    ]


def explain(cell: Cell, classes: Sequence[str], price: Price) -> Finding:
    """Return what came of one cell.

    The difference is explained where it is not negative and at most what was reserved for the unknown calls.

    Args:
        cell: Ours and theirs.
        classes: Of usage, that the export tells.
        price: Cost of a call, for an export without amounts.
    """
    more = cell.differences(classes)
    short = _impossible(more)
    amount = cell.difference_usd_picos
    if amount is None:
        return _by_usage(cell, more, short, price)
    if cell.unknown and max(abs(amount), cell.unknown_usd_picos, 1) <= cell.rounding_picos:
        return Finding(cell, "rounded", "the file rounds too much to tell what the unknown calls have cost")
    within = min(max(amount, 0), cell.unknown_usd_picos)
    if abs(amount - within) > cell.rounding_picos:
        return Finding(cell, "differs", _too_much(cell, amount))
    if short or (not cell.unknown and any(more.values())):
        names = short or [name for name, count in more.items() if count]
        return Finding(cell, "differs", f"the amounts fit, but not {', '.join(names)}")
    if not cell.unknown:
        return Finding(cell, "agrees", "but for the rounding of the file" if amount else "")
    return _resolved(cell, within, more)


def _by_usage(cell: Cell, more: Mapping[str, int], short: Sequence[str], price: Price) -> Finding:
    """Return what came of a cell without amounts: tokens are priced, and must fit what was reserved."""
    if not any(more.values()) and not cell.unknown:
        return Finding(cell, "agrees")
    if short or not cell.unknown:
        what = ", ".join(f"{name} {more[name]:+,}" for name in more if more[name])
        return Finding(cell, "differs", f"{what}; no unknown call explains it")
    if any(entry.usd_picos is None for entry in cell.unknown):
        return Finding(cell, "differs", "unknown calls without a price: nobody knows the most that they may have used")
    shares = _shares(more, cell.unknown)
    costs = [
        price(_priced_as(entry), share, entry.tier or None) for entry, share in zip(cell.unknown, shares, strict=True)
    ]
    if any(cost is None for cost in costs):
        return Finding(cell, "differs", "the model has no price: nobody knows what these tokens cost")
    if sum(cost or 0 for cost in costs) > cell.unknown_usd_picos:
        return Finding(cell, "differs", "more tokens than what was reserved for the unknown calls pays for")
    pairs = zip(cell.unknown, shares, costs, strict=True)
    return Finding(
        cell, "explained", _told(cell), tuple(_settled(entry, cost or 0, share) for entry, share, cost in pairs)
    )


def _resolved(cell: Cell, amount: int, more: Mapping[str, int]) -> Finding:
    if any(entry.usd_picos is None for entry in cell.unknown):
        return Finding(cell, "differs", "unknown calls without a price: nobody knows the most that they may have cost")
    amounts = spread(amount, [entry.usd_picos or 0 for entry in cell.unknown])
    pairs = zip(cell.unknown, amounts, _shares(more, cell.unknown), strict=True)
    return Finding(cell, "explained", _told(cell), tuple(_settled(entry, cost, share) for entry, cost, share in pairs))


def _told(cell: Cell) -> str:
    count = len(cell.unknown)
    return "by 1 unknown call" if count == 1 else f"by {count:,} unknown calls"


def _too_much(cell: Cell, amount: int) -> str:
    if amount < 0:
        return "less was billed than calls that answered have cost: other prices, a discount, or not all of the period"
    if not cell.unknown:
        return "more was billed than all calls here, and none is unknown: another user of the key, or other prices"
    return "more was billed than all calls here and what was reserved for the unknown ones"


def _settled(entry: Entry, usd_picos: int, usage: Usage) -> Resolution:
    return Resolution(entry, entry._replace(state="settled", usd_picos=usd_picos, usage=usage))


def _impossible(more: Mapping[str, int]) -> list[str]:
    """Return the classes whose difference no calls can have made: negative, or more than what it is part of."""
    beyond = [name for name, count in more.items() if count > max(0, more.get(_WHOLE.get(name, ""), count))]
    return [name for name, count in more.items() if count < 0] + beyond


def _shares(more: Mapping[str, int], unknown: Sequence[Entry]) -> list[Usage]:
    """Return what each unknown call used of what is more there, by what was reserved; no part above its whole."""
    reserved = [entry.usd_picos or 0 for entry in unknown]
    classes: dict[str, list[int]] = {}
    for name in CLASSES:
        weights = classes.get(_WHOLE.get(name, ""), reserved)
        if name == "cache_write_tokens" and "cached_tokens" in classes:  # both are parts of the input
            weights = [whole - part for whole, part in zip(weights, classes["cached_tokens"], strict=True)]
        classes[name] = spread(max(0, more.get(name, 0)), weights)
    return [Usage(**{name: counts[k] for name, counts in classes.items() if counts[k]}) for k in range(len(unknown))]


#: Class -> what it is part of.
_WHOLE = {
    "cached_tokens": "input_tokens", "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens", "reasoning_tokens": "output_tokens",
}  # fmt: skip


def spread(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole shares of a total, in proportion to weights, whose sum is the total: by largest remainder.

    No share exceeds its weight where the total is at most their sum, so that what is left after some shares were
    written can be spread over the others again.

    Args:
        total: 0 or more.
        weights: 0 or more each; all alike where all are 0.
    """
    whole = sum(weights)
    if not whole:
        weights, whole = [1] * len(weights), len(weights)
    shares = [total * weight // whole for weight in weights]
    left = total - sum(shares)
    by_remainder = sorted(range(len(weights)), key=lambda k: (-(total * weights[k] % whole), k))
    for k in by_remainder[:left]:
        shares[k] += 1
    return shares


def _priced_as(entry: Entry) -> str:
    return entry.limit.rpartition("/")[0]


def resolutions_of(findings: Iterable[Finding]) -> list[Resolution]:
    """Return all that findings bring to 0."""
    return [one for finding in findings for one in finding.resolutions]
