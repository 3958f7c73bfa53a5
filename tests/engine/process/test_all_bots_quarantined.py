"""A real worker whose pool has no bot left: tasks wait, other pools go on, nothing fails."""

from __future__ import annotations

import time
from dataclasses import replace

import redis

from fleet import config
from fleet.engine.admission.gates import read_gates, read_waiting
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.levers import quarantine_bot, release_bot
from fleet.models import bot_name
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.engine.conftest import StartWorker
from tests.engine.process.test_worker import results
from tests.waiting import wait_until


def test_tasks_wait_while_all_bots_of_their_pool_are_quarantined(redis_url: str, start_worker: StartWorker) -> None:
    start_worker()
    settings, queue = config.current(), keys.queue("research")
    bots = [bot_name("research", number) for number in range(1, settings.pools["research"].bots + 1)]
    with connect(redis_url) as client:
        for bot in bots:
            quarantine_bot(client, settings, bot, by="test")
        (first,) = submit_many([{"prompt": "What is 2+2?", "pool": "research"}])
        wait_until(lambda: read_gates(client, [queue])[0].hold is not None, 20, "the worker has put a hold")
        hold = read_gates(client, [queue])[0].hold
        assert hold is not None
        assert (hold.cause, hold.about) == ("bots", "research")
        waiting = list(submit_many([{"prompt": "What is 2+2?", "pool": "research"}] * 30))
        others = list(submit_many([{"prompt": "What is 2+2?", "pool": "writing"}] * 30))
        wait_until(lambda: len(results(redis_url, others)) == 30, 20, "the other pool goes on")
        wait_until(lambda: read_waiting(client, [queue])[0].total == 31, 20, "all wait in their queue, none in a slot")
        assert results(redis_url, [first, *waiting]) == []
        assert not client.exists(keys.suspects())
        assert fewest_waiting_while_they_look(client, queue) >= 30, "one goes ahead and looks, not all that have room"

        release_bot(client, settings, "research-007", by="test")
        wait_until(lambda: len(results(redis_url, [first, *waiting])) == 31, 30, "they are done")
        wait_until(lambda: read_gates(client, [queue])[0].hold is None, 20, "nothing holds the pool any more")
    done = results(redis_url, [first, *waiting])
    assert {(one.status, one.bot) for one in done} == {("ok", "research-007")}
    (found,) = results(redis_url, [first])
    assert found.parked >= 1
    assert found.attempts == 1


def fewest_waiting_while_they_look(client: redis.Redis, queue: str) -> int:
    """Let the pool's hold come to its time, and return the fewest tasks in its lists until it is put anew."""
    hold = Wait.from_json(client.get(keys.hold(queue)) or b"")
    client.set(keys.hold(queue), replace(hold, opens_at=time.time()).to_json(), keepttl=True)
    client.xadd(keys.bell(), {"x": 1}, maxlen=1)
    seen: list[int] = []

    def is_put_anew() -> bool:
        seen.append(read_waiting(client, [queue])[0].total)
        found = read_gates(client, [queue])[0].hold
        return found is not None and (found.opens_at or 0) > time.time() + 10

    wait_until(is_put_anew, 20, "one task has looked, and the hold is put anew")
    return min(seen)
