"""The bill in Redis beside a provider's export: read, compared, and what it explains resolved.

Each call is resolved by a script that takes only an entry which is still as it was read, and its charge in budgets is
corrected in the same step. So whoever repeats a check, also after one that died between two calls, ends at the same
sums. One check resolves at a time: two would spread what is left in different ways.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from operator import itemgetter

import redis
from redis.exceptions import LockError

from fleet.economy.bill.reader import Bill, read_bill
from fleet.economy.bill.rows import OTHER, Sums
from fleet.economy.bill.scripts import RESOLVE
from fleet.economy.bill.unknown import Unknown, read_unknown, resolve_call
from fleet.economy.budgets import ended_in, settle_call, settlement_of
from fleet.economy.budgets.scripts import SETTLE
from fleet.economy.exports.explaining import Price, explained
from fleet.economy.exports.export import CLASSES, DAY_S, ProviderExport, UnreadableExport, day_of, start_of
from fleet.economy.exports.matching import Cell, Finding, Ours, Scope, cells_of, provider_of
from fleet.entries import Entry
from fleet.errors import ConfigurationError
from fleet.quoting import listed as named
from fleet.store import bill_keys
from fleet.store.client import run_scripts_together

#: Times that the bill is read until nothing has changed while it was read.
READ_TIMES = 5
#: Seconds for which a check that resolves keeps others out, renewed while it works, and that another one waits for it.
ALONE_S, WAIT_S = 30.0, 60.0
#: Calls that are resolved between two renewals (count).
RENEWED_EVERY = 100

#: Seconds after which a vendor has mostly counted all calls of a time. OpenAI and Anthropic speak of minutes to hours.
LAG_S = 6 * 3600

#: Returns what of the fleet is meant, by `provider/model/key` of all that have entries in the bill.
Scoping = Callable[[frozenset[str]], Scope]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What came of a check.

    Args:
        export: As it was compared: within the time that was asked for.
        findings: One per cell.
        notes: What is to be known beside them, a sentence each.
    """

    export: ProviderExport
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def resolutions(self) -> int:
        """Unknown calls that it explains."""
        return sum(len(finding.resolutions) for finding in self.findings)

    @property
    def agrees(self) -> bool:
        """True when there is no difference that nothing explains."""
        return {finding.verdict for finding in self.findings} <= {"agrees", "explained", "rounded"}


def cut(export: ProviderExport, *, since_s: float | None, until_s: float | None) -> ProviderExport:
    """Return the part of an export from the day of one time on, until the day of another, which is not in it.

    Both are days because an export tells no less: part of a day of ours would be compared with all of theirs.

    Raises:
        UnreadableExport: Its lines span more than a day: it cannot be cut. Or it has nothing of that time.
    """
    if since_s is None and until_s is None:
        return export
    if not export.by_day:
        raise UnreadableExport("expected lines of one day each to cut it by --since or --until, got longer ones")
    first, end = _midnight(since_s or 0.0), float("inf") if until_s is None else _midnight(until_s)
    lines = [line for line in export.lines if day_of(first) <= line.day and (until_s is None or line.day < day_of(end))]
    since, until = max(export.since_s, first), min(export.until_s, end)
    if since >= until or not (lines or export.vendor == "simulator"):
        raise UnreadableExport(
            f"expected lines between --since and --until, got none: the file is of {day_of(export.since_s)} "
            f"to {day_of(export.until_s - 1)}; export that time, or name another"
        )
    return replace(export, lines=tuple(lines), since_s=since, until_s=until)


def _midnight(unix_s: float) -> float:
    return max(unix_s // DAY_S * DAY_S, 0.0)


def check(
    client: redis.Redis, export: ProviderExport, scoping: Scoping, price: Price, *, exported_s: float
) -> Reconciliation:
    """Compare the bill with an export.

    Args:
        client: Plain client of the state Redis.
        export: Theirs.
        scoping: What of ours is meant.
        price: Cost of a call, for an export without amounts.
        exported_s: Unix time of the export: what is unknown since then is not in it, and calls of `LAG_S` before then
            may not be. Weakness: who copies a file without its time makes it newer than it is.

    Raises:
        UnreadableExport: None of its lines is about what is meant.
    """
    bill, listed = _read(client, export)
    ours = _ours(bill, listed)
    unknown = [one.entry for one in listed if one.entry.at_s <= exported_s]
    limits = frozenset([*(row.limit for row in ours), *(entry.limit for entry in unknown)])
    scope = scoping(limits)
    if export.lines and not any(map(scope.covers, export.lines)):
        raise UnreadableExport(
            f"expected lines of {named(sorted(scope.providers), len(scope.providers))}, got {len(export.lines):,} of "
            "others: compare another file, or say by --provider and --key whose these are"
        )
    cells = cells_of(export, ours, sorted(unknown, key=lambda entry: (entry.at_s, entry.id)), scope)
    findings = tuple(explained(cells, export.classes, price, _earliness(export, exported_s)))
    notes = [*export.notes, *_notes(bill, listed, scope), *_foreign(export, scope, limits)]
    if len(unknown) < len(listed):
        notes.append(f"{len(listed) - len(unknown):,} unknown calls are newer than the file: left alone")
    return Reconciliation(export, findings, tuple(notes))


def _earliness(export: ProviderExport, exported_s: float) -> Callable[[Cell], bool]:
    """Return what tells whether a cell's time had not ended long enough before the export; the simulator never lags."""
    if export.vendor == "simulator":
        return lambda cell: False

    def is_early(cell: Cell) -> bool:
        end_s = start_of(cell.place.day) + DAY_S if cell.place.day else export.until_s
        return min(end_s, export.until_s) + LAG_S > exported_s

    return is_early


@dataclass(frozen=True, slots=True)
class Resolved:
    """A call whose cost is known now.

    Args:
        entry: What took the place of its unknown entry.
        is_corrected: False: budgets had reserved for it, and keep what they have: it was exact, or is over a day old.
    """

    entry: Entry
    is_corrected: bool


def resolve(client: redis.Redis, before: Unknown, settled: Entry) -> Resolved | None:
    """Put what a call has cost in the place of its unknown entry, and of its charge; None when somebody else did.

    A process that settles it late tells its budgets before the bill: where the entry has gone, so has the charge.

    Args:
        client: Plain client of the state Redis.
        before: As it was read.
        settled: The same call with its true usage and amount.
    """
    calls = [(RESOLVE, *resolve_call(before, settled))]
    if settled.reservation:
        calls.append((SETTLE, *settle_call([settlement_of(settled)])))
    replies = run_scripts_together(client, calls)
    is_corrected = not settled.reservation or ended_in(replies[-1]) > 0
    return Resolved(settled, is_corrected) if replies[0] else None


@contextmanager
def alone(client: redis.Redis) -> Iterator[Callable[[], object]]:
    """Let no other check resolve calls in the block, from its reading on; yields what keeps the others out for longer.

    Raises:
        ConfigurationError: When another one is at work for so long.
    """
    lock = client.lock(bill_keys.check_turn(), timeout=ALONE_S, blocking_timeout=WAIT_S, thread_local=False)
    if not lock.acquire():
        raise ConfigurationError(
            f"bill check: expected no other check at work, got one for {WAIT_S:.0f} s; run it again, or --dry-run"
        )

    def stay() -> None:
        try:
            lock.reacquire()
        except LockError:
            raise ConfigurationError(
                f"bill check: expected to go on within {ALONE_S:.0f} s, stood for longer; run it again, what is "
                "resolved is right"
            ) from None

    try:
        yield stay
    finally:
        with suppress(LockError):  # it has expired: somebody else may have the turn
            lock.release()


def apply(
    client: redis.Redis, done: Reconciliation, *, now_s: float, stay: Callable[[], object] = lambda: None
) -> list[Resolved]:
    """Resolve all that a check explains; return what has taken the places of unknown entries.

    What somebody else has resolved or settled since is left as it is.

    Args:
        client: Plain client of the state Redis.
        done: The check.
        now_s: Unix time of Redis.
        stay: Keeps other checks out (`alone`); called now and then.
    """
    wanted = {one.before.id: one for finding in done.findings for one in finding.resolutions}
    resolved: list[Resolved] = []
    for number, before in enumerate(list(read_unknown(client)) if wanted else []):
        if number % RENEWED_EVERY == 0:
            stay()
        one = wanted.get(before.entry.id)
        if one is not None and one.before == before.entry:
            found = resolve(client, before, one.settled._replace(at_s=now_s))
            if found is not None:
                resolved.append(found)
    return resolved


def _read(client: redis.Redis, export: ProviderExport) -> tuple[Bill, list[Unknown]]:
    """Read sums and unknown calls of one time, though entries come meanwhile."""
    for _ in range(READ_TIMES):
        before = _ids(read_unknown(client))
        bill = read_bill(client, since_s=export.since_s, until_s=export.until_s, by=("day", "model", "key"))
        listed = list(read_unknown(client))
        if _ids(listed) == before:
            return bill, [one for one in listed if bill.since_s <= one.entry.at_s < bill.until_s]
    raise ConfigurationError(
        f"bill check: expected unknown calls that stay the same while the bill is read, got others {READ_TIMES} times; "
        "run it again when fewer calls are cut, or less is settled late"
    )


def _ids(some: Iterable[Unknown]) -> frozenset[str]:
    return frozenset(one.entry.id for one in some)


def _ours(bill: Bill, listed: Iterable[Unknown]) -> list[Ours]:
    """Return the settled part of each line of the bill: a row's tokens are those of unknown calls, too."""
    unknown: dict[tuple[str, str], Counter[str]] = {}
    for one in listed:
        counts = unknown.setdefault((day_of(one.entry.at_s), one.entry.limit), Counter())
        counts.update({name: getattr(one.entry.usage, name) for name in CLASSES})
    return [_settled(day, f"{model}/{key}", line.sums, unknown.get((day, f"{model}/{key}"), Counter()))
            for line in bill.lines for day, model, key in [line.values]]  # fmt: skip


def _settled(day: str, limit: str, sums: Sums, unknown: Mapping[str, int]) -> Ours:
    usage = {name: getattr(sums.usage, name) - unknown.get(name, 0) for name in CLASSES}
    return Ours(day, limit, sums.calls - sums.unknown_calls, usage, sums.usd_picos)


def _notes(bill: Bill, listed: list[Unknown], scope: Scope) -> list[str]:
    notes = []
    if any(OTHER in line.values for line in bill.lines):
        notes.append("the bill had more rows than it keeps: those beyond are in one row `other`, which is not compared")
    beyond = bill.total.unknown_calls - len(listed)
    if beyond > 0:
        notes.append(f"{beyond:,} unknown calls are not kept one by one: they cannot be resolved")
    unpriced = sum(line.sums.unpriced_calls for line in bill.lines if provider_of(line.values[1]) in scope.providers)
    if unpriced:
        notes.append(f"{unpriced:,} calls have no price: what they cost is not in ours (see [prices])")
    return notes


def _foreign(export: ProviderExport, scope: Scope, limits: frozenset[str]) -> list[str]:
    left_out = sorted({*map(provider_of, limits)} - scope.providers)
    notes = [f"not compared, since the file is not about them: calls of {named(left_out, len(left_out))}"]
    return [*_foreign_lines(export, scope), *(notes if left_out else ())]


def _foreign_lines(export: ProviderExport, scope: Scope) -> list[str]:
    keys = {line.key for line in export.lines if line.key}
    other = {(line.provider, line.key) for line in export.lines if not scope.covers(line)}
    if other:
        what = "providers or keys" if any(map(itemgetter(0), other)) else "keys"
        return [f"{len(other):,} {what} of the file are not among those of this fleet: left out"]
    if len(keys) > 1 and not scope.accounts:
        return [f"the file has {len(keys):,} keys: all are compared with all calls here; name yours by --key"]
    return []
