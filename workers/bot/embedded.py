"""JSON values within a text: in code fences, between sentences. Pure, in time linear in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

#: What opens and closes a code fence.
FENCE = "```"
#: Places of one text where a value may begin that are tried (count): each may be read to the end.
MOST_TRIES = 32
#: How an object or a list that JSON could hold goes on behind its bracket.
_GOES_ON = {"{": re.compile(r'\s*["}]'), "[": re.compile(r'\s*[\[\]{"0-9tfn-]')}
_BRACKETS = re.compile(r"[][{}]")


@dataclass(frozen=True, slots=True)
class NotJson:
    """What a text is that isn't JSON: `reason` says where it breaks, nothing of what it says."""

    reason: str


def parse(text: str) -> Any:
    """Return the value of a text that is JSON and nothing else, or `NotJson`."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return NotJson(f": {error}")
    except (ValueError, RecursionError) as error:  # NaN, numbers of thousands of digits, brackets without end
        return NotJson(f" that can be read ({type(error).__name__})")


def values_in(text: str) -> list[tuple[str, Any]]:
    """Return the JSON values in a text, each as it is written and as it is meant.

    What stands in code fences comes alone, if any of it is JSON: then that was to be taken. Else every object and list
    between the words; no part of a larger one, and nothing when the last one was cut off.
    """
    fenced = [(part, value) for part in _fenced(text) if not isinstance(value := parse(part), NotJson)]
    return fenced or list(_between_words(text))


def _fenced(text: str) -> Iterator[str]:
    """Yield what stands between fences, without the name of a language."""
    for part in text.split(FENCE)[1 : 2 * MOST_TRIES : 2]:
        head, newline, body = part.partition("\n")
        yield (body if newline and head.strip().isalnum() else part.strip().removeprefix("json")).strip()


def _between_words(text: str) -> Iterator[tuple[str, Any]]:
    at, found = 0, []
    ends: dict[int, int] | None = None
    for _try in range(MOST_TRIES):
        opening = _OPENING.search(text, at)
        if opening is None:
            break
        start = opening.start()
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            ends = _ends_in(text) if ends is None else ends
            if start not in ends and _GOES_ON[text[start]].match(text, start + 1):
                return  # cut off: what stands before may be a draft, what stands in it is a part
            at = ends.get(start, start + 1)
        else:
            found.append((text[start:end], value))
            at = end
    yield from found


def _ends_in(text: str) -> dict[int, int]:
    """Return the place behind the closing bracket of each opening one that has one."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in "[{":
            opened.append(bracket.start())
        elif opened:
            ends[opened.pop()] = bracket.end()
    return ends


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_OPENING = re.compile(r"[{[]")
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
