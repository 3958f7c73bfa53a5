"""Ours beside theirs: the bill's entries and a provider's export, cell by cell, and what explains a difference. Pure.

A cell is a day, a provider with its key, and a model, as far as the export tells them apart. Where it tells less,
ours is summed up likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from fleet.config import KEY_LABEL
from fleet.economy.exports.export import Billed, ProviderExport, day_of, model_name
from fleet.entries import Entry

#: `agrees`: there is nothing to explain. `explained`: by calls of which nobody knew the cost. `rounded`: the export is
#: too coarse to tell. `too early`: not all may be counted there yet. `differs`: nothing that Fleet knows explains it.
Verdict = Literal["agrees", "explained", "rounded", "too early", "differs"]


class CellPlace(NamedTuple):
    """Where a cell stands; "" where the export does not tell apart.

    Args:
        day: In UTC.
        account: `provider/key`; `provider` where no line of it tells a key.
        model: Without what exports change about its name.
    """

    day: str
    account: str
    model: str


@dataclass(frozen=True, slots=True)
class Ours:
    """What settled calls of one day and limit have cost.

    Args:
        day: In UTC.
        limit: `provider/model/key`.
        calls: How many.
        usage: By class.
        usd_picos: In 10^-12 dollars.
    """

    day: str
    limit: str
    calls: int
    usage: Mapping[str, int]
    usd_picos: int


@dataclass(slots=True)
class Cell:
    """Ours and theirs of one place. `their_calls` and `their_usd_picos` are None where they are not told."""

    place: CellPlace
    calls: int = 0
    usd_picos: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    their_calls: int | None = None
    their_usd_picos: int | None = None
    their_usage: dict[str, int] = field(default_factory=dict)
    rounding_picos: int = 0
    unknown: list[Entry] = field(default_factory=list)

    @property
    def unknown_usd_picos(self) -> int:
        """What was reserved for the unknown calls."""
        return sum(entry.usd_picos or 0 for entry in self.unknown)

    @property
    def difference_usd_picos(self) -> int | None:
        """Theirs less ours; None where they do not tell."""
        return None if self.their_usd_picos is None else self.their_usd_picos - self.usd_picos

    def differences(self, classes: Iterable[str]) -> dict[str, int]:
        """Return theirs less ours by class of usage."""
        return {name: self.their_usage.get(name, 0) - self.usage.get(name, 0) for name in classes}

    def add(self, other: Cell) -> None:
        """Add another cell, of another day."""
        self.calls, self.usd_picos = self.calls + other.calls, self.usd_picos + other.usd_picos
        self.their_calls = _sum(self.their_calls, other.their_calls)
        self.their_usd_picos = _sum(self.their_usd_picos, other.their_usd_picos)
        self.rounding_picos += other.rounding_picos
        self.unknown += other.unknown
        _add(self.usage, other.usage)
        _add(self.their_usage, other.their_usage)

    def add_theirs(self, line: Billed) -> None:
        """Add a line of the export."""
        self.their_calls = _sum(self.their_calls, line.calls)
        self.their_usd_picos = _sum(self.their_usd_picos, line.usd_picos)
        self.rounding_picos += line.rounding_picos
        _add(self.their_usage, line.usage)

    def add_ours(self, row: Ours) -> None:
        """Add settled calls."""
        self.calls, self.usd_picos = self.calls + row.calls, self.usd_picos + row.usd_picos
        _add(self.usage, row.usage)


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


class Resolution(NamedTuple):
    """An unknown call, and what it is taken to have cost."""

    before: Entry
    settled: Entry


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one cell.

    Args:
        cell: Ours and theirs before anything is resolved.
        verdict: What that means.
        why: In a few words, for people.
        resolutions: What brings the difference to 0.
    """

    cell: Cell
    verdict: Verdict
    why: str = ""
    resolutions: tuple[Resolution, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the fleet an export is compared with.

    Args:
        providers: Names under [providers].
        accounts: Key as the export calls it -> `provider/key`; empty: its keys are not told apart.
    """

    providers: frozenset[str]
    accounts: Mapping[str, str] = field(default_factory=dict)

    def account(self, line: Billed) -> str:
        """Return `provider/key` of a line; "" when it is not told."""
        told = f"{line.provider}/{line.key or KEY_LABEL}" if line.provider else ""
        return self.accounts.get(line.key, told)

    def covers(self, line: Billed) -> bool:
        """True when a line is one of the fleet's: of a key of its own, where keys are told apart."""
        ours = not line.provider or line.provider in self.providers
        return ours and (not self.accounts or line.key in self.accounts)

    def holds(self, limit: str) -> bool:
        """True when calls of a limit are meant: of a key that has been named, where keys are told apart."""
        ours = provider_of(limit) in self.providers
        return ours and (not self.accounts or account_of(limit) in self.accounts.values())


def provider_of(limit: str) -> str:
    """Return the provider of a limit `provider/model/key`."""
    return limit.partition("/")[0]


def account_of(limit: str) -> str:
    """Return `provider/key` of a limit `provider/model/key`."""
    return f"{provider_of(limit)}/{limit.rpartition('/')[2]}"


def model_of(limit: str) -> str:
    """Return the model of a limit, as it is asked for."""
    return limit.partition("/")[2].rpartition("/")[0]


def cells_of(export: ProviderExport, ours: Iterable[Ours], unknown: Iterable[Entry], scope: Scope) -> list[Cell]:
    """Return all cells in which either has anything, in order.

    Args:
        export: Theirs.
        ours: Settled calls within its period.
        unknown: Unknown calls within its period.
        scope: What of ours is meant, and whose its keys are.
    """
    lines = [line for line in export.lines if scope.covers(line)]
    by_day, by_model = export.by_day, any(line.model for line in lines) or not lines
    by_account = all(map(scope.account, lines))
    keyless = (
        set() if scope.accounts else {line.provider for line in lines} - {line.provider for line in lines if line.key}
    )
    cells: dict[CellPlace, Cell] = {}

    def cell(day: str, account: str, model: str) -> Cell:
        name = model_name(model) if by_model else ""
        whose = provider_of(account) if provider_of(account) in keyless else account
        place = CellPlace(day if by_day else "", whose if by_account else "", name)
        return cells.setdefault(place, Cell(place))

    for line in lines:
        cell(line.day, scope.account(line), line.model).add_theirs(line)
    for row in ours:
        if scope.holds(row.limit):
            cell(row.day, account_of(row.limit), model_of(row.limit)).add_ours(row)
    for entry in unknown:
        if scope.holds(entry.limit):
            cell(day_of(entry.at_s), account_of(entry.limit), model_of(entry.limit)).unknown.append(entry)
    if export.has_amounts or not export.lines:
        for one in cells.values():
            one.their_usd_picos = one.their_usd_picos or 0
    return [cells[place] for place in sorted(cells)]


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
