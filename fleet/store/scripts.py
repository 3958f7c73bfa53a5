"""Lua scripts: each lies beside the module that runs it, which names its KEYS and ARGV and the places it reads.

How names become numbers: `naming.py`; how packed places get theirs: `layouts.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet.store.layouts import Layout
from fleet.store.naming import Names, Order, locals_of, numbers_of, resolved

_WHERE = re.compile(r"@?user_script:(\d+)")
_NO_NAMES = Names()


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file, or several in one: its text and the SHA-1 under which Redis caches it.

    Args:
        name: Of its file.
        text: As Redis gets it.
        sha: Of the text.
        names: What its names stand for.
        files: The files in the text, and the lines of each.
    """

    name: str
    text: str = field(repr=False)
    sha: str
    names: Names = field(default=_NO_NAMES, repr=False, compare=False)
    files: tuple[tuple[str, int], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def beside(
        cls,
        module_file: str,
        name: str,
        *,
        keys: str = "",
        argv: str = "",
        tables: Mapping[str, Layout] | None = None,
        constants: Mapping[str, float] | None = None,
        behind: Script | None = None,
        using: Sequence[Script] = (),
        is_library: bool = False,
    ) -> Script:
        """Read the script `name` that lies beside the calling module.

        Args:
            module_file: `__file__` of the caller.
            name: Of the Lua file.
            keys: Names of its KEYS in order; `leases*` stands for all that follow, `index?` may be left out.
            argv: Names of its ARGV, likewise.
            tables: Names of tables in Lua, several with blanks between -> layout of the packed string that they hold.
            constants: Numbers that Lua and Python share, by their name in Lua.
            behind: Lines that stand before it; its tables and constants are known here.
            using: Scripts that it calls as functions, for one atomic step: each has the name of its file and takes its
                KEYS and ARGV as two tables.
            is_library: Its numbers are for the scripts behind it, see `library`.

        Raises:
            ValueError: When a name in the script is not declared, or a declared one is not used.
        """
        source = (Path(module_file).parent / name).read_text(encoding="utf-8")
        names = Names(
            name,
            Order.of(keys),
            Order.of(argv),
            {**(behind.names.tables if behind else {}), **(tables or {})},
            constants or {},
            {script.name.removesuffix(".lua"): (script.names.keys, script.names.argv) for script in using},
            behind.names.known if behind else frozenset(),
            {**behind.names.shared, **behind.names.constants} if behind else {},
            is_library,
        )
        own = cls.of(name, resolved(source, names), names)
        for script in using:
            function = script.name.removesuffix(".lua")
            own = own._after(script, f"local function {function}(KEYS, ARGV) ", "\nend ")
        return own._after(behind, "", "\n") if behind else own

    @classmethod
    def library(cls, module_file: str, name: str, *, behind: Script | None = None, **declared: Any) -> Script:
        """Read lines that others stand behind (`behind=`): as `beside`, with what they declare known there."""
        script = cls.beside(module_file, name, behind=behind, is_library=True, **declared)
        numbers = numbers_of((Path(module_file).parent / name).read_text(encoding="utf-8"))
        names = replace(script.names, known=locals_of(script.text), shared={**script.names.shared, **numbers})
        return replace(script, names=names)

    @classmethod
    def of(cls, name: str, text: str, names: Names = _NO_NAMES) -> Script:
        """Return a script with the given text, which holds no names any more."""
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        return cls(name, text, sha, names, ((name, text.count("\n") + 1),))

    def _after(self, first: Script, head: str, tail: str) -> Script:
        """Return this script behind another one, whose lines stay whole."""
        text = f"{head}{first.text}{tail}{self.text}"
        return replace(self.of(self.name, text, self.names), files=(*first.files, *self.files))

    @property
    def keys(self) -> str:
        """Names of its KEYS, as `beside` takes them."""
        return self.names.keys.text

    @property
    def argv(self) -> str:
        """Names of its ARGV, likewise."""
        return self.names.argv.text

    @property
    def call(self) -> Callable[..., tuple[list[Any], list[Any]]]:
        """Takes all KEYS and ARGV by name, returns both in order; the rest is a sequence.

        It raises TypeError when one is missing, or not declared.
        """
        return self.names.call

    def prepared(self, later: str) -> Callable[..., Callable[..., tuple[list[Any], list[Any]]]]:
        """Return `call` in two steps: first all names but `later`, whose values stay the same, then those.

        Raises:
            ValueError: When one of `later` is not declared.
        """
        return self.names.prepared(later.split())

    @property
    def arguments(self) -> Callable[..., list[Any]]:
        """Takes all ARGV by name, returns them in order; raises as `call`."""
        return self.names.arguments

    def located(self, text: str) -> str:
        """Return an error of Redis with file and line instead of the line in the whole text."""
        return _WHERE.sub(lambda found: self._place(int(found[1])), text)

    def _place(self, line: int) -> str:
        for name, lines in self.files:
            if line <= lines:
                return f"{name}:{line}"
            line -= lines
        return f"{self.name}:{line}"
