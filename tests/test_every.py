"""No test of this repository can pass by looking at nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.every import every

TESTS = Path(__file__).parent


def vacuous(source: str) -> Iterator[int]:
    """Yield the lines on which `all`, or `not any`, decides a test: an assert, or what `wait_until` waits for."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            decides = [node.test]
        else:
            decides = node.args[:1] if isinstance(node, ast.Call) and _calls(node, "wait_until") else []
        for part in (part for expression in decides for part in _deciding(expression)):
            if _calls(part, "all") or (isinstance(part, ast.UnaryOp) and _calls(part.operand, "any")):
                yield part.lineno


def _deciding(expression: ast.expr) -> Iterator[ast.expr]:
    """Yield the parts of an expression each of which must be true."""
    if isinstance(expression, ast.Lambda):
        yield from _deciding(expression.body)
    elif isinstance(expression, ast.BoolOp):
        for value in expression.values:
            yield from _deciding(value)
    else:
        yield expression


def _calls(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_nothing_to_look_at_is_a_failure() -> None:
    assert every([True, 1]) and not every(fact for fact in (True, False))
    with pytest.raises(AssertionError, match="got nothing"):
        every(fact for fact in ())


def test_a_test_that_may_look_at_nothing_is_found() -> None:
    sources = ("assert all(x for x in y)", "assert a and not any(y)", "wait_until(lambda: all(f(x) for x in y), 5)")
    assert [list(vacuous(source)) for source in (*sources, "every(x for x in y)")] == [[1], [1], [1], []]


def test_no_test_may_look_at_nothing() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in vacuous(path.read_text(encoding="utf-8"))
    ]
    assert not found, f"expected `every` of tests/every.py instead of `all` and `not any`, got {', '.join(found)}"
