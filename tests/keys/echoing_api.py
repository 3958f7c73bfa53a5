"""An API that quotes whatever it was sent, the key above all, in every way that real ones were seen to: OpenAI's wire.

How it answers is asked by a word in the prompt (`WORDS`); it takes every key.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tests.http_server import Handler, serving

#: Word in the prompt -> status of the answer; 0: none comes.
WORDS = {"ask-401": 401, "ask-403": 403, "ask-429": 429, "ask-400": 400, "ask-500": 500, "ask-nothing": 0}
#: Seconds for which a call without an answer is held.
HELD_S = 20.0


class Asked(NamedTuple):
    """A request: the key, the body, and how it is to be answered."""

    key: str
    body: str

    @property
    def status(self) -> int:
        return next((status for word, status in WORDS.items() if word in self.body), 200)


class EchoingApi:
    """What came, and the words that answers hold.

    Args:
        answer: What the model says.
    """

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.closing = threading.Event()
        self.url = ""

    def reply(self, asked: Asked) -> dict[str, Any]:
        """Return the body of an answer, and note the key."""
        self.seen.append(asked.key)
        if asked.status == 200:
            choice = {"index": 0, "message": {"role": "assistant", "content": self.answer}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
            return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        message = ". ".join(_quotations(asked))
        return {"error": {"message": message, "type": asked.key, "code": asked.key[:16], "param": asked.key[:10]}}


def _quotations(asked: Asked) -> Iterator[str]:
    key = asked.key
    yield f"Incorrect API key provided: {key}" if asked.status in (401, 403) else f"Cannot do this for {key}"
    yield f"Got {key[:8]}****{key[-8:]}"
    yield f"It begins with {key[:10]} and ends with {key[-10:]}"
    yield f"Authorization: Bearer {json.dumps(key)}"
    yield f"Your request was {asked.body}"


@contextmanager
def echoing_api(answer: str) -> Iterator[EchoingApi]:
    """Run such an API on a free port."""
    api = EchoingApi(answer)

    class Echo(Handler):
        def do_POST(self) -> None:
            body = self.body().decode()
            key = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("X-Shop-Key", "")
            asked = Asked(key, body)
            told = api.reply(asked)
            if asked.status == 0:
                api.closing.wait(HELD_S)
                self.close_connection = True
                return
            self.send(asked.status, told, {"X-Request-Id": key, "X-Echo": f"Bearer {key}", "Retry-After": "1"})

        do_GET = do_POST

    with serving(Echo) as url:
        api.url = f"{url}/v1"
        try:
            yield api
        finally:
            api.closing.set()
