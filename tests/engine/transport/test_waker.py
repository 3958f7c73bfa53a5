"""What wakes the worker's loop, under every poller that Celery may have: epoll on Linux, poll on macOS, else select."""

from __future__ import annotations

import select
import threading
import time
from typing import Any

import pytest
from kombu.asynchronous import Hub
from kombu.utils import eventio

from fleet.engine.transport.waker import PIPE_BYTES, Waker


@pytest.mark.parametrize("poller", ["_epoll", "_poll", "_select"])
def test_a_thread_wakes_a_loop_that_sleeps(poller: str) -> None:
    if poller == "_epoll" and not hasattr(select, "epoll"):
        pytest.skip("this system has no epoll")
    waker, seen = Waker(), threading.Event()
    hub: Any = Hub()
    hub.poller = getattr(eventio, poller)()
    hub.add_reader(waker.fileno(), lambda: waker.drain() and seen.set())
    loop = hub.create_loop()
    threading.Timer(0.05, waker.wake).start()
    hub.call_later(5, lambda: None)  # what the loop sleeps for: the waker must be earlier
    deadline = time.monotonic() + 4
    while not seen.is_set() and time.monotonic() < deadline:
        next(loop)
    hub.close()
    assert seen.is_set()
    assert not waker.drain()


def test_many_wakes_are_one_and_never_block() -> None:
    waker = Waker()
    for _ in range(PIPE_BYTES + 10):
        waker.wake()
    assert waker.drain()
    assert not waker.drain()
    waker.wake()
    assert waker.drain()
