"""An API that takes some keys and refuses others, in a thread of the test process; it notes every call."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.http_server import Handler, serving


class KeyedApi:
    """What is taken, and what came: OpenAI's wire.

    Attributes:
        keys: Those that are taken.
        calls: Unix time and key of each call.
        seen: Keys that came: to be asked often, while 200 calls come a second.
        delay_s: Until an answer.
        refusal: Status of every answer; 0: by the key.
    """

    def __init__(self, *keys: str) -> None:
        self.keys = set(keys)
        self.calls: list[tuple[float, str]] = []
        self.seen: set[str] = set()
        self.delay_s = 0.0
        self.refusal = 0
        self.url = ""

    def keys_since(self, at_s: float) -> set[str]:
        return {key for at, key in list(self.calls) if at >= at_s}

    def answer(self, key: str) -> tuple[int, dict[str, Any]]:
        """Return the status and the body for a call with a key."""
        self.calls.append((time.time(), key))
        self.seen.add(key)
        time.sleep(self.delay_s)
        if key not in self.keys:
            told = {"message": f"Incorrect API key provided: {key}", "type": "auth", "code": "invalid_api_key"}
            return 401, {"error": told}
        if self.refusal:
            return self.refusal, {"error": {"message": f"no, {key}", "type": "x", "code": "x"}}
        choice = {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return 200, {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


@contextmanager
def keyed_api(*keys: str) -> Iterator[KeyedApi]:
    """Run such an API on a free port."""
    api = KeyedApi(*keys)

    class Keyed(Handler):
        def do_POST(self) -> None:
            self.body()
            self._reply(*api.answer(self._key()))

        def do_GET(self) -> None:
            status = 200 if self._key() in api.keys else 401
            self._reply(status, {"object": "list", "data": [{"id": "m", "object": "model"}]} if status == 200 else {})

        def _key(self) -> str:
            return self.headers.get("Authorization", "").removeprefix("Bearer ")

        def _reply(self, status: int, told: dict[str, Any]) -> None:
            body = json.dumps(told).encode()
            head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)  # in one packet, and with no date to be written 200 times a second

    with serving(Keyed) as url:
        api.url = f"{url}/v1"
        yield api
