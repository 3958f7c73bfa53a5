"""Celery's remote control, where Fleet knows better: what is revoked lies in Redis, and so does what is scheduled.

Imported by the worker, which thereby replaces three commands of Celery's panel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from celery.platforms import signals
from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command, ok

from fleet.engine.messages.broker import broker
from fleet.engine.messages.envelope import HIDDEN, TASK_NAME
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.revocation import ids_of, revoke_here
from fleet.engine.transport.parking.parked import Parked, next_parked
from fleet.errors import FleetError

logger = logging.getLogger("fleet.worker")

#: Parked tasks that one `inspect scheduled` lists, those that open next (count): a reply is one message.
LISTED = 1000


def revoke_command(state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **_: Any) -> Any:
    """Revoke tasks by id; also stop them when they run and `terminate` is set.

    Celery's own stores REVOKED for what another worker runs, and forgets with the process what has not come yet.
    """
    task_ids = ids_of(task_id)
    worker_state.revoked.update(task_ids)
    try:
        revoke_here(task_ids)
    except (FleetError, redis.RedisError) as error:
        logger.warning("revoked in this worker only tasks=%d error=%s", len(task_ids), error)
    if not terminate:
        return ok(f"tasks {', '.join(task_ids)} flagged as revoked")
    stopped = []
    for request in [worker_state.requests[name] for name in task_ids if name in worker_state.requests]:
        logger.info("stopping task=%s: it was revoked", request.id)
        request.terminate(state.consumer.pool, signal=signals.signum(signal or "TERM"))
        stopped.append(request.id)
    return ok(f"terminate: {', '.join(stopped) or 'tasks unknown'}")


def terminate_command(state: Any, signal: str, task_id: Any, **_: Any) -> Any:
    """Stop tasks by id: `revoke` with terminate set."""
    return revoke_command(state, task_id, terminate=True, signal=signal)


def scheduled_command(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the ETA and countdown tasks of this worker's queues. They wait in Redis: every worker lists the same."""
    client, left, found = broker().client, LISTED, list[dict[str, Any]]()
    for queue in sorted(state.consumer.app.amqp.queues.consume_from):
        found += (_scheduled(parked) for parked in next_parked(client, queue, left))
        left = LISTED - len(found)
        if left <= 0:
            break
    return found


def _scheduled(parked: Parked) -> dict[str, Any]:
    """Return a parked task as Celery describes one that waits for its time; a prompt is never shown."""
    headers, _ = parts_of(parked.message)
    return {
        "eta": datetime.fromtimestamp(parked.opens_at, UTC).isoformat(),
        "priority": parked.priority,
        "request": dict(_request(headers, parked)),
    }


def _request(headers: Mapping[str, Any], parked: Parked) -> Iterator[tuple[str, Any]]:
    is_bots = headers.get("task") == TASK_NAME
    yield "id", headers.get("id")
    yield "name", headers.get("task")
    yield "args", "()" if is_bots else headers.get("argsrepr")
    yield "kwargs", HIDDEN if is_bots else headers.get("kwargsrepr")
    yield "delivery_info", {"exchange": "", "routing_key": parked.queue, "priority": parked.priority}


def replace_commands() -> None:
    """Put these commands into Celery's panel. Once per worker."""
    ids = {"variadic": "task_id", "signature": "[id1 [id2 [... [idN]]]]"}
    control_command(name="revoke", **ids)(revoke_command)
    control_command(name="terminate", args=[("signal", str)], **{**ids, "signature": "<signal> [id1 [id2]]"})(
        terminate_command
    )
    inspect_command(name="scheduled", alias="dump_schedule")(scheduled_command)
