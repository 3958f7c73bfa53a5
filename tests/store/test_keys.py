"""The names of Redis keys."""

from __future__ import annotations

import ast

from fleet.store import keys
from tests.house import ROOT, sources

#: What the names of Fleet's keys begin with. Messages for people begin with "fleet: ".
OURS = ("fleet:", f"{keys.TAG}:")


def spelled() -> list[str]:
    """Return `file:line` of every string that spells the name of a key."""
    found = []
    for path in sources(ROOT, "*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(OURS):
                rest = node.value.partition(":")[2]
                if rest and not rest[0].isspace():
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_the_name_of_every_key_is_spelled_in_one_module() -> None:
    assert {place.partition(":")[0] for place in spelled()} == {"fleet/store/keys.py"}
