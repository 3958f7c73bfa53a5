"""Layouts: the names of places in a packed string, declared once for Lua and Python. How Lua gets them: `scripts.py`.

Lua counts from 1. So does Python here: what `Layout.unpack` returns has nothing at 0, and one number means one place.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, ParamSpec, Self

#: Python's format characters -> those of Redis's `struct` (little-endian, unaligned).
_LUA_CODES = {"B": "B", "H": "I2", "I": "I4", "q": "i8", "f": "f", "d": "d", "x": "x"}
_CODE = re.compile(r"(\d*)([a-zA-Z])")


_Fields = ParamSpec("_Fields")


class Place(int):
    """A place in a layout, or `count` of them in a row; in a class of `Places` it becomes a number.

    One place: its number. Several: what to add to an index that runs from `first`. So `state[At.CREDIT + class_]` is
    the credit of that class.
    """

    count: int | None
    first: int

    def __new__(cls, count: int | None = None, *, first: int = 1, number: int = 0) -> Self:
        place = super().__new__(cls, number)
        place.count, place.first = count, first
        return place


class Places:
    """Base of a class whose attributes are the places of a layout, in order: `HELD_UNTIL = Place()`."""

    def __init_subclass__(cls) -> None:
        at = 1
        for name, place in list(vars(cls).items()):
            if isinstance(place, Place):
                number = at if place.count is None else at - place.first
                setattr(cls, name, Place(place.count, first=place.first, number=number))
                at += 1 if place.count is None else place.count


@dataclass(frozen=True)
class Layout:
    """Places by name, and how they are packed.

    Args:
        places: Name in capitals -> number, from 1; of several in a row what is added to their index.
        code: Format as of `struct`, little-endian, without the `<`.
        order: Names of all places in order; empty when some have none of their own.
    """

    places: Mapping[str, int]
    code: str
    order: tuple[str, ...] = ()

    @classmethod
    def of(cls, declared: type[Any], code: str = "") -> Layout:
        """Return the layout that a `Places`, a NamedTuple or a dataclass declares.

        Args:
            declared: The class; fields beyond the format are not packed.
            code: Format; empty: all places are doubles.
        """
        if issubclass(declared, Places):
            found = {name: place for name, place in vars(declared).items() if isinstance(place, Place)}
            count = sum(1 if place.count is None else place.count for place in found.values())
            return cls({name: int(place) for name, place in found.items()}, code or f"{count}d")
        names = [field.name for field in fields(declared)] if is_dataclass(declared) else declared._fields
        whole = cls({}, code or f"{len(names)}d")
        return cls(numbered(names[: whole.size]), whole.code, tuple(names[: whole.size]))

    def and_group(self, name: str) -> Layout:
        """Return it with more places that are not packed: Lua's own, behind the others."""
        return Layout({**self.places, name.upper(): self.size}, self.code)

    @cached_property
    def struct(self) -> struct.Struct:
        """The packed form in Python."""
        return struct.Struct(f"<{self.code}")

    @cached_property
    def lua_format(self) -> str:
        """The packed form in Lua."""
        codes = [
            f"c{count}" if kind == "s" else _LUA_CODES[kind] * int(count or 1)
            for count, kind in _CODE.findall(self.code)
        ]
        return "<" + "".join(codes)

    @cached_property
    def size(self) -> int:
        """Number of packed places."""
        return len(self.struct.unpack(bytes(self.struct.size)))

    def pack(self, numbers: Iterable[Any]) -> bytes:
        """Return numbers in the order of the layout, packed."""
        return self.struct.pack(*numbers)

    def packer(self, declared: Callable[_Fields, tuple[Any, ...]]) -> Callable[_Fields, bytes]:
        """Return what packs the fields of `declared`, whose layout this is, by name: no tuple is made first."""
        numbers = f"pack({', '.join(self.order)})"
        return by_name(declared.__name__, self.order, numbers, pack=self.struct.pack)

    def unpack(self, packed: bytes) -> tuple[float, ...]:
        """Return the numbers from index 1, as Lua counts; all 0 for what another version packed."""
        fits = len(packed) == self.struct.size
        return (0.0, *self.struct.unpack(packed if fits else bytes(self.struct.size)))


def numbered(names: list[str] | tuple[str, ...]) -> dict[str, int]:
    """Return names in capitals -> their number from 1."""
    return {name.upper(): number for number, name in enumerate(names, 1)}


def by_name(title: str, names: Sequence[str], expression: str, **known: Any) -> Callable[..., Any]:
    """Return a function that takes `names` as keywords and returns what a Python expression makes of them.

    It is compiled, as the standard library does for named tuples: Python itself then refuses a name that is missing or
    unknown, and 5 names cost 0.17 us. A dict of them, its check and its reading in order cost 0.87 us.

    Args:
        title: By which its errors call it.
        names: Identifiers of the code, never of a user.
        expression: May use them.
        known: What else it may use.
    """
    head = f"*, {', '.join(names)}" if names else ""
    function: Callable[..., Any] = eval(f"lambda {head}: {expression}", {"__builtins__": {}, **known})
    function.__qualname__ = title
    return function
