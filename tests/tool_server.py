"""A tool API for tests: a real HTTP server that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.http_server import Handler, serving


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Reply:
    """How one is answered; `breaks`: the connection is cut instead."""

    status: int = 200
    body: bytes = b"fine"
    headers: dict[str, str] = field(default_factory=dict)
    breaks: bool = False
    after_s: float = 0.0


@dataclass
class ToolServer:
    """A running server. `replies` are given in turn, the last one for ever; `reply` decides instead if it is set."""

    url: str
    replies: list[Reply] = field(default_factory=lambda: [Reply()])
    reply: Callable[[Asked], Reply] | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            if self.reply is not None:
                return self.reply(asked)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def tool_server(*replies: Reply, port: int = 0) -> Iterator[ToolServer]:
    """Serve a tool API on a free port of this host."""
    made = ToolServer("")
    if replies:
        made.replies = list(replies)

    class Tool(Handler):
        def _serve(self) -> None:
            body = self.body()
            headers = {name.lower(): text for name, text in self.headers.items()}
            reply = made.next(Asked(self.command, self.path, headers, body, time.monotonic()))
            if reply.after_s:
                time.sleep(reply.after_s)
            if reply.breaks:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send(reply.status, reply.body, reply.headers)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve

        def handle(self) -> None:
            made.connections += 1
            try:
                super().handle()
            except (ConnectionError, ValueError, OSError):  # cut by the client, or by us
                return

    with serving(Tool, port=port) as made.url:
        yield made
