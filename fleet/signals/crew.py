"""What is wrong with the workers as a crew: a pool that none serves, two of one name, settings or releases that differ.

Pure, over the workers' own reports. One voice for the worker's log, `fleet doctor`, `why`, `run`, `stats` and the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field

from fleet.config import Settings
from fleet.config.fingerprint import fingerprint
from fleet.frozen import Frozen
from fleet.quoting import noun_for
from fleet.signals.recorder import SILENT_S, WorkerReport
from fleet.store import keys
from fleet.waits import Wait

#: Seconds after its last report within which a worker counts as one of two of a name: reports come every 2 s, and one
#: that was killed has a successor of its name soon.
FRESH_S = 5.0
#: Names in one line (count).
NAMED = 5


class Trouble(Frozen):
    """One thing that is wrong with the crew."""

    about: Literal["pools", "inbox", "names", "settings", "releases"]
    pools: tuple[str, ...] = Field((), description="Pools that no worker serves, or that some cannot.")
    line: str
    is_shut: bool = Field(False, description="A worker that ought to serve them cannot.")

    def told_of(self, pool: str | None) -> str | None:
        """Return what it means for a task of this pool (None: of the inbox); None: nothing."""
        if self.about == "pools":
            if pool is None or pool not in self.pools:
                return None
            return self.line if self.is_shut else unserved_line([pool])
        return self.line if self.about != "inbox" or pool is None else None


def troubles_of(workers: Sequence[WorkerReport], settings: Settings, *, now_s: float) -> tuple[Trouble, ...]:
    """Return what is wrong with the living workers; nothing when there is none, which others say.

    Args:
        workers: Their last reports.
        settings: Of the process that asks.
        now_s: Unix time by the clock that the reports are compared with.
    """
    if not workers:
        return ()
    return (
        *_shut(workers, settings), *_unserved(workers, settings), *_twins(workers, now_s), *_unlike(workers, settings),
        *_releases([worker for worker in workers if worker.at > now_s - SILENT_S]),
    )  # fmt: skip


def stray(queue: str, workers: Iterable[WorkerReport], settings: Settings) -> Trouble | None:
    """Return what is wrong with a queue that has a pool's name without its prefix, unless a worker takes from it."""
    if queue not in settings.pools or queue == settings.worker.inbox:
        return None
    if any(worker.queues is not None and queue in worker.queues for worker in workers):
        return None
    line = (
        f"no pool has the queue {queue}, and nobody takes from it; its client means {keys.queue(queue)}, the queue of "
        f"pool {queue}"
    )
    return Trouble(about="inbox", line=line)


def takers(workers: Iterable[WorkerReport]) -> Callable[[str], int]:
    """Return what tells how many workers take from a queue; one of an earlier release does not say, and takes all."""
    living = list(workers)
    named = Counter(queue for worker in living for queue in set(worker.queues or ()))
    of_all = sum(worker.queues is None for worker in living)
    return lambda queue: named[queue] + of_all


def unserved(workers: Iterable[WorkerReport], settings: Settings) -> list[str]:
    """Return the pools that no worker takes tasks of, those among them that one ought to and cannot."""
    taking = takers(workers)
    return [pool for pool in settings.pools if not taking(keys.queue(pool))]


def why_shut(workers: Iterable[WorkerReport], pool: str) -> Wait | None:
    """Return why no worker serves a pool although there is one that ought to; None: nobody knows a reason."""
    return next((wait for worker in workers if (wait := worker.why_shut(pool)) is not None), None)


def _shut(workers: Sequence[WorkerReport], settings: Settings) -> Iterator[Trouble]:
    """Yield what keeps workers from serving pools, each reason once, with the first worker that has it."""
    found: dict[str, tuple[WorkerReport, Wait, list[str]]] = {}
    for worker in workers:
        for pool in settings.pools if worker.shut else ():
            wait = worker.why_shut(pool)
            if wait is not None:
                _, _, pools = found.setdefault(str(wait), (worker, wait, []))
                pools.extend(() if pool in pools else (pool,))
    for worker, wait, pools in found.values():
        why = str(wait).replace("; ", ", ")
        line = f"{worker.name} cannot serve {named(pools)}: {why}; mend that where it runs, and start it again"
        yield Trouble(about="pools", pools=tuple(pools), line=line, is_shut=True)


def named(pools: Sequence[str]) -> str:
    """Return pools by their names, the first few of many: `pool a`, `pools a, b and 7 more`."""
    return f"{noun_for(len(pools), 'pool')} {_few(pools)}"


def unserved_line(pools: Sequence[str]) -> str:
    """Return what to say of pools that no worker serves."""
    one = len(pools) == 1
    who, whose, it = (named(pools), "its", "that pool") if one else (named(pools), "their", "them")
    wanted = keys.queue(pools[0]) if one else "their queues"
    return (
        f"no live worker serves {who}: {whose} tasks wait; start one without -Q, or with -Q and {wanted}, whose "
        f"fleet.toml has {it}"
    )


def unserved_queue_line(queue: str) -> str:
    """Return what to say of the inbox when no worker takes from it."""
    return f"no live worker serves the inbox {queue}: tasks of plain Celery clients wait; add it to the -Q of a worker"


def _unserved(workers: Sequence[WorkerReport], settings: Settings) -> Iterator[Trouble]:
    pools = tuple(pool for pool in unserved(workers, settings) if why_shut(workers, pool) is None)
    if pools:
        yield Trouble(about="pools", pools=pools, line=unserved_line(pools))
    if not takers(workers)(settings.worker.inbox):
        yield Trouble(about="inbox", line=unserved_queue_line(settings.worker.inbox))


def _twins(workers: Sequence[WorkerReport], now_s: float) -> Iterator[Trouble]:
    fresh = sorted((worker for worker in workers if worker.at > now_s - FRESH_S), key=lambda worker: worker.name)
    for name, group in groupby(fresh, key=lambda worker: worker.name):
        same = list(group)
        if len(same) > 1:
            pids = ", ".join(f"pid {worker.pid}" for worker in same[:NAMED])
            line = (
                f"{len(same)} workers have the same name, {name} ({pids}): inspect and control reach them as one; give "
                "each a name of its own, -n NAME@%h"
            )
            yield Trouble(about="names", line=line)


def _unlike(workers: Sequence[WorkerReport], settings: Settings) -> Iterator[Trouble]:
    """Compare the workers with each other, and where they agree with the process that asks."""
    telling = [worker for worker in workers if worker.settings]
    if not telling:
        return
    first = telling[0]
    for other in telling[1:]:
        if tables := _differing(first.settings, other.settings):
            line = (
                f"workers {first.name} and {other.name} run with different settings in {tables}: what a task gets "
                "depends on who takes it; give all one fleet.toml and start them again"
            )
            yield Trouble(about="settings", line=line)
            return
    if tables := _differing(first.settings, fingerprint(settings)):
        who = f"the {noun_for(len(telling), 'worker')}"
        line = f"the settings here and those of {who} differ in {tables}: give all one fleet.toml, and start them again"
        yield Trouble(about="settings", line=line)


def _releases(workers: Sequence[WorkerReport]) -> Iterator[Trouble]:
    """Yield that an upgrade is under way, or was not ended: workers of several releases take the same tasks."""
    of = {release: [worker.name for worker in workers if worker.release == release] for release in
          sorted({worker.release for worker in workers})}  # fmt: skip
    if len(of) > 1:
        told = ", ".join(f"{release or '0.2 or before'} ({_few(names)})" for release, names in of.items())
        line = (
            f"workers of {len(of)} releases are at work: {told}; end the upgrade soon, for tasks that ask for what "
            "only the newer release knows fail on the older one: docs/upgrading.md"
        )
        yield Trouble(about="releases", line=line)


def _few(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _differing(one: dict[str, str], other: dict[str, str]) -> str:
    """Return the tables that both know and that differ, as they are written in fleet.toml."""
    return ", ".join(f"[{name}]" for name in one if name in other and one[name] != other[name])
