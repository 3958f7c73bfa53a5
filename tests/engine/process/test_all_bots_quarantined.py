"""A real worker whose pool has no bot left: tasks wait, other pools go on, nothing fails."""

from __future__ import annotations

from fleet import config
from fleet.engine.admission.gates import read_gates, read_waiting
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.levers import quarantine_bot, release_bot
from fleet.engine.process.data_plane import LOOK_FOR_BOTS_S
from fleet.models import bot_name
from fleet.store import keys
from fleet.store.client import connect
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

        release_bot(client, settings, "research-007", by="test")
        wait_until(lambda: len(results(redis_url, [first, *waiting])) == 31, 20 + LOOK_FOR_BOTS_S, "they are done")
    done = results(redis_url, [first, *waiting])
    assert {(one.status, one.bot) for one in done} == {("ok", "research-007")}
    (found,) = results(redis_url, [first])
    assert found.parked >= 1
    assert found.attempts == 1
