"""What is parked opens early when its reason goes, and comes back to the end or to the head of its list."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
import redis

from fleet.engine.messages.queues import list_key
from fleet.engine.transport.parking import opening, parked
from fleet.engine.transport.parking.opening import open_early_now
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.waits import Cause, Wait
from tests.engine.transport.test_holds import Taker
from tests.waiting import wait_until

LIMIT = "openai/gpt/key"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def park(
    client: redis.Redis,
    *names: str,
    cause: Cause = "key",
    about: str = LIMIT,
    in_s: float = 60,
    head: bool = False,
    queue: str = "q",
) -> None:
    """Park messages as a worker does, the first one to open first."""
    reason = Wait(cause, time.time() + in_s, about).to_json()
    if head:
        reason = reason[:-1] + ', "to": "head"}'
    for number, name in enumerate(names):
        call = parked.PARK.call(
            parked=keys.parked(), openings=keys.openings(), order=keys.parked_order(queue), queue=queue, id=name,
            at=repr(time.time() + in_s + number / 1000), entry=f"{list_key(queue, 2)}\n{reason}\n{name}",
            mark_prefix=keys.submitted(""),
        )  # fmt: skip
        run_script(client, parked.PARK, *call)


def test_what_waits_for_a_reason_that_has_gone_opens_and_the_rest_waits_on(client: redis.Redis) -> None:
    park(client, "a", "b")
    park(client, "other-limit", about="openai/mini/key")
    park(client, "paused", cause="retry")
    park(client, "later", cause="time", about="")
    taker = Taker(client, ("q",))
    assert taker.take() == []
    assert open_early_now(client, "q", about=LIMIT, causes=("key", "credit")) == 2
    assert client.xlen(keys.bell()) == 1
    assert _taken(taker, 2) == ["a", "b"]
    assert parked.read_parked(client, ["q"])[0].count == 3
    assert open_early_now(client, "q") == 3
    assert sorted(_taken(taker, 3)) == ["later", "other-limit", "paused"]


def test_what_opens_anyway_opens_no_later(client: redis.Redis) -> None:
    park(client, "due", in_s=-1)
    open_early_now(client, "q")
    assert _taken(Taker(client, ("q",)), 1) == ["due"]


def test_thousands_open_step_by_step_in_their_order_over_seconds(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "AT_ONCE", 100)
    names = [f"{n:04d}" for n in range(950)]
    park(client, *names)
    assert open_early_now(client, "q", about=LIMIT, causes=("key",)) == 950
    rows = client.zrange(keys.parked_order("q"), 0, -1, withscores=True)
    assert [name.decode() for name, _ in rows] == names  # type: ignore[union-attr]
    opens = [at for _, at in rows]  # type: ignore[misc]
    assert opens[-1] - opens[0] == pytest.approx(0.95, abs=0.9)
    assert len(set(opens)) == 950
    assert client.zscore(keys.openings(), "q") == opens[0]


def test_a_task_that_only_waited_comes_back_to_its_place_and_one_that_was_tried_to_the_end(client: redis.Redis) -> None:
    park(client, "tried", cause="retry", in_s=-3)
    park(client, "first", "second", cause="limit", in_s=-2, head=True)
    client.lpush(list_key("q", 2), "new")
    assert _taken(Taker(client, ("q",)), 4) == ["first", "second", "new", "tried"]


def _taken(taker: Taker, count: int) -> Sequence[str]:
    got: list[str] = []

    def enough() -> bool:
        got.extend(taker.take())
        return len(got) >= count

    wait_until(enough, 10, "they come")
    return got
