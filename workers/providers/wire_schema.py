"""JSON schemas as the wires take them, and what a server says that takes one not so, or not at all.

Pure. Strict modes refuse optional keys and open objects. So a schema is made ready for them where that leaves every
answer that fits it one that fits the schema of the task; that one decides in the end.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Literal

from fleet.errors import FleetError, KeyRejected, RateLimited, Relearnt
from fleet.workers.ports import Lessons

#: Schemas kept made ready in a process.
_MOST = 256
#: Characters of an error's sentences that are looked at.
_LOOKED_AT = 16_384
#: Rules that say nothing about an answer, and that strict modes refuse.
_IDLE = frozenset({"$schema", "$id", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"})
#: Rules beside a reference that only describe.
_TELLING = frozenset({"title", "description"})
#: Rules with which closing one object may change what fits another.
_COMPOSED = frozenset({"allOf", "not", "if", "dependentSchemas", "unevaluatedProperties", "$dynamicRef"})
#: Rules of values that Anthropic's wire refuses: they are told in words there, and checked by the task's own schema.
_UNKNOWN_TO_ANTHROPIC = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
#: Name of the one key of an object that holds an answer which is none.
WRAPPED = "answer"
#: Levels to which references are written out.
_DEEPEST = 8

Rules = dict[str, Any]


class SchemaRefused(Relearnt):
    """The server refuses the schema as it was told: ask again in the next form.

    Args:
        message: What it said.
        whole: True when it takes no schema of any kind from this model.
    """

    def __init__(self, message: str, *, whole: bool) -> None:
        super().__init__(message)
        self.whole = whole


@lru_cache(maxsize=_MOST)
def strict_schema(text: str) -> Rules:
    """Return a schema made ready for strict modes; do not change it.

    Objects that say nothing about further keys are closed, and optional keys that may be null are required. Other
    optional keys and objects that are open on purpose stay: a strict mode refuses them, and the next form is asked.

    Args:
        text: The schema as JSON.
    """
    schema: Rules = json.loads(text)
    return _Ready(schema).made()


@lru_cache(maxsize=_MOST)
def anthropic_schema(text: str) -> Rules:
    """Return a strict schema for Anthropic's wire: rules that it refuses are told in the descriptions."""
    made: Rules = _told_in_words(strict_schema(text))
    return made


@lru_cache(maxsize=_MOST)
def loose_schema(text: str) -> Rules:
    """Return a schema as the task has it."""
    schema: Rules = json.loads(text)
    return schema


@lru_cache(maxsize=_MOST)
def openai_schema(text: str, *, strict: bool) -> Rules:
    """Return a schema for OpenAI's wire, which takes objects only: any other kind of answer is put into one.

    Args:
        text: The schema as JSON.
        strict: Made ready for its strict mode.
    """
    schema = strict_schema(text) if strict else loose_schema(text)
    if not is_wrapped(text):
        return schema
    beside = {name: value for name, value in schema.items() if name in ("$defs", "definitions")}
    inner = {name: value for name, value in schema.items() if name not in ("$defs", "definitions", "$schema")}
    made = {"type": "object", "properties": {WRAPPED: inner}, "required": [WRAPPED], "additionalProperties": False}
    return {**made, **beside}


@lru_cache(maxsize=_MOST)
def is_wrapped(text: str) -> bool:
    """True for a schema whose answers are put into an object on OpenAI's wire: they are none, or may be none."""
    schema = loose_schema(text)
    return (
        schema.get("type") != "object" and not _holds(schema, frozenset({"$dynamicRef"})) and '"$ref":"#"' not in text
    )


def unwrapped(text: str, answer: str) -> str:
    """Return an answer without the object that it was asked for in; as it is when it has none.

    Args:
        text: The schema as JSON.
        answer: What came.
    """
    if not is_wrapped(text):
        return answer
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return answer
    is_one = isinstance(value, dict) and list(value) == [WRAPPED]
    return json.dumps(value[WRAPPED], ensure_ascii=False) if is_one else answer


class _Ready:
    """Makes one schema ready."""

    def __init__(self, root: Rules) -> None:
        self._root = root
        self._closes = not _holds(root, _COMPOSED)

    def made(self) -> Rules:
        made: Rules = self._rules(self._root, 0)
        return made

    def _rules(self, rules: Any, depth: int) -> Any:
        if not isinstance(rules, dict):
            return rules
        rules = self._written_out(rules, depth)
        made = {name: self._inner(name, value, depth) for name, value in rules.items() if name not in _IDLE}
        properties = made.get("properties")
        if self._closes and isinstance(properties, dict) and "patternProperties" not in made:
            made.setdefault("additionalProperties", False)
            known = [name for name in made.get("required") or () if isinstance(name, str)]
            made["required"] = known + [n for n, rule in properties.items() if n not in known and _may_be_null(rule)]
        return made

    def _inner(self, name: str, value: Any, depth: int) -> Any:
        if name in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
            return {key: self._rules(rule, depth) for key, rule in value.items()}
        if name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            return [self._rules(rule, depth) for rule in value]
        return self._rules(value, depth) if name in ("items", "additionalProperties", "contains") else value

    def _written_out(self, rules: Rules, depth: int) -> Rules:
        """Return rules in which no reference has something beside it, which strict modes refuse."""
        alone = rules.get("allOf")
        if isinstance(alone, list) and len(alone) == 1 and isinstance(alone[0], dict):
            rules = {**alone[0], **{name: value for name, value in rules.items() if name != "allOf"}}
        beside = rules.keys() - {"$ref"} - _IDLE - {"$defs", "definitions"}
        if "$ref" not in rules or not beside or not beside <= _TELLING:
            return rules
        there = self._referred(rules["$ref"])
        if there is None or depth >= _DEEPEST:
            return {"$ref": rules["$ref"]}
        others = {name: value for name, value in rules.items() if name != "$ref"}
        written: Rules = self._rules({**there, **others}, depth + 1)
        return written

    def _referred(self, ref: object) -> Rules | None:
        found: Any = self._root
        for step in str(ref).removeprefix("#/").split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found if isinstance(found, dict) and str(ref).startswith("#/") else None


def _holds(rules: Any, names: frozenset[str]) -> bool:
    """True when a schema has one of these rules anywhere; an `allOf` of one is none."""
    waiting = [rules]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            found = names & part.keys()
            if found - {"allOf"} or (
                isinstance(part.get("allOf"), list) and "allOf" in found and len(part["allOf"]) > 1
            ):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return False


def _may_be_null(rules: Any) -> bool:
    if not isinstance(rules, dict):
        return False
    kind = rules.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind):
        return "enum" not in rules or None in rules["enum"]
    return any(_may_be_null(rule) for name in ("anyOf", "oneOf") for rule in rules.get(name) or ())


def _told_in_words(rules: Any) -> Any:
    if isinstance(rules, list):
        return [_told_in_words(rule) for rule in rules]
    if not isinstance(rules, dict):
        return rules
    made = {
        name: {key: _told_in_words(rule) for key, rule in value.items()}
        if name in ("properties", "$defs", "definitions") and isinstance(value, dict)
        else _told_in_words(value) if name in ("items", "anyOf", "oneOf", "allOf", "prefixItems") else value
        for name, value in rules.items()
    }  # fmt: skip
    if "oneOf" in made and "anyOf" not in made:
        made["anyOf"] = made.pop("oneOf")
    told = {name: made.pop(name) for name in _UNKNOWN_TO_ANTHROPIC if name in made}
    if made.get("minItems") not in (None, 0, 1):
        told["minItems"] = made.pop("minItems")
    if told:
        words = ", ".join(f"{name}: {json.dumps(value)}" for name, value in told.items())
        made["description"] = f"{made['description']} ({words})" if made.get("description") else f"({words})"
    return made


#: What an error names when it is about the form of an answer.
_ABOUT = re.compile(
    r"response[_ ]?format|output_config\.format|output_config(?!\.)|output_format|json[_ -]?schema|"
    r"structured[_ ]output|guided|grammar|\bschema\b|additionalproperties"
)
#: What it says when the model takes no schema at all.
_NOT_AT_ALL = re.compile(
    r"not support|n't support|unsupported|not available|unavailable|unknown|unrecogni[sz]ed|not permitted|not allowed|"
    r"unexpected|not implemented|not enabled|only (?:be )?(?:one of|supports?)|expected one of|"
    r"must be (?:one of|either|'text)|no such|invalid (?:value|parameter|argument|type)|should be"
)
#: What it speaks about when it is this very schema; `json_schema` is taken out before.
_THIS_SCHEMA = re.compile(
    r"\bschemas?\b|additionalproperties|\brequired\b|\bproperties\b|\bstrict\b|\$ref|\$defs|keyword|grammar|"
    r"optional|recursi|\banyof|\boneof|\ballof|nest|context=|too (?:complex|large|many|deep)|compil"
)
_KIND = re.compile(r"(?:response_)?json[_ -]schema(?!:| is invalid| conversion| not valid)|schema type")


def refusal_of_schema(status: int, told: str) -> Literal["schema", "whole"] | None:
    """Return what a server refuses of a request with a schema: that schema, all of them, or (None) something else.

    In doubt it is that schema: then the others are asked by the wire as before.

    Args:
        status: What the answer means; what isn't the request's fault is nothing else than what it says.
        told: The provider's sentences, and the parameter that it names.
    """
    if status not in (400, 404, 415, 422, 500, 501):
        return None
    text = told[:_LOOKED_AT].lower()
    if not _ABOUT.search(text):
        return None
    without_kind = _KIND.sub("", text)
    if _THIS_SCHEMA.search(without_kind):
        return "schema"
    return "whole" if status in (404, 415, 501) or _NOT_AT_ALL.search(text) else "schema"


def refused_schema(error: FleetError, status: int, param: str, sentences: str) -> SchemaRefused | None:
    """Return the error of a call with a schema when what was refused is the schema, else None.

    Args:
        error: What the refusal would be without one.
        status: What the answer means.
        param: The parameter that it names.
        sentences: The provider's own.
    """
    if isinstance(error, KeyRejected | RateLimited):
        return None
    refused = refusal_of_schema(status, f"{param}\n{sentences}")
    return refused and SchemaRefused(f"{error}: asked again in another form", whole=refused == "whole")


Form = Literal["strict", "loose", "prompt"]
#: What a model that takes no schema at all refuses, and what one that does not take a schema in a form does: lessons,
#: as `fleet/lessons.py` keeps and shares them.
NO_SCHEMA, SCHEMA = "schema", "schema:{name}:{form}"
#: Answers in a row that are no JSON at all after which a server is taken for one that does not read the schema.
IGNORED = 3
#: Models and schemas whose answers are counted at most.
MOST_COUNTED = 2000


class Forms:
    """How each model takes schemas: strict, else loose, else by the prompt, as far as the fleet has learnt it.

    Args:
        lessons: What models refuse.
    """

    def __init__(self, lessons: Lessons) -> None:
        self._lessons = lessons
        self._not_json: dict[tuple[str, str], int] = {}
        self._tried_again: dict[tuple[str, str], str] = {}

    def form(self, model: str, schema: str) -> Form:
        """Return how to tell a model of a schema; a day after a refusal, once as it was refused.

        Args:
            model: `provider/model`.
            schema: The schema's name.
        """
        if not (refused := self._lessons.refused(model)):
            return "strict"
        strict, loose = _lesson(schema, "strict"), _lesson(schema, "loose")
        for lesson, form in ((NO_SCHEMA, _STRICT), (strict, _STRICT), (loose, _LOOSE)):
            if lesson in refused and self._lessons.may_probe(model, lesson):
                self._tried_again[model, schema] = lesson
                return form
        if NO_SCHEMA in refused or loose in refused:
            return "prompt"
        return "loose" if strict in refused else "strict"

    def refused(self, model: str, schema: str, form: Form, *, whole: bool) -> None:
        """Learn that a model refuses a schema in a form."""
        if (tried := self._tried_again.pop((model, schema), None)) is not None:
            self._lessons.learn(model, tried)  # for another day
        self._lessons.learn(model, NO_SCHEMA if whole else _lesson(schema, form))

    def came(self, model: str, schema: str, *, is_json: bool) -> None:
        """Learn from an answer by the wire: servers that do not know a field may pass over it in silence."""
        key = model, schema
        if is_json:
            self._not_json.pop(key, None)
            if (taken := self._tried_again.pop(key, None)) is not None:
                self._lessons.forget(model, taken)
            return
        if len(self._not_json) >= MOST_COUNTED:
            self._not_json.clear()
        self._not_json[key] = self._not_json.get(key, 0) + 1
        if self._not_json[key] >= IGNORED:
            self._lessons.learn(model, _lesson(schema, "loose"))


_STRICT: Form = "strict"
_LOOSE: Form = "loose"


def _lesson(schema: str, form: Form) -> str:
    return SCHEMA.format(name=schema, form=form)
