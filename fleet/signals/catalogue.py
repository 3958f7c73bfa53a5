"""Every counter that Fleet keeps, declared once: written by the finishing script, read by `reader.py`.

Names are fields of the hash `keys.totals()`. None is labelled by bot, key or task: what is kept per bot lives in
`keys.completions` and `keys.errors`, whose rows are spelled here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Stands for a pool, bot or API that a result does not have: a malformed message, a task for an unknown pool.
#: No pool can have this name.
NOBODY = "-"
#: Before the error type of one provider call that failed; a task's own final failure stands without it.
_CALL = "call:"


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
SIMULATED = Counter("simulated", "Tasks that the simulator answered, not a real provider.")
INPUT_TOKENS = Counter("input_tokens", "Tokens sent to providers.")
OUTPUT_TOKENS = Counter("output_tokens", "Tokens answered by providers.")
COST_USD_MICROS = Counter("cost_usd_micros", "Micro-dollars spent on models that have a price.")
ATTEMPTS = Counter("attempts", "Calls sent to providers, answered or not.")
CALLS = Counter("calls", "Calls that a provider answered: attempts without failures.")
RATE_LIMITED = Counter("rate_limited", "Calls that a provider answered with 429.")
DEAD_LETTERS = Counter("dead_letters", "Tasks that failed for good and were kept as dead letters.")
DEAD_LETTERS_DROPPED = Counter("dead_letters_dropped", "Dead letters that had to make room before anyone asked.")

COUNTERS: tuple[Counter, ...] = (
    COMPLETIONS, OK, DEGRADED, FAILED, DUPLICATES, FENCED, SIMULATED, INPUT_TOKENS, OUTPUT_TOKENS, COST_USD_MICROS,
    ATTEMPTS, CALLS, RATE_LIMITED, DEAD_LETTERS, DEAD_LETTERS_DROPPED,
)  # fmt: skip
#: Counter of each status a result may have.
BY_STATUS = {"ok": OK, "degraded": DEGRADED, "failed": FAILED}


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
