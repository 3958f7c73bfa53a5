"""Canaries: values that are found again in whatever form they leak, and the search for them."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, quote_plus

#: Characters of a key's beginning and end that may be found nowhere either.
PART_CHARS = 8


@dataclass(frozen=True)
class Canary:
    """A value that is searched for.

    Args:
        name: What it is called in what was found; never the value.
        value: The value. Its first and last eight characters must be found nowhere else by chance.
        is_whole: Only the whole of it counts: of a prompt, which has no secret parts.
    """

    name: str
    value: str
    is_whole: bool = False

    def forms(self) -> dict[str, bytes]:
        """Return what it looks like, by the form's name: in the clear, quoted, encoded, in part."""
        parts = {"": self.value}
        if not self.is_whole:
            parts |= {"first characters, ": self.value[:PART_CHARS], "last characters, ": self.value[-PART_CHARS:]}
        return {part + form: made for part, text in parts.items() for form, made in _spelt(text).items() if made}

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        """What finds any of its forms."""
        return re.compile(b"|".join(sorted(map(re.escape, set(self.forms().values())), key=len)))

    def form_in(self, text: bytes) -> str | None:
        """Return which form of it lies in a text; None: none."""
        found = self.pattern.search(text)
        if found is None:
            return None
        return next(form for form, made in self.forms().items() if made == found.group())


@dataclass(frozen=True)
class Find:
    """A canary where none may be."""

    canary: str
    place: str
    form: str
    near: str = ""

    def __str__(self) -> str:
        return f"{self.canary} ({self.form}) in {self.place}{f': {self.near}' if self.near else ''}"


def search(canaries: Iterable[Canary], place: str, text: bytes, *, allowed: Iterable[str] = ()) -> Iterator[Find]:
    """Yield the canaries that lie in a text and may not.

    Args:
        canaries: What is searched for.
        place: Where the text was.
        text: All of it.
        allowed: Names of those that may lie there.
    """
    for canary in canaries:
        if canary.name in allowed or (form := canary.form_in(text)) is None:
            continue
        at = canary.pattern.search(text)
        assert at is not None
        near = text[max(0, at.start() - 60) : at.start()].decode("utf-8", "replace")
        yield Find(canary.name, place, form, re.sub(r"\s+", " ", near))


def _spelt(text: str) -> dict[str, bytes]:
    """Return a text as programs write it."""
    raw = text.encode()
    once = json.dumps(text)[1:-1]
    forms = {
        "in the clear": text, "in JSON": once, "in JSON in JSON": json.dumps(once)[1:-1], "in hex": raw.hex(),
        "in a URL": quote(text, safe=""), "in a form": quote_plus(text), "in HTML": html.escape(text),
        "in a repr": repr(text)[1:-1],
    }  # fmt: skip
    made = {form: told.encode() for form, told in forms.items()}
    for shift in range(3):
        made[f"in base64 at {shift}"] = _base64_core(raw, shift, base64.b64encode)
        made[f"in base64 for URLs at {shift}"] = _base64_core(raw, shift, base64.urlsafe_b64encode)
    return made


def _base64_core(raw: bytes, shift: int, encode: object) -> bytes:
    """Return those characters of a text's base64 that are the same whatever stands before and after it."""
    coded: bytes = encode(b"\0" * shift + raw)  # type: ignore[operator]
    first = -(-8 * shift // 6)
    last = 8 * (shift + len(raw)) // 6
    return coded[first:last]
