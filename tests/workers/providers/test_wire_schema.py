"""Schemas made ready for strict modes, what servers say that refuse one, and what is learnt from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from fleet.lessons import MOST_LESSONS, Notebook
from fleet.schema import compiled
from fleet.workers.providers.wire_schema import (
    IGNORED,
    MOST_COUNTED,
    Forms,
    anthropic_schema,
    refusal_of_schema,
    strict_schema,
)


def ready(schema: dict[str, Any]) -> dict[str, Any]:
    return strict_schema(json.dumps(schema))


class Inner(BaseModel):
    word: str = Field(description="a word")


class Outer(BaseModel):
    inner: Inner = Field(description="the inner one")
    maybe: int | None = None
    many: list[Inner]


def is_strict(schema: Any) -> bool:
    """What OpenAI's strict mode asks of every object: closed, all keys required, no reference with anything beside."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if "$ref" in schema and len(schema) > 1:
        return False
    if schema.get("type") == "object" and not (
        schema.get("additionalProperties") is False
        and set(schema.get("required", ())) == set(schema.get("properties", ()))
    ):
        return False
    return "default" not in schema and all(map(is_strict, schema.values()))


def test_a_pydantic_model_is_ready_for_strict_modes() -> None:
    assert not is_strict(Outer.model_json_schema())
    assert is_strict(ready(Outer.model_json_schema()))
    assert ready(Outer.model_json_schema())["properties"]["inner"]["description"] == "the inner one"


def test_what_is_open_or_optional_on_purpose_stays_so() -> None:
    opened = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True}
    assert ready(opened)["additionalProperties"] is True
    assert ready({"type": "object", "additionalProperties": {"type": "integer"}}) == {
        "type": "object", "additionalProperties": {"type": "integer"},
    }  # fmt: skip
    optional = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}
    assert ready(optional)["required"] == ["a"]


def test_objects_that_are_parts_of_one_are_not_closed() -> None:
    parts = [{"type": "object", "properties": {name: {}}, "required": [name]} for name in "ab"]
    assert ready({"allOf": parts}) == {"allOf": parts}


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/node", "description": "the next"}},
        "required": ["next"],
    }
    assert len(json.dumps(ready({"$ref": "#/$defs/node", "$defs": {"node": node}}))) < 10_000


def test_names_of_keys_are_no_rules() -> None:
    schema = {"type": "object", "properties": {"default": {"type": "integer"}, "title": {"type": "string"}}}
    assert set(ready(schema)["properties"]) == {"default", "title"}
    bounded = {"type": "object", "properties": {"minimum": {"type": "integer", "minimum": 3}}, "required": ["minimum"]}
    told = anthropic_schema(json.dumps(bounded))["properties"]["minimum"]
    assert told == {"type": "integer", "description": "(minimum: 3)"}


_KINDS = st.sampled_from(
    [{"type": "integer"}, {"type": "string"}, {"type": ["integer", "null"]}, {"enum": ["x", None]}]
)
_SCHEMAS = st.recursive(
    _KINDS,
    lambda inner: st.one_of(
        st.builds(
            lambda keys, required, closed: {
                "type": "object", "properties": keys, "required": [name for name in keys if name in required],
                **({} if closed is None else {"additionalProperties": closed}),
            },
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.sets(st.sampled_from("abc")),
            st.sampled_from([None, True, False]),
        ),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
    ),
    max_leaves=6,
)  # fmt: skip
_VALUES = st.recursive(
    st.one_of(st.none(), st.integers(0, 3), st.sampled_from("xy")),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=6,
)


@given(_SCHEMAS, _VALUES)
def test_what_fits_a_schema_made_ready_fits_the_schema(schema: dict[str, Any], value: Any) -> None:
    if not compiled(ready(schema)).misfits(value):
        assert not compiled(schema).misfits(value)


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        # OpenAI
        (400, "Invalid schema for response_format 'answer': In context=(), 'additionalProperties' is required to be "
              "supplied and to be false.", "schema"),
        (400, "Invalid schema for response_format 'answer': In context=(), 'required' is required to be supplied and "
              "to be an array including every key in properties. Missing 'b'.", "schema"),
        (400, "Invalid schema for response_format 'answer': schema must be a JSON Schema of 'type: \"object\"', got "
              "'type: \"array\"'.", "schema"),
        (400, "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.", "whole"),
        (400, "Unrecognized request argument supplied: response_format", "whole"),
        # Anthropic
        (400, "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false",
         "schema"),
        (400, "output_config.format: Extra inputs are not permitted", "whole"),
        (400, "This model does not support structured outputs.", "whole"),
        (400, "Schema is too complex. Simplify your schema or reduce the number of strict tools.", "schema"),
        # others
        (400, "This response_format type is unavailable now", "whole"),
        (400, "This model does not support response format `json_schema`. See supported models", "whole"),
        (400, "JSON schema conversion failed:\\nUnrecognized schema: {}", "schema"),
        (400, "Failed to parse grammar", "schema"),
        (500, "json_schema: unable to compile the grammar of this schema", "schema"),
        (422, "body.response_format.type: Input should be 'text' or 'json_object'", "whole"),
        (422, "response_format.json_schema.strict: Extra inputs are not permitted", "schema"),
        (404, "No endpoints found that support response_format: structured outputs", "whole"),
        # not about it at all
        (400, "Unsupported value: 'temperature' does not support 0.3 with this model.", None),
        (400, "output_config.effort: Extra inputs are not permitted", None),
        (400, "This model does not support the effort parameter.", None),
        (400, "maximum context length is 2048 tokens, 2723 were requested", None),
        (401, "response_format: bad key", None),
        (429, "Invalid schema for response_format", None),
    ],
)  # fmt: skip
def test_what_servers_say_of_a_schema(status: int, message: str, refused: str | None) -> None:
    assert refusal_of_schema(status, message) == refused
    assert refusal_of_schema(status, f"gateway.BadRequest: upstream said - {message}") == refused


@given(st.integers(100, 599), st.text(max_size=200))
def test_any_sentence_is_read_without_a_crash(status: int, told: str) -> None:
    assert refusal_of_schema(status, told) in ("schema", "whole", None)


def test_a_refused_form_leads_to_the_next_for_this_schema_and_model_alone() -> None:
    forms = Forms(Notebook())
    assert forms.form("a/m", "s") == "strict"
    forms.refused("a/m", "s", "strict", whole=False)
    forms.refused("a/m", "s", "strict", whole=False)  # another call that was in flight with it
    assert forms.form("a/m", "s") == "loose"
    forms.refused("a/m", "s", "loose", whole=False)
    assert (forms.form("a/m", "s"), forms.form("a/m", "t"), forms.form("a/n", "s")) == ("prompt", "strict", "strict")
    forms.refused("a/n", "s", "strict", whole=True)
    assert (forms.form("a/n", "t"), forms.form("a/m", "t")) == ("prompt", "strict")


def test_a_server_that_passes_over_schemas_is_noticed_and_one_bad_answer_is_not_that() -> None:
    forms = Forms(Notebook())
    for _ in range(IGNORED - 1):
        forms.came("a/m", "s", is_json=False)
    forms.came("a/m", "s", is_json=True)
    for _ in range(IGNORED - 1):
        forms.came("a/m", "s", is_json=False)
    assert forms.form("a/m", "s") == "strict"
    forms.came("a/m", "s", is_json=False)
    assert forms.form("a/m", "s") == "prompt"


def test_what_is_learnt_is_bounded_and_what_is_refused_at_all_outlives_single_schemas() -> None:
    notebook = Notebook()
    forms = Forms(notebook)
    notebook.learn("a/m", "temperature")
    for number in range(2 * MOST_COUNTED):
        forms.came("a/m", str(number), is_json=False)
    for number in range(2 * MOST_LESSONS):
        forms.refused("a/m", str(number), "strict", whole=False)
    assert len(notebook.refused("a/m")) <= MOST_LESSONS and len(forms._not_json) <= MOST_COUNTED
    assert "temperature" in notebook.refused("a/m")


def test_what_another_process_has_learnt_holds_here_and_after_a_day_one_call_tries_again() -> None:
    notebook, key = Notebook(), ("a/m", "schema:s:strict")
    Forms(notebook).refused("a/m", "s", "strict", whole=False)
    forms = Forms(notebook)
    assert forms.form("a/m", "s") == "loose"
    notebook.let_probe({key})
    assert [forms.form("a/m", "s") for _ in range(2)] == ["strict", "loose"]
    forms.refused("a/m", "s", "strict", whole=False)
    notebook.let_probe({key})
    assert forms.form("a/m", "s") == "strict"
    forms.came("a/m", "s", is_json=True)
    assert [forms.form("a/m", "s") for _ in range(2)] == ["strict", "strict"]
