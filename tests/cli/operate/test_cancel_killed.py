"""`fleet cancel` is killed (SIGKILL) before each of its steps: nothing is lost or half done, and a repeat finishes."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

import pytest
import redis

from fleet.engine.messages import queues
from fleet.engine.transport.revoked import is_revoked
from fleet.store import client as store_client
from fleet.store import keys
from tests.cli.operate.test_cancel import RESEARCH, bring_back, counted, park_paid, submit
from tests.cli.operate.test_dead import client, fleet
from tests.forks import in_child

__all__ = ["client"]

COMMAND = ("cancel", "--pool", "research", "--yes")
#: More steps than the command has.
MOST_STEPS = 100


def dies_before(step: int, command: tuple[str, ...]) -> Callable[[], object]:
    """Return the command as a child process runs it that kills itself before its write number `step` to Redis."""
    left = itertools.count(step, -1)

    def count() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> str:
        write, run = redis.Connection.send_packed_command, store_client.Store.run

        def send(connection: redis.Connection, *args: object, **options: object) -> object:
            if not reads(args[0]):
                count()
            return write(connection, *args, **options)  # type: ignore[arg-type]

        async def run_script(store: store_client.Store, *args: object) -> object:
            count()
            return await run(store, *args)  # type: ignore[arg-type]

        redis.Connection.send_packed_command = send  # type: ignore[method-assign, assignment]
        store_client.Store.run = run_script  # type: ignore[method-assign, assignment]
        fleet(*command)
        return "done"

    return work


def reads(packed: object) -> bool:
    """True for commands that change nothing: no state is different when the process dies before them."""
    text = b"".join(packed) if isinstance(packed, list) else bytes(packed)  # type: ignore[call-overload]
    name = text.split(b"\r\n", 3)[2].upper()
    return name in (b"HELLO", b"CLIENT", b"PING", b"HSCAN", b"LRANGE", b"TYPE", b"LLEN", b"MGET", b"ZRANGE", b"HMGET")


def messages(client: redis.Redis) -> list[bytes]:
    """Return all messages: in lists, parked, and held."""
    waiting = [message for step in range(5) for message in client.lrange(queues.list_key(RESEARCH, step), 0, -1)]  # type: ignore[union-attr]
    filed = [*client.hvals(keys.parked()), *client.hvals(keys.unacked())]  # type: ignore[misc]
    return [*waiting, *filed]


def states(client: redis.Redis, ids: list[str]) -> list[bytes | None]:
    return [raw and raw.partition(b'"status": "')[2].partition(b'"')[0] for raw in client.mget(map(keys.result, ids))]  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own backend, for what follows in a chain
def test_a_cancel_that_is_killed_before_any_of_its_steps_loses_nothing_and_is_finished_by_the_next(
    client: redis.Redis,
) -> None:
    from fleet.engine.tasks import submit_task

    for step in range(MOST_STEPS):
        client.flushdb()
        chain = (submit_task.s("x", pool="research") | submit_task.s(pool="review")).apply_async()
        ids = [*submit(3), park_paid(client), chain.parent.id]
        ids += submit(1, idempotency_key=f"k{step}")
        said = in_child(dies_before(step, COMMAND))()
        kept = b"\n".join(messages(client))
        lost = [
            task for task, state in zip(ids, states(client, ids), strict=True) if not (state or task.encode() in kept)
        ]
        assert not lost, f"step {step}"
        if said == "done":
            break
        assert not said, said  # killed
        fleet(*COMMAND)  # what the dead one holds begins no more, but has no result yet
        held = [task for task, state in zip(ids, states(client, ids), strict=True) if state is None]
        assert [task for task in held if not is_revoked(client, task)] == [], f"step {step}"
        bring_back(client)
        fleet(*COMMAND)  # as a worker does with what is over
        assert states(client, ids) == [b"REVOKED"] * len(ids), f"step {step}"
        assert states(client, [chain.id]) != [None], f"step {step}"
        assert counted(client) == (3, 70, 1, 0), f"step {step}"
        assert messages(client) == [], f"step {step}"
    else:
        pytest.fail(f"expected the command to end within {MOST_STEPS} steps")
    assert step > 5
