"""A JSON value that fits a schema, made by chance: what a model with structured output would answer.

Not a sampler of all values: of what a schema leaves open it takes something short and plain. `fleet.schema` checks the
value, so that what comes out is valid or an error.
"""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fleet.schema import compiled
from fleet.workers.simulator.answers import SENTENCE_POOL

#: Values that are made before a schema is given up.
ATTEMPTS = 30
#: Depth from which on only what a schema demands is made: schemas may refer to themselves.
DEEP = 6
#: Depth at which a schema is given up.
TOO_DEEP = 40
#: Items of a list, and how far a number is from its bound, unless the schema says otherwise.
MOST_ITEMS = 3
MOST_NUMBER = 100

_WORDS = tuple(
    sorted({word for sentence in SENTENCE_POOL for word in sentence.rstrip(".").lower().split() if word.isalpha()})
)
_PRINTABLE = "abcdefghijklmnopqrstuvwxyz0123456789"
#: The parser of Python's `re`: its tree of a pattern is what a text is made from. It has no public name.
_PARSER: Any = importlib.import_module("re._parser")


class CannotMake(Exception):
    """No value was found that fits."""


def make_json(schema: Mapping[str, Any], chance: random.Random, *, text: str = "") -> str:
    """Return a JSON text that is valid under a schema.

    Args:
        schema: What it must fit.
        chance: Decides what the schema leaves open.
        text: What the model wants to say: goes where the first text is wanted, or the first number if it is one. A text
            that is itself JSON that fits is the answer as it is.

    Raises:
        ValueError: When it is no JSON schema.
        CannotMake: When no value was found.
    """
    checked = compiled(schema)
    if text and _fits(text, checked):
        return text
    for attempt in range(ATTEMPTS):
        maker = _Maker(schema, chance, text if attempt < ATTEMPTS // 2 else "")
        try:
            value = maker.value(schema, 0)
        except (CannotMake, RecursionError):
            continue
        if not checked.misfits(value):
            return json.dumps(value, separators=(",", ":"))
    raise CannotMake("expected a schema that this simulator can make a value for, got one that it cannot")


def _fits(text: str, checked: Any) -> bool:
    try:
        return not checked.misfits(json.loads(text))
    except (ValueError, RecursionError):
        return False


class _Maker:
    """Makes one value. `text` is used up by the first text, and the number that it may be by the first number."""

    def __init__(self, root: Mapping[str, Any], chance: random.Random, text: str) -> None:
        self._root = root
        self._chance = chance
        self._text = self._number_said = text

    def value(self, schema: Any, depth: int) -> Any:
        if depth > TOO_DEEP:
            raise CannotMake
        if schema is True or schema == {}:
            return self._word()
        if not isinstance(schema, Mapping):
            raise CannotMake
        if "$ref" in schema:
            rest = {name: rule for name, rule in schema.items() if name != "$ref"}
            return self.value(_merged(self._referred(schema["$ref"]), rest), depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                rest = {name: rule for name, rule in schema.items() if name != keyword}
                return self.value(_merged(rest, self._branch(schema[keyword], depth)), depth + 1)
        if schema.get("allOf"):
            rest = {name: rule for name, rule in schema.items() if name != "allOf"}
            for part in schema["allOf"]:
                found = self._referred(part["$ref"]) if isinstance(part, Mapping) and "$ref" in part else part
                rest = _merged(rest, found)
            return self.value(rest, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._chance.choice(schema["enum"])
        return self._typed(schema, depth)

    def _branch(self, branches: Sequence[Any], depth: int) -> Any:
        """Pick a branch; deep down the one that is written shortest, which most likely ends."""
        if depth >= DEEP:
            return min(branches, key=lambda branch: len(json.dumps(branch)))
        return self._chance.choice(branches)

    def _typed(self, schema: Mapping[str, Any], depth: int) -> Any:
        kinds = schema.get("type") or _implied(schema)
        if not isinstance(kinds, str):
            kinds = "null" if depth >= DEEP and "null" in kinds else self._chance.choice(list(kinds))
        match kinds:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return self._number(schema, whole=True)
            case "number":
                return self._number(schema, whole=False)
            case "boolean":
                return self._chance.random() < 0.5
            case "null":
                return None
        raise CannotMake

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        known = schema.get("properties", {})
        required = list(schema.get("required", ()))
        least = schema.get("minProperties", 0)
        made: dict[str, Any] = {}
        for name, part in known.items():
            is_wanted = name in required or len(made) < least or (depth < DEEP and self._chance.random() < 0.7)
            if is_wanted and part is not False:
                made[name] = self.value(part, depth + 1)
        open_to = schema.get("additionalProperties", True)
        for name in [name for name in required if name not in made]:
            made[name] = self.value(open_to, depth + 1)
        while len(made) < least:
            made[f"{self._word()}{len(made)}"] = self.value(open_to, depth + 1)
        return made

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        firsts = schema.get("prefixItems", [])
        least = max(schema.get("minItems", 0), schema.get("minContains", 1 if "contains" in schema else 0))
        most = schema.get("maxItems", max(MOST_ITEMS, least))
        fewest = max(least, min(1, most))
        count = least if depth >= DEEP else self._chance.randint(fewest, max(fewest, min(most, least + MOST_ITEMS)))
        items = schema.get("items", schema.get("contains", True))
        made: list[Any] = [self.value(part, depth + 1) for part in firsts[:most]]
        if items is False:
            return made
        tries = 0
        while len(made) < max(count, least) and tries < ATTEMPTS + count:
            tries += 1
            value = self.value(schema["contains"] if "contains" in schema and not made else items, depth + 1)
            if not (schema.get("uniqueItems") and value in made):
                made.append(value)
        return made

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float | int:
        low, high = schema.get("minimum"), schema.get("maximum")
        step = schema.get("multipleOf") or (1 if whole else None)
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        gap = step or 0.01
        if isinstance(above, int | float) and not isinstance(above, bool):
            low = above + gap if low is None else max(low, above + gap)
        if isinstance(below, int | float) and not isinstance(below, bool):
            high = below - gap if high is None else min(high, below - gap)
        said = _as_number(self._number_said, whole=whole)
        if said is not None and (low is None or said >= low) and (high is None or said <= high):
            self._number_said = ""
            return said
        if low is None:
            low = 0 if high is None or high >= 0 else high - MOST_NUMBER
        if high is None or high < low:
            high = low + MOST_NUMBER * gap
        if step is None:
            return round(self._chance.uniform(low, high), 2) if high - low > 0.02 else low
        first, last = -(-low // step), high // step
        made = self._chance.randint(int(first), max(int(first), int(last))) * step
        return int(made) if whole or float(made).is_integer() else made

    def _string(self, schema: Mapping[str, Any]) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if "pattern" in schema:
            return self._matching(schema["pattern"])
        if schema.get("format") in _FORMATS:
            return self._formatted(schema["format"])
        said, self._text = self._text, ""
        made = said or " ".join(self._word() for _ in range(self._chance.randint(1, 3)))
        while len(made) < least:
            made += f" {self._word()}"
        return made if most is None else made[:most]

    def _matching(self, pattern: str) -> str:
        try:
            return "".join(self._made_of(_PARSER.parse(pattern)))
        except (re_error, OverflowError) as error:
            raise CannotMake from error

    def _made_of(self, tree: Any) -> list[str]:
        """Return pieces of a text that one parsed pattern matches. Raises `CannotMake` for what it does not know."""
        made: list[str] = []
        for operation, argument in tree:
            name = str(operation)
            if name == "LITERAL":
                made.append(chr(argument))
            elif name in ("NOT_LITERAL", "ANY"):
                made.append(self._chance.choice([one for one in _PRINTABLE if one != chr(argument or 0)]))
            elif name == "IN":
                made.append(self._one_of(argument))
            elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
                least, most, inner = argument
                for _ in range(self._chance.randint(least, min(int(most), least + MOST_ITEMS))):
                    made += self._made_of(inner)
            elif name == "SUBPATTERN":
                made += self._made_of(argument[-1])
            elif name == "BRANCH":
                made += self._made_of(self._chance.choice(argument[1]))
            elif name != "AT":  # the borders of a text and of words: nothing is written there
                raise CannotMake
        return made

    def _one_of(self, parts: Any) -> str:
        """Return one character of a class."""
        is_negated = str(parts[0][0]) == "NEGATE"
        chosen: set[str] = set()
        for operation, argument in parts:
            match str(operation):
                case "LITERAL":
                    chosen.add(chr(argument))
                case "RANGE":
                    chosen |= {chr(code) for code in range(argument[0], min(argument[1], argument[0] + 200) + 1)}
                case "CATEGORY":
                    chosen |= _CATEGORIES.get(str(argument), set())
        if is_negated:
            chosen = set(_PRINTABLE) - chosen
        if not chosen:
            raise CannotMake
        return self._chance.choice(sorted(chosen))

    def _formatted(self, kind: str) -> str:
        chance = self._chance
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(31_536_000))
        word = self._word()
        return {
            "date": moment.date().isoformat(),
            "time": f"{moment:%H:%M:%S}Z",
            "date-time": f"{moment:%Y-%m-%dT%H:%M:%S}Z",
            "duration": f"P{chance.randint(1, 30)}D",
            "email": f"{word}@example.com",
            "hostname": f"{word}.example.com",
            "ipv4": f"192.0.2.{chance.randint(1, 254)}",
            "ipv6": f"2001:db8::{chance.randint(1, 9999)}",
            "uri": f"https://example.com/{word}",
            "uuid": str(UUID(int=chance.getrandbits(128), version=4)),
        }[kind]

    def _word(self) -> str:
        return self._chance.choice(_WORDS)

    def _referred(self, address: str) -> Any:
        """Return what a reference into the schema itself leads to. Raises `CannotMake`."""
        found: Any = self._root
        for name in address.removeprefix("#").split("/")[1:]:
            plain = name.replace("~1", "/").replace("~0", "~").replace("%25", "%")
            try:
                found = found[int(plain)] if isinstance(found, list) else found[plain]
            except (KeyError, IndexError, ValueError, TypeError):
                raise CannotMake from None
        if not address.startswith("#"):
            raise CannotMake
        return found


re_error: type[Exception] = _PARSER.error
_FORMATS = frozenset(("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"))
_CATEGORIES = {
    "CATEGORY_DIGIT": set("0123456789"),
    "CATEGORY_WORD": set(_PRINTABLE),
    "CATEGORY_SPACE": {" "},
    "CATEGORY_NOT_DIGIT": set("abcdefgh"),
    "CATEGORY_NOT_SPACE": set(_PRINTABLE),
    "CATEGORY_NOT_WORD": {" ", "-"},
}


def _merged(one: Any, other: Any) -> Any:
    """Return what fits both of two schemas, as far as that is told by joining their rules."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return one if other is True else other
    made = {**one, **other}
    for name in ("properties", "$defs"):
        if name in one and name in other:
            made[name] = {**one[name], **other[name]}
    if "required" in one and "required" in other:
        made["required"] = [*dict.fromkeys([*one["required"], *other["required"]])]
    return made


def _implied(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema without one speaks of."""
    rules = schema.keys()
    if rules & {"properties", "required", "additionalProperties", "minProperties"}:
        return "object"
    if rules & {"items", "prefixItems", "minItems", "maxItems", "contains"}:
        return "array"
    if rules & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}:
        return "number"
    return "string"


def _as_number(text: str, *, whole: bool) -> float | int | None:
    try:
        return int(text) if whole or text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return None
