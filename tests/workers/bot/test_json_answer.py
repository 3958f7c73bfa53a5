from __future__ import annotations

import json
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet.conversation import Message
from fleet.errors import InvalidTask
from fleet.faults import Fault
from fleet.schema import Misfit, compiled
from fleet.workers.bot import json_answer
from fleet.workers.context import count_message_tokens, count_tokens
from tests.every import every
from tests.test_schema import JSON, PRICE

ANY = compiled({})


@pytest.mark.parametrize(
    "text",
    [
        '{"price": 3}',
        ' \n{"price": 3}\n\n',
        '```json\n{"price": 3}\n```',
        '```JSON\r\n{"price": 3}\r\n```\n',
        '```\n{"price": 3}\n```',
        '```{"price": 3}```',
        '```json {"price": 3} ```',
        '\ufeff{"price": 3}',
    ],
)
def test_white_space_and_a_code_fence_around_json_are_taken_off(text: str):
    assert json_answer.read(text, compiled(PRICE)) == ('{"price": 3}', [])


@pytest.mark.parametrize(
    "text",
    ["Here it is: 3", '{"price": 3', 'Here: {"price": [3], "more": {"a": 1}', "{'price': [3]}",
     "NaN", "```", "``````", "", "```json\n```",
     '{"price": 3} {"price": 4}', "[" * 100_000, "1" * 10_000, '{"price": Infinity}'],
)  # fmt: skip
def test_what_is_no_json_does_not_fit(text: str):
    (misfit,) = json_answer.read(text, ANY)[1]
    assert misfit.rule == "JSON itself" and misfit.told.startswith("it is not JSON")


@pytest.mark.parametrize(
    "text",
    [
        'Here it is: {"price": 3}',
        '{"price": 3}\n\nAnything else?',
        'Sure!\n\n```json\n{"price": 3}\n```\n\nIt is {cheap} as of [1].',
        'As {asked} in [1] and [2, 3]: {"price": 3}. Good?',
        '\ufeffSure: ```{"price": 3}```',
        'Sure:\n```json\n{"price": 3}',
        'A draft {"price": "three"}, and the answer {"price": 3}',
        '```json\n{"price": 3}\n```\nor, in another form:\n```json\n{"cost": 3}\n```',
        '{"price": 3} as I said: {"price": 3}',
        'The set { is open. {"price": 3}',
    ],
)
def test_the_one_json_value_is_found_between_sentences_and_in_fences(text: str):
    assert json_answer.read(text, compiled(PRICE)) == ('{"price": 3}', [])


def test_a_value_between_sentences_that_does_not_fit_is_told_as_what_it_breaks():
    (misfit,) = json_answer.read('Here: {"price": "three"}.', compiled(PRICE))[1]
    assert misfit.rule == "properties.price.type"


@pytest.mark.parametrize("text", ['{"price": 3} or {"price": 4}', '```\n{"price": 3}\n```\n```\n{"price": 4}\n```'])
def test_of_two_values_that_fit_none_is_taken(text: str):
    assert json_answer.read(text, compiled(PRICE))[1][0].rule == "JSON itself"


CONTAINERS = st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=8), JSON, max_size=4)
WORDS = st.text(st.characters(exclude_characters="{}[]`"), max_size=40)


@given(
    CONTAINERS, WORDS, WORDS, st.sampled_from(["{}", "```json\n{}\n```", "```\n{}\n```"]), st.sampled_from([None, 2])
)
def test_json_between_any_words_comes_through_unchanged(
    value: object, before: str, after: str, form: str, indent: int | None
):
    text = json.dumps(value, indent=indent)
    said = f"{before}\n{form.replace('{}', text)}\n{after}"
    assume("```" not in text)
    assert json_answer.read(said, compiled({"type": ["object", "array"]})) == (text, [])


@given(st.lists(st.sampled_from(["{", "}", "[", "]", '"', ":", ",", "```", "a", "1", " ", "\n", "\\"]), max_size=60))
def test_any_brackets_are_read_without_an_error(parts: list[str]):
    bare, misfits = json_answer.read("".join(parts), ANY)
    assert misfits or json.loads(bare) is not NotImplemented


@pytest.mark.parametrize("unit", ["[", "{", '{"a":', "[1", "{x}", "[1] ", "```", "```json\n[", '"{'])
def test_the_time_is_linear_in_the_text(unit: str):
    started = time.process_time()
    json_answer.read(unit * 100_000, ANY)
    assert time.process_time() - started < 2


@given(JSON, st.sampled_from(["{}", "```json\n{}\n```", "```\n{}```", "  {}\n"]), st.sampled_from([None, 2]))
def test_all_json_comes_through_unchanged(value: object, form: str, indent: int | None):
    text = json.dumps(value, indent=indent)
    assert json_answer.read(form.replace("{}", text), ANY) == (text, [])


def test_the_rules_hold_the_whole_schema_or_are_refused():
    assert compiled(PRICE).text in json_answer.rules(compiled(PRICE), 200)
    with pytest.raises(InvalidTask, match=r"answer_schema: expected at most 30 tokens.*context_windows_tokens"):
        json_answer.rules(compiled(PRICE), 50)


@given(st.text(max_size=3000), st.lists(st.text(max_size=200), min_size=1, max_size=5), st.integers(64, 8000))
def test_a_repair_takes_a_small_part_of_the_room(answer: str, wrong: list[str], room: int):
    turns = json_answer.repair(answer, [Misfit("rule", told) for told in wrong], room)
    assert [turn.role for turn in turns] == ["assistant", "user"]
    assert every(count_tokens(turn.content) <= room * json_answer.REPAIR_SHARE for turn in turns)


def test_the_rules_end_the_system_prompt_and_count_for_its_length():
    turns = (Message(role="assistant", content="no"), Message(role="user", content="Again."))
    told = json_answer.with_rules((Message(role="system", content="Be brief."),), "Answer in JSON.", turns)
    assert told[0].content == "Be brief.\n\nAnswer in JSON." and told[1:] == turns
    beside = json_answer.beside_tokens("Answer in JSON.", turns)
    bare = count_message_tokens((Message(role="system", content="Be brief."),))
    assert count_message_tokens(told) <= bare + beside


def test_the_error_names_rules_and_nothing_of_the_answer():
    error = json_answer.unfit([Misfit("properties.price.type", "'a secret' is no number"), Misfit("b", "c")], "; hint")
    assert "'properties.price.type' and 1 more; hint" in str(error) and "secret" not in str(error)
    assert error.fault is Fault.SCHEMA
