"""Which JSON schemas the vendors take for structured output, and how they refuse the others: in their own words.

OpenAI's strict mode wants every key required and every object closed. Anthropic's wants objects closed, leaves keys
optional, and takes no bounds. Not their whole lists: what people run into.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Keywords that OpenAI's strict mode refuses.
NOT_PERMITTED = (
    "allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties",
    "unevaluatedProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedItems", "contains",
    "minContains", "maxContains", "uniqueItems",
)  # fmt: skip
#: Depth of nesting at most in OpenAI's strict mode.
MAX_DEPTH = 10
#: What Anthropic refuses, by type.
UNSUPPORTED: Mapping[str, tuple[str, ...]] = {
    "string": ("maxLength", "minLength"),
    "number": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "integer": ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"),
    "array": ("contains", "maxItems", "uniqueItems"),
}

Path = tuple[str, ...]


def openai_objection(schema: Mapping[str, Any], *, is_strict: bool) -> str | None:
    """Return what OpenAI has against a schema, after the words "Invalid schema for ...: "; None when it takes it."""
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    if not is_strict:
        return None
    return next((told for path, part in _parts(schema) if (told := _strict_objection(path, part))), None)


def anthropic_objection(schema: Mapping[str, Any]) -> str | None:
    """Return what Anthropic has against a schema; None when it takes it."""
    return next((told for _, part in _parts(schema) if (told := _closed_objection(part))), None)


def _strict_objection(path: Path, part: Any) -> str | None:
    where = f"In context={path}, "
    if not isinstance(part, Mapping):
        return f"{where}schema must be an object."
    if len(path) > 2 * MAX_DEPTH:
        return f"{where}expected at most {MAX_DEPTH} levels of nesting."
    for name in NOT_PERMITTED:
        if name in part:
            return f"{where}'{name}' is not permitted."
    if "$ref" in part:
        beside = sorted(part.keys() - {"$ref"})
        return f"{where}$ref cannot have keywords {set(beside)}." if beside else None
    if not part.keys() & {"type", "anyOf", "enum", "const"}:
        return f"{where}schema must have a 'type' key."
    kinds = part.get("type")
    if kinds == "array" and "items" not in part:
        return f"{where}array schema missing items."
    return _object_objection(where, part) if kinds == "object" or "properties" in part else None


def _object_objection(where: str, part: Mapping[str, Any]) -> str | None:
    if part.get("additionalProperties", True) is not False:
        return f"{where}'additionalProperties' is required to be supplied and to be false."
    keys, required = part.get("properties", {}), part.get("required")
    for key in keys:
        if not isinstance(required, list) or key not in required:
            return (
                f"{where}'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{key}'."
            )
    extra = [key for key in required or () if key not in keys]
    return f"{where}'required' is required to be supplied. Extra required key '{extra[0]}' supplied." if extra else None


def _closed_objection(part: Any) -> str | None:
    if not isinstance(part, Mapping):
        return None
    for name in ("oneOf", "not", "if", "patternProperties"):
        if name in part:
            return f"Schema type '{name}' is not supported"
    kinds = part.get("type")
    if kinds == "object" or (kinds is None and "properties" in part):
        if "additionalProperties" not in part:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        if part["additionalProperties"] is not False:
            return (
                "For 'object' type, 'additionalProperties: "
                f"{str(part['additionalProperties']).lower() if part['additionalProperties'] is True else 'object'}' "
                "is not supported. Please set 'additionalProperties' to false"
            )
    for kind in [kinds] if isinstance(kinds, str) else kinds or ():
        if found := [name for name in UNSUPPORTED.get(kind, ()) if name in part]:
            named = f"property '{found[0]}' is" if len(found) == 1 else f"properties {', '.join(found)} are"
            return f"For '{kind}' type, {named} not supported"
        if kind == "array" and part.get("minItems", 0) not in (0, 1):
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def _parts(schema: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every part of a schema that is a schema itself, from the top down, with the way to it."""
    yield path, schema
    if not isinstance(schema, Mapping) or len(path) > 2 * MAX_DEPTH + 2:
        return
    for keyword in ("properties", "$defs", "definitions"):
        inner = schema.get(keyword)
        if isinstance(inner, Mapping):
            for name, part in inner.items():
                yield from _parts(part, (*path, keyword, str(name)))
    if "items" in schema:
        yield from _parts(schema["items"], (*path, "items"))
    for keyword in ("anyOf", "allOf", "oneOf", "prefixItems"):
        inner = schema.get(keyword)
        if isinstance(inner, list):
            for index, part in enumerate(inner):
                yield from _parts(part, (*path, keyword, str(index)))
