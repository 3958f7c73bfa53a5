"""One reading for all who watch, and what they are told when it fails or hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from fleet.config import Settings
from fleet.dashboard import feed as feeds
from fleet.dashboard.feed import Feed
from fleet.engine.operations.overview import open_overview
from fleet.errors import StoreUnavailable
from fleet.signals.view import FleetView


@pytest.fixture
def view(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> FleetView:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    with open_overview(Settings()) as overview:
        return overview.read()


def reader(view: FleetView, calls: list[int]) -> Callable[[], FleetView]:
    def read() -> FleetView:
        calls.append(1)
        return view

    return read


def test_fifty_pages_cost_redis_no_more_than_one(view: FleetView) -> None:
    calls: list[int] = []

    async def watch() -> None:
        feed = Feed(reader(view, calls))
        frames = await asyncio.gather(*(feed.latest() for _ in range(50)))
        assert len({frame.version for frame in frames if frame}) == 1
        assert await feed.latest() is frames[0]
        assert feed.body("") is feed.body("of another process")

    asyncio.run(watch())
    assert len(calls) == 1


def test_a_reading_that_takes_long_is_made_less_often(view: FleetView, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    cpu_s = iter([0.0, 2.0])  # of the reading's thread: before and after

    async def watch() -> None:
        monkeypatch.setattr(feeds.time, "thread_time", lambda: next(cpu_s))
        monkeypatch.setattr(feeds, "FRESH_S", 0.0)
        feed = Feed(reader(view, calls))
        for _ in range(3):  # each would read anew
            assert await feed.latest() is not None

    asyncio.run(watch())
    assert len(calls) == 1


def test_a_reading_that_began_before_an_action_is_not_what_the_actor_sees(view: FleetView) -> None:
    calls: list[int] = []
    goes_on = threading.Event()

    def read() -> FleetView:
        calls.append(1)
        assert goes_on.wait(10)
        return view

    async def watch() -> None:
        feed = Feed(read)
        feed.begin()
        feed.begin()
        asked = asyncio.create_task(feed.latest())
        await asyncio.sleep(0)
        feed.expire()
        goes_on.set()
        assert await asked is not None
        assert await feed.latest() is await asked

    asyncio.run(watch())
    assert len(calls) == 2


def test_after_an_action_the_next_page_gets_a_new_reading(view: FleetView) -> None:
    calls: list[int] = []

    async def watch() -> None:
        feed = Feed(reader(view, calls))
        old = await feed.latest()
        feed.expire()
        new = await feed.latest()
        assert old and new and new is not old
        assert '"changed"' in (feed.body(old.version) or "")
        assert '"bots"' in (feed.body("of another process") or "")
        assert feed.body(new.version) is None

    asyncio.run(watch())
    assert len(calls) == 2


def test_a_failed_reading_leaves_the_old_figures_and_says_why(view: FleetView) -> None:
    replies: list[FleetView | Exception] = [view, StoreUnavailable("Redis is away"), view, ValueError("a bug")]

    def read() -> FleetView:
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def watch() -> None:
        feed = Feed(read)
        told = []
        for _ in range(4):
            assert await feed.latest() is not None
            told.append(feed.trouble)
            feed.expire()
        assert told == [None, "Redis is away", None, "the fleet cannot be read: ValueError"]

    asyncio.run(watch())


def test_a_reading_that_hangs_holds_nobody_up_and_is_not_started_twice(
    view: FleetView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "PATIENCE_S", 0.05)
    thawed, calls = threading.Event(), []

    def read() -> FleetView:
        calls.append(1)
        thawed.wait(30)
        return view

    async def watch() -> None:
        feed = Feed(read)
        assert await feed.latest() is None
        assert feed.trouble == "Redis is slow to answer"
        feed.expire()
        assert await feed.latest() is None
        thawed.set()
        async with asyncio.timeout(10):
            while await feed.latest() is None:
                pass
        assert feed.trouble is None
        assert feed.age_s < 10

    asyncio.run(watch())
    assert len(calls) == 2, "one more, once: something had changed meanwhile"
