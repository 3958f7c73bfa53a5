"""How messages put values into words: foreign ones quoted and shortened, counts with their noun, a near miss named.

Times are told in UTC, and it is said: hosts and operators may be anywhere. For programs: ISO 8601, or Unix seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import SupportsIndex, TypeVar

E = TypeVar("E", bound=BaseException)

#: Characters of a foreign value that a message quotes at most.
QUOTED_CHARS = 80
#: Bytes of an error's text at most: it is stored with the result, with the dead letter, and logged.
MAX_ERROR_BYTES = 1000
#: Names that one message lists at most.
MOST_NAMES = 5
#: Characters of a word that is compared with known ones: comparing takes the square of them.
_COMPARED_CHARS = 64
#: Known words that are listed at most where none is near (count): a fleet has 10,000 bots.
_MOST_NAMED = 60
#: A time in UTC as ISO 8601 has it: so the fields of events hold it for programs.
_ISO = re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|Z)")
#: Unix times of the first and the last second that a calendar of four digits has (s).
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799
#: What no spreadsheet calculates with beyond its sign.
_PLAIN = re.compile(r"-?[\w.-]*")


def cell(value: object) -> object:
    """Return a value for a cell of CSV, whose text no spreadsheet takes for a formula; names and numbers stay."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) and not _PLAIN.fullmatch(value):
        return f"'{value}"
    return value


class Hidden(str):
    """A secret text: it is one in every way, but what shows the values of variables shows three stars.

    Tracebacks with locals (rich, Sentry, `capture_locals`) and asyncio's debug mode print `repr`, cut first or not.
    Weakness: `str()`, formatting and encoding give the plain text, so what is made of one is made Hidden again.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __getitem__(self, at: SupportsIndex | slice) -> Hidden:
        return Hidden(super().__getitem__(at))

    def strip(self, chars: str | None = None, /) -> Hidden:
        """As of any text."""
        return Hidden(super().strip(chars))


def bare(error: E) -> E:
    """Return an error without the frames that it came through, nor those of what it came from.

    What prints a traceback's local variables would show what an API said back in them: the key, the prompt, headers.
    """
    behind: list[BaseException] = [error]
    seen = set[int]()
    while behind:
        one = behind.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            behind += [other for other in (one.__cause__, one.__context__) if other is not None]
    return error


def quote(value: object) -> str:
    """Return `repr(value)`, shortened to `QUOTED_CHARS`. What is much larger is never put into words as a whole."""
    text = repr(_head_of(value))
    return text if len(text) <= QUOTED_CHARS else f"{text[: QUOTED_CHARS - 1]}…"


def _head_of(value: object, depth: int = 3) -> object:
    """Return enough of a value to fill a quotation; the value itself when it is small."""
    if isinstance(value, str | bytes):
        return value[: QUOTED_CHARS + 1]
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {value.bit_length():,} bits"  # Python writes no decimal number of thousands of digits
    if type(value) in (list, tuple, set, frozenset, dict) and depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {_head_of(k, 0): _head_of(v, depth - 1) for k, v in islice(value.items(), QUOTED_CHARS // 4)}
    if type(value) in (list, tuple):
        return type(value)(_head_of(item, depth - 1) for item in islice(value, QUOTED_CHARS))  # type: ignore[call-arg, call-overload]
    return value


def brief(text: str, most_bytes: int = MAX_ERROR_BYTES) -> str:
    """Return a text cut to so many bytes of UTF-8, with a mark where it was cut."""
    if len(text) * 4 <= most_bytes:
        return text
    head = text[:most_bytes].encode("utf-8", "replace")
    if len(head) <= most_bytes and len(text) <= most_bytes:
        return text
    mark = "…"
    return head[: most_bytes - len(mark.encode())].decode("utf-8", "ignore") + mark


def listed(names: Iterable[object], count: int) -> str:
    """Return the first of so many names, and how many more there are: `a, b, c, d, e and 3 more`."""
    shown = [_plain(name) for name in islice(names, MOST_NAMES)]
    more = count - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def _plain(name: object) -> str:
    """Return a name as it is when it is short and can be printed, else quoted and shortened."""
    text = str(name) if isinstance(name, str | int) else quote(name)
    return text if len(text) <= QUOTED_CHARS and text.isprintable() else quote(text)


def named(name: str | None, noun: str) -> str:
    """Return a pool, bot or API as people read it, also where a task has none (None, empty, `-`): `no pool`."""
    return f"no {noun}" if name in (None, "", "-") else str(name)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun in the right form: `1 failure`, `2 failures`, `1,200 tasks`."""
    return f"{number:,} {noun_for(number, noun, plural)}"


def noun_for(number: int, noun: str, plural: str | None = None) -> str:
    """Return a noun in the form that its count takes."""
    return noun if number == 1 else plural or f"{noun}s"


def nearest(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Return what to say after an unknown word: which known one is near, else which there are.

    Near is what `difflib` calls a close match: 60% of the letters in common, in the same order.

    Args:
        word: What came.
        known: What was expected.
        prefix: How all of them begin: it makes none near.
    """
    words = sorted(name.removeprefix(prefix) for name in known)
    near = difflib.get_close_matches(word.removeprefix(prefix)[:_COMPARED_CHARS], words, n=1)
    if near:
        return f"the nearest known one is `{prefix}{near[0]}`"
    more = f" and {len(words) - _MOST_NAMED:,} more" if len(words) > _MOST_NAMED else ""
    return f"expected one of {', '.join(f'{prefix}{name}' for name in words[:_MOST_NAMED])}{more}"


def moment(at: float) -> datetime:
    """Return a time as UTC; beyond what calendars have, the last or first that they have: telling it never fails."""
    return datetime.fromtimestamp(max(_FIRST_S, min(_LAST_S, at)), UTC)


def clock(at: float, now_s: float) -> str:
    """Return a time as it is read on a clock, with its day when that is another one: `14:05:09 UTC`.

    Args:
        at: Unix seconds.
        now_s: Unix seconds; its day is left out.
    """
    when, now = moment(at), moment(now_s)
    return f"{when:%H:%M:%S} UTC" if when.date() == now.date() else f"{when:%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """Return a length of time as people say it: `350 ms`, `4.2 s`, `53 min`, `7.5 h`, `4 days`; as the page does."""
    if (seconds := max(0.0, seconds)) < 1:
        return f"{seconds * 1000:.0f} ms"
    for most, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < most:
            number, has_parts = seconds / unit_s, unit != "min" and seconds < 10 * unit_s
            return f"{number:.1f}".removesuffix(".0") + f" {unit}" if has_parts else f"{number:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def stamp(at: float) -> str:
    """Return a time with its day, for lists of many days: `2026-11-30 14:05:09 UTC`."""
    return f"{moment(at):%Y-%m-%d %H:%M:%S} UTC"


def with_clocks(text: str, now_s: float) -> str:
    """Return a text in which each time of ISO 8601 in UTC is told as `clock` does."""
    return _ISO.sub(lambda found: _told(found[0], now_s), text)


def _told(iso: str, now_s: float) -> str:
    try:
        at = datetime.fromisoformat(f"{iso.removesuffix('Z').removesuffix('+00:00')}+00:00")
    except ValueError:
        return iso  # looks like one, and is none
    return clock(at.timestamp(), now_s)
