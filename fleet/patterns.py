"""Regular expressions that somebody wrote, matched against text that somebody else wrote: in linear time.

Python's `re` backtracks: `(a+)+$` takes hours for a line of text, and holds up the whole process meanwhile. The engine
here is Rust's `regex`, which comes with pydantic. It knows no look-around and no backreferences, which cannot be had
in linear time. Its time still grows with the size of the pattern, so that is bounded as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from fleet.quoting import quote

#: Characters of a pattern at most.
MAX_PATTERN_CHARS = 1000
#: Places of a pattern, counted repetitions written out, at most: `[a-z]{8}-\\d{4}` has 13.
MAX_PLACES = 2000
#: Places times characters that are matched at most. One takes 20 ns at worst (measured: `(.|\\w|\\d){1,5000}` on
#: 100,000 characters took 28 s), so that a match takes 0.1 s at most; patterns that people write take a thousandth.
MAX_STEPS = 5_000_000
#: Compiled patterns kept in a process.
_MAX_COMPILED = 1024


class PatternError(ValueError):
    """What was given is no pattern that can be matched in linear time; it says why."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. Get one from `pattern`.

    Args:
        text: As it was written.
        places: Its size.
    """

    text: str
    places: int
    _matcher: SchemaValidator

    @property
    def most_chars(self) -> int:
        """Characters of the longest text that it is matched against."""
        return MAX_STEPS // self.places

    def is_in(self, text: str) -> bool:
        """True when the pattern matches anywhere in a text.

        Raises:
            PatternError: When the text is too long for a pattern of this size.
        """
        if len(text) > self.most_chars:
            raise PatternError(
                f"expected at most {self.most_chars:,} characters for a pattern of this size, got {len(text):,}"
            )
        if not text.isascii():  # half of a surrogate pair is no text in Rust
            text = text.encode("utf-8", "replace").decode()
        return self._matcher.isinstance_python(text)


def pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """Compile a pattern; it matches anywhere in a text unless it has anchors.

    Raises:
        PatternError: When it is none, is too large, or needs more than linear time.
    """
    if len(text) > MAX_PATTERN_CHARS:
        raise PatternError(f"expected a pattern of at most {MAX_PATTERN_CHARS:,} characters, got {len(text):,}")
    return _compiled(f"(?i){text}" if ignore_case else text)


@lru_cache(maxsize=_MAX_COMPILED)
def _compiled(text: str) -> Pattern:
    places = places_of(text)
    if places > MAX_PLACES:
        raise PatternError(
            f"expected a pattern of at most {MAX_PLACES:,} places, repetitions counted, got {places:,} "
            f"in {quote(text)}; bound the length by maxLength instead"
        )
    try:
        matcher = SchemaValidator(core_schema.str_schema(pattern=text, regex_engine="rust-regex"))
    except SchemaError as error:
        reason = str(error).rpartition("rror: ")[2].partition("\n")[0]
        raise PatternError(
            f"expected a pattern that can be matched in linear time (syntax of Rust's `regex`: no look-around, no "
            f"backreferences), got {quote(text)}: {reason[:120]}"
        ) from None
    return Pattern(text, places, matcher)


def places_of(text: str) -> int:
    """Return the size of a pattern: its characters and classes, those that are repeated counted as often. Linear.

    A group counts its parts. What isn't a pattern has some size, too.
    """
    sizes, last, i = [0], 0, 0
    while i < len(text):
        char = text[i]
        if char == "(":
            sizes.append(0)
            last = 0
        elif char == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif char == "{":
            i, times = _repeated(text, i)
            sizes[-1] += last * (times - 1)
            last *= times
        elif char not in "|*+?^$":
            i, last = _after_atom(text, i), 1
            sizes[-1] += 1
        i += 1
    return max(1, sum(sizes))


def _after_atom(text: str, start: int) -> int:
    """Return the place of the last character of an escape, a class or a single character."""
    if text[start] == "\\":
        return start + 1
    if text[start] != "[":
        return start
    i = start + (2 if text[start + 1 : start + 2] == "^" else 1)
    i += text[i : i + 1] == "]"  # as the first of a class it stands for itself
    while i < len(text) and text[i] != "]":
        i += 2 if text[i] == "\\" else 1
    return i


def _repeated(text: str, start: int) -> tuple[int, int]:
    """Return the place where `{n}`, `{n,}` or `{n,m}` ends, and the larger number; 1 for anything else in braces."""
    end = text.find("}", start)
    if end < 0:
        return start, 1
    numbers = [int(part[:9]) for part in text[start + 1 : end].split(",") if part.strip().isdecimal()]
    return end, max(1, *numbers, 1)
