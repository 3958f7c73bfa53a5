"""What requests of SDKs ask of a model, in any vendor's words: for the limiter under them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.usage import Usage
from fleet.workers.context import count_tokens
from fleet.workers.load import MOST_PART_TOKENS

#: Output tokens that a request is taken to ask for when it does not say, which real use corrects soon.
OUTPUT_TOKENS = 1024
#: Where requests of the vendors say how long the answer may be.
_OUTPUT_LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
#: Tables of a request in which that may stand.
_CONFIGS = ("generationConfig", "generation_config")
#: Parts of a request that have its text, in all vendors' words.
_TEXTS = (
    "messages", "input", "system", "instructions", "prompt", "tools", "contents", "systemInstruction",
)  # fmt: skip
#: Bytes that are taken for a token in a body that cannot be read: fewer than there are in most languages.
BYTES_PER_TOKEN = 3
#: Parts of a request that are no text: pictures and files, in base64.
_NO_TEXT = frozenset({"data", "url", "image_url", "file_data"})


@dataclass(frozen=True, slots=True)
class ClientAsk:
    """What a request asks for.

    Args:
        model: Its name.
        input_tokens: By estimate.
        output_tokens: The most that are asked for.
        is_streamed: The answer is wanted in pieces.
        is_array: These may be the parts of one JSON array.
        size: Of the body, in bytes.
    """

    model: str
    input_tokens: int
    output_tokens: int
    is_streamed: bool
    is_array: bool = False
    size: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def believed(self, usage: Usage, came: int) -> Usage:
        """Return no more usage than it can have had: no token is shorter than a byte, but for what is not seen here.

        Args:
            usage: As the provider told it.
            came: Bytes of the answer.
        """
        most_in, most_out = self.size + MOST_PART_TOKENS, max(self.output_tokens, MOST_PART_TOKENS) + came
        if usage.input_tokens <= most_in and usage.output_tokens <= most_out:
            return usage
        return usage.within(input_tokens=most_in, output_tokens=most_out)


def guess(request: Any, body: bytes) -> int:
    """Return the input tokens of a body that cannot be read; of a form, which is mostly a file, nothing is known."""
    is_form = request.headers.get("content-type", "").startswith("multipart/")
    return 0 if is_form else len(body) // BYTES_PER_TOKEN


def read_ask(body: bytes, model: str | None, guess: int) -> ClientAsk | None:
    """Return what a request asks for; None when no model is named."""
    asked = read_object(body)
    named = model or (asked or {}).get("model")
    if not isinstance(named, str) or not named:
        return None
    if asked is None:
        return ClientAsk(named, guess, OUTPUT_TOKENS, is_streamed=False, size=len(body))
    places = (asked, *(inner for name in _CONFIGS if isinstance(inner := asked.get(name), dict)))
    limits = [place[name] for place in places for name in _OUTPUT_LIMITS if type(place.get(name)) is int]
    return ClientAsk(
        model=named,
        input_tokens=sum(count_tokens(text) for name in _TEXTS for text in _texts(asked.get(name))),
        output_tokens=max(0, limits[0]) if limits else OUTPUT_TOKENS,
        is_streamed=asked.get("stream") is True,
        size=len(body),
    )


def texts_in(body: Mapping[str, Any]) -> Iterator[str]:
    """Yield every text of a request or an answer, whatever part of it that is."""
    return _texts(body)


def _texts(value: object) -> Iterator[str]:
    """Yield every text in a part of a request."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name not in _NO_TEXT:
                yield from _texts(item)


def read_object(raw: bytes) -> dict[str, Any] | None:
    """Return a JSON object, None when it is none or too deep to be read."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
