"""Names in Lua become numbers as a script is loaded, so that they cost nothing when it runs. No Redis here.

What a name stands for depends on the table in whose brackets it is: `KEYS[LEASES]`, `ARGV[LIFE_S]`, `row[RATE + test]`.
Elsewhere it is a number at the top of the file, a constant that Python has as well, something of a layout
(`STATE_FORMAT`, `STATE_BYTES`, `STATE_PLACES`, `STATE_ZEROS`), or one of KEYS or ARGV (`for i = PAIRS + 1, #ARGV`).
Every list that Lua writes or takes apart in the order of a declaration is read against it:
`local a, b = unpack(KEYS)`, `struct.pack(ROW_FORMAT, a, b)`, `quarantine({ a }, { b })`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from fleet.store.layouts import Layout, by_name, numbered

#: Comments and strings, in which nothing is a name.
_OPAQUE = re.compile(r"""--[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*\"""")
_TOKEN = re.compile(r"[A-Za-z_]\w*|[^\w\s]")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*")
_LIST = r"\w+(?:\s*,\s*\w+)*"
_NUMBERS = re.compile(r"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = (-?[\d.]+(?:, -?[\d.]+)*)(?= *$)", re.M)
_LOCALS = re.compile(rf"\blocal\s+({_LIST})")
_TAKEN_APART = re.compile(rf"\b({_LIST})\s*=\s*(?:struct\.unpack\(\s*(\w+)_FORMAT\b|unpack\((KEYS|ARGV)\))")
_PACKED = re.compile(r"struct\.pack\(\s*(\w+)_FORMAT\s*,")
_PLUS = re.compile(r"\s*\+\s*")
_ITEM = re.compile(r"(?:\w+\[)?\s*(\w+)\s*\]?")
_LONG = re.compile(r"(?:--)?\[=*\[")
_REST, _OPTIONAL = "*", "?"


@dataclass(frozen=True)
class Order:
    """KEYS or ARGV of a script: their names in order.

    Args:
        names: All of them.
        rest: The last one stands for all that follow; its number is the one before them.
        is_optional: The last one may be left out.
    """

    names: tuple[str, ...] = ()
    rest: bool = False
    is_optional: bool = False

    @classmethod
    def of(cls, text: str) -> Order:
        """Read `"bots leases life_s names*"`: `*`: and all that follow; `?`: may be None, and is left out then.

        Raises:
            ValueError: When a name is none, or one that others follow has a mark.
        """
        *others, last = text.split() or [""]
        names = tuple(name for name in (*others, last.rstrip(_REST + _OPTIONAL)) if name)
        wrong = [name for name in names if not name.isidentifier()]
        if wrong:
            raise ValueError(f"expected names, with {_REST} or {_OPTIONAL} behind the last one only, got {wrong}")
        return cls(names, last.endswith(_REST), last.endswith(_OPTIONAL))

    @property
    def spelt(self) -> str:
        """A Python list of values by these names; the rest is a sequence, and a last one that may be left out None."""
        *others, last = self.names or [""]
        if self.rest:
            last = f"*{last}"
        elif self.is_optional:
            last = f"*(() if {last} is None else ({last},))"
        return f"[{', '.join([*others, last])}]"

    @property
    def text(self) -> str:
        """The names as `of` reads them."""
        return " ".join(self.names) + (_REST if self.rest else _OPTIONAL if self.is_optional else "")

    @property
    def places(self) -> dict[str, int]:
        """Name in capitals -> number."""
        places = numbered(self.names)
        if self.rest:
            places[self.names[-1].upper()] -= 1
        return places


@dataclass(frozen=True)
class Names:
    """All that the names of one script may stand for.

    Args:
        file: Name of its file.
        keys: Its KEYS.
        argv: Its ARGV.
        tables: Names of Lua tables, several with blanks between -> their layout.
        constants: Numbers that Python has as well.
        functions: Scripts that it calls -> their KEYS and ARGV.
        known: Constants of the script that stands before it.
        shared: Numbers that are declared with that script.
        is_library: Its numbers are for the scripts behind it: it need not use them itself.
    """

    file: str = ""
    keys: Order = Order()
    argv: Order = Order()
    tables: Mapping[str, Layout] = field(default_factory=dict)
    constants: Mapping[str, float] = field(default_factory=dict)
    functions: Mapping[str, tuple[Order, Order]] = field(default_factory=dict)
    known: frozenset[str] = frozenset()
    shared: Mapping[str, float] = field(default_factory=dict)
    is_library: bool = False

    @cached_property
    def call(self) -> Callable[..., tuple[list[Any], list[Any]]]:
        """Takes values by name, returns KEYS and ARGV in order."""
        return by_name(self.file, (*self.keys.names, *self.argv.names), f"({self.keys.spelt}, {self.argv.spelt})")

    def prepared(self, later: Sequence[str]) -> Callable[..., Callable[..., tuple[list[Any], list[Any]]]]:
        """`call` in two steps: takes all names but `later`, returns what takes those.

        Raises:
            ValueError: When one of `later` is not declared.
        """
        declared = (*self.keys.names, *self.argv.names)
        if unknown := set(later) - set(declared):
            raise ValueError(f"{self.file}: expected names of {', '.join(declared)}, got {', '.join(sorted(unknown))}")
        first = [name for name in declared if name not in later]
        inner = f"lambda *, {', '.join(later)}: ({self.keys.spelt}, {self.argv.spelt})"
        outer = by_name(self.file, first, inner)

        def prepared(**named: Any) -> Callable[..., tuple[list[Any], list[Any]]]:
            call: Callable[..., tuple[list[Any], list[Any]]] = outer(**named)
            call.__qualname__ = self.file
            return call

        return prepared

    @cached_property
    def arguments(self) -> Callable[..., list[Any]]:
        """Takes values by name, returns ARGV in order."""
        return by_name(self.file, self.argv.names, self.argv.spelt)


def numbers_of(source: str) -> dict[str, float]:
    """Return the numbers that a Lua file declares at its top: `local FADE, STEP = 0.999, 0.02`.

    They are put in where they are used: as locals of Lua they would cost 12% to 15%, because functions carry them.
    """
    found: dict[str, float] = {}
    for names, numbers in _NUMBERS.findall(_masked(source)):
        found |= zip(names.split(", "), (float(n) if "." in n else int(n) for n in numbers.split(", ")), strict=True)
    return found


def locals_of(source: str) -> frozenset[str]:
    """Return the constants that a Lua file declares itself."""
    declared = {name.strip() for found in _LOCALS.findall(_masked(source)) for name in found.split(",")}
    return frozenset(name for name in declared if _CONSTANT.fullmatch(name))


def resolved(source: str, names: Names) -> str:
    """Return `source` with numbers for names; lines stay where they are.

    Raises:
        ValueError: When a name is not declared, not used or declared twice, or a list is not in the declared order.
    """
    return _Resolver(source, names).run()


@lru_cache(maxsize=4)
def _masked(source: str) -> str:
    """Return the source with comments and strings blotted out, character by character."""
    return _OPAQUE.sub(lambda found: (" " if found[0].startswith("--") else "'") * len(found[0]), source)


def _spelt(number: float) -> str:
    """Return a number as Lua reads it anywhere: `x-` before a bare -1 is a comment, and `-1 ^ 2` is -1."""
    return repr(number) if number >= 0 else f"({number!r})"


class _Resolver:
    def __init__(self, source: str, names: Names) -> None:
        self._source, self._names = source, names
        self._text = _masked(source)
        self._layouts = {table: layout for group, layout in names.tables.items() for table in group.split()}
        self._scopes: dict[str, Mapping[str, int]] = {"KEYS": names.keys.places, "ARGV": names.argv.places}
        self._scopes.update({table: layout.places for table, layout in self._layouts.items()})
        self._numbers = numbers_of(source)
        self._locals = locals_of(source) | names.known
        self._used: set[tuple[str, str]] = set()

    def run(self) -> str:
        self._check_brackets()
        self._check_declarations()
        for found in reversed(list(_NUMBERS.finditer(self._text))):
            blank = " " * len(found[0])
            self._text = self._text[: found.start()] + blank + self._text[found.end() :]
            self._source = self._source[: found.start()] + blank + self._source[found.end() :]
        for at, expected, items in self._lists():
            if items != expected:
                self._fail(at, f"{', '.join(expected) or 'unpack()'} in this order", ", ".join(items))
        text = "".join(self._parts())
        self._check_use()
        return text

    def _fail(self, at: int, expected: str, got: str) -> None:
        line = self._text.count("\n", 0, at) + 1
        raise ValueError(
            f"{self._names.file}:{line}: expected {expected}, got {got}; mend the script or its declaration"
        )

    def _check_brackets(self) -> None:
        """Refuse long comments and strings, whose lines would be read as code."""
        if "[[" not in self._source and "[=" not in self._source:
            return
        for found in (*_OPAQUE.finditer(self._source), *_LONG.finditer(self._text)):
            if long := _LONG.match(found[0]):
                self._fail(found.start(), "comments and strings that end with their line", long[0])

    def _check_declarations(self) -> None:
        outside = [*self._scopes["KEYS"], *self._scopes["ARGV"], *self._names.constants]
        for name in outside:
            if outside.count(name) > 1 or name in self._locals:
                self._fail(0, "each name of KEYS, ARGV and constants declared once", name)

    def _check_use(self) -> None:
        for table, order in (("KEYS", self._names.keys), ("ARGV", self._names.argv)):
            is_passed_whole = re.search(rf"\b{table}\b(?!\s*\[)", re.sub(rf"#{table}", "", self._text))
            for name in order.names:
                if (table, name.upper()) not in self._used and not (is_passed_whole and order.rest):
                    self._fail(0, f"{table}[{name.upper()}] in use", "no use of it")
        own = () if self._names.is_library else self._numbers
        for name in (*self._names.constants, *own):
            if ("", name) not in self._used:
                self._fail(0, f"{name} in use", "no use of it")

    def _parts(self) -> Iterator[str]:
        """Yield the source piece by piece, names as numbers."""
        done, before, brackets = 0, "", list[str]()
        for token in _TOKEN.finditer(self._text):
            word = token[0]
            if word == "[":
                brackets.append(before if before in self._scopes else "")
            elif word == "]" and brackets:
                brackets.pop()
            elif (
                word.isupper()
                and _CONSTANT.fullmatch(word)
                and before not in (".", "local")
                and word not in ("KEYS", "ARGV")
            ):
                number = self._number(token.start(), word, brackets[-1] if brackets else "")
                if number is not None and token.start() >= done:
                    end = token.end()
                    if number == "0" and before == "[" and (plus := _PLUS.match(self._text, end)):
                        number, end = "", plus.end()  # an addition less, where nothing can bind closer
                    yield self._source[done : token.start()] + number
                    done = end
            before = word
        yield self._source[done:]

    def _number(self, at: int, name: str, table: str) -> str | None:
        """Return what a name stands for; None: it is Lua's own."""
        if table and name in self._scopes[table]:
            self._used.add((table, name))
            return _spelt(self._scopes[table][name])
        for constants in (self._numbers, self._names.constants, self._names.shared):
            if name in constants:
                self._used.add(("", name))
                return _spelt(constants[name])
        if name in self._locals and not table:
            return None
        for scope in () if table else ("KEYS", "ARGV"):
            if name in self._scopes[scope]:
                self._used.add((scope, name))
                return _spelt(self._scopes[scope][name])
        of_layout = self._of_layout(name)
        if of_layout is None:
            places = f"a place of {table} ({', '.join(self._scopes[table])})" if table else "a declared name"
            self._fail(at, places, name)
        return of_layout

    def _of_layout(self, name: str) -> str | None:
        """Return what is derived from a layout: `STATE_BYTES`."""
        table, _, what = name.rpartition("_")
        layout = self._layouts.get(table.lower())
        if layout is None:
            return None
        return {
            "FORMAT": f"'{layout.lua_format}'",
            "BYTES": str(layout.struct.size),
            "PLACES": str(layout.size),
            "ZEROS": ", ".join("0" * layout.size),
        }.get(what)

    def _lists(self) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
        """Yield place, declared names and written names of every list that follows a declaration."""
        for found in _TAKEN_APART.finditer(self._text) if "unpack(" in self._text else ():
            items = tuple(name.strip() for name in found[1].split(","))
            if found[3]:
                order = self._names.keys if found[3] == "KEYS" else self._names.argv
                self._used |= {(found[3], name.upper()) for name in items}
                yield found.start(), order.names[: len(items)], items
            else:
                yield found.start(), self._layout(found.start(), found[2]).order, items
        for found in _PACKED.finditer(self._text):
            packed = self._items(found.end())
            if not packed[0].startswith("unpack("):
                yield found.start(), self._layout(found.start(), found[1]).order, self._named(packed)
        for function, orders in self._names.functions.items():
            calls = list(re.finditer(rf"\b{function}\(", self._text))
            if not calls:
                self._fail(0, f"a call of {function}", "none")
            for found in calls:
                for table, order in zip(self._items(found.end()), orders, strict=True):
                    yield found.start(), order.names, self._named(self._split(table.strip("{} \n")))

    def _layout(self, at: int, name: str) -> Layout:
        if name.lower() not in self._layouts:
            self._fail(at, f"a layout ({', '.join(self._layouts)})", name)
        return self._layouts[name.lower()]

    def _items(self, start: int) -> list[str]:
        """Return the arguments of a call, of which the source from `start` on tells."""
        depth, end = 1, start
        while depth:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(self._text[end], 0)
            end += 1
        return self._split(self._text[start : end - 1])

    @staticmethod
    def _split(text: str) -> list[str]:
        items, depth = [""], 0
        for char in text:
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(char, 0)
            if char == "," and not depth:
                items.append("")
            else:
                items[-1] += char
        return [item.strip() for item in items if item.strip()]

    @staticmethod
    def _named(items: Sequence[str]) -> tuple[str, ...]:
        """Return by which names items go: `KEYS[BOTS]` and `bots` are both "bots"."""
        found = [_ITEM.fullmatch(item) for item in items]
        return tuple(match[1].lower() if match else item for match, item in zip(found, items, strict=True))
