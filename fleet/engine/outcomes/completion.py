"""Finish a task: one atomic script stores its result, wakes who waits, counts it, judges its bots, checks them in.

The only writer of results and of the completion and error counters. What they mean: `signals/catalogue.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic_core import PydanticSerializationError

from fleet.config import Settings
from fleet.engine.outcomes.dead_letters import RECORD, Burial, record_arguments, record_keys
from fleet.engine.transport.leases import UNACKED_INDEX
from fleet.errors import BadAnswer, RateLimited
from fleet.models import BotResult
from fleet.roster import HEALTH, LOAD_UNIT, Checkout, Deed, Health
from fleet.signals import catalogue, windows
from fleet.signals.catalogue import NOBODY, ErrorField
from fleet.signals.windows import Share
from fleet.store import keys
from fleet.store.client import Script, Store

_STANDS = b"1"
_FINISH = Script.beside(__file__, "finish.lua").using(RECORD).using(windows.RECORD).using(HEALTH)


@dataclass(frozen=True, slots=True)
class Part:
    """What a bot whose answer was not taken has done for a task: what it used, what failed."""

    share: Share
    provider_errors: Mapping[str, int]
    bad_answers: int


class Completion:
    """Finishes tasks.

    `AsyncResult.get()` of any Celery client wakes and works. Callbacks, chains and chords are not run from here.

    Args:
        store: State Redis, the one that Celery's `result_backend` names.
        settings: Pools, and how long results stay.
        on_suspect: Called with the pool and name of a bot that may be bad.

    Attributes:
        health: What was heard of the bots' health.
    """

    def __init__(
        self, store: Store, settings: Settings, *, on_suspect: Callable[[str, str], None] = lambda pool, bot: None
    ) -> None:
        self.health = Health(settings.health, on_suspect)
        self._store = store
        self._settings = settings
        self._apis = {settings.limit_of(pool)[0] for pool in settings.pools}

    async def finish(
        self,
        result: BotResult,
        *,
        checkout: Checkout | None,
        others: Sequence[Checkout] = (),
        shares: Sequence[Part] = (),
        deeds: Sequence[Deed] = (),
        kind: str = "default",
        provider_errors: Mapping[str, int] | None = None,
        fence: str | None = None,
        burial: Burial | None = None,
    ) -> bool:
        """Make `result` the task's one result, unless it has one. O(log bots), one round trip, safe to repeat.

        Args:
            result: What came out; also a typed failure is a result.
            checkout: The bot that worked on it, given back here; None when the task failed before it got one.
            others: Other bots of the pool that worked on it before, given back as well.
            shares: What those have used of what the result says, and what went wrong.
            deeds: What each of the bots did, as far as it counts for or against them.
            kind: Class of the task.
            provider_errors: Those of the `result.attempts` provider calls that failed, retried or not: error type
                -> count.
            fence: Delivery tag of the task's message: without its lease, nothing is stored. None: no such check.
            burial: The dead letter that this result makes, kept in the same step.

        Returns:
            True when `result` stands; False when the task had another one before, which stays, or was fenced off.

        Raises:
            StoreUnavailable: When Redis does not answer. Repeat it with the same result, or let the message be
                delivered again.
        """
        pool = checkout.pool if checkout else result.pool
        if pool is None or pool not in self._settings.pools:
            pool = NOBODY  # a foreign producer may invent names: they must not become keys
        bot = checkout.bot if checkout else NOBODY
        api = self._api_of(result)
        calls_failed = provider_errors or {}
        earned = [part for counter, n in _earned(result) if n for part in (counter.name, n)]
        spent = [part for counter, n in _spent(result, calls_failed) if n for part in (counter.name, n)]
        errors = [part for field, n in _errors(result, bot, api, calls_failed, shares) for part in (field.spell(), n)]
        dead = record_arguments(burial, self._settings) if burial else []
        reply = await self._store.run(
            _FINISH,
            [
                keys.result(result.task_id), keys.totals(), keys.errors(pool),
                keys.bots(pool), keys.bot_leases(pool), keys.bot_claims(pool), *windows.record_keys(pool),
                *self.health.names(pool, kind), *([UNACKED_INDEX] if fence else []),
                *(record_keys(result.task_id) if burial else []),
            ],
            [
                result_meta(result), self._settings.results.expires_s, keys.STATE_TTL_S,
                "\n".join(one.member for one in (checkout, *others) if one), LOAD_UNIT, catalogue.DUPLICATES.name,
                fence or "", catalogue.FENCED.name,
                len(spent) // 2, len(earned) // 2, len(dead),
                *windows.record_arguments(
                    result, bot=bot, pool=pool, api=api, calls_failed=calls_failed, is_buried=burial is not None,
                    others=[part.share for part in shares],
                ),
                *self.health.arguments(pool, kind, deeds), *dead, *spent, *earned, *errors,
            ],
        )  # fmt: skip
        if len(reply) > 1:
            self.health.heard(pool, kind, reply[1:])
        return bytes(reply[:1]) == _STANDS

    def _api_of(self, result: BotResult) -> str:
        """Return the API of a result by a name that is configured, so that no other becomes a row."""
        api = f"{result.provider}/{result.model}"
        return api if api in self._apis else NOBODY


def result_meta(result: BotResult) -> bytes:
    """Return a result as Celery's Redis backend stores it, so that any Celery client's `AsyncResult` can read it.

    The state is always SUCCESS: Fleet delivered a typed result; its own `status` says whether the bot succeeded.
    """
    done_at = datetime.fromtimestamp(result.finished_at, UTC).isoformat()
    head = b'{"status": "SUCCESS", "result": '
    tail = f', "traceback": null, "children": [], "date_done": "{done_at}", "task_id": {json.dumps(result.task_id)}}}'
    return head + _to_json(result) + tail.encode()


def _to_json(result: BotResult) -> bytes:
    try:
        return result.model_dump_json().encode()
    except PydanticSerializationError:  # `metadata` may hold half of a surrogate pair, which JSON knows as \udXXX
        return json.dumps(result.model_dump()).encode()


def _earned(result: BotResult) -> Iterator[tuple[catalogue.Counter, int]]:
    """What counts only when the result stands."""
    yield catalogue.COMPLETIONS, 1
    yield catalogue.BY_STATUS[result.status], 1
    yield catalogue.SIMULATED, int(result.simulated and result.served_by != "none")


def _spent(result: BotResult, calls_failed: Mapping[str, int]) -> Iterator[tuple[catalogue.Counter, int]]:
    """What was paid for, also when the result is discarded."""
    yield catalogue.INPUT_TOKENS, result.usage.input_tokens
    yield catalogue.OUTPUT_TOKENS, result.usage.output_tokens
    yield catalogue.COST_USD_MICROS, result.cost_usd_micros or 0
    yield catalogue.ATTEMPTS, result.attempts
    yield catalogue.CALLS, max(0, result.attempts - sum(calls_failed.values()))
    yield catalogue.RATE_LIMITED, calls_failed.get(RateLimited.__name__, 0)


def _errors(
    result: BotResult, bot: str, api: str, calls_failed: Mapping[str, int], shares: Sequence[Part]
) -> Iterator[tuple[ErrorField, int]]:
    if result.error is not None:
        yield ErrorField(bot, api, catalogue.error_name(result.error.type)), 1
    own = Counter(calls_failed)
    for part in shares:
        own.subtract(part.provider_errors)
        for kind, count in (*part.provider_errors.items(), (BadAnswer.__name__, part.bad_answers)):
            if count:
                yield ErrorField(part.share.bot, api, catalogue.error_name(kind), "call"), count
    for kind, count in own.items():
        if count > 0:
            yield ErrorField(bot, api, catalogue.error_name(kind), "call"), count
