"""Odd answers: what a 200 was seen to hold beside or instead of an answer. Each changes a body of JSON values in place.

On OpenAI's wire a body has `choices`, on Anthropic's `content`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Body = dict[str, Any]
Spoil = Callable[[Body], None]

#: Sentence that the looping model says again and again, and how often.
LOOPED, LOOPS = "and so the tide comes back to the harbour, ", 60


def said(body: Body, change: Callable[[str], str]) -> None:
    """Change the text of every answer."""
    for choice in body.get("choices", ()):
        choice["message"]["content"] = change(choice["message"].get("content") or "")
    for block in body.get("content", ()):
        if block["type"] == "text":
            block["text"] = change(block["text"])


def ended(body: Body, openai: str | None, anthropic: str | None) -> None:
    """Change why the answers ended."""
    for choice in body.get("choices", ()):
        choice["finish_reason"] = openai
    if "stop_reason" in body:
        body["stop_reason"] = anthropic


def half(body: Body) -> None:
    """Leave half of each text."""
    said(body, lambda text: text[: len(text) // 2])


def error_in_choice(body: Body) -> None:
    """Half an answer, and the error inside the choice."""
    half(body)
    ended(body, "error", "error")
    for choice in body.get("choices", ()):
        choice["error"] = {"code": 502, "message": "Upstream disconnected"}


def network_error(body: Body) -> None:
    """Half an answer, and a reason that no documentation names."""
    half(body)
    ended(body, "network_error", "network_error")


def filtered(body: Body) -> None:
    """Nothing, because a filter struck."""
    said(body, lambda text: "")
    ended(body, "content_filter", "refusal")


def filtered_otherwise(body: Body) -> None:
    """The same in another vendor's word."""
    said(body, lambda text: "")
    ended(body, "SAFETY", "SAFETY")


def refused_in_words(body: Body) -> None:
    """A refusal in a field of its own."""
    for choice in body.get("choices", ()):
        choice["message"] |= {"content": None, "refusal": "I'm sorry, I can't help with that."}
    if "stop_reason" in body:
        filtered(body)


def only_thoughts(body: Body) -> None:
    """The whole allowance went into thinking."""
    usage = body["usage"]
    if "choices" in body:
        for choice in body["choices"]:
            choice["message"] |= {"content": "", "reasoning_content": "hm, let me see, hm"}
        usage["completion_tokens_details"] = {"reasoning_tokens": usage["completion_tokens"]}
    else:
        body["content"] = [{"type": "thinking", "thinking": "hm, let me see, hm", "signature": "00"}]
        usage["output_tokens_details"] = {"thinking_tokens": usage["output_tokens"]}
    ended(body, "length", "max_tokens")


def thoughts_in_text(body: Body) -> None:
    """Thoughts in the text, as local servers leave them."""
    said(body, lambda text: f"<think>\nThe user wants {{this}}; let me see.\n</think>\n\n{text}")


def fenced(body: Body) -> None:
    """The answer in a code fence between sentences."""
    said(body, lambda text: f"Sure! Here is what you asked for:\n\n```json\n{text}\n```\n\nLet me know if I can help.")


def looping(body: Body) -> None:
    """A loop to the end of the allowance."""
    said(body, lambda text: text[:40] + LOOPED * LOOPS)
    ended(body, "length", "max_tokens")


def without_usage(body: Body) -> None:
    """No word of what was used."""
    body.pop("usage", None)


def usage_without_thoughts(body: Body) -> None:
    """Thinking stands beside the output, and only the total holds both."""
    usage = body["usage"]
    if "total_tokens" in usage:
        usage["total_tokens"] += 300
        usage["completion_tokens_details"] = {"reasoning_tokens": 300}


def parts_for_text(body: Body) -> None:
    """A list of parts where a text is expected."""
    for choice in body.get("choices", ()):
        message = choice["message"]
        message["content"] = [{"type": "text", "text": message.get("content") or ""}]


def no_choices(body: Body) -> None:
    """A whole answer without any choice."""
    for name in ("choices", "content"):
        if name in body:
            body[name] = []


def cut_json(body: Body) -> None:
    """Calls of tools whose arguments are no JSON; any other answer is left as it is."""
    for choice in body.get("choices", ()):
        for call in choice["message"].get("tool_calls", ()):
            call["function"]["arguments"] = call["function"]["arguments"][:-1]


def readable(raw: bytes) -> Body:
    """Return a body as JSON values."""
    body: Body = json.loads(raw)
    return body
