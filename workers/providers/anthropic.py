"""Anthropic's messages API: system text apart, turns that alternate and begin with the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yarl import URL

from fleet.conversation import Message
from fleet.errors import BadRequest
from fleet.workers.ports import Call, Completion
from fleet.workers.providers.base import HttpProvider, bad_wire
from fleet.workers.providers.finish_reasons import finish_reason
from fleet.workers.providers.usage import read_usage

#: Version of the wire, as the vendor dates it.
API_VERSION = "2023-06-01"
#: Highest temperature this vendor takes; a hotter persona gets this one.
MAX_TEMPERATURE = 1.0
#: Stands in for the user's turn when a conversation begins with the assistant's: the wire wants the user first.
OPENING = "(the conversation goes on)"


class Anthropic(HttpProvider):
    """Adapter for `POST {base_url}/v1/messages`."""

    def __init__(self, base_url: URL) -> None:
        super().__init__(base_url, "/v1/messages")

    def _headers(self, api_key: str) -> Mapping[str, str]:
        own = {"x-api-key": api_key} if api_key else {}
        return {**own, "anthropic-version": API_VERSION, "Content-Type": "application/json"}

    def _body(self, call: Call) -> dict[str, Any]:
        system, turns = split_messages(call.messages)
        body: dict[str, Any] = {"model": call.model, "max_tokens": call.max_output_tokens, "messages": turns}
        if system:
            body["system"] = system
        if call.temperature is not None and call.model not in self._no_temperature:
            body["temperature"] = min(call.temperature, MAX_TEMPERATURE)
        return body

    def _completion(self, call: Call, answer: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        blocks = answer.get("content")
        if not isinstance(blocks, list):
            if answer.get("type") != "message" or blocks is not None:
                raise bad_wire(self.host, "a message with `content`", blocks)
            blocks = []
        texts = (block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text")
        text = "".join(part for part in texts if isinstance(part, str))
        reason = answer.get("stop_reason")
        return Completion(
            text=text,
            finish_reason=finish_reason(reason) if isinstance(reason, str) and reason else "stop",
            usage=read_usage(answer.get("usage"), call, text),
            headers=headers,
        )


def split_messages(messages: Sequence[Message]) -> tuple[str, list[dict[str, str]]]:
    """Return the system text and the turns as this wire wants them.

    System messages are lifted out wherever they stand, empty messages dropped, neighbours of one role joined by a
    blank line, and spaces at the end of a closing assistant turn cut off, all because the API refuses them otherwise.

    Raises:
        BadRequest: When there is no user's turn at all.
    """
    system = "\n\n".join(message.text for message in messages if message.role == "system" and message.text.strip())
    turns: list[dict[str, str]] = []
    for message in messages:
        if message.role == "system" or not message.text.strip():
            continue
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] += f"\n\n{message.text}"
        else:
            turns.append({"role": message.role, "content": message.text})
    if not any(turn["role"] == "user" for turn in turns):
        raise BadRequest("expected at least one user message with text, got none: nothing was sent", blame="prompt")
    if turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": OPENING})
    if turns[-1]["role"] == "assistant":
        turns[-1]["content"] = turns[-1]["content"].rstrip()
    return system, turns
