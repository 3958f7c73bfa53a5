"""Results of submitted tasks, read from the state Redis by polling: one MGET for up to a thousand tasks.

Polling needs no subscription that could be lost, and a result that was there before is found the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, Self, cast

import redis

from fleet.config import Settings
from fleet.engine.operations.waits import Standings, look
from fleet.engine.outcomes.stored import TYPED
from fleet.errors import FleetError, StoreUnavailable
from fleet.signals.crew import troubles_of
from fleet.signals.neighbours import look_for_strangers
from fleet.signals.recorder import WorkerReport, split_reports
from fleet.store import keys
from fleet.store.client import Script, connect, run_script, store_errors
from fleet.store.private.branches import branch_urls, homes_of
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.running.brokers import MAIN, Anywhere, Brokers, each

_EXPIRE = Script.beside(__file__, "expire.lua", keys="results*", argv="life_s")

#: Results asked for in one MGET: bounds the time that Redis is busy with one command.
BATCH = 1000
#: Celery states after which nothing more will come. Fleet writes SUCCESS only; the others are Celery's own failures.
FINAL_STATES = frozenset({"SUCCESS", "FAILURE", "REVOKED", "IGNORED", "REJECTED"})
#: Seconds a result stays once its answer is safe on disk: longer than any message can be delivered a second time.
KEPT_S = 3600
#: Seconds that the mark of a submitted task expires before its result.
MARK_LEAD_S = 60
#: Fields of a result that a line of OUT has, in this order.
FIELDS = (
    "status", "answer", "error", "bot", "persona", "pool", "provider", "model", "simulated", "served_by",
    "usage", "cost_usd_micros", "cost_usd_picos", "attempts", "queued_ms", "limited_ms", "ran_ms", "cut_tokens",
    "left_out",
)  # fmt: skip


#: There is one broker.
NO_BRANCHES: Mapping[str, str] = MappingProxyType({})


class Collector:
    """Reads results and who is alive.

    Args:
        state_url: Redis that keeps results.
        broker_url: Redis that keeps the marks of what was submitted.
        timeout_s: Seconds until a Redis that does not answer is an error.
        branch_urls: Of the brokers beside the main one, by name.
    """

    def __init__(
        self, *, state_url: str, broker_url: str, timeout_s: float, branch_urls: Mapping[str, str] = NO_BRANCHES
    ) -> None:
        self._state = _Server(state_url, timeout_s)
        self._branches = {name: _Server(url, timeout_s) for name, url in branch_urls.items()}
        self._broker = self._state if broker_url == state_url else _Server(broker_url, timeout_s)

    def fetch(self, task_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the results that are there, by task id.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        found: dict[str, dict[str, Any]] = {}
        for batch in batches(task_ids, BATCH):
            with self._state.client() as client:
                values = cast(list[bytes | None], client.mget([keys.result(name) for name in batch]))
            metas = ((name, json.loads(value)) for name, value in zip(batch, values, strict=True) if value)
            found |= {name: result_of(meta) for name, meta in metas if meta.get("status") in FINAL_STATES}
        return found

    def release(self, task_ids: Iterable[str]) -> None:
        """Let results expire soon: their answers are safe elsewhere, and millions of them would fill Redis.

        The marks go first, so that a task without its result can always be submitted again.

        Raises:
            StoreUnavailable: When Redis does not answer; they then stay as long as `results.expires_s` says.
        """
        for batch in batches(task_ids, BATCH):
            for server, key, life_s in (
                *((one, keys.submitted, KEPT_S - MARK_LEAD_S) for one in (self._broker, *self._branches.values())),
                (self._state, keys.result, KEPT_S),
            ):
                with server.client() as client:
                    run_script(client, _EXPIRE, *_EXPIRE.call(results=map(key, batch), life_s=life_s))

    def workers_alive(self) -> list[WorkerReport]:
        """Return the last reports of the worker processes that have reported lately.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        with self._state.client() as client:
            rows = cast(dict[bytes, bytes], client.hgetall(keys.workers()))
            now_s = client.time()[0]
        return split_reports(rows, now_s=now_s)[0]

    def look(self, settings: Settings, pools: Iterable[str] | None) -> Standings:
        """Return how pools (None: all) stand, and why their tasks wait.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        with self._state.client() as state, self._brokers(settings) as brokers:
            return look(state, brokers, settings, pools)

    def stranger(self, settings: Settings) -> str | None:
        """Return what to say if another fleet uses this Redis.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        with self._state.client() as state, self._brokers(settings) as brokers:
            return look_for_strangers((state, *each(brokers)), settings)

    @contextmanager
    def _brokers(self, settings: Settings) -> Iterator[Anywhere]:
        """Yield the clients of all brokers; those beside the main one that do not answer are away."""
        with ExitStack() as stack:
            clients, away = {MAIN: stack.enter_context(self._broker.client())}, dict[str, str]()
            for name, server in self._branches.items():
                try:
                    clients[name] = stack.enter_context(server.client())
                except FleetError as error:
                    away[name] = str(error)
            yield Brokers(clients, homes_of(settings), away) if self._branches else clients[MAIN]

    def close(self) -> None:
        for server in (self._state, self._broker, *self._branches.values()):
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def open_collector(settings: Settings) -> Collector:
    """Return the collector for the Redis in force.

    Raises:
        ConfigurationError: When Redis does not answer.
    """
    return Collector(
        state_url=state_url(settings),
        broker_url=broker_url(settings),
        timeout_s=settings.redis.socket_timeout_s,
        branch_urls=branch_urls(settings),
    )


class _Server:
    """A Redis that is connected to when first used, and whose errors are translated."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = url, timeout_s
        self._client: redis.Redis | None = None

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        if self._client is None:
            self._client = connect(self._url, timeout_s=self._timeout_s)
        with store_errors(self._url):
            yield self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def result_of(meta: dict[str, Any]) -> dict[str, Any]:
    """Return the BotResult of a Celery result, as a dict. A failure that Celery wrote becomes a failed result."""
    result = meta.get(TYPED) or meta.get("result")
    if (TYPED in meta or meta["status"] == "SUCCESS") and isinstance(result, dict) and "status" in result:
        return result
    name = result.get("exc_type") if isinstance(result, dict) else meta["status"]
    message = f"Celery ended the task: {meta['status']}"
    return {"status": "failed", "error": {"type": str(name), "message": message, "blame": "fleet"}}


def batches(items: Iterable[str], size: int) -> Iterator[Sequence[str]]:
    """Cut an iterable into lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def nobody_serves(collector: Collector, pool: str | None, settings: Settings) -> str | None:
    """Return a warning when no worker is alive to take tasks, or something is wrong with the workers, else None.

    Args:
        collector: Reads who is alive.
        pool: The one that all tasks are for; None: any.
        settings: Those that the tasks are made by.
    """
    try:
        alive = collector.workers_alive()
    except StoreUnavailable as error:
        return str(error)
    if not alive:
        wanted = f"pool {pool}" if pool else "any pool"
        return f"no worker is alive to serve {wanted}: start `celery -A fleet worker` or `fleet up`"
    troubles = troubles_of(alive, settings, now_s=max(worker.at for worker in alive))
    if pool is None:  # any may be chosen; none goes by the inbox
        return "; ".join(trouble.line for trouble in troubles if trouble.about != "inbox") or None
    return "; ".join(filter(None, (trouble.told_of(pool) for trouble in troubles))) or None


def another_fleet(collector: Collector, settings: Settings) -> str | None:
    """Return a warning when another fleet uses this Redis, else None."""
    try:
        return collector.stranger(settings)
    except StoreUnavailable as error:
        return str(error)
