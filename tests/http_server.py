"""Small HTTP servers for tests, in a thread of the test's process."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """Reads bodies, sends JSON, and says nothing."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, told: Any, headers: Mapping[str, str] | None = None) -> None:
        """Send an answer: bytes as they are, anything else as JSON, which it says then."""
        raw = told if isinstance(told, bytes) else json.dumps(told).encode()
        kind = {} if isinstance(told, bytes) else {"Content-Type": "application/json"}
        self.send_response(status)
        for name, text in {**kind, **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A worker that goes leaves calls behind."""


@contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], *, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve on this host, and tell the root of the server's URLs.

    Args:
        handler: Answers.
        port: 0: a free one.
        tls: Its certificate, and whose client certificates it takes; None: it speaks plain HTTP.
    """
    server = _Server(("127.0.0.1", port), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
