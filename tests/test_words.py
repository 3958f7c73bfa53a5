"""One word for one thing: no two classes share a name. And pages keep out of patterns that have to be read twice."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from tests.house import ROOT, modules_of

#: Classes that may share a name, for they are the same thing: a port and what is behind it, kombu's names.
SAME_THING = {"Agent", "Bill", "Breakers", "Channel", "Limiter", "Transport"}

#: What a reader stumbles over, and what to write instead.
STUMBLES = {
    r"\bsome \d": "about N",
    r"\bas quick as\b": "faster than",
    r"\b(?:he|his|him)\b": "it: things are no persons",
    r"\b(?:what|who|which) is no(?:ne)? ": "anything that isn't a valid ...",
    r"\bin the meanwhile\b": "meanwhile",
    r"\bis told (?:by|of)\b": "say who tells",
    r"\babsolutes\b": "absolute numbers",
    r";[^.:|]{1,200};": "two sentences: at most one semicolon in each",
}
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def classes() -> dict[str, list[str]]:
    """Return name -> modules that define a class of it at their top."""
    found: dict[str, list[str]] = defaultdict(list)
    for module, path in modules_of(ROOT).items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    return found


def test_no_two_classes_share_a_name() -> None:
    shared = {name: modules for name, modules in classes().items() if len(modules) > 1}
    assert {name: modules for name, modules in shared.items() if name not in SAME_THING} == {}


def test_every_name_that_is_let_off_is_still_shared() -> None:
    known = classes()
    assert [name for name in sorted(SAME_THING) if len(known.get(name, ())) < 2] == []


def stumbles(text: str) -> list[str]:
    """Return each stumble of a page's prose with the advice against it."""
    prose = re.sub(r"^```.*?^```$|`[^`]*`", "", text, flags=re.S | re.M)
    found = ((match[0], advice) for wrong, advice in STUMBLES.items() for match in re.finditer(wrong, prose, re.I))
    return [f"{' '.join(words.split())!r}: write {advice}" for words, advice in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_read_once(page: object) -> None:
    assert stumbles((ROOT / str(page)).read_text(encoding="utf-8")) == []


def test_a_stumble_is_noticed() -> None:
    assert len(stumbles("What is no task waits; he is some 30 times as quick as that.")) == 4
    assert len(stumbles("One; two; and three.")) == 1
    assert stumbles("```\nsome 30\n```\nIt takes about 30 `some 30` times as long; it is slow.") == []
