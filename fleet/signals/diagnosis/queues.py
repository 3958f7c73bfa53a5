"""Findings about queues and what falls out of them: backlogs that grow, dead letters that rise. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fleet.quoting import counted
from fleet.signals.ahead.outlook import length
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case
from fleet.signals.view import PoolView

#: Minutes for which a backlog must have grown, and seconds that it would take to drain at the pace of those minutes.
GROWS_MIN, LONG_DRAIN_S = 10, 900.0
#: How much it must have grown in all in those minutes.
GROWN = 1.1
#: Dead letters of the last minutes from which they are told (count), how many times the usual, share of the tasks.
DEAD_MIN, DEAD_LETTERS, DEAD_TIMES, DEAD_SHARE = 10, 10, 3.0, 0.02
#: What helps against the types that tell of no provider, bot or prompt.
_OF_TYPES = {
    "BotFunctionFailed": "correct the function: the log of its workers names the line",
    "DeadlineExceeded": "raise deadline_s of the pool, or ask for less in one task",
    "Expired": "give them more time (expires_s) or the pool more workers",
    "OutOfTries": "see what their calls failed with",
    "Poison": "see what ends the worker that runs them: its memory, or the function",
}


def backlogs(case: Case) -> Iterator[Diagnosis]:
    """Yield pools whose backlog has grown for ten minutes, and would take long to drain."""
    for pool in case.view.pools:
        if pool.waiting and pool.is_open and not pool.is_held and (grown := _grown(case, pool)) is not None:
            drain_s = pool.drain.left_s if pool.drain is not None else None  # as its card has it
            if drain_s is None:
                done = case.recent(pool.pool, GROWS_MIN).completions
                drain_s = 60 * GROWS_MIN * pool.waiting / done if done else float("inf")
            if drain_s >= LONG_DRAIN_S:
                yield _backlog(case, pool, grown, drain_s)


def _grown(case: Case, pool: PoolView) -> tuple[float, int] | None:
    """Return since when a backlog grows, and what it was then; None: it does not. Each third must be above the last."""
    last = int(case.now_s // 60)
    seen = [
        (minute, tasks)
        for minute, tasks in case.symptoms.backlogs.get(pool.pool, ())
        if last - GROWS_MIN <= minute <= last
    ]
    if not seen or last - seen[0][0] < GROWS_MIN - 1 or len(seen) < GROWS_MIN // 2:
        return None
    third = max(1, len(seen) // 3)
    parts = [seen[:third], seen[third:-third], seen[-third:]]
    means = [sum(tasks for _, tasks in part) / len(part) for part in parts if part]
    was = seen[0][1]
    rises = means == sorted(means) and len(set(means)) == len(means) and pool.waiting >= means[-1]
    return (seen[0][0] * 60.0, was) if rises and pool.waiting >= GROWN * max(1, was) else None


def _backlog(case: Case, pool: PoolView, grown: tuple[float, int], drain_s: float) -> Diagnosis:
    since, was = grown
    drain = f"it takes {length(drain_s)} to drain" if drain_s < 360_000 else "none of its tasks has finished"
    slots = case.view.resources
    is_busy = slots.slots > 0 and slots.busy >= 0.9 * slots.slots
    return diagnosis(
        "backlog_grows", "warning", f"The backlog of {pool.pool} grows", now_s=case.now_s, about=pool.pool, since=since,
        tasks=pool.waiting, cause=f"{was:,} tasks then; at the pace of the last minutes {drain}"
        f"{', and all slots are busy' if is_busy else ''}",
        help=Help(advice="start more workers" if is_busy else "see what its tasks wait for",
                  command="celery -A fleet worker" if is_busy else "fleet pools"),
    )  # fmt: skip


def dead_letters(case: Case) -> Iterator[Diagnosis]:
    """Yield that more tasks than usual fail for good, over all pools."""
    pools = [*case.symptoms.series]
    now = [case.recent(pool, DEAD_MIN) for pool in pools]
    before = [case.usual(pool, DEAD_MIN) for pool in pools]
    dead, usual = (sum(one.dead_letters for one in sums) for sums in (now, before))
    done = sum(one.completions for one in now)
    if dead < DEAD_LETTERS or dead < DEAD_SHARE * done or dead < DEAD_TIMES * usual * DEAD_MIN / (60 - DEAD_MIN):
        return
    worst = max(zip(pools, now, strict=True), key=lambda one: one[1].dead_letters)[0]
    from_s = case.now_s - 60 * DEAD_MIN
    of_worst = Counter(one.type for one in case.symptoms.failures if one.pool == worst and one.at > from_s)
    mostly = of_worst.most_common(1)[0][0] if of_worst else ""
    types = f", mostly {mostly}" if mostly else ""
    yield diagnosis(
        "dead_letters", "warning",
        f"{dead:,.0f} of {done:,.0f} tasks of the last {DEAD_MIN} minutes failed for good",
        now_s=case.now_s, about=worst,
        cause=f"{usual:,.0f} did in the {60 - DEAD_MIN} minutes before; most are of {worst}{types}",
        help=Help(advice=f"{_OF_TYPES.get(mostly, 'see why')}, then replay them",
                  command=f"fleet dead list --pool {worst}"),
    )  # fmt: skip


def schedules(case: Case) -> Iterator[Diagnosis]:
    """Yield that tasks are not submitted by the clock as they should be."""
    if case.symptoms.schedules:
        yield diagnosis(
            "schedule_late", "warning", "Schedules stand still", now_s=case.now_s, cause=case.symptoms.schedules,
            help=Help(advice="run `fleet up` or `celery -A fleet beat`; what is due is submitted then",
                      command="fleet schedules"),
        )  # fmt: skip


def jobs(case: Case) -> Iterator[Diagnosis]:
    """Yield that jobs stand still, which nothing else tells: never sealed, without an end for long, not followed."""
    still = [job for job in case.view.jobs.jobs if job.trouble]
    if still:
        worst = max(still, key=lambda job: job.pending)
        several = len(still) > 1
        yield diagnosis(
            "job_stands", "warning", f"{counted(len(still), 'job')} {'stand' if several else 'stands'} still",
            now_s=case.now_s, about="" if several else worst.key, tasks=sum(job.pending for job in still),
            cause=f"{worst.key}: {worst.trouble}",
            help=Help(advice="`fleet job seal` ends one whose producer is gone, with the tasks that it has",
                      command="fleet job" if several else f"fleet job show {worst.id}"),
        )  # fmt: skip
