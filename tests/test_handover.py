"""What a bot task makes of the results that a canvas hands to it."""

from __future__ import annotations

from typing import Any

import pytest
from kombu.utils.json import dumps, loads

from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask, TaskError


def result(answer: str | None = "42", **fields: Any) -> BotResult:
    return BotResult.model_validate({"task_id": "t1", "status": "ok", "answer": answer, "finished_at": 1.0, **fields})


FAILED = result(None, status="failed", error=TaskError(type="BadAnswer", message="m", blame="bot"))


@pytest.mark.parametrize(
    ("args", "kwargs", "prompt"),
    [
        ((result(),), {}, "42"),
        ((result().model_dump(mode="json"),), {"kind": "sum"}, "42"),
        ((result(), "Is this right?"), {}, "Is this right?\n\n42"),
        ((result(),), {"prompt": "Is this right?"}, "Is this right?\n\n42"),
        ((result(status="degraded"), {"prompt": "Go on."}), {}, "Go on.\n\n42"),
        (([result("a"), result("b").model_dump()], "Which is better?"), {}, "Which is better?\n\na\n\nb"),
        (([["a", result("b")], "c"],), {}, "a\n\nb\n\nc"),
        ((result(), BotTask(prompt="Is this right?")), {}, "Is this right?\n\n42"),
    ],
)
def test_answers_that_are_handed_over_become_the_prompt_after_the_tasks_own(
    args: tuple[Any, ...], kwargs: dict[str, Any], prompt: str
) -> None:
    assert BotTask.parse(*args, **kwargs).prompt == prompt


def test_an_answer_that_is_handed_to_a_conversation_becomes_its_last_turn() -> None:
    task = BotTask.parse(result(), messages=[{"role": "system", "content": "Be brief."}])
    assert [(turn.role, turn.content) for turn in task.conversation()] == [("system", "Be brief."), ("user", "42")]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((FAILED,), r"got one that failed \(BadAnswer\)"),
        (([result(), FAILED.model_dump(mode="json")],), r"got one that failed \(BadAnswer\)"),
        ((result(""),), "got one without"),
        (([],), "got an empty list"),
        (([5],), "got int"),
        ((result(), "a", "b"), "at most one positional argument"),
        (("a", "b"), "at most one positional argument"),
    ],
)
def test_what_has_no_answer_is_refused_in_words(args: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InvalidTask, match=says):
        BotTask.parse(*args)


def test_tasks_and_results_travel_in_messages_as_plain_json() -> None:
    there = loads(dumps([result(), BotTask(prompt="x", priority="high")]))  # type: ignore[arg-type]
    assert BotResult.model_validate(there[0]) == result()
    assert BotTask.parse(there[1]) == BotTask(prompt="x", priority="high")  # type: ignore[arg-type]


def test_a_result_reads_like_the_dict_that_a_task_of_the_users_own_gets() -> None:
    assert (result()["answer"], FAILED["error"]["type"]) == ("42", "BadAnswer")
    with pytest.raises(KeyError):
        result()["model_dump"]
