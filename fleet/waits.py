"""Why something waits, and until when: one shape for gates, parked tasks, breakers and everybody who tells of them.

Which errors make a task wait: the branch `Waits` of `fleet/errors`. No I/O here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fleet.quoting import brief

#: Why: a word for machines. `SENTENCES` has one for people.
Cause = Literal[
    "time", "retry", "limit", "hold", "requests", "money", "budget", "outage", "key", "credit", "configuration", "bots",
    "worker", "machine", "redis", "operator", "function", "document", "warming", "batch",
    "twin",
]  # fmt: skip
CAUSES: tuple[Cause, ...] = get_args(Cause)

#: What each of them means, for people; `about` names the limit, pool or setting behind it.
SENTENCES: dict[Cause, str] = {
    "time": "its producer gave it a later time",
    "retry": "its last try failed",
    "limit": "the limit lets calls go one by one",
    "hold": "the provider has asked everybody to wait (429)",
    "requests": "the day's requests are used up",
    "money": "the money of its hour, day or month is used up",
    "budget": "the money is used up that it may spend in all",
    "outage": "the provider fails or does not answer, so calls wait",
    "key": "there is no key that the provider takes",
    "credit": "the account's money, credit or quota is used up",
    "configuration": "something is configured wrongly",
    "bots": "all bots of the pool are quarantined",
    "worker": "no worker serves the pool",
    "machine": "the worker's machine has no room for a connection",
    "redis": "Redis does not answer",
    "operator": "an operator has paused the pool",
    "function": "other code of yours in its worker has stopped it",
    "document": "a document that it names is not stored",
    "warming": "another bot sends its documents first, so that the provider has them in its cache",
    "twin": "an equal task is being asked, whose answer is this one's, too",
    "batch": "it has time, so it is sent in a batch",
}
#: Causes that do not pass by themselves: somebody must change a key, a setting or a budget, or start a worker.
LASTING: frozenset[Cause] = frozenset({"key", "credit", "configuration", "worker", "operator", "budget", "document"})
#: Causes whose time is that of the next try: nobody knows whether they pass then.
TRIED: frozenset[Cause] = frozenset({"retry", "outage", "key", "credit", "configuration", "document"})
#: How it is told that a key was suspended or throttled (`[keys.anomaly]`).
UNUSUAL = "its use is unusual"
#: Longest explanation that is kept, in characters.
MOST_TOLD = 300


@dataclass(frozen=True, slots=True)
class Wait:
    """Why something waits, and until when.

    Args:
        cause: Why.
        opens_at: Unix time in seconds (of Redis) at which the next try is due; None: nobody knows.
        about: The `provider/model/key`, pool or setting behind it.
        told: What the other side said, or what is to be done; never a prompt or a key.
        is_everyones: True when it holds for every task of its pool; False: for this one, or its tenant.
        probe_every_s: When the time has come one task goes ahead, and the others that often one more, until one does
            well; 0: all go.
        lowest: The least urgent priority that need not wait; -1: all wait.
        degrades: It sends tasks down their pool's ladder, whatever the rungs below name.
        advice: What to do, where who tells of it knows better than what is said of the cause.
    """

    cause: Cause
    opens_at: float | None = None
    about: str = ""
    told: str = ""
    is_everyones: bool = True
    probe_every_s: float = 0.0
    lowest: int = -1
    degrades: bool = False
    advice: str = ""

    @property
    def is_lasting(self) -> bool:
        """True when it does not pass by itself, unless a time is known."""
        return self.cause in LASTING

    @property
    def words(self) -> str:
        """What was said of it, and what to do."""
        return "; ".join(filter(None, (self.told, self.advice)))

    def __str__(self) -> str:
        about = f"{self.about}: " if self.about else ""
        return f"{about}{SENTENCES[self.cause]}{f' ({self.words})' if self.words else ''}"

    def to_json(self) -> str:
        """Return it as one line of JSON, for Redis."""
        fields: dict[str, Any] = {"cause": self.cause, "opens_at": self.opens_at}
        if self.about:
            fields["about"] = self.about
        if self.told:
            fields["told"] = brief(self.told, MOST_TOLD)
        if not self.is_everyones:
            fields["is_everyones"] = False
        if self.probe_every_s:
            fields["probe_every_s"] = self.probe_every_s
        if self.lowest >= 0:
            fields["lowest"] = self.lowest
        if self.degrades:
            fields["degrades"] = True
        if self.advice:
            fields["advice"] = brief(self.advice, MOST_TOLD)
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str | bytes) -> Wait:
        """Read what `to_json` wrote; fields that a later release may add are skipped.

        Raises:
            ValueError: When it is something else.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.get("cause") not in CAUSES:
            raise ValueError(f"expected a JSON object with a cause of {', '.join(CAUSES)}")
        return cls(**{name: value for name, value in fields.items() if name in cls.__slots__})


def parted(message: str) -> tuple[str, str]:
    """Return what a message in the house's form tells, and what it says to run: `expected a key, got none: run ...`."""
    told, found, command = message.rpartition(": run `")
    return (told, f"run `{command}") if found else (message, "")


def provider_without_key(about: str) -> str:
    """Return the provider that has no key for what waits, whichever key; empty: it waits for one key, or a tool's."""
    return about.removeprefix("[providers.").removesuffix("]") if about.startswith("[providers.") else ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the fleet makes of a failed call.

    Args:
        wait: Set when the breaker is open now: everybody waits, and until when.
        retry_at: Unix time in seconds before which this task had better not call again: retries of the whole fleet
            share a budget.
        counts: How much the failure counts against its task: 0 unless other calls under the same limit were answered
            since it failed or began; then 1 where failures are rare, less where they are usual.
    """

    wait: Wait | None
    retry_at: float
    counts: float
