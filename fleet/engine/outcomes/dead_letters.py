"""Dead letters: tasks that failed for good, kept with reason, history and message, so that they can be run again.

Here: what a dead letter is, which results become one, and keeping it (the worker's side, asyncio). Looking at them,
queueing them again and throwing them away: `dead_letter_office.py`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from fleet.config import Settings
from fleet.engine.messages.envelope import DELEGATION, HISTORY, NO_CANVAS, TASK_NAME, to_json
from fleet.errors import InvalidTask, NotDelegated
from fleet.frozen import Lasting
from fleet.models import BotResult, Priority, PriorityName
from fleet.quoting import brief
from fleet.signals import catalogue
from fleet.signals.catalogue import NOBODY
from fleet.store import keys
from fleet.store.client import Script
from fleet.vault.warrant import MOST_CHARS

#: Deaths that a letter tells of, the newest ones (count).
HISTORY_MOST = 10
#: Characters of an error message, and of a header's value, that are kept at most.
TEXT_MOST = 500
#: Bytes of a refused message that are kept at most: it would be refused again.
REFUSED_BODY_MOST = 8192
#: Bytes that the letter of one takes at most, and the share of all letters' memory that refused ones get: 1 in so many.
REFUSED_LETTER_BYTES, REFUSED_SHARE = 2 * REFUSED_BODY_MOST, 8
#: Errors of tasks whose messages were refused.
REFUSED = (InvalidTask.__name__, NotDelegated.__name__)
#: Headers of a message that are kept: what it takes to run it again, and where it came from.
KEPT_HEADERS = ("task", "root_id", "parent_id", "origin")

FORGET = Script.beside(__file__, "forget_dead_letter.lua", keys="letters bodies order bytes", argv="task_id expected")
RECORD = Script.beside(
    __file__,
    "record_dead_letter.lua",
    keys="result letters bodies order bytes totals",
    argv="task_id letter_pool reason letter body most_letters refused most_refused most_bytes letter_life_s "
    "letters_counter dropped_counter",
    using=[FORGET],
)

#: Why a task died, coarser than its error: what an operator does next depends on it.
Cause = Literal[
    "attempts", "deadline", "validation", "poison", "refused", "answer", "function", "configuration",
    "expired", "cost", "cap", "circles", "tool", "delegation", "scope", "bug",
]  # fmt: skip

#: Error type -> cause. A type that is not here is a bug of Fleet.
CAUSES: Mapping[str, Cause] = {
    "RateLimited": "attempts",
    "ProviderUnavailable": "attempts",
    "TierBusy": "attempts",
    "Relearnt": "attempts",
    "MachineExhausted": "attempts",
    "HeldUp": "attempts",
    "BotsQuarantined": "attempts",
    "StoreUnavailable": "attempts",
    "StoreRefused": "configuration",
    "ConfigurationError": "configuration",
    "NotServed": "configuration",
    "KeyMissing": "configuration",
    "VaultAway": "configuration",
    "ExchangeFailed": "configuration",
    "NotStored": "configuration",
    "DocumentsTooLarge": "validation",
    "DeadlineExceeded": "deadline",
    "Expired": "expired",
    "NotSoon": "attempts",
    "OutOfTries": "attempts",
    "TooExpensive": "cost",
    "CapReached": "cap",
    "InvalidTask": "validation",
    "NotDelegated": "delegation",
    "OutOfScope": "scope",
    "Poison": "poison",
    "BadRequest": "refused",
    "ContextTooLong": "refused",
    "KeyRejected": "refused",
    "KeySpent": "refused",
    "ToolFailed": "tool",
    "BadAnswer": "answer",
    "NoProgress": "circles",
    "NoQuorum": "answer",
    "BotFunctionFailed": "function",
    "ValidatorFailed": "function",
}


class Death(Lasting):
    """One failed life of a task."""

    at: float = Field(description="Unix time in seconds.")
    bot: str | None
    error: str = Field(description="Type of the error.")


class DeadLetter(Lasting):
    """A task that failed for good. Its message body lies beside it: it holds the prompt, and is read on demand only."""

    task_id: str
    task: str = Field(description="Name of the Celery task.")
    pool: str | None
    kind: str | None
    priority: PriorityName
    reason: str = Field(description="Type of the error.")
    cause: Cause
    message: str
    attempts: int
    provider_errors: dict[str, int] = Field(description="Provider calls that failed, by error type.")
    history: tuple[Death, ...] = Field(description=f"Its deaths, the last one last; the {HISTORY_MOST} newest.")
    headers: dict[str, str]


class Burial(NamedTuple):
    """A dead letter and the message body from which it can be queued again: JSON, [args, kwargs, canvas].

    The body of a refused message is empty when it was large.
    """

    letter: DeadLetter
    body: bytes


def cause_of_death(result: BotResult) -> Cause | None:
    """Return why a task died; None when it has an answer, or was not run to its end.

    Every typed failure is final, because what can be retried was retried before there was a result.
    """
    if result.status != "failed" or result.error is None:
        return None
    return CAUSES.get(result.error.type, "bug")


def bury(
    result: BotResult, *, headers: Mapping[str, Any], body: bytes, provider_errors: Mapping[str, int] | None = None
) -> Burial | None:
    """Return what is to be kept of a task with this result; None when it did not die.

    Args:
        result: The task's result.
        headers: Headers of its message, or Celery's request. Whatever a foreign producer wrote there is harmless.
        body: Body of its message.
        provider_errors: Failed provider calls, by error type.
    """
    cause = cause_of_death(result)
    if cause is None or result.error is None:
        return None
    is_kept = result.error.type not in REFUSED or len(body) <= REFUSED_BODY_MOST
    arguments = _arguments(body) if is_kept else {}
    last = Death(at=result.finished_at, bot=result.bot, error=result.error.type)
    letter = DeadLetter(
        task_id=result.task_id,
        task=_text(headers.get("task")) or TASK_NAME,
        pool=result.pool or _text(arguments.get("pool")),
        kind=_text(arguments.get("kind")),
        priority=_priority(arguments.get("priority")),
        reason=result.error.type,
        cause=cause,
        message=brief(result.error.message, TEXT_MOST).encode("utf-8", "replace").decode(),
        attempts=result.attempts,
        provider_errors=dict(provider_errors or {}),
        history=(*_history(headers), last)[-HISTORY_MOST:],
        headers={name: text for name in KEPT_HEADERS if (text := _text(headers.get(name))) is not None}
        | _signature(headers.get(DELEGATION)),
    )
    return Burial(letter, body if is_kept else b"")


def body_of(request: Mapping[str, Any]) -> bytes:
    """Return the body from which Celery's request can be queued again. Callbacks are left out: they were called."""
    parts = [request.get("args") or [], request.get("kwargs") or {}, NO_CANVAS]
    try:
        return to_json(parts)
    except ValueError:  # nested deeper than pydantic goes
        return json.dumps(parts).encode()


def parts_of(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return headers and body of a message as it lies in a queue; empty when it is none."""
    try:
        data = json.loads(message)
        headers, body = data["headers"], data["body"]
        if data["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        return dict(headers), body if isinstance(body, bytes) else str(body).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}, b""


def letter_keys() -> dict[str, str]:
    """Return the keys that hold the letters, by their names in `record_dead_letter.lua`."""
    return {
        "letters": keys.dead_letters(),
        "bodies": keys.dead_letter_bodies(),
        "order": keys.dead_letter_order(),
        "bytes": keys.dead_letter_bytes(),
    }


def letter_constants(settings: Settings) -> dict[str, int | str]:
    """Return those ARGV of `record_dead_letter.lua` by name that are the same for all letters."""
    bounds = settings.dead_letters
    return {
        "most_letters": bounds.max_letters,
        "refused": " ".join(REFUSED),
        "most_refused": min(bounds.max_refused, max(1, bounds.max_mb * 2**20 // REFUSED_SHARE // REFUSED_LETTER_BYTES)),
        "most_bytes": bounds.max_mb * 2**20,
        "letter_life_s": bounds.expires_s,
        "letters_counter": catalogue.DEAD_LETTERS.name,
        "dropped_counter": catalogue.DEAD_LETTERS_DROPPED.name,
    }


#: Arguments of a result that makes no letter.
_NO_LETTER = {"task_id": "", "letter_pool": NOBODY, "reason": "", "letter": "", "body": ""}


def record_arguments(burial: Burial | None, pools: Container[str]) -> Mapping[str, str | bytes]:
    """Return the other ARGV of `record_dead_letter.lua` by name; without a letter when there is none."""
    if burial is None:
        return _NO_LETTER
    letter = burial.letter
    return {
        "task_id": letter.task_id,
        # Invented names must not become entries.
        "letter_pool": letter.pool if letter.pool is not None and letter.pool in pools else NOBODY,
        "reason": letter.reason,
        "letter": letter.model_dump_json(),
        "body": burial.body,
    }


def _arguments(body: bytes) -> Mapping[str, Any]:
    """Return a body's keyword arguments; empty when it has none that can be read."""
    try:
        kwargs = json.loads(body)[1]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return kwargs if isinstance(kwargs, dict) else {}


def _priority(value: object) -> Priority:
    is_known = isinstance(value, str) and value.upper() in Priority.__members__
    return Priority[str(value).upper()] if is_known else Priority.NORMAL


def _signature(header: object) -> dict[str, str]:
    """Return the header of a signed task: one that is replayed is signed as before."""
    return {DELEGATION: header} if isinstance(header, str) and header.isascii() and len(header) <= MOST_CHARS else {}


def _text(value: object) -> str | None:
    """Return a short text as it is, everything else (also half of a surrogate pair) as None."""
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_MOST:
        return None
    return value if value.isascii() or value.encode("utf-8", "ignore").decode() == value else None


_DEATHS = TypeAdapter(tuple[Death, ...])


def _history(headers: Mapping[str, Any]) -> Sequence[Death]:
    try:
        return _DEATHS.validate_python(headers.get(HISTORY, ()))
    except ValidationError:  # not ours
        return ()
