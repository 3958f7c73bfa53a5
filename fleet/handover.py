"""What a bot task makes of results that are handed to it: a chain hands over one, the body of a chord gets a list.

Their answers become the prompt, joined by a blank line; a prompt of the task's own comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from fleet.errors import InvalidTask

#: What stands between two answers, and between the task's own prompt and what was handed over.
JOINT = "\n\n"
#: Fields that every result has and no task.
_RESULT_FIELDS = frozenset(("task_id", "status", "finished_at"))
#: What holds several of them.
_SEVERAL = (list, tuple)


def take_handed(args: Sequence[Any]) -> tuple[str | None, Sequence[Any]]:
    """Return the text of the results that come first among a task's arguments, and the other arguments.

    Raises:
        InvalidTask: When one of them has no answer.
    """
    if not args or isinstance(args[0], str):  # most tasks: nothing to look at
        return None, args
    if isinstance(args[0], _SEVERAL) or _is_result(args[0]):
        return _text_of(args[0]), args[1:]
    return None, args


def with_handed(task: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return the fields of a task with handed text after its prompt, or as the last turn of its conversation."""
    messages = task.get("messages")
    if messages and isinstance(messages, _SEVERAL):
        return {**task, "messages": [*messages, {"role": "user", "content": text}]}
    prompt = task.get("prompt")
    return {**task, "prompt": f"{prompt}{JOINT}{text}" if isinstance(prompt, str) and prompt else text}


def _is_result(value: object) -> bool:
    if isinstance(value, dict):
        return "finished_at" in value and value.keys() >= _RESULT_FIELDS  # the first part is quick, and mostly enough
    return isinstance(value, BaseModel) and type(value).model_fields.keys() >= _RESULT_FIELDS


def _text_of(handed: Any) -> str:
    if _is_result(handed):
        return _answer_of(handed.model_dump() if isinstance(handed, BaseModel) else handed)
    if isinstance(handed, _SEVERAL) and handed:
        return JOINT.join(map(_text_of, handed))
    if isinstance(handed, str) and handed:
        return handed
    what = "an empty list" if isinstance(handed, _SEVERAL) else type(handed).__name__
    raise InvalidTask(f"expected results of bots or texts to be handed over, got {what}")


def _answer_of(result: Mapping[str, Any]) -> str:
    answer, error = result.get("answer"), result.get("error")
    if result["status"] != "failed" and isinstance(answer, str) and answer:
        return answer
    came = f"one that failed ({error.get('type')})" if isinstance(error, Mapping) else "one without"
    raise InvalidTask(
        f"expected a result with an answer to be handed over, got {came}: see the result of the task before this one"
    )
