"""What a client has got of a stream is what it pays for, whenever it leaves."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.waiting import wait_until
from tests.workers.simulator.running import running, send

#: Median time of an answer (ms), of which a stream takes half: so long that its events are apart.
LATENCY_MS = 400


def leave_at(url: str, last: bytes) -> None:
    """Ask for a stream, and close the connection as soon as `last` has come."""
    where = urlsplit(url)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer test-key\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=30) as client:
        client.sendall(head.encode() + body)
        got = b""
        while last not in got:
            piece = client.recv(65536)
            assert piece, got
            got += piece


@pytest.mark.parametrize(("last", "ends"), [(b"[DONE]", "served"), (b'"delta"', "cut")])
def test_a_client_that_leaves_at_the_last_event_has_got_the_whole_answer(last: bytes, ends: str) -> None:
    with running(latency_ms=LATENCY_MS) as url:
        for _ in range(4):
            leave_at(url, last)

        def total() -> dict[str, int]:
            found: dict[str, int] = send(url, "/ledger").json["total"]
            return found

        wait_until(lambda: total()["served"] + total()["cut"] == 4, what="all have ended")
        assert total()[ends] == 4
