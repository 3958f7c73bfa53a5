"""What a second broker brings (the row `two_redis` of `python -m benchmarks.scale`).

The same queues of no-op tasks, each with a prompt of 2,000 tokens, are drained by the same number of worker processes,
with all pools on one Redis and with half of them on a second. Each broker is held to 15% of a core by a cgroup, so that
it is what there is too little of. State has no second server yet: it is on a third, which is not held in either case,
and which a no-op does not ask. Workers need more than the brokers do, about a core: on a busy machine they are what
there is too little of, and the row says by how much the brokers were stopped.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import redis

from benchmarks.bench import private_home, until, worker
from benchmarks.cgroups import Held, NotHeld, held, put
from benchmarks.peers import celery_messages
from tests.redis_server import RedisServer

#: Share of a core that each broker gets.
SHARE = 0.15
#: Worker processes, and slots of each: enough that a broker always has takes to answer, also while some workers work on
#: what the other has just given them.
PROCESSES, SLOTS = 6, 200
#: Pools; every second one is on the second broker, if there is one.
POOLS = ("east-0", "west-0", "east-1", "west-1")
#: Characters of each message, which is a prompt of about 2,000 tokens. Of a message of nothing Redis has a tenth of the
#: work that workers have, so that 15% of a core feed more workers than most machines have cores.
PROMPT = 8_000
#: Share of the tasks on which workers warm up.
WARM_UP = 0.25
#: A broker that was stopped in fewer of its periods (share) was not what there was too little of.
STOPPED_AT_LEAST = 0.5
#: Seconds between two looks at the queues: each costs a broker some of the little that it has.
LOOK_EVERY_S = 0.1
#: Redis would write its file anew while it is held: its child would have the core's share.
_NO_REWRITE = ("--auto-aof-rewrite-percentage", "0")
_TOML = '[redis]\nurl = "{url}"\nstate_url = "{state}"\n'
_SECOND = '[redis.brokers.west]\nurl = "{url}"\npools = ["west-*"]\n'


@dataclass(frozen=True)
class Drain:
    """How fast full queues were drained, and in which share of its periods each broker was stopped."""

    tasks_per_s: float
    stopped: tuple[float, ...]


@dataclass(frozen=True)
class Server:
    """A broker's server. Args: its client, and its cgroup, if it is held."""

    client: redis.Redis
    url: str
    hold: Held | None

    def waiting(self) -> int:
        """Return how many tasks wait here or are held by workers (count)."""
        from fleet.store import keys

        with self.client.pipeline(transaction=False) as pipe:
            for pool in POOLS:
                pipe.llen(_place(pool))
            return sum(pipe.hlen(keys.unacked()).execute())

    def periods(self) -> tuple[int, int]:
        """Return how many periods it ran in and in how many it was stopped; none if it is not held (counts)."""
        return self.hold.periods() if self.hold else (0, 0)


def compare(tasks: int, rounds: int, *, share: float | None = SHARE) -> tuple[list[Drain], list[Drain]]:
    """Return drains with one broker and with two, in turn.

    Args:
        tasks: Measured in each (count).
        rounds: Of both.
        share: Of a core that each broker gets; None: as much as it wants.

    Raises:
        NotHeld: When brokers cannot be held here.
    """
    one: list[Drain] = []
    two: list[Drain] = []
    with private_home() as home:
        for at in range(rounds):
            for found, brokers in ((one, 1), (two, 2)):
                folder = home / f"{brokers}-{at}"
                folder.mkdir()
                found.append(_drain(folder, brokers, tasks, share))
    return one, two


def figures(tasks: int, rounds: int) -> tuple[float | None, str]:
    """Return how many times as fast two brokers are as one, and what is told beside it; None: it was not measured."""
    try:
        one, two = compare(tasks, rounds)
    except NotHeld as error:
        return None, str(error)
    return judge(one, two)


def judge(one: Sequence[Drain], two: Sequence[Drain]) -> tuple[float | None, str]:
    """Return what drains with one broker and with two show, as `figures`."""
    rates = [statistics.median(drain.tasks_per_s for drain in drains) for drains in (one, two)]
    stopped = [min(share for drain in drains for share in drain.stopped) for drains in (one, two)]
    told = (
        f"{rates[1]:,.0f} and one {rates[0]:,.0f} tasks/s, state apart; "
        f"brokers stopped in at least {stopped[1]:.0%} and {stopped[0]:.0%} of their periods"
    )
    if stopped[0] < STOPPED_AT_LEAST:
        return None, f"{told}: one broker had enough of its core, so this says nothing"
    return rates[1] / rates[0], told


def _drain(folder: Path, brokers: int, tasks: int, share: float | None) -> Drain:
    """Fill the queues, let workers warm up on their beginning, and measure the rest."""
    with _servers(folder, brokers, share) as (servers, state):
        toml = folder / "fleet.toml"
        toml.write_text(_fleet(servers, state))
        _fill(servers, round(tasks * (1 + WARM_UP)))
        for server in servers:
            if server.hold:
                put(int(server.client.info("server")["process_id"]), server.hold)
        environment = {"FLEET_CONFIG": str(toml), "BENCH_BROKER": servers[0].url}
        with ExitStack() as stack:
            for at in range(PROCESSES):
                options = ("-c", str(SLOTS), "-n", f"w{at}@bench")
                stack.enter_context(
                    worker("benchmarks.peers.celery_fleet", *options, env=environment, log=folder / "worker.log")
                )
            return _measure(servers, tasks)


def _measure(servers: Sequence[Server], tasks: int) -> Drain:
    waiting = lambda: sum(server.waiting() for server in servers)  # noqa: E731
    until(lambda: waiting() <= tasks, "warm-up with several brokers", every_s=LOOK_EVERY_S)
    left, started, before = waiting(), perf_counter(), [server.periods() for server in servers]
    until(lambda: waiting() == 0, f"{left} tasks of {len(servers)} brokers", every_s=LOOK_EVERY_S)
    seconds, after = perf_counter() - started, [server.periods() for server in servers]
    return Drain(left / seconds, tuple(_stopped(*pair) for pair in zip(before, after, strict=True)))


def _stopped(before: tuple[int, int], after: tuple[int, int]) -> float:
    periods, stopped = (now - then for then, now in zip(before, after, strict=True))
    return stopped / periods if periods else 0.0


@contextmanager
def _servers(folder: Path, brokers: int, share: float | None) -> Iterator[tuple[list[Server], str]]:
    """Start that many brokers, and the state's server; the brokers are held once they are put into their cgroups."""
    with ExitStack() as stack:
        urls: list[str] = []
        holds = [stack.enter_context(held(f"broker{at}", share)) if share else None for at in range(brokers)]
        for at in range(brokers + 1):
            data = folder / f"redis{at}"
            data.mkdir()
            server = RedisServer(data, "--appendonly", "yes", "--appendfsync", "everysec", *_NO_REWRITE)
            stack.callback(server.stop)
            urls.append(server.url)
        clients = [stack.enter_context(redis.Redis.from_url(url, socket_timeout=60)) for url in urls[:brokers]]
        yield [Server(*one) for one in zip(clients, urls[:brokers], holds, strict=True)], urls[-1]


def _fleet(servers: Sequence[Server], state: str) -> str:
    pools = "".join(f"[pools.{pool}]\nbots = 1\n" for pool in POOLS)
    second = "".join(_SECOND.format(url=server.url) for server in servers[1:])
    return _TOML.format(url=servers[0].url, state=state) + second + pools


def _fill(servers: Sequence[Server], count: int) -> None:
    from fleet.store import keys

    bounds = [count * at // len(POOLS) for at in range(len(POOLS) + 1)]
    for (first, end), pool in zip(pairwise(bounds), POOLS, strict=True):
        server = servers[-1] if pool.startswith("west") else servers[0]
        place = {"queue": keys.queue(pool), "place": _place(pool)}
        celery_messages.push("noop", end - first, client=server.client, text="x" * PROMPT, **place)


def _place(pool: str) -> str:
    from fleet.engine.messages.queues import list_key
    from fleet.models import Priority
    from fleet.store import keys

    return list_key(keys.queue(pool), Priority.NORMAL.value)
