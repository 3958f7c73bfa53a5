"""What the page and the shell do to many pools and bots at once: one step, all or none, and one event."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis

from fleet.engine.admission.gates import CLOSED, read_gates
from fleet.engine.operations import levers
from fleet.errors import StoreUnavailable
from fleet.roster import read_quarantined
from fleet.roster.quarantine import AT_ONCE, _in_steps, quarantine_all, release_all
from fleet.store import keys
from tests.cli.operate.test_dead import fleet
from tests.dashboard.test_task_actions import client, events
from tests.every import every

__all__ = ["client"]


def steps(client: redis.Redis) -> int:
    """Return how many steps (EXEC) Redis has taken so far."""
    stats = client.info("commandstats").get("cmdstat_exec", {"calls": 0})
    return int(stats["calls"])


def test_pools_and_bots_named_together_are_changed_in_one_step(client: redis.Redis) -> None:
    bots = [f"research-{number:03d}" for number in range(1, 301)]
    client.zadd(keys.bots("research"), dict.fromkeys(bots, 0))
    for command in (
        ("pools", "pause", "research", "writing", "review", "research"),
        ("pools", "resume", "research", "writing", "review"),
        ("bots", "quarantine", *bots, "--reason", "odd"),
        ("bots", "release", *bots),
    ):
        before = steps(client)
        fleet(*command)
        assert steps(client) == before + 1, command[:2]
    assert [name for name, _ in events()] == ["bot_released", "bot_quarantined", "pool_resumed", "pool_paused"]
    assert read_quarantined(client, ["research"]) == {}


def test_one_wrong_name_changes_none_of_those_named_with_it(client: redis.Redis) -> None:
    client.zadd(keys.bots("research"), {"research-001": 0})
    fleet("pools", "pause", "research", "resarch", code=2)
    fleet("bots", "quarantine", "research-001", "research-999", "--reason", "odd", code=2)
    assert read_gates(client, [keys.queue("research")])[0].is_open and events() == []
    assert read_quarantined(client, ["research"]) == {}


def test_more_bots_than_fit_in_a_step_are_told_apart_when_redis_stops_answering(client: redis.Redis) -> None:
    bots = [("p", f"p-{number}") for number in range(1, 2 * AT_ONCE + 201)]
    client.zadd(keys.bots("p"), {bot: 0 for _, bot in bots})
    assert every(quarantine_all(client, bots, by="ann")) and len(read_quarantined(client, ["p"])) == len(bots)
    assert every(release_all(client, bots)) and read_quarantined(client, ["p"]) == {}
    taken = list[int]()

    def step(some: Sequence[tuple[str, str]]) -> list[bool]:
        taken.append(len(some))
        if len(taken) == 2:
            raise redis.ConnectionError("closed by server")
        return [True] * len(some)

    with pytest.raises(StoreUnavailable) as failed:
        _in_steps(bots, step, "are quarantined")
    assert str(failed.value) == (
        "expected an answer for 1,200 bots, got 'closed by server': the first 500 are quarantined (up "
        "to p-500), the next 500 may be, all or none, and the 200 after them not; to repeat it is safe"
    )


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
