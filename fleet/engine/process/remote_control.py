"""Celery's remote control, where Fleet knows better: what is revoked lies in Redis, and so does what is scheduled.

A command that cannot do what it says here is refused, with the one that does. Imported by the worker, which thereby
replaces these commands of Celery's panel; Flower's buttons and API send the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import product
from typing import Any

import redis
from celery.platforms import signals
from celery.worker import state as worker_state
from celery.worker.consumer.mingle import Mingle
from celery.worker.control import control_command, inspect_command, nok, ok

from fleet.engine.messages.broker import broker
from fleet.engine.messages.envelope import HIDDEN, TASK_NAME
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.revocation import ids_of, revoke_here
from fleet.engine.transport.parking.parked import Parked, next_parked
from fleet.errors import FleetError
from fleet.quoting import quote
from fleet.store.running.brokers import each

logger = logging.getLogger("fleet.worker")

#: Parked tasks that one `inspect scheduled` lists, those that open next (count): a reply is one message.
LISTED = 1000
#: Slots of one process at most (count), as `worker.slots` may have.
MOST_SLOTS = 2000


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


def hello_command(state: Any, from_node: str, revoked: Collection[str] | None = None, **_: Any) -> Any:
    """Answer a worker that starts. What is revoked lies in Redis, so only one of 0.2 tells of it, and none is told."""
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    keep_revoked(revoked)
    return {"revoked": [], "clock": state.app.clock.forward()}


def keep_revoked(task_ids: Collection[str] | None) -> None:
    """Write down what workers of 0.2 have in their memories alone: with the last of them it would be forgotten."""
    if not task_ids:
        return
    try:
        revoke_here(ids_of(task_ids))
        logger.info("revoked tasks=%d: workers of an earlier release knew of them", len(task_ids))
    except (FleetError, redis.RedisError) as error:
        logger.warning("not kept revoked tasks=%d error=%s", len(task_ids), error)


def hear_neighbours(steps: Iterable[Any]) -> None:
    """Have the step that asks the living workers as this one starts write down what those of 0.2 tell of."""
    for step in steps:
        if isinstance(step, Mingle):
            step.on_revoked_received = lambda _, revoked: keep_revoked(revoked)


def terminate_command(state: Any, signal: str, task_id: Any, **_: Any) -> Any:
    """Stop tasks by id: `revoke` with terminate set."""
    return revoke_command(state, task_id, terminate=True, signal=signal)


def scheduled_command(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the ETA and countdown tasks of this worker's queues. They wait in Redis: every worker lists the same."""
    left, found, clients = LISTED, list[dict[str, Any]](), each(broker().client)
    for queue, client in product(sorted(state.consumer.app.amqp.queues.consume_from), clients):
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


def rate_limit_command(_state: Any, task_name: str = "", rate_limit: Any = None, **_: Any) -> dict[str, str]:
    """Refuse: Celery's rate limits hold for one process, and are off in a worker of Fleet."""
    return nok(
        f"rate limit of {quote(task_name)}: expected one that Fleet keeps, got {quote(rate_limit)} for Celery, whose "
        "rate limits are off here; `fleet limits set PROVIDER/MODEL --rpm N` limits calls on all workers at once, "
        "`fleet pools pause POOL` stops a pool"
    )


def time_limit_command(
    _state: Any, task_name: str = "", hard: Any = None, soft: Any = None, **_: Any
) -> dict[str, str]:
    """Refuse: Celery's time limits kill processes, and a slot is none."""
    return nok(
        f"time limits of {quote(task_name)}: expected a deadline of Fleet's, got {soft} and {hard} s for Celery, whose "
        "time limits do not reach a slot; set `deadline_s` of the task or of its pool in fleet.toml; "
        "`fleet cancel TASK --running` stops one that runs"
    )


def pool_restart_command(_state: Any, **_: Any) -> dict[str, str]:
    """Refuse: slots are no processes that could be restarted by themselves."""
    return nok(
        "pool restart: expected a pool of processes, got Fleet's slots; shut the worker down (Flower's Shutdown, or "
        "SIGTERM), and `fleet up`, systemd or Kubernetes starts it again"
    )


def autoscale_command(state: Any, max: Any = None, min: Any = None, **_: Any) -> dict[str, str]:
    """Change the bounds of a worker that scales its slots."""
    scaler = state.consumer.controller.autoscaler
    if scaler is None:
        return nok(
            "autoscale: expected a worker started with --autoscale=MAX,MIN, got one without; start it so, or change "
            "its slots with Pool grow and shrink"
        )
    if not (isinstance(max, int) and isinstance(min, int) and 1 <= min <= max <= MOST_SLOTS):
        return nok(f"autoscale: expected 1 <= min <= max <= {MOST_SLOTS}, got min={quote(min)}, max={quote(max)}")
    most, least = scaler.update(max, min)
    return ok(f"autoscale now max={most} min={least}")


def pool_grow_command(state: Any, n: Any = 1, **_: Any) -> dict[str, str]:
    """Add slots to the worker."""
    return _resize(state, n, 1)


def pool_shrink_command(state: Any, n: Any = 1, **_: Any) -> dict[str, str]:
    """Take slots away from the worker; what runs in them ends first."""
    return _resize(state, n, -1)


def _resize(state: Any, n: Any, sign: int) -> dict[str, str]:
    consumer, verb = state.consumer, "grow" if sign > 0 else "shrink"
    if consumer.controller.autoscaler:
        return nok(
            f"pool {verb}: expected a worker of a fixed size, got one started with --autoscale: change its bounds"
        )
    slots = consumer.pool.slots
    if not isinstance(n, int) or n < 1 or not 1 <= slots + sign * n <= MOST_SLOTS:
        return nok(f"pool {verb}: expected to end with 1 to {MOST_SLOTS} slots, got {quote(n)} with {slots} slots")
    (consumer.pool.grow if sign > 0 else consumer.pool.shrink)(n)
    consumer._update_prefetch_count(sign * n)
    return ok(f"pool will {verb}: {consumer.pool.slots} slots")


def cancel_consumer_command(state: Any, queue: str, **_: Any) -> dict[str, str]:
    """Take from a queue no longer."""
    taken = state.app.amqp.queues.consume_from
    name = getattr(state.app.amqp.queues.aliases.get(queue), "name", queue)
    if name not in taken:
        return nok(
            f"cancel consumer: expected a queue that this worker takes from ({', '.join(taken)}), got {quote(queue)}"
        )
    state.consumer.call_soon(state.consumer.cancel_task_queue, queue)
    return ok(f"no longer consuming from {name}")


def replace_commands() -> None:
    """Put these commands into Celery's panel. Once per worker."""
    limit = [("task_name", str)]
    control_command(name="rate_limit", args=[*limit, ("rate_limit", str)], signature="<task_name> <rate_limit>")(
        rate_limit_command
    )
    control_command(
        name="time_limit", args=[*limit, ("soft", float), ("hard", float)], signature="<task_name> <soft> [hard]"
    )(time_limit_command)
    control_command(name="pool_restart")(pool_restart_command)
    control_command(name="autoscale", args=[("max", int), ("min", int)], signature="[max [min]]")(autoscale_command)
    control_command(name="pool_grow", args=[("n", int)], signature="[N=1]")(pool_grow_command)
    control_command(name="pool_shrink", args=[("n", int)], signature="[N=1]")(pool_shrink_command)
    control_command(name="cancel_consumer", args=[("queue", str)], signature="<queue>")(cancel_consumer_command)
    ids = {"variadic": "task_id", "signature": "[id1 [id2 [... [idN]]]]"}
    control_command(name="revoke", **ids)(revoke_command)
    control_command(name="terminate", args=[("signal", str)], **{**ids, "signature": "<signal> [id1 [id2]]"})(
        terminate_command
    )
    inspect_command(name="hello")(hello_command)
    inspect_command(name="scheduled", alias="dump_schedule")(scheduled_command)
