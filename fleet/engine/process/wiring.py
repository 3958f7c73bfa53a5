"""Where both halves meet: a worker process's loop, stores, roster, limiter, gateway and agents, put together once.

`start` and `stop` belong to the worker's pool; `run_here` serves Celery pools that are not ours.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery.exceptions import Reject

from fleet import config
from fleet.config import Settings
from fleet.economy.prices import price_of
from fleet.engine.admission.gates import HOLD, HOLD_MS
from fleet.engine.admission.late_binding import LateBinding
from fleet.engine.answers.canaries import Canaries
from fleet.engine.answers.likeness import Diversity
from fleet.engine.answers.opinions import Opinions, Panel, other_token
from fleet.engine.local_simulator import ensure_simulator
from fleet.engine.messages import producer, queues
from fleet.engine.messages.envelope import QUEUED_AT, envelope, task_body, task_headers
from fleet.engine.outcomes.completion import Completion
from fleet.engine.outcomes.dead_letters import HISTORY, body_of, bury
from fleet.engine.outcomes.results import Done, log_result, queued_ms_of, refusal, result_of, summary_of
from fleet.engine.process.janitor import Janitor
from fleet.engine.process.request import check_expiry
from fleet.engine.telemetry.event_limiter import QUIET_S
from fleet.engine.telemetry.taps import Telemetry
from fleet.engine.transport import leases
from fleet.errors import (
    BotsQuarantined,
    ConfigurationError,
    DeadlineExceeded,
    FleetError,
    InvalidTask,
    KeyRejected,
    StoreError,
)
from fleet.models import Bot, BotResult, BotTask
from fleet.roster import Checkout, Roster
from fleet.signals import catalogue
from fleet.signals.events import record_event
from fleet.store import keys
from fleet.store.client import Store
from fleet.store.embedded import broker_url, state_url
from fleet.store.patience import patiently
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import bot_of
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider, read_key
from fleet.workers.runtime import Runtime

logger = logging.getLogger("fleet.worker")


class DataPlane:
    """Everything a worker process needs to turn messages into results. Lives on the process's one loop."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self.state = Store(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
        same = broker_url(settings) == state_url(settings)
        self.broker = self.state if same else Store(broker_url(settings), timeout_s=settings.redis.socket_timeout_s)
        self.roster = Roster(self.state, settings)
        self._routes = _routes(settings, telemetry)
        limiter = telemetry.limiter(self.state, _limits(settings))
        self.late_binding = LateBinding(limiter, self.broker, {name: of.limit for name, of in self._routes.items()})
        self._gateway = Gateway(limiter, self._routes, price_of(settings.price_table))
        self._held: dict[str, Checkout] = {}
        self._bots: dict[str, Bot] = {}
        self.diversity = Diversity(self.state, settings, self._forget_bots)
        agent = Agent(self._gateway, settings)
        self.completion = Completion(self.state, settings, on_suspect=lambda *who: self.canaries.suspect(*who))
        health = self.completion.health
        self.canaries = Canaries(self.state, settings, agent, health, bot_of=self._bot)
        self.panel = Panel(agent, self.roster, settings, bot_of=self._bot, norms_of=health.norms, held=self._held)
        self.janitor = Janitor(self.broker, self.state, self.roster, self._held, self.refuse)

    async def close(self) -> None:
        self.diversity.close()
        for provider in {route.provider_name: route.provider for route in self._routes.values()}.values():
            await provider.close()
        await self.state.close()
        await self.broker.close()
        await asyncio.to_thread(self._telemetry.close)

    # -- one task

    async def work(self, task_id: str, request: dict[str, Any]) -> Done:
        """Turn one delivered message into the task's one result.

        Args:
            task_id: The Celery task id.
            request: Celery's request dict: headers plus `args`, `kwargs` and `delivery_info`.
        """
        with self._telemetry.task(task_id, request):
            return await self._work(task_id, request)

    async def _work(self, task_id: str, request: dict[str, Any]) -> Done:
        started_s = time.monotonic()
        queued_ms = queued_ms_of(request.get(QUEUED_AT))
        tag = (request.get("properties") or {}).get("delivery_tag")
        try:
            check_expiry(request)
            task = BotTask.parse(*request["args"], **request["kwargs"])
            taking = producer.candidates(task, self._settings)
        except (InvalidTask, DeadlineExceeded, TypeError) as error:
            return await self.refuse(task_id, error, request, body_of(request), queued_ms)
        if (request.get("delivery_info") or {}).get("routing_key") == self._settings.worker.inbox:
            return await self._pass_on(task_id, task, await self._choose(taking), request)
        try:
            with self._telemetry.step("checkout"):
                checkout = await self._check_out(taking[0], task_id, token=tag or uuid.uuid4().hex, kind=task.kind)
        except (ConfigurationError, StoreError) as error:
            return await self.refuse(task_id, error, request, body_of(request), queued_ms)
        if checkout is None:
            return Done("done before")
        self._held[checkout.token] = checkout
        try:
            opinions = await self.panel.ask(task, checkout, task_id=task_id)
            bot, verdict = opinions.chosen.bot, opinions.outcome()
            errors = verdict.provider_errors
            ran_ms = round((time.monotonic() - started_s) * 1000)
            result = result_of(task_id, task, bot, verdict, queued_ms=queued_ms, ran_ms=ran_ms)
            with self._telemetry.step("finish"):
                stands = await patiently(lambda: self._finish(result, task.kind, opinions, errors, request, tag))
        finally:
            self._let_go(checkout)
        if stands:
            self.diversity.note(task, bot, result)
            self._telemetry.finished(result)
        log_result(result)
        if isinstance(verdict.error, KeyRejected):
            limit = self._gateway.route(checkout.pool).limit
            record_event(self.state, catalogue.KEY_REJECTED, quiet_s=QUIET_S, about=limit, limit=limit)
        return Done(summary_of(result), result) if stands else Done("discarded: not the first")

    def _bot(self, name: str) -> Bot:
        """Return a bot, made once per process: it is the same until its remedy changes."""
        bot = self._bots.get(name)
        if bot is None:
            bot = self._bots[name] = bot_of(name, self._settings, self.diversity.remedy_of(name))
        return bot

    def _let_go(self, first: Checkout) -> None:
        """Renew none of the checkouts of a task any more."""
        token, others = first.token, itertools.count(1)
        while self._held.pop(token, None) is not None:
            token = other_token(first.token, next(others))

    def _forget_bots(self, names: set[str]) -> None:
        for name in names:
            self._bots.pop(name, None)

    async def _finish(
        self,
        result: BotResult,
        kind: str,
        opinions: Opinions,
        errors: Mapping[str, int],
        request: dict[str, Any],
        tag: str | None,
    ) -> bool:
        """Store the result, unless the message's lease was lost: then somebody else has the task, and pays for it.

        With one Redis the check is part of the finishing script; with two it comes right before it, and between the
        two only `finish` itself keeps a task at one result.
        """
        fence = tag if self.broker is self.state else None
        if tag and fence is None and await self.broker.command("ZSCORE", leases.UNACKED_INDEX, tag) is None:
            logger.warning("lease lost task=%s: its result is discarded", result.task_id)
            fence = tag  # the state Redis knows no leases: there this result is fenced, what it cost is counted
        burial = None
        if result.status == "failed":
            burial = bury(result, headers=request, body=body_of(request), provider_errors=errors)
        return await self.completion.finish(
            result,
            checkout=opinions.chosen.checkout,
            others=opinions.other_checkouts(),
            shares=opinions.parts(),
            deeds=opinions.deeds(),
            kind=kind,
            provider_errors=errors,
            fence=fence,
            burial=burial,
        )

    async def _choose(self, taking: list[str]) -> str:
        """Return the pool with the fewest waiting tasks per bot."""
        if len(taking) == 1:
            return taking[0]
        places = producer.backlog_keys(taking)
        lengths = await asyncio.gather(*(patiently(partial(self.broker.command, "LLEN", key)) for _, key in places))
        backlog = dict.fromkeys(taking, 0)
        for (pool, _), length in zip(places, lengths, strict=True):
            backlog[pool] += length
        return producer.least_loaded(taking, backlog, self._settings)

    async def _check_out(self, pool: str, task_id: str, *, token: str, kind: str) -> Checkout | None:
        """Check a bot out.

        Raises:
            Reject: When all bots of the pool stay quarantined: the task waits in its queue, which is closed for a
                while, not in a slot that another pool could use.
        """
        gate = keys.gate(keys.queue(pool))
        for pause_s in (random.uniform(0.15, 0.3) * HOLD_MS / 1000, 0.0):
            try:
                return await patiently(lambda: self.roster.check_out(pool, task_id=task_id, token=token, kind=kind))
            except BotsQuarantined:
                await patiently(lambda: self.broker.run(HOLD, [gate], [HOLD_MS]))
                await asyncio.sleep(pause_s)
        raise Reject("all bots of the pool are quarantined", requeue=True)

    async def refuse(
        self, task_id: str, error: Exception, headers: Mapping[str, Any], body: bytes, queued_ms: int | None = None
    ) -> Done:
        """Give a task that cannot be worked on a failed result, and keep its message as a dead letter."""
        invalid = error if isinstance(error, FleetError) else InvalidTask(f"expected keyword arguments: {error}")
        result = refusal(task_id, invalid, queued_ms)
        burial = bury(result, headers=headers, body=body)
        if await patiently(lambda: self.completion.finish(result, checkout=None, burial=burial)):
            self._telemetry.finished(result)
        log_result(result)
        return Done(summary_of(result), result)

    async def _pass_on(self, task_id: str, task: BotTask, pool: str, request: dict[str, Any]) -> Done:
        """Move a message of a plain Celery client from the inbox to its pool's queue, with its callbacks."""
        queue = keys.queue(pool)
        headers = task_headers(task_id) | {name: request[name] for name in _KEPT_HEADERS if request.get(name)}
        canvas = {name: request.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
        body = task_body(task, pool, canvas)
        message = envelope(task_id=task_id, queue=queue, priority=task.priority.value, headers=headers, body=body)
        place = queues.list_key(queue, task.priority.value)
        marker = keys.passed_on(task_id)
        arguments = [*producer.enqueue_options(self._settings), marker, place, message]
        await patiently(lambda: self.broker.run(producer.ENQUEUE, [queues.BELL], arguments))
        return Done(f"passed on to {queue}")

    async def seed(self) -> None:
        await patiently(self.roster.seed)


#: Headers of a foreign message that survive being passed on.
_KEPT_HEADERS = (
    "root_id",
    "parent_id",
    "group",
    "expires",
    "stamps",
    "stamped_headers",
    "origin",
    "group_index",
    HISTORY,
    "traceparent",
    "tracestate",
)


def _routes(settings: Settings, telemetry: Telemetry) -> dict[str, Route]:
    """Return each pool's route; pools of one provider share its connections."""
    providers = {}
    routes = {}
    for name, pool in settings.pools.items():
        provider = settings.provider_of(name)
        if pool.provider not in providers:
            base_url = provider.base_url
            if base_url is None and provider.kind == "simulator":
                base_url = ensure_simulator(settings, config.home_path())
            adapter = telemetry.provider(make_provider(provider, base_url=base_url))
            providers[pool.provider] = (adapter, read_key(provider))
        adapter, key = providers[pool.provider]
        routes[name] = Route(
            provider=adapter,
            provider_name=pool.provider,
            model=pool.model,
            limit=f"{settings.limit_of(name)[0]}/{config.KEY_LABEL}",
            api_key=key,
            timeout_s=provider.timeout_s,
            simulated=settings.is_simulated(name),
        )
    return routes


def _limits(settings: Settings) -> dict[str, config.LimitSettings]:
    return {f"{name}/{config.KEY_LABEL}": rates for name, rates in map(settings.limit_of, settings.pools)}


def make_bot(name: str, settings: Settings) -> Bot:
    """Return the bot of that name with its persona, for who shows bots and runs none.

    Raises:
        ConfigurationError: When no pool in the settings has such a bot.
    """
    return bot_of(name, settings)


# -- one per process

_runtime: Runtime | None = None
_plane: DataPlane | None = None
_starting = threading.Lock()


def runtime() -> Runtime:
    """Return the process's loop; it runs after `start`."""
    if _runtime is None:
        raise RuntimeError("expected a started data plane, got none: the worker's pool calls wiring.start()")
    return _runtime


def data_plane() -> DataPlane:
    """Return the process's data plane; it exists after `start`."""
    if _plane is None:
        raise RuntimeError("expected a started data plane, got none: the worker's pool calls wiring.start()")
    return _plane


def start(
    *, slots: Callable[[], int], busy: Callable[[], int], name: str, beat_at: Callable[[], float | None] = lambda: None
) -> None:
    """Start the loop, build the data plane on it, seed the bots. Once per process."""
    with _starting:
        if _plane is None:
            _start(slots, busy, name, beat_at)


def _start(slots: Callable[[], int], busy: Callable[[], int], name: str, beat_at: Callable[[], float | None]) -> None:
    global _runtime, _plane
    settings = config.current()
    _runtime = Runtime()
    _runtime.start()
    telemetry = Telemetry(settings, config.home_path(), slots=slots, busy=busy)
    plane = _runtime.run(_build(settings, telemetry))
    _runtime.run(plane.seed())
    simulated = [pool for pool in settings.pools if settings.is_simulated(pool)]
    if simulated:
        logger.warning("simulated pools=%s: the simulator answers, not a real provider", ",".join(simulated))
    janitor = plane.janitor
    _runtime.spawn(janitor.renew_leases())
    _runtime.spawn(janitor.bury_poison())
    _runtime.spawn(plane.diversity.attend())
    _runtime.spawn(plane.panel.watch(plane.roster.read_out))
    _runtime.spawn(plane.late_binding.run())
    _runtime.spawn(janitor.report(name=name, slots=slots, busy=busy, beat_at=beat_at))
    _plane = plane


async def _build(settings: Settings, telemetry: Telemetry) -> DataPlane:
    return DataPlane(settings, telemetry)


def stop() -> None:
    """Close connections and stop the loop; what still runs on it is cancelled."""
    global _runtime, _plane
    if _runtime is None:
        return
    if _plane is not None:
        _runtime.run(_plane.janitor.leave())
        _runtime.run(_plane.close())
    _runtime.stop()
    _runtime = _plane = None


async def refuse(task_id: str, error: FleetError, headers: Mapping[str, Any], body: bytes) -> None:
    """Give a task whose message cannot be read a failed result."""
    await data_plane().refuse(task_id, error, headers, body)


def run_here(task_id: str | None, request: dict[str, Any]) -> dict[str, Any] | None:
    """Work for a task on the calling thread's time: Celery's own pools, or a direct call of the task."""
    start(slots=lambda: 1, busy=lambda: 1, name=f"direct-{uuid.uuid4().hex[:8]}")
    done: Done = runtime().run(data_plane().work(task_id or str(uuid.uuid4()), request))
    return done.result.model_dump(mode="json") if done.result else None
