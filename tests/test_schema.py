"""JSON schemas of answers: which are taken, and what does not fit them."""

from __future__ import annotations

import http.server
import json
import threading
import time
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fleet import schema_rules
from fleet.errors import InvalidTask
from fleet.models import BotTask
from fleet.schema import MAX_MISFITS, MAX_SCHEMA_CHARS, compiled
from tests.every import every

PRICE = {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}


class Offer(BaseModel):
    """A model as a user writes one."""

    name: str
    price: float | None = None


class Tree(BaseModel):
    """A model whose schema refers to itself."""

    children: list[Tree]


class Callback(BaseModel):
    """A model that has no schema."""

    model_config = {"arbitrary_types_allowed": True}
    call: threading.Thread


def test_a_task_takes_a_schema_or_a_pydantic_model_and_carries_the_schema() -> None:
    task = BotTask.parse("An offer, please.", answer_schema=Offer)
    assert task.answer_schema == Offer.model_json_schema() == BotTask(prompt="x", answer_schema=Offer).answer_schema  # type: ignore[arg-type]
    assert BotTask.parse("x", answer_schema=PRICE).answer_schema == PRICE
    wire = json.loads(json.dumps(task.model_dump(mode="json", exclude_defaults=True)))
    assert BotTask.parse(**wire) == task


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "nonsense"}, "expected a JSON schema, got one that is wrong at 'type'"),
        ({"properties": {"a": {"minimum": "3"}}}, "wrong at 'properties.a.minimum'"),
        ({"pattern": "("}, "pattern: expected a pattern that can be matched in linear time"),
        ({"$schema": "http://example.com/mine"}, "expected a draft of json-schema.org"),
        ({"$schema": 7}, "expected a draft of json-schema.org"),
        ({"$ref": "#/$defs/nowhere"}, "nothing is fetched"),
        ({"items": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}, "nothing is fetched"),
        ({"$ref": "#"}, "refers to itself"),
        (reduce(lambda inner, _: {"items": inner}, range(150), {}), "nested too deeply"),
        ({"description": "x" * MAX_SCHEMA_CHARS}, f"expected at most {MAX_SCHEMA_CHARS:,} bytes"),
        (int, "pydantic model class, got class int"),
        (Callback, "Callback has none"),
        ("type: object", "valid dictionary, got str"),
        ({"const": object()}, "not a valid JSON value, got object"),
    ],
)
def test_what_is_no_schema_is_refused_in_the_producer_by_name(schema: Any, expected: str) -> None:
    with pytest.raises(InvalidTask, match=r"^answer_schema: ") as refused:
        BotTask.parse("hi", answer_schema=schema)
    assert expected in str(refused.value)


def test_a_reference_to_another_machine_is_never_fetched() -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/schema.json"
        try:
            for schema in (
                {"$ref": url},
                {"items": {"$dynamicRef": url}},
                {"$id": url, "items": {"$ref": "other.json"}},
            ):
                with pytest.raises(InvalidTask, match="nothing is fetched"):
                    BotTask.parse("hi", answer_schema=schema)
            assert compiled({"const": {"$ref": url}}).misfits({"$ref": url}) == []
        finally:
            server.shutdown()
            thread.join(5)
    assert asked == []


def test_references_inside_the_schema_work_in_every_draft() -> None:
    assert compiled(Tree.model_json_schema()).misfits({"children": [{"children": []}]}) == []
    assert compiled(Tree.model_json_schema()).misfits({"children": [{}]})
    seven = {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {"type": "integer"}},
             "items": {"$ref": "#/definitions/n"}}  # fmt: skip
    assert compiled(seven).misfits([1]) == [] and compiled(seven).misfits(["1"])
    named = {"$id": "http://example.com/a", "$defs": {"n": {"$id": "n", "type": "integer"}}, "items": {"$ref": "n"}}
    assert compiled(named).misfits([1]) == [] and compiled(named).misfits(["1"])


def test_a_schema_is_compiled_once() -> None:
    assert compiled(PRICE) is compiled(json.loads(json.dumps(PRICE)))


def test_a_misfit_names_the_rule_and_tells_the_model_what_is_wrong() -> None:
    (misfit,) = compiled(PRICE).misfits({"price": "x" * 1000})
    assert misfit.rule == "properties.price.type"
    assert misfit.told == '$.price: expected type "number"'
    (missing,) = compiled(PRICE).misfits({})
    assert (missing.rule, missing.told) == ("required", "$: 'price' is a required property")


def test_only_the_first_misfits_are_told() -> None:
    assert len(compiled({"items": {"type": "string"}}).misfits(list(range(100)))) == MAX_MISFITS


def test_values_that_break_a_validator_do_not_fit() -> None:
    deep = reduce(lambda inner, _: {"children": [inner]}, range(400), {"children": []})
    assert "nested too deeply" in compiled(Tree.model_json_schema()).misfits(deep)[0].told
    assert "too large" in compiled({"multipleOf": 0.01}).misfits(10**400)[0].told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_value_either_fits_or_is_told_why_not_in_few_words(value: Any) -> None:
    misfits = compiled(Offer.model_json_schema()).misfits(value)
    good = isinstance(value, dict) and isinstance(value.get("name"), str)
    assert good or misfits
    assert every(misfit.rule and 0 < len(misfit.told) <= 200 for misfit in misfits)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"pattern": "(?=a)b"}, "pattern: expected a pattern that can be matched in linear time"),
        ({"items": {"pattern": r"(a)\1"}}, "backreferences are not supported"),
        ({"patternProperties": {"(?!x)": {}}}, "patternProperties: expected a pattern"),
        ({"$defs": {"a": {"pattern": "(?=a)"}}, "$ref": "#/$defs/a"}, "linear time"),
        ({"x": {"pattern": "(?=a)"}, "$ref": "#/x"}, "linear time"),
        ({"propertyNames": {"pattern": "(?=a)"}}, "linear time"),
        ({"pattern": "(a{100}){100}"}, "places, repetitions counted"),
        ({"allOf": [{"pattern": f"a{n}"} for n in range(200)]}, "at most 100 patterns"),
        ({"items": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "(?=a)"}}, "at the top"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "no unevaluatedProperties beside it"),
        ({"minimum": float("nan")}, "has no NaN"),
        (
            {
                "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}},
                "$ref": "#/$defs/d0",
            },
            "references fan out",
        ),
    ],
)
def test_what_cannot_be_checked_in_linear_time_is_refused_at_submission(schema: Any, expected: str) -> None:
    with pytest.raises(InvalidTask, match=r"^answer_schema: ") as refused:
        BotTask.parse("hi", answer_schema=schema)
    assert expected in str(refused.value)


DRAFTS = [
    None,
    "https://json-schema.org/draft/2019-09/schema",
    *(f"http://json-schema.org/draft-0{number}/schema#" for number in (3, 4, 6, 7)),
]


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("rules", [
    {"pattern": "(a+)+$"},
    {"patternProperties": {"(a+)+$": {"type": "integer"}}},
    {"patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False},
    {"items": {"enum": list(range(3000))}},
    {"uniqueItems": True},
])  # fmt: skip
def test_no_answer_takes_long_to_be_checked_in_any_draft(draft: str | None, rules: dict[str, Any]) -> None:
    schema = compiled(rules if draft is None else {"$schema": draft, **rules})
    long = "a" * 50_000 + "!"
    started = time.thread_time()
    for value in (long, {long: 1}, [{"n": n} for n in range(2000)], list(range(3000))):
        schema.misfits(value)
    assert time.thread_time() - started < 3


def test_patterns_unique_items_and_enums_mean_what_they_say() -> None:
    def fits(schema: dict[str, Any], value: Any) -> bool:
        return compiled(schema).misfits(value) == []

    assert fits({"pattern": "b"}, "abc") and not fits({"pattern": "^b"}, "abc") and fits({"pattern": "b"}, 5)
    named = {"patternProperties": {"^n_": {"type": "integer"}}, "properties": {"x": {}}, "additionalProperties": False}
    assert fits(named, {"n_a": 1, "x": "y"}) and not fits(named, {"n_a": "1"}) and not fits(named, {"m": 1})
    assert fits({"additionalProperties": {"type": "integer"}}, {"a": 1}) and not fits(
        {"additionalProperties": {"type": "integer"}}, {"a": "1"}
    )
    assert fits({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}]) and fits({"uniqueItems": False}, [1, 1])
    for twice in ([1, 1.0], [{"a": [1]}, {"a": [1]}], ["x", "x"], [None, None]):
        assert not fits({"uniqueItems": True}, twice)
    assert fits({"enum": [1, "a", {"b": []}]}, 1.0) and fits({"enum": [{"b": []}]}, {"b": []})
    assert not fits({"enum": [1]}, True) and not fits({"enum": [[0]]}, [False])


def test_a_check_that_takes_too_many_steps_ends_as_a_misfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_rules, "MAX_STEPS", 3000)
    tree = {"$defs": {"t": {"items": {"anyOf": [{"$ref": "#/$defs/t"}, {"$ref": "#/$defs/t"}]}, "maxItems": 1}},
            "$ref": "#/$defs/t"}  # fmt: skip
    deep: Any = [1, 2]
    for _ in range(40):
        deep = [deep]
    (misfit,) = compiled(tree).misfits(deep)
    assert "too large to be checked" in misfit.told
    long = compiled({"pattern": "(a|b|c){1,600}x"}).misfits("a" * 100_000)
    assert "too long to be matched" in long[0].told
