"""Findings about workers, their machines and Redis: who is lost, who stands still, which pool nobody serves. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.quoting import clock, counted, duration, listed
from fleet.signals.crew import Trouble
from fleet.signals.diagnosis.finding import Diagnosis, Help, Kind, Severity, diagnosis
from fleet.signals.diagnosis.symptoms import Case
from fleet.signals.recorder import SILENT_S
from fleet.store.clock import NAMED_FROM_S, told
from fleet.waits import SENTENCES, Cause

#: Seconds for which the main thread of a worker may stand before it is told.
HUNG_S = 10.0
#: Seconds for which a worker that was lost is told, unless one of its name has started since.
LOST_TOLD_S = 600.0
#: Lost workers that are told one by one (count).
MOST_APART = 3
#: Shares of the memory that Redis may use, from which it is told, and from which it is urgent.
REDIS_NEAR, REDIS_FULL = 0.85, 0.95
#: What a pool that an operator has paused wholly is said to be.
CLOSED_GATE = "closed"
#: A command that starts a worker.
START = "celery -A fleet worker"


def workers(case: Case) -> Iterator[Diagnosis]:
    """Yield workers that are gone or stand still; that none is there at all is one finding."""
    silent = {worker.row for worker in case.symptoms.silent}
    living = [worker for worker in case.view.resources.workers if worker.row not in silent]
    if not living:
        yield _none(case)
    else:
        yield from _lost(case)
    for worker in living:
        beat = worker.beat_at
        if beat is not None and worker.at - beat >= HUNG_S:
            yield diagnosis(
                "worker_hung", "warning", f"Worker {worker.name} stands still", now_s=case.now_s, about=worker.name,
                since=beat, cause=f"its main thread has not turned for {duration(worker.at - beat)}; it holds "
                f"{counted(worker.busy, 'task')}",
                help=Help(advice="it is replaced by itself after worker.hang_s; what it holds goes back to its queue",
                          command="fleet doctor"),
            )  # fmt: skip


def _none(case: Case) -> Diagnosis:
    view, silent = case.view, case.symptoms.silent
    tasks = sum(pool.waiting + pool.in_flight for pool in view.pools)
    since = max((worker.at for worker in silent), default=None)
    lost = f"{counted(len(silent), 'worker')} fell silent: {listed((one.name for one in silent), len(silent))}"
    head = "No worker lives" if silent else "No worker runs"
    cause = lost if silent else "they stay in Redis until one starts" if tasks else "the next tasks will wait"
    return diagnosis(
        "no_worker", "critical" if tasks or silent else "warning", head, now_s=case.now_s, since=since, tasks=tasks,
        cause=cause, help=Help(advice="start one; no task is lost meanwhile", command=START),
    )  # fmt: skip


def _lost(case: Case) -> Iterator[Diagnosis]:
    """Yield workers that have just fallen silent, and those that were given up and in whose place none has started.

    Weakness: a worker that is started for another reason takes the place of a lost one, too; the event stays.
    """
    lost: dict[str, float] = {worker.name: worker.at for worker in case.symptoms.silent}
    heard = dict(lost)  # when each was heard for the last time
    back = {worker.name for worker in case.view.resources.workers if worker.row not in
            {silent.row for silent in case.symptoms.silent}}  # fmt: skip
    for event in case.view.events:
        if event.name == "worker_lost" and event.at > case.now_s - LOST_TOLD_S:
            name = event.fields.get("worker", "")
            lost.setdefault(name, event.at)
            heard.setdefault(name, event.at - SILENT_S)
    for event in reversed(case.view.events):
        place = _place_of(event.fields.get("worker", ""), heard, event.at) if event.name == "worker_started" else None
        if place is not None:
            del lost[place], heard[place]
    gone = {name: at for name, at in lost.items() if name not in back}
    if len(gone) > MOST_APART:  # their host, or the network to it
        yield diagnosis(
            "worker_lost", "warning", f"{len(gone):,} workers are lost", now_s=case.now_s, since=min(gone.values()),
            cause=f"{listed(gone, len(gone))} have reported nothing since; what they held goes back to its queues by "
            "itself", help=Help(advice="see that their hosts are up, and start as many in their place", command=START),
        )  # fmt: skip
        return
    for name, at in gone.items():
        yield diagnosis(
            "worker_lost", "warning", f"Worker {name} is lost", now_s=case.now_s, about=name, since=at,
            cause="it has reported nothing since; what it held goes back to its queues by itself",
            help=Help(advice="start one in its place, and see its log", command=START),
        )  # fmt: skip


def _place_of(started: str, heard: Mapping[str, float], at: float) -> str | None:
    """Return whose place a worker takes: that of its own name, else that of who fell silent first before it started."""
    before = {name: silent_at for name, silent_at in heard.items() if silent_at <= at}
    return started if started in before else min(before, key=before.__getitem__, default=None)


def unserved(case: Case) -> Iterator[Diagnosis]:
    """Yield what is wrong with the workers as a crew: pools without one, names, settings."""
    if not case.view.resources.workers:
        return
    for trouble in case.view.resources.troubles:
        line, _, advice = trouble.line.partition("; ")
        kind, severity, tasks = _of_trouble(case, trouble)
        if tasks:  # the sentence tells how many
            line = line.removesuffix(": its tasks wait").removesuffix(": their tasks wait")
        yield diagnosis(
            kind, severity, line[:1].upper() + line[1:], cause="", now_s=case.now_s,
            about=", ".join(trouble.pools) or trouble.about, tasks=tasks,
            help=Help(advice=advice, command="fleet doctor"),
        )  # fmt: skip


def _of_trouble(case: Case, trouble: Trouble) -> tuple[Kind, Severity, int]:
    if trouble.about in ("names", "settings"):
        return "settings_differ", "warning", 0
    if trouble.about == "releases":
        return "releases_differ", "info", 0
    tasks = sum(case.waiting("worker", "key", "credit", "configuration", pool=pool) for pool in trouble.pools)
    return "pool_unserved", "critical" if tasks else "warning", tasks


def clocks(case: Case) -> Iterator[Diagnosis]:
    """Yield hosts whose clock is not that of Redis; when all are off alike, it is that of Redis."""
    off: dict[str, float] = {}
    for worker in case.view.resources.workers:
        if abs(worker.clock_ahead_s) >= NAMED_FROM_S:
            off.setdefault(worker.host, worker.clock_ahead_s)
    hosts = {worker.host for worker in case.view.resources.workers}
    if len(off) > 1 and off.keys() == hosts and max(off.values()) - min(off.values()) < NAMED_FROM_S:
        ahead_s = next(iter(off.values()))
        yield diagnosis(
            "clock_off", "warning", "The clock of Redis is off", now_s=case.now_s, about="Redis",
            cause=f"those of all {len(hosts):,} hosts with workers are {told(ahead_s)}",
            help=Help(advice="let NTP set the clock of the host of Redis", command="fleet doctor"),
        )  # fmt: skip
        return
    for host, ahead_s in off.items():
        yield diagnosis(
            "clock_off", "warning", f"The clock of host {host} is off", now_s=case.now_s, about=host,
            cause=f"it is {told(ahead_s)}", help=Help(advice="let NTP set the clock of that host, or of the host of "
            "Redis", command="fleet doctor"),
        )  # fmt: skip


def redis(case: Case) -> Iterator[Diagnosis]:
    """Yield that Redis is near the memory that it may use."""
    most, used = case.symptoms.redis_most_bytes, case.view.resources.redis_mb * 2**20
    if not most or used < REDIS_NEAR * most:
        return
    yield diagnosis(
        "redis_memory", "critical" if used >= REDIS_FULL * most else "warning",
        f"Redis uses {used / most:.0%} of its memory", now_s=case.now_s,
        cause=f"{used / 2**20:,.0f} of {most / 2**20:,.0f} MB; when it is full, no task is accepted and none finishes",
        help=Help(advice="raise maxmemory; results and dead letters take it: results.expires_s, fleet dead purge",
                  command="fleet doctor"),
    )  # fmt: skip


def machines(case: Case) -> Iterator[Diagnosis]:
    """Yield tasks that wait for their worker's machine, or for a function that blocks it."""
    causes: tuple[tuple[Cause, Kind, str], ...] = (
        ("machine", "machine_full", "A worker's machine is full"),
        ("function", "function_blocks", "A function blocks its worker"),
    )
    for cause, kind, head in causes:
        lines = [line for line in case.view.waits if line.cause == cause and line.tasks]
        if lines:
            yield diagnosis(
                kind, "warning", head, now_s=case.now_s, about=", ".join(line.pool for line in lines),
                tasks=sum(line.tasks for line in lines), cause=lines[0].told or SENTENCES[cause],
                help=Help(advice=lines[0].advice or "see what it names", command="fleet doctor"),
            )  # fmt: skip


def paused(case: Case) -> Iterator[Diagnosis]:
    """Yield pools that an operator has paused, while tasks wait there, if for a worker first."""
    waiting = {pool.pool for pool in case.view.pools if pool.waiting}
    for line in case.view.waits:
        if line.cause == "operator" and (line.tasks or line.pool in waiting):
            until = f"until {clock(line.opens_at, case.now_s)}" if line.opens_at is not None else "until it is resumed"
            starts = "none starts" if line.told == CLOSED_GATE else f"only {line.told} starts"
            event = next((one for one in case.view.events if one.name == "pool_paused" and line.pool in
                          one.fields.get("pool", "").replace(" and ", ", ").split(", ")), None)  # fmt: skip
            by = f" by {event.fields['by']}" if event is not None and event.fields.get("by") else ""
            yield diagnosis(
                "pool_paused", "info", f"Pool {line.pool} is paused{by}", now_s=case.now_s, about=line.pool,
                since=event.at if event is not None else None, tasks=line.tasks, cause=f"{starts} {until}",
                help=Help(advice="resume it", command=f"fleet pools resume {line.pool}",
                          action={"do": "resume", "pool": line.pool}),
            )  # fmt: skip
