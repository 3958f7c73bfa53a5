from __future__ import annotations

import json

import pytest
from hypothesis import given
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
    ['Here it is: {"price": 3}', '{"price": 3', "{'price': 3}", "NaN", "```", "``````", "", "```json\n```",
     '{"price": 3} {"price": 4}', "[" * 100_000, "1" * 10_000, '{"price": Infinity}'],
)  # fmt: skip
def test_what_is_no_json_does_not_fit(text: str):
    (misfit,) = json_answer.read(text, ANY)[1]
    assert misfit.rule == "JSON itself" and misfit.told.startswith("it is not JSON")


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
