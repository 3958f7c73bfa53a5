"""Every counter and every event that Fleet keeps, declared once. What Prometheus is told: `metrics.py`.

Names of counters are fields of the hash `keys.pool_totals`. None is labelled by bot, key or task: what is kept per bot
lives in `keys.bot_rows` and `keys.errors`, whose rows are spelled here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fleet import errors
from fleet.money import PICOS_PER_MICRO
from fleet.usage import Usage

#: Stands for a pool, bot or API that a result does not have: a malformed message, a task for an unknown pool.
#: No pool can have this name.
NOBODY = "-"
#: Before the error type of one provider call that failed; a task's own final failure stands without it.
_CALL = "call:"
#: Before the tool and the error type of its failed requests.
_TOOL_ERRORS = "tool_errors"


@dataclass(frozen=True, slots=True)
class Counter:
    """A number that only grows: its name in Redis and what it counts."""

    name: str
    description: str


COMPLETIONS = Counter("completions", "Tasks with a result, whatever its status.")
OK = Counter("ok", "Tasks answered as asked.")
DEGRADED = Counter("degraded", "Tasks answered with less than asked, and said so.")
FAILED = Counter("failed", "Tasks that ended with a typed error.")
DUPLICATES = Counter("duplicates", "Executions that ended after their task already had a result; discarded.")
FENCED = Counter("fenced", "Executions that ended after their worker had lost the task's lease; discarded.")
REVOKED = Counter("revoked", "Executions that were stopped because their task was revoked; what they used is counted.")
SIMULATED = Counter("simulated", "Tasks that the simulator answered, not a real provider.")
FALLBACKS = Counter("fallbacks", "Tasks that a rung of their pool's fallback ladder served.")
INPUT_TOKENS = Counter("input_tokens", "Tokens sent to providers.")
OUTPUT_TOKENS = Counter("output_tokens", "Tokens answered by providers.")
CACHED_TOKENS = Counter("cached_tokens", "Tokens sent that the provider read from its cache.")
CACHE_WRITE_TOKENS = Counter("cache_write_tokens", "Tokens sent that the provider wrote to its cache.")
REASONING_TOKENS = Counter("reasoning_tokens", "Tokens answered that were thinking.")
COST_USD_MICROS = Counter("cost_usd_micros", "Micro-dollars spent on models that have a price, without their parts.")
COST_USD_REST = Counter("cost_usd_picos_rest", "What was spent in parts of a micro-dollar, in 10^-12 dollars.")
ATTEMPTS = Counter("attempts", "Calls sent to providers, answered or not.")
CALLS = Counter("calls", "Calls that a provider answered: attempts without failures.")
RATE_LIMITED = Counter("rate_limited", "Calls that a provider answered with 429.")
PARKED = Counter("parked", "Times that tasks with a result had been parked before.")
CANARIES = Counter("canaries", "Tasks with a known answer that suspected bots were given.")
ASKS = Counter("asks", "Questions that were put to several bots.")
ASKS_FAILED = Counter("asks_failed", "Questions that were put to several bots, and came to no outcome.")
MEMBERS_ASKED = Counter("members_asked", "Members of asks that were queued.")
MEMBERS_SPARED = Counter("members_spared", "Members of asks that were left out or stopped, for it was decided.")
SHADOWS = Counter("shadows", "Second answers by other bots, asked for to compare.")
GRADED_RIGHT = Counter("graded_right", "Answers that were graded right.")
GRADED_WRONG = Counter("graded_wrong", "Answers that were graded wrong.")
VOTED_ALIKE = Counter("voted_alike", "Answers that were what most others said to the same question.")
VOTED_OTHERWISE = Counter("voted_otherwise", "Answers that were not what most others said to the same question.")
DEAD_LETTERS = Counter("dead_letters", "Tasks that failed for good and were kept as dead letters.")
DEAD_LETTERS_DROPPED = Counter("dead_letters_dropped", "Dead letters that had to make room before anyone asked.")

COUNTERS: tuple[Counter, ...] = (
    COMPLETIONS, OK, DEGRADED, FAILED, DUPLICATES, FENCED, REVOKED, SIMULATED, FALLBACKS, INPUT_TOKENS, OUTPUT_TOKENS,
    CACHED_TOKENS, CACHE_WRITE_TOKENS, REASONING_TOKENS, COST_USD_MICROS, COST_USD_REST, ATTEMPTS, CALLS, RATE_LIMITED,
    PARKED, CANARIES, ASKS, ASKS_FAILED, MEMBERS_ASKED, MEMBERS_SPARED, SHADOWS, GRADED_RIGHT, GRADED_WRONG,
    VOTED_ALIKE, VOTED_OTHERWISE, DEAD_LETTERS, DEAD_LETTERS_DROPPED,
)  # fmt: skip
#: Counter of each status a result may have.
BY_STATUS = {"ok": OK, "degraded": DEGRADED, "failed": FAILED}


def fallbacks_of(pool: str, rung: int) -> Counter:
    """Return the part of `FALLBACKS` that one rung of a pool's ladder has served."""
    return Counter(f"{FALLBACKS.name}|{pool}|{rung}", FALLBACKS.description)


def tool_errors_of(tool: str, kind: str) -> Counter:
    """Return the counter of the requests to a tool API that failed with one type of error.

    Args:
        tool: As `tools/NAME`.
        kind: One of `ERROR_NAMES`.
    """
    return Counter(f"{_TOOL_ERRORS}|{tool}|{kind}", "Requests to a tool API that were not answered as they should be.")


def tool_errors_in(totals: Mapping[bytes, int]) -> Iterator[tuple[str, str, int]]:
    """Yield tools, as `tools/NAME`, the types of their errors, and how many requests failed so."""
    for name, count in totals.items():
        first, *rest = name.decode(errors="replace").split("|")
        if first == _TOOL_ERRORS and len(rest) == 2:
            yield rest[0], rest[1], int(count)


def used(usage: Usage) -> tuple[tuple[Counter, int], ...]:
    """Return the counters of tokens, and what is added to them."""
    return (
        (INPUT_TOKENS, usage.input_tokens),
        (OUTPUT_TOKENS, usage.output_tokens),
        (CACHED_TOKENS, usage.cached_tokens),
        (CACHE_WRITE_TOKENS, usage.cache_write_tokens),
        (REASONING_TOKENS, usage.reasoning_tokens),
    )


def paid(picos: int) -> tuple[tuple[Counter, int], ...]:
    """Return the counters of money, and what a task adds to them.

    The sum is kept in two parts, each a whole number that HINCRBY adds exactly: one counter of 10^-12 dollars would end
    at $9.2 million. The part in whole micro-dollars is that of earlier releases, so their sum goes on.
    """
    micros, rest = divmod(picos, PICOS_PER_MICRO)
    return (COST_USD_MICROS, micros), (COST_USD_REST, rest)


def spent_picos(totals: Mapping[str, int]) -> int:
    """Return what was spent in 10^-12 dollars, from the counters by name."""
    return totals.get(COST_USD_MICROS.name, 0) * PICOS_PER_MICRO + totals.get(COST_USD_REST.name, 0)


def calls_failed(totals: Mapping[str, int]) -> int:
    """Return how many calls a provider did not answer, 429s among them, from the counters by name.

    The one source of that figure: the page, `fleet stats` and the metrics. What the errors by bot say is less where a
    result was discarded, and more where an answer came and was bad.
    """
    return max(0, totals.get(ATTEMPTS.name, 0) - totals.get(CALLS.name, 0))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to the fleet, not to one task: its name and what its fields say."""

    name: str
    level: Literal["info", "warning", "error"]
    description: str


POOL_PAUSED = Event("pool_paused", "warning", "Gates were closed: pool (one, or several by name), gate, by, host.")
POOL_RESUMED = Event("pool_resumed", "info", "Gates were opened: pool (one, or several by name), by, host.")
HOLD_PUT = Event(
    "hold_put", "warning", "Tasks of a pool wait: pool, cause, opens_at, why. Once a minute a pool and cause."
)
HOLD_LIFTED = Event("hold_lifted", "info", "They go on, for the reason has gone: pool, cause. As often at most.")
LIMIT_CHANGED = Event("limit_changed", "info", "An operator set a limit live: limit, the numbers, by, host.")
LIMIT_RESET = Event("limit_reset", "info", "The configured numbers of a limit hold again: limit, by, host.")
LIMIT_RELEASED = Event("limit_released", "info", "An operator ended the hold of a limit after a 429: limit, by, host.")
BOT_QUARANTINED = Event(
    "bot_quarantined", "warning", "A bot takes no new tasks: bot, pool, reason, by; host, when by hand."
)
BOT_RELEASED = Event("bot_released", "info", "A bot takes tasks again: bot, pool, by; host, when by hand.")
QUARANTINE_CAP = Event(
    "quarantine_cap", "error", "A bot should be out, but too many are: pool, bot, out, of. Once a minute and pool."
)
FLOWER_CONTROL = Event(
    "flower_control", "info", "An operator pressed a button of Flower's, or called its API: what, by, host."
)
ALERT_FAILED = Event("alert_failed", "warning", "The webhook took no message: why. Once in ten minutes.")
WORKER_STARTED = Event("worker_started", "info", "A worker process is ready: worker, pid.")
WORKER_STOPPED = Event("worker_stopped", "info", "A worker process ended as it should: worker.")
WORKER_LOST = Event(
    "worker_lost", "error", "A worker process has said nothing for 10 s, or was replaced: worker. Once a process."
)
CLOCK_OFF = Event("clock_off", "warning", "A worker's clock is not that of Redis: worker, ahead_s.")
WORKER_STALLED = Event("worker_stalled", "error", "A worker stood still and ended itself: worker, why.")
FUNCTION_BLOCKED = Event(
    "function_blocked", "warning", "An async def function blocked its loop: function, at, s. Once a minute a function."
)
POISON_BURIED = Event("poison_buried", "error", "A task that kills its process was given a failed result: task, proof.")
PROVIDER_LIMITED = Event("provider_limited", "warning", "A 429 holds the fleet: limit, hold_s. Once a minute a limit.")
TASK_CANCELLED = Event(
    "task_cancelled", "info",
    "An operator cancelled tasks: their ids, or pool and by what they were chosen; ended, stopped, by, host.",
)  # fmt: skip
WORDS_ERASED = Event(
    "words_erased",
    "warning",
    "An operator had a tenant or tasks forgotten: tenant (a pseudonym), counts of what went, left, by, host.",
)
DEAD_REPLAYED = Event(
    "dead_replayed", "info", "An operator queued dead letters again: their tasks, or pool and reason; counts, by, host."
)
DEAD_PURGED = Event("dead_purged", "warning", "An operator threw dead letters away: the same fields.")
BUDGET_WARNING = Event(
    "budget_warning",
    "warning",
    "The day of a limit is used to 80% or 100%: limit, percent. Or a budget is: scope, "
    "period, percent. Once a day, hour or month, each.",
)
BATCH_TROUBLE = Event(
    "batch_trouble",
    "warning",
    "A batch was given_up, or answers of it were lost or unwanted, and are paid; or its words were not_deleted: "
    "what, job, limit, count.",
)
EARNING_REVOKED = Event(
    "earning_revoked", "info", "An operator took back what a task had earned: task, payee, why, by, host."
)
PAYOUT_MOVED = Event(
    "payout_moved",
    "info",
    "A payout was prepared, sent, settled, voided or has failed: payout, network, now, by, host.",
)
PAYOUT_GUARD = Event(
    "payout_guard",
    "warning",
    "An address was seen for the first time or has changed, or a price, a network or terms that guard payouts change "
    "or hold now: what, payee, network.",
)
BUDGET_CHANGED = Event("budget_changed", "info", "An operator set a budget, or reset it: scope, now, by, host.")
BILL_RESOLVED = Event(
    "bill_resolved", "info", "An operator gave unknown calls what a provider's export says: file, calls, usd, by, host."
)
KEY_ADDED = Event("key_added", "info", "An operator stored a provider's key: provider, fingerprint, version, by, host.")
KEY_ROTATED = Event(
    "key_rotated", "info", "An operator stored another key of a provider: provider, fingerprint, version, by, host."
)
KEYS_RESEALED = Event(
    "keys_resealed", "info", "An operator sealed the encrypted file of keys with a passphrase: by, host."
)
KEY_REVOKED = Event(
    "key_revoked", "warning", "An operator let no call use a key any more: provider, fingerprint, by, host."
)
KEY_DELEGATED = Event(
    "key_delegated", "info", "Somebody handed on a scope of a key: provider, delegation, to, by, host."
)
KEY_SCOPED = Event("key_scoped", "info", "An operator set whom a key serves: provider, scope, by, host.")
DELEGATION_REVOKED = Event(
    "delegation_revoked", "warning", "An operator let a delegation hold no more: delegation, by, host."
)
USE_UNUSUAL = Event(
    "use_unusual",
    "warning",
    "A key or bot is asked for far more than usual: about, told, done (alarm, throttled, ...).",
)
USE_USUAL = Event("use_usual", "info", "What was told of a key or bot is over: about; by and host, when by hand.")
PROVIDER_NARROW = Event(
    "provider_narrow", "warning", "A provider refuses calls at once: limit, most (0: not said). Once a minute a limit."
)
BREAKER_OPENED = Event(
    "breaker_opened", "error", "Calls to a provider wait until a probe does well: limit, cause, told."
)
BREAKER_CLOSED = Event("breaker_closed", "info", "Calls to a provider go again: limit; by and host, when by hand.")
FALLBACK_TAKEN = Event(
    "fallback_taken", "warning", "A pool goes down its ladder: pool, rung, api, cause. Once a minute a rung."
)
FALLBACK_OVER = Event("fallback_over", "info", "A pool's own API serves again: pool, api. Once a minute a pool.")
LESSON_LEARNT = Event(
    "lesson_learnt", "info", "A model gets no more what it refuses, or (`unsent:`) its wire lacks: api, what."
)
LESSON_FORGOTTEN = Event(
    "lesson_forgotten",
    "info",
    "A model takes, or is sent, again what it was not: api, what; by and host, when by hand.",
)
SCHEDULE_MISSED = Event(
    "schedule_missed", "warning", "Times of a schedule were left out, for no beat ran: schedule, why."
)
SCHEDULE_PAUSED = Event("schedule_paused", "warning", "An operator paused a schedule: schedule, until, by, host.")
SCHEDULE_RESUMED = Event("schedule_resumed", "info", "A schedule goes on: schedule, by, host.")
SCHEDULE_RUN = Event("schedule_run", "info", "An operator had a schedule's tasks submitted: schedule, tasks, by, host.")
CACHE_CLEARED = Event("cache_cleared", "info", "Kept answers were dropped: kind, answers (count), by, host.")
ROLLOUT_STARTED = Event(
    "rollout_started", "info", "An operator tries something in a pool: pool, rollout, what, share, by, host."
)
ROLLOUT_BACK = Event("rollout_back", "warning", "What was tried is worse, and ended: pool, rollout, what, why.")
ROLLOUT_ENDED = Event(
    "rollout_ended", "info", "An operator stopped or finished a rollout: pool, rollout, what, how, by, host."
)
JOB_CANCELLED = Event("job_cancelled", "warning", "Somebody cancelled a job: job (its id), ended, stopped, by, host.")
JOB_SEALED = Event("job_sealed", "info", "Somebody let an open job get no more tasks: job, by, host.")
JOB_REPLAYED = Event("job_replayed", "info", "A job's failed tasks were queued again: job, tasks, by, host.")
JOB_MEMBERS_LOST = Event(
    "job_members_lost",
    "warning",
    "Tasks of a job are in no queue any more, and count as cancelled: job, tasks (count).",
)
RESTORED = Event(
    "restored", "warning", "An operator put a backup into Redis: made_at (a time), keys, requeued (counts), by, host."
)
CONTEXT_ADDED = Event("context_added", "info", "A shared document was stored: context (its id), by, host.")
CONTEXT_REMOVED = Event("context_removed", "info", "A shared document was removed: context (its id), by, host.")
KEY_REJECTED = Event("key_rejected", "error", "A provider refuses our key: limit. Once a minute a limit.")
DEAD_LETTER = Event("dead_letter", "error", "Tasks fail for good: pool, reason, task. Once a minute and pool.")
DIVERSITY_ALARM = Event("diversity_alarm", "error", "Bots answer alike: pool, kind, score, near_share, flagged.")
DIVERSITY_TREATMENT = Event("diversity_treatment", "info", "Half of the flagged bots get a remedy: pool, kind, remedy.")
DIVERSITY_VERDICT = Event("diversity_verdict", "info", "Treated and untreated bots were compared: pool, kind, verdict.")
DIVERSITY_STEP_DOWN = Event(
    "diversity_step_down", "info", "A remedy that worked makes room for the weaker one: pool, kind."
)
DIVERSITY_RELAPSE = Event(
    "diversity_relapse", "warning", "Bots were alike again after a step down: pool, kind, remedy."
)
DIVERSITY_EXHAUSTED = Event("diversity_exhausted", "error", "No remedy helped, all were taken back: pool, kind.")
DIVERSITY_ENDED = Event("diversity_ended", "info", "All remedies of a class were taken back: pool, kind.")
DIVERSITY_RECOVERED = Event("diversity_recovered", "info", "A class in alarm is diverse again: pool, kind.")
DIVERSITY_RELEARNT = Event(
    "diversity_relearnt", "info", "What is usual for a class is learnt anew: pool, kind, by, host."
)

EVENTS: dict[str, Event] = {
    event.name: event
    for event in (
        POOL_PAUSED, POOL_RESUMED, HOLD_PUT, HOLD_LIFTED, LIMIT_CHANGED, LIMIT_RESET,
        BOT_QUARANTINED, BOT_RELEASED, QUARANTINE_CAP, FLOWER_CONTROL, ALERT_FAILED,
        WORKER_STARTED, WORKER_STOPPED, WORKER_LOST, WORKER_STALLED, FUNCTION_BLOCKED, CLOCK_OFF, POISON_BURIED,
        PROVIDER_LIMITED, PROVIDER_NARROW, BREAKER_OPENED, BREAKER_CLOSED, FALLBACK_TAKEN, FALLBACK_OVER,
        LESSON_LEARNT, LESSON_FORGOTTEN, LIMIT_RELEASED, BUDGET_WARNING, BUDGET_CHANGED, BATCH_TROUBLE,
        EARNING_REVOKED, PAYOUT_MOVED, PAYOUT_GUARD,
        BILL_RESOLVED, SCHEDULE_MISSED, SCHEDULE_PAUSED, SCHEDULE_RESUMED, SCHEDULE_RUN,
        ROLLOUT_STARTED, ROLLOUT_BACK, ROLLOUT_ENDED,
        JOB_CANCELLED, JOB_SEALED, JOB_REPLAYED, JOB_MEMBERS_LOST, CACHE_CLEARED, RESTORED,
        CONTEXT_ADDED, CONTEXT_REMOVED,
        KEY_REJECTED, KEY_ADDED, KEY_ROTATED, KEY_REVOKED, KEYS_RESEALED, KEY_DELEGATED, KEY_SCOPED,
        DELEGATION_REVOKED, USE_UNUSUAL, USE_USUAL, DEAD_LETTER, TASK_CANCELLED,
        WORDS_ERASED, DEAD_REPLAYED, DEAD_PURGED,
        DIVERSITY_ALARM, DIVERSITY_TREATMENT, DIVERSITY_VERDICT, DIVERSITY_STEP_DOWN, DIVERSITY_RELAPSE,
        DIVERSITY_EXHAUSTED, DIVERSITY_ENDED, DIVERSITY_RECOVERED, DIVERSITY_RELEARNT,
    )
}  # fmt: skip

#: What stands for an error type that Fleet does not declare: a user's own must not become rows without end.
OTHER_ERROR = "Other"
#: Every name that an error type can have in counters.
ERROR_NAMES = frozenset({OTHER_ERROR, *(name for name, kind in vars(errors).items() if isinstance(kind, type))})


def error_name(name: str) -> str:
    """Return the name of an error type as counters spell it."""
    return name if name in ERROR_NAMES else OTHER_ERROR


@dataclass(frozen=True, slots=True)
class ErrorField:
    """One row of `keys.errors(pool)`: who, where, what.

    `of` tells a task's final failure from the failure of one provider call, which may have been retried.
    """

    bot: str
    api: str
    type: str
    of: Literal["task", "call"] = "task"

    def spell(self) -> str:
        """Return the field's name in the hash."""
        return f"{self.bot}|{self.api}|{_CALL if self.of == 'call' else ''}{self.type}"

    @classmethod
    def parse(cls, name: str) -> ErrorField:
        """Read what `spell` wrote. A model's name may contain `|`; bots and types do not."""
        bot, rest = name.split("|", 1)
        api, kind = rest.rsplit("|", 1)
        return cls(bot, api, kind.removeprefix(_CALL), "call" if kind.startswith(_CALL) else "task")
