"""The attacks, one function each, and how large each is in the small and in the large budget."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleet.engine.transport.leases import LEASE_S
from tests.chaos import hostile
from tests.chaos.arena import Arena

#: Milliseconds of one provider call: short enough that a worker is busy with messages, not with waiting.
QUICK_MS = 50.0
#: Milliseconds of a call that outlasts three leases.
SLOW_MS = 3 * LEASE_S * 1000.0
#: Functions that block at the same time (count): that many stalls in a row are no stand-still for the arena.
BLOCKERS_AT_ONCE = 3


@dataclass(frozen=True)
class Attack:
    """One row of the table."""

    name: str
    strike: Callable[..., None]
    #: Arguments of `strike` by budget; None: this budget leaves the attack out.
    small: dict[str, Any] | None
    large: dict[str, Any]
    #: True when no task may run a second time, whatever becomes of the second run.
    runs_once: bool = False
    #: True when failed results are part of the attack.
    may_fail: bool = False
    #: Name of the argument that tells how many tasks are to be buried as poison; '': none.
    deadly: str = ""
    #: True when stock Celery does not promise anything of the kind.
    fleet_only: bool = False
    #: True when the broker is a master with a replica and Sentinels.
    sentinels: bool = False
    #: Why the row of stock Celery cannot be compared, where that is so.
    stock_note: str = ""


def kill_workers(arena: Arena, *, tasks: int, times: int) -> None:
    """kill -9 of a random worker, again and again, at full speed."""
    arena.submit(tasks)
    for number in range(times):
        arena.wait_for((number + arena.chance.random()) / times * 0.9 * tasks)
        arena.kill()


def kill_redis(arena: Arena, *, tasks: int, times: int) -> None:
    """kill -9 of Redis (of the master, where Sentinels watch it) while tasks are queued, taken and finished."""
    with arena.submitting(tasks, over_s=4.0 * times):
        for number in range(times):
            arena.wait_for((number + arena.chance.random()) / times * 0.8 * tasks)
            arena.redis.kill()
            time.sleep(arena.chance.uniform(0.2, 1.5))
            arena.redis.start()


def freeze_redis(arena: Arena, *, tasks: int, seconds: float) -> None:
    """SIGSTOP of Redis under load: connections stay, answers do not come."""
    with arena.submitting(tasks, over_s=seconds):
        arena.wait_for(0.1 * tasks)
        arena.redis.freeze()
        time.sleep(seconds)
        arena.redis.thaw()


def freeze_worker(arena: Arena, *, tasks: int, lease_times: float) -> None:
    """SIGSTOP of a worker for longer than its lease, then SIGCONT: it must find out before it writes."""
    arena.submit(tasks)
    arena.wait_for(0.1 * tasks)
    worker = arena.a_worker()
    worker.send(signal.SIGSTOP)
    time.sleep(lease_times * LEASE_S)
    worker.send(signal.SIGCONT)


def run_long(arena: Arena, *, tasks: int) -> None:
    """Tasks that run for three lease times."""
    arena.submit(tasks, slow=True)


def block_loops(arena: Arena, *, tasks: int, blockers: int) -> None:
    """Functions that block the loop of users' functions, or that of the whole worker, for longer than a lease.

    A few at a time: those of the worker's own loop stand in a row, and a worker that stands for `worker.hang_s` is
    replaced.
    """
    waves = max(1, blockers // BLOCKERS_AT_ONCE)
    for wave in range(1, waves + 1):
        arena.submit(blockers // waves, blocking=True)
        arena.submit(tasks // waves)
        arena.wait_for((blockers // waves + tasks // waves) * wave)


def count_down(arena: Arena, *, tasks: int) -> None:
    """Countdowns of five lease times: they wait in Redis, and no worker renews them."""
    arena.submit(tasks, countdown_s=5 * LEASE_S)


def kill_during_countdowns(arena: Arena, *, tasks: int, times: int, countdown_s: float) -> None:
    """kill -9 of workers while tasks wait for their countdown: no death touches them, and none runs twice."""
    ends = time.monotonic() + countdown_s
    arena.submit(tasks, countdown_s=countdown_s)
    for _ in range(times):
        if time.monotonic() < ends - 1:  # on a busy machine a new worker may not be ready in time
            arena.kill()


def restart_in_turn(arena: Arena, *, tasks: int, rounds: int) -> None:
    """SIGTERM of one worker after another under load, each with a replacement."""
    with arena.submitting(tasks, over_s=10.0 * rounds):
        arena.wait_for(0.05 * tasks)
        for _ in range(rounds):
            arena.replace_all()


def park_and_kill(arena: Arena, *, tasks: int, times: int) -> None:
    """The provider fails again and again, so that tasks go back and wait; workers are killed in the middle of it."""
    with arena.submitting(tasks, over_s=4.0 * times):
        for _ in range(times):
            arena.side.let_provider_fail(1.0)
            time.sleep(arena.chance.uniform(0.1, 2.0))
            arena.kill()
            time.sleep(arena.chance.uniform(0.1, 2.0))
            arena.side.let_provider_fail(0.0)
            time.sleep(arena.chance.uniform(0.1, 2.0))


def push_garbage(arena: Arena, *, tasks: int, share: float) -> None:
    """Malformed and hostile messages between the good ones."""
    with arena.submitting(tasks, over_s=3.0):
        for task_id, message in _hostile(arena, round(tasks * share)):
            arena.push(message, task_id)


def bury_innocents(arena: Arena, *, tasks: int, countdowns: int, deadly: int, kills: int, cut_offs: int) -> None:
    """Tasks that kill their worker among others that run and wait; kills and cut-offs from outside; and nobody else
    is to be buried for any of it."""
    arena.is_deadly = True
    arena.side.kind = "own"
    arena.submit(countdowns, countdown_s=2 * LEASE_S)
    arena.submit(tasks // 2)
    arena.submit(deadly, deadly=True)
    arena.submit(tasks - tasks // 2)
    for _ in range(kills):
        time.sleep(arena.chance.uniform(0.5, 1.5) * LEASE_S)
        arena.kill()
    for _ in range(cut_offs):
        worker = arena.a_worker()
        worker.send(signal.SIGSTOP)
        time.sleep(1.4 * LEASE_S)
        worker.send(signal.SIGCONT)


def everything(arena: Arena, *, seconds: float, tasks: int) -> None:
    """All of the above at once."""
    end = time.monotonic() + seconds
    arena.submit(60, countdown_s=5 * LEASE_S)
    arena.submit(10, slow=True)
    blows = [_freeze_and_go_on, Arena.kill, Arena.kill, _bounce_redis, _freeze_redis, Arena.replace_all, _push_some]
    with arena.submitting(tasks, over_s=seconds):
        while time.monotonic() < end:
            arena.chance.choice(blows)(arena)
            time.sleep(arena.chance.uniform(1, 6))


def _freeze_and_go_on(arena: Arena) -> None:
    worker = arena.a_worker()
    worker.send(signal.SIGSTOP)
    arena.later(arena.chance.uniform(1, 3) * LEASE_S, lambda: worker.send(signal.SIGCONT))


def _bounce_redis(arena: Arena) -> None:
    arena.redis.kill()
    time.sleep(arena.chance.uniform(0.2, 1.5))
    arena.redis.start()


def _freeze_redis(arena: Arena) -> None:
    arena.redis.freeze()
    time.sleep(arena.chance.uniform(1, 10))
    arena.redis.thaw()


def _push_some(arena: Arena) -> None:
    for task_id, message in _hostile(arena, 30):
        arena.push(message, task_id)


def _hostile(arena: Arena, count: int) -> Any:
    return hostile.messages(count, task=arena.side.task_name, chance=arena.chance)


ATTACKS = (
    Attack(
        "kill -9 of workers", kill_workers, {"tasks": 1500, "times": 3}, {"tasks": 20_000, "times": 30}, may_fail=True
    ),
    Attack("kill -9 of Redis", kill_redis, {"tasks": 1000, "times": 1}, {"tasks": 5000, "times": 5}),
    Attack("failover of Sentinel", kill_redis, None, {"tasks": 3000, "times": 3}, sentinels=True),
    Attack("SIGSTOP of Redis, 10 s", freeze_redis, None, {"tasks": 3000, "seconds": 10}),
    Attack(
        "SIGSTOP of a worker", freeze_worker, {"tasks": 1000, "lease_times": 1.5}, {"tasks": 5000, "lease_times": 3}
    ),
    Attack("tasks of 3 leases", run_long, None, {"tasks": 100}, runs_once=True),
    Attack(
        "functions that block", block_loops, {"tasks": 500, "blockers": 3}, {"tasks": 5000, "blockers": 30},
        runs_once=True, stock_note="its tasks have a thread each",
    ),
    Attack("countdowns of 5 leases", count_down, None, {"tasks": 300}, runs_once=True),
    Attack(
        "kill -9 during countdowns", kill_during_countdowns, {"tasks": 200, "times": 2, "countdown_s": 10},
        {"tasks": 2000, "times": 8, "countdown_s": 60}, runs_once=True,
    ),
    Attack(
        "rolling restart", restart_in_turn, {"tasks": 1000, "rounds": 1}, {"tasks": 5000, "rounds": 2}, runs_once=True
    ),
    Attack(
        "parks and kills at once", park_and_kill, {"tasks": 300, "times": 2}, {"tasks": 5000, "times": 15},
        fleet_only=True,
    ),
    Attack(
        "hostile messages", push_garbage, {"tasks": 1000, "share": 0.05}, {"tasks": 8000, "share": 0.05},
        runs_once=True, may_fail=True, stock_note="it promises malformed messages no result: these are its lost",
    ),
    Attack(
        "deadly tasks among innocents", bury_innocents,
        {"tasks": 24, "countdowns": 10, "deadly": 1, "kills": 0, "cut_offs": 0},
        {"tasks": 300, "countdowns": 100, "deadly": 3, "kills": 3, "cut_offs": 3},
        may_fail=True, deadly="deadly", fleet_only=True,
    ),
    Attack(
        "all at once", everything, None, {"tasks": 20_000, "seconds": 300},
        may_fail=True, stock_note="its lost include malformed messages, which it promises no result",
    ),
)  # fmt: skip
