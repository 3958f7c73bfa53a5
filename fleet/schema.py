"""JSON schemas that answers must fit: is this one, and what in an answer does not fit it?

The library behind it is `jsonschema`, loaded with the first schema. Nothing is ever fetched: what a schema refers to
must stand in the schema itself. What is done about an answer that does not fit is the data plane's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from fleet.quoting import quote

#: Characters of a schema (as compact JSON) at most. It is told to the model with every task, and paid for.
MAX_SCHEMA_CHARS = 32_000
#: What a schema is written in that does not say.
NEWEST_DRAFT = "https://json-schema.org/draft/2020-12/schema"
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
    """

    def __init__(self, text: str, validator: Any) -> None:
        self.text = text
        self._validator = validator
        #: True when checking a short answer may take long: these rules look at everything again and again.
        self.may_be_slow = any(f'"{rule}"' in text for rule in ("uniqueItems", "$ref", "$dynamicRef", "contains"))

    def misfits(self, value: Any) -> list[Misfit]:
        """Return what in a JSON value does not fit, at most `MAX_MISFITS`; empty when it fits.

        Weakness: a `pattern` that backtracks without end blocks the process, and `format` is not checked.
        """
        try:
            return [_misfit(error) for error in islice(self._validator.iter_errors(value), MAX_MISFITS)]
        except RecursionError:
            return [Misfit("its depth", "it is nested too deeply")]
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
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
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
        kind.check_schema(schema)
        _check_references(schema, dialect)
        validator = kind(schema, registry=Registry())  # without one, jsonschema would fetch what is referred to
        validator.is_valid(None)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path)) or "its top"
        raise ValueError(f"expected a JSON schema, got one that is wrong at {quote(where)}: {_short(error)}") from error
    except RecursionError as error:
        raise ValueError("expected a JSON schema, got one that is nested too deeply or refers to itself") from error
    return Schema(text, validator)


def _check_references(schema: Mapping[str, Any], dialect: Any) -> None:
    """Resolve every reference now: one that leads nowhere would otherwise fail with the first answer that meets it."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    root = dialect.create_resource(schema)
    waiting = [(root, Registry().resolver_with_root(root))]
    while waiting:
        resource, resolver = waiting.pop()
        if isinstance(resource.contents, dict):
            for keyword in ("$ref", "$dynamicRef"):
                try:
                    resolver.lookup(resource.contents.get(keyword, "#"))
                except Unresolvable as error:
                    raise ValueError(
                        f"{keyword}: expected a reference into the schema itself (nothing is fetched), "
                        f"got {quote(resource.contents[keyword])}; put it under $defs"
                    ) from error
        waiting += [(part, resolver.in_subresource(part)) for part in resource.subresources()]


def _misfit(error: Any) -> Misfit:
    rule = ".".join(map(str, error.absolute_schema_path))
    return Misfit(rule, f"{error.json_path}: {_short(error)}"[:MAX_MISFIT_CHARS])


def _short(error: Any) -> str:
    """Say what is wrong; by the rule alone when the library's sentence quotes too much of the value."""
    if len(error.message) <= MAX_MISFIT_CHARS:
        return str(error.message)
    return f"expected {error.validator} {json.dumps(error.validator_value, ensure_ascii=False)}"[:MAX_MISFIT_CHARS]
