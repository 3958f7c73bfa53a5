"""A simulator in a thread of the test process, for clients of every kind."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.server import Simulator

#: Limits that no test reaches by accident.
FREE: dict[str, Any] = {"rpm": 10**9, "tpm": 10**12}
#: Sends to loopback, whatever http_proxy says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Reply:
    """An HTTP answer as it came."""

    status: int
    headers: Message[str, str]
    json: dict[str, Any]


@contextmanager
def running(**options: Any) -> Iterator[str]:
    """Run a simulator, by default without limits in reach, and give its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    simulator = Simulator(SimulatorOptions(**{**FREE, **options}))
    try:
        yield asyncio.run_coroutine_threadsafe(simulator.start(), loop).result(5)
    finally:
        asyncio.run_coroutine_threadsafe(simulator.stop(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def send(
    url: str, path: str, body: object = None, *, key: str | None = "test-key", method: str | None = None, **headers: str
) -> Reply:
    """Send one request; `body` is sent as JSON unless it is bytes, and makes it a POST."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url + path, data, headers, method=method)
    try:
        with _DIRECT.open(request, timeout=5) as answer:
            return Reply(answer.status, answer.headers, json.loads(answer.read()))
    except urllib.error.HTTPError as answer:
        with answer:
            return Reply(answer.code, answer.headers, json.loads(answer.read()))


def chat(url: str, prompt: str = "Hello there", *, key: str | None = "test-key", **fields: Any) -> Reply:
    """Send one chat completion."""
    body = {"model": "simulated-1", "messages": [{"role": "user", "content": prompt}], **fields}
    return send(url, "/v1/chat/completions", body, key=key)


def total(url: str) -> dict[str, int]:
    """Return the ledger's totals."""
    counters: dict[str, int] = send(url, "/ledger").json["total"]
    return counters
