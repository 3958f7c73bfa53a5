"""What the page does to many pools at once: a few round trips, one event."""

from __future__ import annotations

import redis

from fleet.engine.admission.gates import CLOSED, read_gates
from fleet.engine.operations import levers
from fleet.store import keys
from tests.dashboard.test_task_actions import client, events
from tests.every import every

__all__ = ["client"]


def test_many_pools_are_paused_and_resumed_with_one_event_that_names_some(client: redis.Redis) -> None:
    pools = [f"p{number}" for number in range(120)]
    levers.pause_pools(client, client, pools, lowest=CLOSED, for_s=600, by="ann")
    gates = read_gates(client, map(keys.queue, pools))
    assert every(gate.lowest == CLOSED and 590 < (gate.left_s or 0) <= 600 for gate in gates)
    assert levers.resume_pool(client, client, "p7", by="ann")
    assert levers.resume_pools(client, client, pools, by="ann") == pools[:7] + pools[8:]
    assert levers.resume_pools(client, client, pools, by="ann") == []
    assert every(gate.is_open for gate in read_gates(client, map(keys.queue, pools)))
    assert [(name, fields["pool"]) for name, fields in events()] == [
        ("pool_resumed", "p0, p1, p2, p3, p4, p5, p6, p8 and 111 more"),
        ("pool_resumed", "p7"),
        ("pool_paused", "p0, p1, p2, p3, p4, p5, p6, p7 and 112 more"),
    ]
