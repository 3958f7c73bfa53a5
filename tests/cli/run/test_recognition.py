"""How lines of IN and answers of OUT find each other."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.run.entries import InputLine, LineFormat, read_questions
from fleet.cli.run.recognition import AnswerIndex, NumberTable


def questions(*values: Any) -> list[InputLine]:
    return list(read_questions([json.dumps(value).encode() for value in values], LineFormat()))


def record(question: InputLine, status: str = "ok") -> dict[str, Any]:
    return {"id": question.id, "line": question.line, "status": status, "asked": question.asked}


def found(records: list[dict[str, Any]], asking: list[InputLine]) -> AnswerIndex:
    answers = AnswerIndex()
    for one in records:
        answers.add(one)
    for question in asking:
        answers.meet(question)
    return answers


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), max_size=3000))
def test_a_table_holds_what_was_put_in(numbers: dict[int, int]) -> None:
    table = NumberTable()
    if 0 in numbers:
        numbers.pop(1, None)
    for key, value in numbers.items():
        table.set(key, 7)
        table.set(key, value)
    assert len(table) == len(numbers)
    assert {key: table.get(key) for key in numbers if key in table} == numbers


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12), st.data())
def test_an_answer_goes_to_the_line_that_asks_for_it_and_only_what_is_new_is_asked(
    old: list[str], new: list[str], data: st.DataObject
) -> None:
    before, now = questions(*old), questions(*new)
    done = [question for question in before if data.draw(st.booleans())]
    answers = found([record(question) for question in done], now)
    settled = [answers.settled(record(question)) for question in done]
    by_line = {row["line"]: row["asked"] for row in settled if row["line"] is not None}
    answered = [question for question in now if answers.has(question)]
    assert by_line == {question.line: question.asked for question in answered}
    assert {question.asked for question in answered} == {q.asked for q in done} & {q.asked for q in now}
    assert answers.survey.answered + answers.survey.fresh == len(now)
    assert answers.survey.answered + answers.survey.gone == len(done)


def test_an_answer_moves_with_its_line_and_so_does_the_number_that_stands_for_its_id() -> None:
    before, now = questions({"id": "a", "prompt": "p"}, "q"), questions("new", "q", {"id": "a", "prompt": "p"})
    answers = found([record(question) for question in before], now)
    assert answers.is_out_of_date
    assert [answers.settled(record(question))["line"] for question in before] == [3, 2]
    assert [answers.settled(record(question))["id"] for question in before] == ["a", 2]
    assert (answers.survey.moved, answers.survey.fresh, answers.survey.gone) == (1, 1, 0)


def test_an_answer_whose_question_is_gone_has_no_line_until_it_is_asked_again() -> None:
    (before,) = questions({"id": "a", "prompt": "p"})
    (edited,) = questions({"id": "a", "prompt": "P"})
    lost = found([record(before)], [edited]).settled(record(before))
    assert (lost["id"], lost["line"]) == ("a", None)
    assert not found([lost], [edited]).is_out_of_date
    assert found([lost], [before]).settled(lost) == record(before)


def test_records_of_the_previous_release_are_known_by_number_and_id() -> None:
    before = questions({"id": "a", "prompt": "p"}, "q", {"id": "c", "prompt": "r"})
    old = [{"id": question.id, "line": question.line, "status": "ok"} for question in before]
    now = questions({"id": "a", "prompt": "p"}, "q", {"id": "other", "prompt": "r"})
    answers = found(old, now)
    assert [answers.has(question) for question in now] == [True, True, False]
    assert [answers.settled(row)["line"] for row in old] == [1, 2, None]
    assert [answers.settled(row).get("asked") for row in old[:2]] == [question.asked for question in now[:2]]
    assert "2 answers of an earlier release" in str(answers.survey)
    upgraded = [answers.settled(row) for row in old]
    assert not found(upgraded, now).is_out_of_date


def test_a_survey_is_one_line() -> None:
    before = questions("a", "b", "c")
    survey = found([record(question) for question in before], questions("b", "a", "d")).survey
    assert str(survey) == (
        "2 lines answered before, 1 to ask; 2 answers moved with their lines; "
        "1 answer to no line of IN any more: it stays, with `line` null"
    )
