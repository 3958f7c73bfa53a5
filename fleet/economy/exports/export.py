"""What a provider says that it has counted and billed: lines by day, model and key. Pure values.

How each kind of file is read stands beside it, a module per vendor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from fleet.errors import ConfigurationError

#: Seconds of a day.
DAY_S = 86_400
#: Classes of usage that files tell, by their names in `Usage`; people see them in this order.
CLASSES = (
    "input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens",
    "reasoning_tokens", "web_searches",
)  # fmt: skip

#: Who exported it; "" where a plain file does not say.
Vendor = Literal["openai", "anthropic", "simulator", ""]


class UnreadableExport(ConfigurationError):
    """A file that is no export that Fleet knows, or is one with a value that cannot be."""


@dataclass(frozen=True, slots=True)
class Billed:
    """One line of an export.

    Args:
        day: In UTC, `2026-11-29`; "" when the line spans more than one.
        model: As the provider calls it; "" when it does not say.
        key: As the provider calls it; "" when it does not say.
        provider: Its name under [providers], where a plain file says so.
        calls: None: not told.
        usage: By class of `Usage`; only those that the file tells.
        usd_picos: What was billed, in 10^-12 US dollars; None: not told.
        rounding_picos: By how much the amount may be off, because the file rounds it.
    """

    day: str
    model: str
    key: str = ""
    provider: str = ""
    calls: int | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    usd_picos: int | None = None
    rounding_picos: int = 0


@dataclass(frozen=True, slots=True)
class ProviderExport:
    """All of one export.

    Args:
        kind: What it is, in words.
        vendor: Who exported it.
        since_s: Unix time at which its period begins.
        until_s: At which it ends, exclusive.
        lines: As told; several may be of one day, model and key.
        notes: What was not understood, a sentence each.
        is_partial: It says of itself that more belongs to it: nothing is concluded from what it lacks.
    """

    kind: str
    vendor: Vendor
    since_s: float
    until_s: float
    lines: tuple[Billed, ...]
    notes: tuple[str, ...] = ()
    is_partial: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of usage that it tells."""
        told = {name for line in self.lines for name in line.usage}
        return tuple(name for name in CLASSES if name in told)

    @property
    def has_amounts(self) -> bool:
        """True when it tells what was billed."""
        return any(line.usd_picos is not None for line in self.lines)

    @property
    def by_day(self) -> bool:
        """True when every line is of one day."""
        return all(line.day for line in self.lines)


def evenly_rounded(lines: Iterable[Billed]) -> tuple[Billed, ...]:
    """Return lines of one file as rounded as the finest of them: it may leave out zeros at the end, as in `0`."""
    told = tuple(lines)
    finest = min((line.rounding_picos for line in told if line.usd_picos is not None), default=0)
    return tuple(replace(line, rounding_picos=min(line.rounding_picos, finest)) for line in told)


def day_of(unix_s: float) -> str:
    """Return the day of a time, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).date().isoformat()


def start_of(day: str) -> float:
    """Return the Unix time at which a day begins, in UTC."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()


def day_between(since_s: float, until_s: float) -> str:
    """Return the day that holds all of a time; "" when it spans more than one."""
    return day_of(since_s) if since_s // DAY_S == (until_s - 0.001) // DAY_S else ""


_SNAPSHOT = re.compile(r"(?:[-@]20\d\d-?\d\d-?\d\d|-20\d\d ?\d\d ?\d\d|-latest|-0\d{3})$")


def model_name(model: str) -> str:
    """Return a model's name without what vendors change about it from one place to another.

    Exports tell the snapshot that answered (`gpt-4o-mini-2024-07-18`), or a name for people (`Claude Haiku 4.5`), where
    one asked for `gpt-4o-mini` and `claude-haiku-4-5`.

    Weakness: snapshots of one model are compared together.
    """
    name = re.sub(r"[\s._]+", "-", model.strip().lower())
    return _SNAPSHOT.sub("", name)
