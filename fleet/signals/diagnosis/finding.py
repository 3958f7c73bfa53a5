"""One thing that is wrong with the fleet: its kind, one sentence, since when, how many tasks, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from pydantic import Field

from fleet.frozen import Frozen
from fleet.quoting import brief, clock, counted

Severity = Literal["critical", "warning", "info"]
#: From the worst: of two findings that are as bad and hold up as many tasks, the one that stands first is told first.
Kind = Literal[
    "provider_down", "key_refused", "out_of_money", "misconfigured", "no_worker", "budget_used", "bots_out",
    "pool_unserved", "redis_memory", "worker_hung", "worker_lost", "machine_full", "function_blocks",
    "provider_failing", "provider_refusing", "provider_slow", "prompts_fail", "dead_letters", "use_unusual",
    "key_shared", "bots_bad", "bots_alike", "backlog_grows", "settings_differ", "clock_off", "budget_near",
    "calls_unknown", "schedule_late", "job_stands", "payout_stuck", "payout_guard", "cache_missed",
    "limit_saturated", "pool_paused", "rollout_back", "releases_differ",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

#: What all APIs together are called.
ALL_APIS = "all APIs"
#: What is said when nothing is wrong.
ALL_WELL = "all well"
#: Longest cause in a sentence, in bytes: what a provider said may be a page.
MOST_CAUSE = 240


class Help(Frozen):
    """What helps: in words, as a command to copy, as a button of the page."""

    advice: str = Field("", description="What to do, in words.")
    command: str = Field("", description="A command that does it, or shows more; empty: there is none.")
    action: dict[str, str] | None = Field(None, description="The page's action that does it, as `/fleet/act` takes it.")


#: Nothing helps, or nobody knows what.
NO_HELP = Help()


class Diagnosis(Frozen):
    """One thing that is wrong."""

    kind: Kind
    severity: Severity
    sentence: str = Field(description="What is wrong, since when, how many tasks wait, and why.")
    about: str = Field("", description="The provider/model, pool, bot or worker; `all APIs`.")
    since: float | None = Field(None, description="Unix time; None: nobody knows.")
    tasks: int = Field(0, description="Tasks that wait for it, or failed by it.")
    help: Help = NO_HELP


#: Who is behind what fails; `none`: nothing does, `unclear`: too little does to tell.
Culprit = Literal[
    "none", "provider", "key", "configuration", "our limit", "our budget", "our bots", "prompts", "unclear"
]  # fmt: skip


class CallVerdict(Frozen):
    """Who is behind what fails just now: by calls, API by API and class of error, and only then by tasks."""

    verdict: Culprit = "none"
    culprit: str = Field("", description="The API, `all APIs`, the bot or the pool.")
    error: str = Field("", description="What most of them failed with; 429: the provider refused them.")
    failed: int = Field(0, description="Calls or tasks that failed of it.")
    of: int = Field(0, description="Of how many.")
    window_s: float = Field(300.0, description="Seconds that it looks back.")
    reason: str = Field("nothing failed", description="What it goes by; of `none` what has failed and does no more.")


def diagnosis(
    kind: Kind, severity: Severity, head: str, *, cause: str, now_s: float, about: str = "", since: float | None = None,
    tasks: int = 0, has_failed: bool = False, help: Help = NO_HELP,
) -> Diagnosis:  # fmt: skip
    """Return a finding, its sentence composed: `HEAD since TIME, N tasks wait: CAUSE`.

    Args:
        kind: Which.
        severity: How bad.
        head: Who is in which state; no full stop.
        cause: Why, as far as it is known; empty: the head says it.
        now_s: Unix time.
        about: The thing that it is about.
        since: Unix time; None: nobody knows.
        tasks: Behind it.
        has_failed: They have failed; else they wait.
        help: What helps.
    """
    from_when = f" since {clock(since, now_s)}" if since is not None else ""
    verb = "failed" if has_failed else "waits" if tasks == 1 else "wait"
    behind = f", {counted(tasks, 'task')} {verb}" if tasks else ""
    why = f": {brief(cause, MOST_CAUSE)}" if cause else ""
    return Diagnosis(
        kind=kind, severity=severity, sentence=f"{head}{from_when}{behind}{why}", about=about, since=since, tasks=tasks,
        help=help,
    )  # fmt: skip


def is_of_many(about: str) -> bool:
    """True for a finding that stands for many of its kind: all APIs, lost workers, the budgets of tenants."""
    return about in ("", ALL_APIS) or about.endswith(":*")


def well(outlook: str) -> str:
    """Return what is said when nothing is wrong, and what waits long nevertheless."""
    return f"{ALL_WELL}; {outlook}" if outlook else ALL_WELL


def worst_first(found: Iterable[Diagnosis]) -> tuple[Diagnosis, ...]:
    """Return findings in the order in which they are told: by severity, tasks, kind, name."""

    def rank(one: Diagnosis) -> tuple[int, int, int, str]:
        return SEVERITIES.index(one.severity), -one.tasks, KINDS.index(one.kind), one.about

    return tuple(sorted(found, key=rank))
