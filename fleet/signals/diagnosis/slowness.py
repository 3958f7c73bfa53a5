"""Findings about APIs that have become slow: of the last minutes, and of the last tasks, which tell it sooner. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from fleet.quoting import duration
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import RECENT_MIN, Case, LastTask, api_of
from fleet.signals.view import Quantiles

#: How much longer than usual tasks of an API must take, in all and for each token, and in how many tasks (count).
SLOW_TIMES, SLOW_TASKS = 3.0, 20
#: The last tasks are those of so many seconds, the first of these that tells it; so many at least (count).
LATELY_S, LATELY_TASKS = (10.0, 30.0, 60.0), 12
#: Seconds over which they must have ended (less is a hiccup), the share of them that must have taken longer than nine
#: of ten tasks of the hour, and how many times as long as half of those.
LATELY_LEAST_S, LATELY_SHARE, LATELY_TIMES = 4.0, 0.75, 2.0
#: Share of the hour's tasks from which the last ones are left out of what is usual.
YOUNG_SHARE = 0.05
#: How much longer the tasks of these last minutes, one and two, must have taken for each token.
TOKEN_TIMES, TOKEN_MINUTES = 1.5, (1, 2)
#: It is over when the tasks of so many seconds, or the last ones where those are few, took less than so many times the
#: usual time. A minute would hold the tasks that a hang had held, long after they have ended.
OVER_S, OVER_TIMES = 15.0, 1.5


def slow(case: Case) -> Iterator[Diagnosis]:
    """Yield APIs whose tasks take several times as long as in the hour before, and as much longer for each token.

    Weakness: a task of an agent or of a function is its calls and its own work; who gives them more to do is told, too.
    """
    for limit in case.view.limits:
        api = api_of(limit.limit)
        cause = _in_minutes(case, api) or _lately(case, api)
        if cause and not _is_over(case, api):
            yield diagnosis(
                "provider_slow", "warning", f"{api} is slow", now_s=case.now_s, about=api,
                cause=f"{cause}; longer answers are not why",
                help=Help(advice="see the provider's status page; a fallback gives its pools another way",
                          command="fleet top"),
            )  # fmt: skip


def _in_minutes(case: Case, api: str) -> str:
    """Return what tells it in the last minutes; empty: nothing does."""
    done, took, tokens = _means(case, api, RECENT_MIN)
    usual, took_before, tokens_before = _means(case, api, RECENT_MIN, is_usual=True)
    if min(done, usual) < SLOW_TASKS:
        return ""
    if took < SLOW_TIMES * took_before or took / tokens < SLOW_TIMES * took_before / tokens_before:
        return ""
    now, before = duration(took / 1000), duration(took_before / 1000)
    return f"a task took {now} in the last {RECENT_MIN} minutes, {before} in the hour before"


def _lately(case: Case, api: str) -> str:
    """Return what tells it in the last tasks; empty: nothing does.

    Half of them took three times as long as half of their pool's tasks of the hour, and nearly all longer than nine of
    ten did: that nine of twelve tasks do so by chance happens once in millions.
    """
    ran = {pool.pool: pool.durations.ran for pool in case.view.pools if pool.durations.ran.count >= SLOW_TASKS}
    half = {name: one.p50 or 0.0 for name, one in ran.items()}
    for seconds in LATELY_S:
        last = _last_tasks(case, api, seconds)
        if len(last) < LATELY_TASKS or last[0].at - last[-1].at < LATELY_LEAST_S:
            continue
        earlier = case.symptoms.ended[api][len(last) :]
        most = {name: _nine_of_ten(name, one, earlier, last) for name, one in ran.items()}
        bounds = {name: max(LATELY_TIMES * half[name], most[name]) for name in ran}
        late = [one for one in last if one.ran_ms > bounds.get(one.pool, float("inf"))]
        took = median(one.ran_ms for one in last)
        usual = max((half[one.pool] for one in late), default=0.0)
        if len(late) >= LATELY_SHARE * len(last) and took >= SLOW_TIMES * usual and _is_no_longer_answer(case, api):
            now, before = duration(took / 1000), duration(usual / 1000)
            return f"half of its last {len(last):,} tasks took {now} or longer, half of those of the last hour {before}"
    return ""


def _nine_of_ten(pool: str, ran: Quantiles, earlier: Sequence[LastTask], last: Sequence[LastTask]) -> float:
    """Return the time (ms) within which nine of ten tasks of a pool were done in the last hour.

    Where the last tasks are many of that hour's, as in a fleet that is young, those before them tell what is usual.
    """
    before = sorted(one.ran_ms for one in earlier if one.pool == pool)
    if len(last) < YOUNG_SHARE * ran.count or len(before) < SLOW_TASKS:
        return ran.p90 or 0.0
    return float(before[len(before) * 9 // 10])


def _last_tasks(case: Case, api: str, seconds: float) -> Sequence[LastTask]:
    """Return the tasks of an API that ended well within so many seconds, the newest first."""
    return [one for one in case.symptoms.ended.get(api, ()) if one.at > case.now_s - seconds]


def _is_no_longer_answer(case: Case, api: str) -> bool:
    """True when tasks have taken longer for each token. Of so short a time both are known by the minute only.

    All before those minutes is what is usual: a fleet of three minutes has nothing older.
    """
    for minutes in TOKEN_MINUTES:
        _, took_before, tokens_before = _means(case, api, minutes, is_usual=True)
        done, took, tokens = _means(case, api, minutes)
        if done >= LATELY_TASKS and took / tokens >= TOKEN_TIMES * took_before / tokens_before > 0:
            return True
    return False


def _is_over(case: Case, api: str) -> bool:
    """True when enough of the last tasks took hardly longer than usual: what is over is told no more."""
    last = _last_tasks(case, api, OVER_S)
    if len(last) < SLOW_TASKS:
        last = _last_tasks(case, api, 60.0 * RECENT_MIN)[:SLOW_TASKS]
    _, took_before, _ = _means(case, api, RECENT_MIN, is_usual=True)
    return len(last) >= SLOW_TASKS and sum(one.ran_ms for one in last) < OVER_TIMES * took_before * len(last)


def _means(case: Case, api: str, minutes: int, *, is_usual: bool = False) -> tuple[float, float, float]:
    """Return how many tasks were done, how long one took (ms), and the tokens that it has made."""
    sums = [(case.usual if is_usual else case.recent)(pool, minutes) for pool in case.pools_on(api)]
    done = sum(one.completions for one in sums)
    took, tokens = sum(one.ran_ms for one in sums), sum(one.output_tokens for one in sums)
    return done, took / max(1.0, done), max(1.0, tokens / max(1.0, done))
