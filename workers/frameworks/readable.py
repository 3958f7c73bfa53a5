"""Whether a 2xx, or an event of one, is what the SDK of its wire will read without looking. Pure.

What is not is the provider's failure, as it is for `chat()` (`providers/openai_compatible.py`, `anthropic.py`): an SDK
would hand a function nothing, or half of an answer, and the bot would be blamed. What only says the same in other words
is put into those of the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fleet.workers.judge import is_known
from fleet.workers.providers.finish_reasons import finish_reason

#: Why the model stopped, in the words of chat completions: clients know no others.
_OPENAI_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
#: States of a response that is no answer.
_FAILED = frozenset({"failed", "cancelled"})


class NoAnswer(ValueError):
    """A 2xx that is none of its wire's, or half of one. Says what was expected and the kind of what came.

    Args:
        told: The sentence.
        is_half: The provider itself says that something went wrong on the way: what came is charged.
    """

    def __init__(self, told: str, *, is_half: bool = False) -> None:
        super().__init__(told)
        self.is_half = is_half


def readable(endpoint: str, answer: dict[str, Any], asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return an answer in its wire's own words; the same object where it is in these.

    Args:
        endpoint: Below the API's root. What is not known here is believed.
        answer: What came.
        asked: The body of the request.

    Raises:
        NoAnswer: It is none.
    """
    if endpoint == "embeddings":
        return _embeddings(answer, asked or {})
    read = _WHOLE.get(endpoint)
    return answer if read is None else read(answer)


def readable_event(endpoint: str, event: dict[str, Any]) -> dict[str, Any] | None:
    """Return an event of a stream in its wire's own words; None for one that says nothing.

    Raises:
        NoAnswer: The answer has broken off.
    """
    if endpoint in ("chat/completions", "completions"):
        return _chunk(event, has_deltas=endpoint == "chat/completions")
    if endpoint == "messages" and event.get("type") == "message_delta" and isinstance(event.get("delta"), dict):
        _check_reason(event["delta"].get("stop_reason"))
    return event


def is_event(endpoint: str, event: Mapping[str, Any]) -> bool:
    """True for an event of the endpoint's wire; another may be an error that is not called one."""
    if endpoint in ("chat/completions", "completions"):
        return "choices" in event or "usage" in event or str(event.get("object")).startswith("chat.completion")
    return endpoint not in _WHOLE or isinstance(event.get("type"), str)


def _chat(answer: dict[str, Any]) -> dict[str, Any]:
    choices = _objects(answer.get("choices"), "a completion with `choices`")
    read = [_choice(choice) for choice in choices]
    return answer if all(one is other for one, other in zip(read, choices, strict=True)) else answer | {"choices": read}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(message := choice.get("message"), dict):
        raise _unlike("a completion with `choices[0].message`", message)
    return _with_reason(choice)


def _text_choices(answer: dict[str, Any]) -> dict[str, Any]:
    for choice in _objects(answer.get("choices"), "a completion with `choices`"):
        if not isinstance(text := choice.get("text"), str):
            raise _unlike("a completion with `choices[0].text`", text)
        _check_reason(choice.get("finish_reason"))
    return answer


def _message(answer: dict[str, Any]) -> dict[str, Any]:
    content = answer.get("content")
    if content is None and answer.get("type") == "message":
        return answer | {"content": []}
    if not isinstance(content, list):
        raise _unlike("a message with `content`", content)
    _check_reason(answer.get("stop_reason"))
    blocks = [block for block in content if isinstance(block, dict)]
    return answer if len(blocks) == len(content) else answer | {"content": blocks}


def _response(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("status") in _FAILED:
        raise NoAnswer("expected a whole answer, got a response that has failed", is_half=True)
    if not isinstance(output := answer.get("output"), list):
        raise _unlike("a response with `output`", output)
    if not output and answer.get("status") in (None, "completed"):
        raise _unlike("a response with `output`", output)
    return answer


def _embeddings(answer: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    texts = asked.get("input")
    is_list = isinstance(texts, list) and bool(texts) and not isinstance(texts[0], int)
    wanted = len(texts) if is_list and isinstance(texts, list) else 1
    vectors = _objects(answer.get("data"), "embeddings in `data`")
    came = sum(bool(one.get("embedding")) for one in vectors)
    if came < wanted:
        raise NoAnswer(f"expected {wanted} embeddings, got {came}")
    return answer


_WHOLE: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "chat/completions": _chat, "completions": _text_choices, "messages": _message, "responses": _response,
}  # fmt: skip


def _chunk(event: dict[str, Any], *, has_deltas: bool) -> dict[str, Any] | None:
    """Return a chunk of a completion: with a list of choices, of which each has a delta."""
    choices, usage = event.get("choices"), event.get("usage")
    if not isinstance(choices, list) or not choices:
        return None if not usage else event if choices == [] else event | {"choices": []}
    read = [_delta(choice) if has_deltas else choice for choice in choices if isinstance(choice, dict)]
    for choice in read:
        _check_reason(choice.get("finish_reason"))
    is_same = len(read) == len(choices) and all(one is other for one, other in zip(read, choices, strict=True))
    return event if is_same else event | {"choices": read}


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    choice = _with_reason(choice)
    if isinstance(choice.get("delta"), dict):
        return choice
    message = choice.get("message")
    return as_delta(choice if isinstance(message, dict) else choice | {"message": {}})


def as_delta(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice of a whole completion as the one piece of a stream."""
    message = dict(choice["message"])
    if isinstance(calls := message.get("tool_calls"), list):
        message["tool_calls"] = [{"index": at, **call} for at, call in enumerate(calls) if isinstance(call, dict)]
    return {**{name: value for name, value in choice.items() if name != "message"}, "delta": message}


def _with_reason(choice: dict[str, Any]) -> dict[str, Any]:
    told = choice.get("finish_reason")
    meant = _check_reason(told)
    return choice if meant is None or told in _OPENAI_REASONS else choice | {"finish_reason": meant}


def _check_reason(told: object) -> str | None:
    """Return what a word for why the model stopped means; None where there is none."""
    if not isinstance(told, str) or not told:
        return None
    if not is_known(meant := finish_reason(told)):
        raise NoAnswer("expected a whole answer, got one that broke off for a reason of the provider's", is_half=True)
    return meant


def _objects(value: object, expected: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _unlike(expected, value)
    for item in value:
        if not isinstance(item, dict):
            raise _unlike(expected, item)
    return value


def _unlike(expected: str, got: object) -> NoAnswer:
    return NoAnswer(f"expected {expected}, got {'an empty list' if got == [] else type(got).__name__}")
