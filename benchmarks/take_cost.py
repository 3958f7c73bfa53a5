"""What one call of `take.lua` costs, on the server and for its caller, by backlog and number of queues."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import redis

from fleet.engine.messages.envelope import fresh_envelope
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key
from fleet.engine.transport import leases
from fleet.engine.transport.rota import LOOK, Rota

#: Calls per figure.
CALLS = 200
#: Bytes of a message body: a short prompt.
BODY = b'[[], {"prompt": "What is 12 + 30? Answer with the number only.", "pool": "research"}, null]'
#: Copies made per call of the filling script: bounds the time it holds Redis.
FILL_BATCH = 20_000

_FILL = "for _ = 1, tonumber(ARGV[1]) do redis.call('LPUSH', KEYS[1], ARGV[2]) end"


def take_costs(client: redis.Redis, backlogs: Sequence[int] = (10_000, 1_000_000)) -> list[list[str]]:
    """Return rows: (queues and tasks, messages per take, server us per take, client us per take).

    The last list that a take looks at holds the backlog, of 4 queues as of 200: it is filled once for both.
    """
    rows: dict[int, list[list[str]]] = {4: [], 200: []}
    names = [f"q{number:03d}" for number in range(max(rows))]
    for waiting in (*backlogs, 0):
        client.flushall()
        _fill(client, list_key(names[-1], PRIORITY_STEPS[-1]), waiting)
        for queues in rows if waiting else (max(rows),):
            for wanted in (1, 16) if waiting else (16,):
                server_us, client_us = _cost(client, names[-queues:], wanted)
                label = f"{queues} queues x {len(PRIORITY_STEPS)} priorities, {waiting:,} tasks"
                rows[queues].append([label, str(wanted if waiting else 0), f"{server_us:,.0f}", f"{client_us:,.0f}"])
    client.flushall()
    return [row for some in rows.values() for row in some]


def _fill(client: redis.Redis, place: str, count: int) -> None:
    message = fresh_envelope(task_id="0" * 36, queue="q", priority=0, body=BODY, queued_at=time.time())
    for start in range(0, count, FILL_BATCH):
        client.eval(_FILL, 1, place, min(FILL_BATCH, count - start), message)


def _cost(client: redis.Redis, names: list[str], wanted: int) -> tuple[float, float]:
    rota, held, place = Rota(names, PRIORITY_STEPS), [], names[-1]
    client.eval(LOOK.text, *rota.look())
    take = client.script_load(leases.TAKE.text)
    client.config_resetstat()
    started = time.perf_counter()
    for call in range(CALLS):
        arguments = rota.take(wanted=wanted, guarded=0, prefix=f"t{call}:", acks=held)
        reply: Any = client.evalsha(take, *arguments)
        held = reply[::3] if len(reply) > 2 else []
        if held:
            place, _ = rota.was_served(reply[1].decode())
    client_us = (time.perf_counter() - started) / CALLS * 1e6
    assert place == names[-1]
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"]), client_us
