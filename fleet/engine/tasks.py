"""The one Celery task of Fleet, `submit_task`: validated where it is submitted, worked on by a bot of its pool.

`submit_task.delay("What is 2+2?", pool="research", priority="high").get(timeout=60)` returns a `BotResult`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery import Task, states
from celery._state import _task_stack
from celery.app.routes import Router
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, EagerResult

from fleet import config
from fleet.bounds import MAX_ID_CHARS
from fleet.engine.app import app
from fleet.engine.messages import routing
from fleet.engine.messages.broker import free_key
from fleet.engine.messages.delegated import LOCAL, delegation
from fleet.engine.messages.desk import desk_here
from fleet.engine.messages.draft import Draft
from fleet.engine.messages.envelope import BEFORE, DELEGATION, EXPIRES, HIDDEN, NO_CANVAS, QUEUED_AT, TASK_NAME
from fleet.engine.messages.expiry import end_of
from fleet.engine.messages.pool_choice import choose_pool
from fleet.engine.messages.producer import submit_once
from fleet.engine.messages.weight import check_headers
from fleet.engine.outcomes.stored import failure_of
from fleet.engine.telemetry import taps
from fleet.engine.transport.following import is_following
from fleet.errors import FleetError, InvalidTask
from fleet.models import BotResult, BotTask
from fleet.quoting import quote
from fleet.store import keys

if TYPE_CHECKING:
    from fleet.engine.outcomes.results import Done

#: Seconds from which on a wait in vain is worth a look at what the task waits for: shorter ones are polls.
LOOK_FROM_S = 0.2
#: Seconds that Celery's thread waits until what a revoked task has cost is counted.
COUNT_S = 5.0


class BotAsyncResult(AsyncResult):
    """A Celery `AsyncResult` whose value is a `BotResult`, also when its status is `failed`.

    `get()` raises `celery.exceptions.TaskRevokedError` for a task that was cancelled, and the error of a failed one
    when `results.strict` is set, or when a task before it in its chain failed.
    """

    def __await__(self) -> Generator[Any, None, Any]:
        """`await result` waits as `get` does, but never blocks the loop."""
        return self.aget().__await__()

    async def aget(self, timeout: float | None = None) -> Any:
        """Wait on the running loop for the task, and return and raise what `get` does.

        Many may wait for one task, and a wait may be cancelled: the task goes on.

        Args:
            timeout: In seconds; None waits for ever.

        Raises:
            celery.exceptions.TimeoutError: When there is no result within `timeout`; it says what the task waits for.
        """
        if not (self._cache or self.ignored):
            try:
                async with asyncio.timeout(timeout):
                    meta = await (await desk_here()).result(self.id)
            except TimeoutError as error:
                why = await asyncio.to_thread(self._why_none, timeout)
                raise CeleryTimeoutError(f"no result within {timeout} s{why}") from error
            self._maybe_set_cache(self.backend.meta_from_decoded(meta))
        return self.get(disable_sync_subtasks=False, follow_parents=False)

    def get(self, timeout: float | None = None, **options: Any) -> Any:
        """Wait for the task, as Celery's does.

        Raises:
            celery.exceptions.TimeoutError: When there is no result within `timeout`; it says what the task waits for.
        """
        try:
            return super().get(timeout=timeout, **options)
        except CeleryTimeoutError as error:
            if self._cache:  # it has ended, and this is how
                raise
            raise CeleryTimeoutError(f"no result within {timeout} s{self._why_none(timeout)}") from error

    def _why_none(self, timeout: float | None) -> str:
        """Return what to say of a task that has no result yet."""
        if timeout is not None and timeout < LOOK_FROM_S:
            return ""
        from fleet.engine.operations.no_result import why_no_result  # a producer should import quickly

        return f": {why_no_result(self.id, config.current())}"

    def forget(self) -> None:
        """Delete the result, and free the idempotency key that the task was submitted with."""
        super().forget()
        free_key(self.id)


#: Tasks of Celery's own that call a task which a message names.
CALLING = frozenset({"celery.map", "celery.starmap"})
#: True while a task is worked for by `apply()`.
_eager: ContextVar[bool] = ContextVar("fleet_eager", default=False)


class SubmitTask(Task):
    """Celery's side of a bot task. `work` is what the slot pool runs; any other pool calls `run`."""

    name = TASK_NAME
    Request = "fleet.engine.process.request:Request"
    acks_late = True
    acks_on_failure_or_timeout = True
    reject_on_worker_lost = True
    typing = False  # arguments are checked by BotTask, with better messages
    throws = (FleetError,)  # no traceback in the log: the result says what failed

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> BotAsyncResult:
        """Queue one task. Arguments: a prompt, a dict or a `BotTask`, and `BotTask` fields as keywords.

        Celery's own options (`countdown`, `eta`, `expires`, `link`, ...) work as always, but not together with an
        `idempotency_key`: such a task is queued in one step that knows none of them. `queue` and `routing_key` name a
        pool by its queue, `priority` is Celery's number (0 is the most urgent, 5 to 9 are bulk); both also by
        `task_routes`. `delegation` is one to sign the task by, or its file. What a canvas hands over comes first among
        the arguments: the answers of earlier tasks become the prompt.

        Raises:
            InvalidTask: When the arguments are not a task; nothing is queued then. What follows another task in a
                canvas is queued all the same: a worker refuses it, and its result says why.
            kombu.exceptions.OperationalError: When the broker cannot be reached.
        """
        if (spelt := options.pop("delegation", None)) is not None:
            with delegation(spelt):
                return self.apply_async(args, kwargs, task_id, **options)
        try:
            task = BotTask.parse(*(args or ()), **(kwargs or {}))
            if task_id is not None and not (
                isinstance(task_id, str) and len(task_id) <= MAX_ID_CHARS and task_id.isprintable()
            ):
                raise InvalidTask(
                    f"task_id: expected printable text of at most {MAX_ID_CHARS} characters, got {quote(task_id)}"
                )
            check_headers(options.get("headers") or {})
            task = routing.asked(task, options, self._route(task, options), config.current())
            pool = choose_pool(task)
        except InvalidTask:
            if not is_following():
                raise
            inbox = {"queue": config.current().worker.inbox, "argsrepr": "()", "kwargsrepr": HIDDEN}
            return super().apply_async(args, kwargs, task_id=task_id, **{**options, **inbox})
        if task.idempotency_key is not None and not (is_following() or self.app.conf.task_always_eager):
            if options or task_id:
                raise InvalidTask(
                    f"idempotency_key: expected no Celery options beside it, got {quote(sorted(options))}"
                )
            return self.AsyncResult(submit_once(task, pool))
        now_s = time.time()
        headers = {**(options.pop("headers", None) or {}), QUEUED_AT: now_s}
        end = end_of(task.expires_at, options.get("expires"), config.current().pools[pool].expires_s, now_s)
        if end is not None:
            headers[EXPIRES] = end
        body = {**task.model_dump(mode="json", exclude_defaults=True), "pool": pool}
        place = {"queue": keys.queue(pool), "priority": task.priority.value, "argsrepr": "()", "kwargsrepr": HIDDEN}
        if self.app.amqp.routes:  # they have been obeyed
            place["router"] = Router(queues=self.app.amqp.queues, app=self.app)
        tracing = taps.tracing(config.current(), config.home_path())
        if tracing is None:
            return super().apply_async((), body, task_id=task_id, headers=headers, **{**options, **place})
        task_id = task_id or str(uuid.uuid4())
        with tracing.submit(task_id) as extra:
            return super().apply_async((), body, task_id=task_id, headers={**headers, **extra}, **{**options, **place})

    def _route(self, task: BotTask, options: dict[str, Any]) -> dict[str, Any]:
        """Return what `task_routes` says of a task, as far as it names a place or a priority."""
        if not self.app.amqp.routes:
            return {}
        router = options.get("router") or self.app.amqp.router
        route = router.lookup_route(self.name, (), task.model_dump(mode="json"), options, self)
        return {"queue": route} if isinstance(route, str) else dict(route or {})

    async def adelay(self, *args: Any, **kwargs: Any) -> BotAsyncResult:
        """Queue one task from asyncio, as `delay`; `await` what it returns for the `BotResult`."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None, **options: Any
    ) -> BotAsyncResult:
        """Queue one task from asyncio without blocking the loop; takes and raises what `apply_async` does.

        While Redis is away it waits; bound that with `asyncio.timeout`.
        """
        desk = await desk_here()
        task = BotTask.parse(*(args or ()), **(kwargs or {}))
        if not options and task_id is None and taps.tracing(desk.settings, config.home_path()) is None:
            return self.AsyncResult(await desk.submit(task))
        task = task.model_copy(update={"pool": await desk.choose(task)})
        if not self.app.configured:
            await asyncio.to_thread(getattr, self.app.conf, "broker_url")  # Celery's settings: Redis is looked for
        draft = Draft()
        result = self.apply_async((task,), {}, task_id=task_id, producer=draft, **options)
        await desk.queue(draft.parts)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> BotAsyncResult:
        return BotAsyncResult(task_id, backend=self.backend, app=self.app, **kwargs)

    def work(self, task_id: str, request: dict[str, Any]) -> Coroutine[Any, Any, Done]:
        """Run one delivered task to its stored result. Never raises for what the task or a provider did."""
        from fleet.engine.process.wiring import PROCESS  # only in a worker; a producer should import quickly

        return PROCESS.plane.work(task_id, request)

    def count_before(self, task_id: str, headers: dict[str, Any]) -> None:
        """Count what a revoked task has cost before it was parked, and wait for that a while. Only in a worker."""
        if headers.get(BEFORE):
            from fleet.engine.process.wiring import PROCESS

            try:
                PROCESS.runtime.run(asyncio.wait_for(PROCESS.plane.count_before(task_id, headers), COUNT_S))
            except TimeoutError:  # Redis is away, and Celery's thread must not stand
                PROCESS.runtime.spawn(PROCESS.plane.count_before(task_id, headers))

    def apply(self, *args: Any, **options: Any) -> EagerResult:
        """Work for a task here and now, as a worker would. `get()` returns a `BotResult`, also when it failed."""
        token = _eager.set(True)
        try:
            done = super().apply(*args, **options)
        finally:
            _eager.reset(token)
        result = getattr(done._result, "fleet_result", None)  # its canvas has heard of a failure
        if result is None or config.current().results.strict:
            return done
        return EagerResult(done.id, result, states.SUCCESS, name=self.name)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Return the result; on a pool that is not ours, or called directly, work for it here and now.

        Raises:
            FleetError: When it failed, and that is a failure to Celery: in a canvas, or with `results.strict`.
        """
        ready = getattr(self.request, "fleet_result", None)
        if ready is not None:  # the slot pool lets Celery send its signals
            self._raise_for(ready, in_canvas=self.request.fleet_in_canvas)
            return ready.model_dump(mode="json")
        from fleet.engine.process.wiring import PROCESS

        request = {
            "args": args,
            "kwargs": kwargs,
            "delivery_info": self.request.delivery_info or {},
            "expires": self.request.expires,
            DELEGATION: LOCAL if self._is_local() else getattr(self.request, DELEGATION, None),
        }
        result = PROCESS.run_here(self.request.id, request)
        if result is not None:
            self._raise_for(result, in_canvas=any(getattr(self.request, name) for name in NO_CANVAS))
        return result

    def _is_local(self) -> bool:
        """True when a program of the user's own works for the task here; a message can say neither.

        `is_eager` may stand in a message's headers, and Celery's own `map` and `starmap` call whatever task they name.
        """
        by_message = any(one.name in CALLING for one in _task_stack.stack)
        return _eager.get() or (bool(self.request.called_directly) and not by_message)

    def _raise_for(self, result: BotResult, *, in_canvas: bool) -> None:
        if result.status == "failed" and (in_canvas or config.current().results.strict):
            error: Any = failure_of(result)
            error.fleet_result = result
            raise error


submit_task: SubmitTask = app.register_task(SubmitTask())
