"""An HTTP door before a node that loses, delays and doubles what is asked and answered, by a seed."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What becomes of a request.
FATES = ("well", "request lost", "answer lost", "doubled", "late")
#: Seconds by which an answer is late.
LATE_S = 0.05


class _Server(ThreadingHTTPServer):
    """Says nothing of callers that have died."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Door:
    """Serves a node on a free port of this machine.

    Args:
        execute: Takes a path and a JSON body, returns the answer.
        seed: Of the faults.
    """

    def __init__(self, execute: Callable[[str, Any], Any], *, seed: int = 1) -> None:
        self._execute, self._random, self._lock = execute, random.Random(seed), threading.Lock()
        self.trouble = 0.0
        self.fates = Counter[str]()
        door = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                # whoever asks may die between the head of a request and its body
                answer = door.answer(self.path, json.loads(text)) if text else None
                if answer is None:
                    self.close_connection = True
                    return
                told = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: Any) -> Any:
        """Return what is answered; None: nothing is."""
        with self._lock:
            fate = self._random.choice(FATES[1:]) if self._random.random() < self.trouble else "well"
            self.fates[fate] += 1
        if fate == "request lost":
            return None
        answer = self._execute(path, body)
        if fate == "doubled":
            answer = self._execute(path, body)
        if fate == "late":
            time.sleep(LATE_S)
        return None if fate == "answer lost" else answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def door_to(execute: Callable[[str, Any], Any], *, seed: int = 1) -> Iterator[Door]:
    """Serve a node for as long as the block lasts."""
    door = Door(execute, seed=seed)
    try:
        yield door
    finally:
        door.close()
