"""The environment of the servers that Fleet starts on this machine: what programs need to run, and no key of anybody's.

They are told everything on their command line or in files. What this process was given for itself (providers' keys,
Redis' password, a vault's token) would lie in their memory, core dumps and `/proc` for as long as they live.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Variables that are handed on.
_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "TMPDIR", "TMP", "TEMP", "VIRTUAL_ENV",
    "FLEET_HOME", "FLEET_CONFIG",
})  # fmt: skip
#: How others begin that are: of the loader, the allocator, the language and the interpreter.
_BEGINNINGS = ("LC_", "LD_", "DYLD_", "MALLOC_", "PYTHON", "COVERAGE_")


def handed_on(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of some variables that a server of our own gets."""
    return {name: value for name, value in variables.items() if name in _NAMES or name.startswith(_BEGINNINGS)}
