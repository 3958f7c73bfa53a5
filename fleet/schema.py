"""JSON schemas that answers must fit: is this one, and what in an answer does not fit it?

The library behind it is `jsonschema`, loaded with the first schema. Nothing is ever fetched: what a schema refers to
must stand in the schema itself. What is done about an answer that does not fit is the data plane's business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from fleet import bounds, schema_rules
from fleet.patterns import PatternError
from fleet.quoting import quote

#: Characters of a schema (as compact JSON) at most. It is told to the model with every task, and paid for.
MAX_SCHEMA_CHARS = 32_000
#: Depth to which its lists and objects may be nested.
MAX_SCHEMA_DEPTH = 100
#: Steps that a schema may take to check one plain value: a hundred times what people write.
MAX_FIRST_STEPS = 20_000
#: What a schema is written in that does not say.
NEWEST_DRAFT = "https://json-schema.org/draft/2020-12/schema"
#: Checked before it is written as JSON.
_ROOM = bounds.Room(bytes=MAX_SCHEMA_CHARS, keys=MAX_SCHEMA_CHARS, depth=MAX_SCHEMA_DEPTH)
#: Schemas kept compiled in a process; making one takes some ms.
MAX_COMPILED = 256
#: Misfits of one answer that are told at most: the first ones are enough to repair it.
MAX_MISFITS = 5
#: Characters of a misfit's description at most.
MAX_MISFIT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Misfit:
    """One rule of a schema that an answer breaks.

    Args:
        rule: Where the rule stands in the schema; quotes nothing of the answer.
        told: Where in the answer and what is wrong, for the model that gave it; may quote the answer.
    """

    rule: str
    told: str


class Schema:
    """A JSON schema, compiled. Get one from `compiled`.

    Attributes:
        text: The schema as compact JSON.
        name: 16 hexadecimal digits that stand for it.
    """

    def __init__(self, text: str, validator: Any) -> None:
        self.text = text
        self.name = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
        self._validator = validator
        #: Rules and names in the schema, about: what checking an answer costs grows with it.
        self.size = text.count(":")
        #: True when checking a short answer may take long: these rules look at everything again and again.
        self.may_be_slow = any(f'"{rule}' in text for rule in ("$ref", "$dynamicRef", "contains", "pattern"))

    def misfits(self, value: Any) -> list[Misfit]:
        """Return what in a JSON value does not fit, at most `MAX_MISFITS`; empty when it fits.

        Linear in the value: patterns do not backtrack, and a check ends after `schema_rules.MAX_STEPS`; what was not
        checked by then does not fit. Weakness: `format` is not checked.
        """
        schema_rules.give_steps()
        try:
            return [_misfit(error) for error in islice(self._validator.iter_errors(value), MAX_MISFITS)]
        except RecursionError:
            return [Misfit("its depth", "it is nested too deeply")]
        except schema_rules.TooManySteps:
            return [Misfit("its size", "it is too large to be checked by this schema")]
        except PatternError as error:
            return [
                Misfit("the length of a text", f"a text in it is too long to be matched: {error}"[:MAX_MISFIT_CHARS])
            ]
        except ArithmeticError:
            return [Misfit("the size of its numbers", "it holds a number that is too large")]


def as_schema(value: object) -> object:
    """Return the JSON schema of a pydantic model class; anything else as it is.

    Raises:
        ValueError: When the model has none.
    """
    if not isinstance(value, type):
        return value
    make = getattr(value, "model_json_schema", None)
    if make is None:
        raise ValueError(f"expected a JSON schema (dict) or a pydantic model class, got class {value.__name__}")
    try:
        return make()
    except Exception as error:
        raise ValueError(
            f"expected a model that has a JSON schema, {value.__name__} has none ({type(error).__name__})"
        ) from error


def compiled(schema: Mapping[str, Any]) -> Schema:
    """Return a schema compiled; the same one is compiled once per process, and looked up by its text after that.

    Raises:
        ValueError: When it is none, or refers to something outside of itself; it says what is wrong.
    """
    bounds.check_json(schema, _ROOM)
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text) > MAX_SCHEMA_CHARS:
        raise ValueError(f"expected at most {MAX_SCHEMA_CHARS} characters of JSON schema, got {len(text)}")
    return _compiled(text)


@lru_cache(maxsize=MAX_COMPILED)
def _compiled(text: str) -> Schema:
    from jsonschema import validators
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import UnknownDialect, specification_with

    schema = json.loads(text)
    draft = schema.get("$schema", NEWEST_DRAFT)
    try:
        dialect = specification_with(str(draft))
    except UnknownDialect as error:
        raise ValueError(
            f"$schema: expected a draft of json-schema.org from 3 to 2020-12, got {quote(draft)}"
        ) from error
    kind = validators.validator_for({"$schema": draft})
    try:
        kind.check_schema(schema, format_checker=None)  # it would hand the patterns to `re`; `prepare` compiles them
        schema.pop("$schema", None)  # a part that says it is checked by jsonschema's own rules, not by the linear ones
        _prepare(schema, dialect)
        # Without a registry, jsonschema would fetch what is referred to.
        validator = schema_rules.linear(kind)(schema, registry=Registry())
        schema_rules.give_steps(MAX_FIRST_STEPS)
        validator.is_valid(None)
    except schema_rules.TooManySteps as error:
        raise ValueError("expected a JSON schema that can be checked soon, got one whose references fan out") from error
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path)) or "its top"
        raise ValueError(f"expected a JSON schema, got one that is wrong at {quote(where)}: {_short(error)}") from error
    except RecursionError as error:
        raise ValueError("expected a JSON schema, got one that is nested too deeply or refers to itself") from error
    return Schema(text, validator)


def _prepare(schema: dict[str, Any], dialect: Any) -> None:
    """Check and prepare each part, and what it refers to: a reference that leads nowhere would fail the first answer.

    Raises:
        ValueError: Naming the rule.
    """
    from referencing import Registry

    root = dialect.create_resource(schema)
    waiting = [(root, Registry().resolver_with_root(root))]
    found: list[str] = []
    seen: set[int] = set()
    while waiting:
        resource, resolver = waiting.pop()
        part = resource.contents
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            if "$schema" in part:
                raise ValueError("expected `$schema` at the top of the JSON schema only, got one inside")
            schema_rules.prepare(part, found)
            waiting += [(dialect.create_resource(there), at) for there, at in _referred(part, resolver)]
        waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]


def _referred(part: dict[str, Any], resolver: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what a part refers to, and from where that refers on."""
    from referencing.exceptions import Unresolvable

    for keyword in ("$ref", "$dynamicRef"):
        if keyword not in part:
            continue
        try:
            found = resolver.lookup(part[keyword])
        except Unresolvable as error:
            raise ValueError(
                f"{keyword}: expected a reference into the schema itself (nothing is fetched), "
                f"got {quote(part[keyword])}; put it under $defs"
            ) from error
        yield found.contents, found.resolver


def _misfit(error: Any) -> Misfit:
    rule = ".".join(map(str, error.absolute_schema_path))
    return Misfit(rule, f"{error.json_path}: {_short(error)}"[:MAX_MISFIT_CHARS])


def _short(error: Any) -> str:
    """Say what is wrong; by the rule alone when the library's sentence quotes too much of the value."""
    if len(error.message) <= MAX_MISFIT_CHARS:
        return str(error.message)
    return f"expected {error.validator} {json.dumps(error.validator_value, ensure_ascii=False)}"[:MAX_MISFIT_CHARS]
