"""Finish a task: one atomic script stores its result, wakes who waits, counts it, judges its bots, checks them in.

The only writer of results and of the completion and error counters. What they mean: `signals/catalogue.py`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

from fleet.config import Settings
from fleet.engine.messages.marks import CLOSE, close_call, mark_of
from fleet.engine.outcomes.dead_letters import RECORD, Burial, letter_constants, letter_keys, record_arguments
from fleet.engine.outcomes.stored import result_meta
from fleet.errors import BadAnswer, RateLimited, StoreError
from fleet.jobs import END_MEMBER, Membership, end_call, membership_of
from fleet.models import CACHE, BotResult, TaskError
from fleet.quoting import quote
from fleet.roster import HEALTH, LOAD_UNIT, Checkout, Deed, Health
from fleet.signals import catalogue, windows
from fleet.signals.catalogue import NOBODY, ErrorField
from fleet.signals.money.cached import OTHERS, counters_of
from fleet.signals.windows import Share
from fleet.store import keys
from fleet.store.client import Script, Store
from fleet.store.running.brokers import AnyStore, each
from fleet.store.wire import Together

logger = logging.getLogger("fleet.worker")

_STANDS, _FENCED, _REFUSED = b"1", b"2", b"!"


def finishing(record: Script) -> Script:
    """Return the finishing script; `record` counts in the windows."""
    return Script.beside(
        __file__,
        "finish.lua",
        keys=_joined("result totals errors bots leases claims", record.keys, HEALTH.keys, RECORD.keys, "index?"),
        argv=_joined(
            "payload result_life_s life_s checkouts later_counter fence fenced_counter mark",
            record.argv.removeprefix("now_us nth "),  # the script itself knows the time, and counts
            HEALTH.argv.removeprefix("now_us "),
            RECORD.argv,
            "spent_pairs earned_pairs counted*",
        ),
        constants={"UNIT": LOAD_UNIT},
        using=[RECORD, record, HEALTH],
    )


def _joined(*names: str) -> str:
    """Return names each once."""
    return " ".join(dict.fromkeys(" ".join(names).split()))


FINISH = finishing(windows.RECORD)
#: The same for a member of a job: tasks of no job pay nothing for that.
FINISH_MEMBER = Script.beside(
    __file__,
    "finish_member.lua",
    keys=f"{END_MEMBER.keys} finish_keys*",
    argv=f"{END_MEMBER.argv} finish_argv*",
    behind=Script.of("finish.lua", f"local function finish(KEYS, ARGV) {FINISH.text}\nend "),
    using=[END_MEMBER],
)
#: The same for several tasks of one class whose end is a plain one: no dead letter, no job, no earnings, not revoked.
FINISH_TOGETHER = Script.beside(
    __file__,
    "finish_together.lua",
    keys="names*",
    argv="common places size rest*",
    constants={
        "UNIT": LOAD_UNIT,
        **{name: FINISH.names.argv.places[name] for name in ("FENCE", "CHECKOUTS")},
        **{name: FINISH.names.keys.places[name] for name in ("INDEX", "LEASES", "CLAIMS", "BOTS")},
    },
    behind=Script.of("finish.lua", f"local function finish(KEYS, ARGV) {FINISH.text}\nend "),
)
#: ARGV of `finish.lua` that are such a task's own, before its pairs; and their numbers.
_OWN = (
    "payload", "checkouts", "fence", "mark", "sample", "shown_id", "line", "others", "samples", "spent_pairs",
    "earned_pairs",
)  # fmt: skip
_PLACES = " ".join(str(FINISH.names.argv.places[name.upper()]) for name in _OWN)
#: Takes what all tasks of a class have in common, returns what takes the rest.
_FINISH_OF = FINISH.prepared(
    "result index payload checkouts later_counter fence mark sample shown_id line dead_reason others samples "
    "task_id letter_pool reason letter body spent_pairs earned_pairs counted"
)
#: Classes for which that is kept; it is quickly made again.
_MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class BotShare:
    """What a bot whose answer was not taken has done for a task: what it used, what failed."""

    share: Share
    provider_errors: Mapping[str, int]
    bad_answers: int


@dataclass(frozen=True, slots=True)
class Finish:
    """How a task ends.

    Args:
        result: What came out; also a typed failure is a result.
        checkout: The bot that worked on it, to be given back; None when the task failed before it got one.
        others: Other bots of the pool that worked on it before, given back as well.
        shares: What those have used of what the result says, and what went wrong.
        deeds: What each of the bots did, as far as it counts for or against them.
        kind: Class of the task.
        provider_errors: Those of the `result.attempts` provider calls that failed, retried or not: error type -> count.
        fence: Delivery tag of the task's message: without its lease, nothing is stored. None: no such check.
        burial: The dead letter that this result makes, kept in the same step.
        revoked: The task was revoked, and has that result: what it used is counted, once. Tells this submission of it
            from others (`life_of`); None: it was not revoked.
        saved_picos: What an equal task has cost whose answer this one got, in 10^-12 dollars.
    """

    result: BotResult
    checkout: Checkout | None = None
    others: Sequence[Checkout] = ()
    shares: Sequence[BotShare] = ()
    deeds: Sequence[Deed] = ()
    kind: str = "default"
    provider_errors: Mapping[str, int] = field(default_factory=dict)
    fence: str | None = None
    burial: Burial | None = None
    revoked: str | None = None
    saved_picos: int = 0


class Finisher:
    """Finishes tasks.

    `AsyncResult.get()` of any Celery client wakes and works. Callbacks, chains and chords are not run from here.

    Args:
        store: State Redis, the one that Celery's `result_backend` names.
        settings: Pools, and how long results stay.
        broker: Where the marks of idempotency keys are; None: in the same Redis.
        on_suspect: Called with the pool and name of a bot that may be bad.

    Attributes:
        health: What was heard of the bots' health.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        broker: AnyStore | None = None,
        on_suspect: Callable[[str, str], None] = lambda pool, bot: None,
    ) -> None:
        self.health = Health(settings.health, on_suspect)
        self._store = store
        at = () if broker is None else each(broker)
        #: Stores with marks of idempotency keys that are not the state's, and whether the state's has some.
        self._marks_at, self._has_marks = tuple(one for one in at if one is not store), broker is None or store in at
        self._settings = settings
        self._apis = settings.limits_in_use.keys()
        self._ladders = {name for name, pool in settings.pools.items() if pool.fallback}
        self._shared = {name for name, kind in settings.kinds.items() if kind.deterministic}
        self._earning = _earning_of(settings)
        self._accrual = None if self._earning is None else self._earning.Accrual(settings)
        self._class_finish = lru_cache(maxsize=_MOST_CLASSES)(self._in_common)
        self._class_together = lru_cache(maxsize=_MOST_CLASSES)(self._together)

    async def finish(self, end: Finish) -> bool:
        """Make a result the task's one result, unless it has one. O(log bots), one round trip, safe to repeat.

        When Redis refuses the step (somebody else wrote one of its keys), the result alone is stored, and that is said
        in the log: what was paid for is delivered, though it is not counted.

        Returns:
            True when the result stands; False when the task had another one before, which stays, or was fenced off.

        Raises:
            StoreUnavailable: When Redis does not answer. Repeat it with the same result, or let the message be
                delivered again.
        """
        pool = end.checkout.pool if end.checkout else end.result.pool
        if pool is None or pool not in self._settings.pools:
            pool = NOBODY  # a foreign producer may invent names: they must not become keys
        own = self._own(end, pool)
        member = membership_of(end.result.task_id) if end.revoked is None else None
        try:
            reply = await self._run(own, member, end, pool)
        except StoreError as error:
            logger.error("not counted task=%s: Redis refused to finish it, its result alone is stored: %s",
                         quote(end.result.task_id), error)  # fmt: skip
            stands = end.revoked is None and await self._store_alone(end, error)
            self.close_mark(end.result.task_id)
            return stands
        if len(reply) > 1:
            self.health.heard(pool, end.kind, reply[1:])
        if self._marks_at and reply[:1] != _FENCED:
            self.close_mark(end.result.task_id)
        return bytes(reply[:1]) == _STANDS

    async def _run(self, own: dict[str, Any], member: Membership | None, end: Finish, pool: str) -> bytes:
        if member is None and self._earning is None and end.revoked is None and end.burial is None:
            counted = own["counted"]
            arguments = [*[own[name] for name in _OWN], len(counted), *counted]
            common = self._class_together(pool, end.kind, end.fence is not None)
            reply = bytes(await self._store.run_together(common, [own["result"]], arguments))
            if reply[:1] == _REFUSED:
                raise self._store.refusal(FINISH_TOGETHER, reply[1:].decode("utf-8", "replace"))
            return reply
        script, call = FINISH, self._class_finish(pool, end.kind)(**own)
        if member is not None:
            names, arguments = end_call(member, end.result.status)
            script, call = FINISH_MEMBER, ([*names, *call[0]], [*arguments, *call[1]])
        if self._earning is not None and (earned := self._earned(end)) is not None:
            script = self._earning.FINISH_EARNING if member is None else self._earning.FINISH_EARNING_MEMBER
            call = [*earned[0], *call[0]], [*earned[1], *call[1]]
        return bytes(await self._store.run(script, *call))

    def _earned(self, end: Finish) -> tuple[list[Any], list[Any]] | None:
        """Return KEYS and ARGV of what a task earns the payee of its bot; None: nothing."""
        if self._accrual is None or end.revoked is not None:
            return None
        return self._accrual.call_of(end.result, end.kind)

    async def _store_alone(self, end: Finish, error: StoreError) -> bool:
        """Store a result, wake who waits for it and enter what it earned, and nothing else; True when it stands.

        A result that Redis does not take at all becomes a failed one that says so.
        """
        result, strict = end.result, self._settings.results.strict
        key, meta = keys.result(result.task_id), result_meta(result, strict=strict)
        life = ("EX", self._settings.results.expires_s)
        try:
            is_first = await self._store.command("SET", key, meta, *life, "NX")
            if not is_first and await self._store.command("GET", key) != meta:
                return False
        except StoreError:
            failed: dict[str, Any] = {"status": "failed", "answer": None, "error": TaskError.of(error), "metadata": {}}
            meta = result_meta(result.model_copy(update=failed), strict=strict)
            await self._store.command("SET", key, meta, *life)
        else:
            await self._earn_alone(end)
        await self._store.command("PUBLISH", key, meta)
        if (member := membership_of(result.task_id)) is not None:
            await self._store.run(END_MEMBER, *end_call(member, result.status))
        return True

    async def _earn_alone(self, end: Finish) -> None:
        if self._earning is None or (earned := self._earned(end)) is None:
            return
        try:
            await self._store.run(self._earning.ACCRUE, *earned)
        except StoreError as error:
            logger.error("not earned task=%s: Redis refused to enter it: %s", quote(end.result.task_id), error)

    def close_mark(self, task_id: str) -> None:
        """Let the mark of a task that has a result live as long as a result does. Nobody waits for it.

        Should that be lost, whoever submits the key again has its message delivered once more, and nothing is paid.
        """
        if mark_of(task_id):
            call = close_call(task_id, self._settings)
            for store in (*self._marks_at, *((self._store,) if self._has_marks else ())):
                store.send(CLOSE, *call)

    def _in_common(self, pool: str, kind: str) -> Callable[..., tuple[list[Any], list[Any]]]:
        """Return what takes the KEYS and ARGV of one task by name; what all tasks of its class share, it knows."""
        shared = {
            "totals": keys.pool_totals(pool),
            "errors": keys.errors(pool),
            "leases": keys.bot_leases(pool),
            "claims": keys.bot_claims(pool),
            **windows.record_keys(pool),
            **self.health.names(pool, kind),
            **letter_keys(),
            "result_life_s": self._settings.results.expires_s,
            "fenced_counter": catalogue.FENCED.name,
            **windows.record_constants(pool, len(self._settings.pools)),
            **self.health.constants(pool, kind),
            **letter_constants(self._settings),
        }
        return _FINISH_OF(**shared)

    def _together(self, pool: str, kind: str, is_fenced: bool) -> Together:
        """Return what tasks of a class have in common whose end is a plain one."""
        nothing = dict.fromkeys([*_OWN, "dead_reason", "task_id", "letter_pool", "reason", "letter", "body"], "")
        (_, *common), arguments = self._class_finish(pool, kind)(
            **nothing, result="", index=keys.unacked_index() if is_fenced else None,
            later_counter=catalogue.DUPLICATES.name, counted=(),
        )  # fmt: skip
        return Together(FINISH_TOGETHER, tuple(common), (len(common), _PLACES, len(arguments), *arguments))

    def _own(self, end: Finish, pool: str) -> dict[str, Any]:
        """Return the KEYS and ARGV that are a task's own, by name."""
        bot, api = end.checkout.bot if end.checkout else NOBODY, self._api_of(end.result)
        spent = _pairs(_spent(end.result, end.provider_errors))
        earned = _pairs([*_earned(end.result), *self._of_twins(end)]) if end.revoked is None else []
        errors = [part for field, n in _errors(end, bot, api) for part in (field.spell(), n)]
        return {
            "result": keys.result(end.result.task_id) if end.revoked is None else keys.paid(end.result.task_id),
            "index": keys.unacked_index() if end.fence else None,
            "payload": result_meta(end.result, strict=self._settings.results.strict)
            if end.revoked is None else end.revoked,
            "checkouts": "\n".join([one.member for one in (end.checkout, *end.others) if one]),
            "later_counter": (catalogue.DUPLICATES if end.revoked is None else catalogue.REVOKED).name,
            "fence": end.fence or "",
            "mark": mark_of(end.result.task_id) if self._has_marks else "",
            **windows.record_arguments(
                end.result, bot=bot, pool=pool, api=api, calls_failed=end.provider_errors,
                is_buried=end.burial is not None, has_ladder=pool in self._ladders,
                others=[part.share for part in end.shares],
            ),
            "samples": self.health.samples(end.deeds),
            **record_arguments(end.burial, self._settings.pools),
            "spent_pairs": len(spent) // 2,
            "earned_pairs": len(earned) // 2,
            "counted": [*spent, *earned, *errors],
        }  # fmt: skip

    def _of_twins(self, end: Finish) -> Iterable[tuple[catalogue.Counter, int]]:
        """Return what counts where equal tasks have one answer."""
        is_hit = end.result.served_by == CACHE
        if is_hit:
            kind = end.kind if end.kind in self._settings.kinds else OTHERS
            return counters_of(kind, is_hit=True, saved_picos=end.saved_picos)
        return counters_of(end.kind, is_hit=False) if end.kind in self._shared and end.checkout else ()

    def _api_of(self, result: BotResult) -> str:
        """Return the API of a result by a name that is configured, so that no other becomes a row."""
        api = f"{result.provider}/{result.model}"
        return api if api in self._apis else NOBODY


def _earning_of(settings: Settings) -> ModuleType | None:
    """Return the module of what tasks earn; None: they earn nothing, and nothing of it is loaded."""
    if not settings.payouts.earn or not settings.payees:
        return None
    return import_module("fleet.engine.outcomes.earning")


#: What is added to counters.
_Counted = list[tuple[catalogue.Counter, int]]


def _pairs(counted: _Counted) -> list[str | int]:
    """Return name and amount of each counter that something is added to."""
    return [part for counter, amount in counted if amount for part in (counter.name, amount)]


def _earned(result: BotResult) -> _Counted:
    """Return what counts only when the result stands."""
    earned = [
        (catalogue.COMPLETIONS, 1),
        (catalogue.BY_STATUS[result.status], 1),
        (catalogue.PARKED, result.parked),
        (catalogue.SIMULATED, int(result.simulated and result.served_by != "none")),
    ]
    if result.rung and result.pool is not None:
        earned += [(catalogue.FALLBACKS, 1), (catalogue.fallbacks_of(result.pool, result.rung), 1)]
    return earned


def _spent(result: BotResult, calls_failed: Mapping[str, int]) -> _Counted:
    """Return what was paid for, also when the result is discarded."""
    return [
        *catalogue.used(result.usage),
        *catalogue.paid(result.spent_usd_picos),
        (catalogue.ATTEMPTS, result.attempts),
        (catalogue.CALLS, max(0, result.attempts - sum(calls_failed.values()))),
        (catalogue.RATE_LIMITED, calls_failed.get(RateLimited.__name__, 0)),
    ]


def _errors(end: Finish, bot: str, api: str) -> Iterator[tuple[ErrorField, int]]:
    if end.result.error is not None:
        yield ErrorField(bot, api, catalogue.error_name(end.result.error.type)), 1
    if not (end.provider_errors or end.shares):
        return
    own = Counter(end.provider_errors)
    for part in end.shares:
        own.subtract(part.provider_errors)
        for kind, count in (*part.provider_errors.items(), (BadAnswer.__name__, part.bad_answers)):
            if count:
                yield ErrorField(part.share.bot, api, catalogue.error_name(kind), "call"), count
    for kind, count in own.items():
        if count > 0:
            yield ErrorField(bot, api, catalogue.error_name(kind), "call"), count
