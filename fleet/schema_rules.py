"""Rules of JSON schemas that take linear time, in place of those of `jsonschema` that do not.

Which are replaced: all that hand a schema's patterns to `re`, which backtracks; `uniqueItems` and `enum`, which compare
each with each. And every check has a bound on its steps: references that fan out need 2^n of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from fleet import patterns

#: Parts of a schema that are held against parts of an answer, in one check at most. One takes 5 to 20 us.
MAX_STEPS = 100_000
#: Patterns of one schema at most (count).
MAX_PATTERNS = 100

_left = threading.local()


class TooManySteps(Exception):
    """A check needs more steps than it may take."""


def give_steps(steps: int | None = None) -> None:
    """Let the next check in this thread take so many steps; None: `MAX_STEPS`."""
    _left.steps = MAX_STEPS if steps is None else steps


class Choices(list[Any]):
    """The values of an `enum`, and `same`: what an answer is looked up in."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__(values)
        self.same = frozenset(map(_same, values))


@lru_cache
def linear(kind: Any) -> Any:
    """Return a validator class of `jsonschema` with the rules of this module."""
    from jsonschema import validators

    rules = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
        "enum": _enum,
    }
    made: Any = validators.extend(kind, {name: rule for name, rule in rules.items() if name in kind.VALIDATORS})
    evolve = made.evolve

    def counted(self: Any, **changes: Any) -> Any:
        _left.steps -= 1
        if _left.steps < 0:
            raise TooManySteps
        return evolve(self, **changes)

    made.evolve = counted
    return made


def prepare(part: dict[str, Any], found: list[str]) -> None:
    """Check one part of a schema for what cannot be checked in linear time, and prepare it.

    Args:
        part: A schema or a subschema; its `enum` is replaced by one that is looked up.
        found: Patterns of the whole schema so far; its own are added.

    Raises:
        ValueError: Naming the rule and why.
    """
    if isinstance(part.get("enum"), list):
        part["enum"] = Choices(part["enum"])
    own = part.get("patternProperties")
    names = list(own) if isinstance(own, Mapping) else []
    if names and ("unevaluatedProperties" in part or "unevaluatedItems" in part):
        raise ValueError("patternProperties: expected no unevaluatedProperties beside it; use additionalProperties")
    for rule, texts in (("pattern", [part.get("pattern")]), ("patternProperties", names)):
        for text in texts:
            if isinstance(text, str):
                found.append(text)
                _check_pattern(rule, text)
    if len(found) > MAX_PATTERNS:
        raise ValueError(f"expected at most {MAX_PATTERNS} patterns in a JSON schema, got more")


def _check_pattern(rule: str, text: str) -> None:
    try:
        patterns.pattern(text)
    except patterns.PatternError as error:
        raise ValueError(f"{rule}: {error}") from error


def _is_in(text: str, value: str) -> bool:
    return patterns.pattern(text).is_in(value)


def _pattern(validator: Any, text: str, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not _is_in(text, instance):
        yield ValidationError(f"{instance!r} does not match {text!r}")


def _pattern_properties(validator: Any, rules: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for text, rule in rules.items():
            for name, value in instance.items():
                if _is_in(text, name):
                    yield from validator.descend(value, rule, path=name, schema_path=text)


def _additional_properties(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, dict):
        return
    known, texts = schema.get("properties", {}), tuple(schema.get("patternProperties", {}))
    extras = [name for name in instance if name not in known and not any(_is_in(text, name) for text in texts)]
    if isinstance(rule, dict):
        for name in extras:
            yield from validator.descend(instance[name], rule, path=name)
    elif not rule and extras:
        told = ", ".join(map(repr, extras))
        yield ValidationError(f"Additional properties are not allowed ({told} unexpected)")


def _unique_items(validator: Any, is_wanted: bool, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if is_wanted and isinstance(instance, list) and len({_same(item) for item in instance}) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _enum(validator: Any, values: list[Any], instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    choices = values if isinstance(values, Choices) else Choices(values)
    if _same(instance) not in choices.same:
        yield ValidationError(f"{instance!r} is not one of {values!r}")


def _same(value: Any) -> Any:
    """Return what equal JSON values have in common, and others not: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return ("list", *map(_same, value))
    if isinstance(value, dict):
        return ("dict", frozenset((name, _same(inner)) for name, inner in value.items()))
    return value
