"""A batch whose sender dies at one step after the other, against the real simulator and Redis: what is billed.

A death is a step at which the sender's store or its vendor's API raises `Killed`: before a request, or behind it with
its reply lost. What was in memory is gone; another sender goes on from Redis.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from fleet.batches import BatchAnswer, BatchApi, VendorBatch
from fleet.config import Settings
from fleet.economy.lanes.jobs import Enrolled, JobStore
from fleet.economy.prices import PriceList
from fleet.engine.process.batching.duty import BatchDuty
from fleet.engine.process.batching.machine import Timings
from fleet.store import keys
from fleet.store.client import Store
from fleet.workers.providers.anthropic import Anthropic
from fleet.workers.providers.openai_compatible import OpenAICompatible

#: Requests of a vendor, each a step at which a sender may die before or behind it.
ASKED = ("upload", "find_file", "create", "find", "look", "cancel", "delete")
#: No request is on its way any more after so many seconds here.
QUICK = Timings(lost_s=0.3, soonest_s=0.01, latest_s=0.05, refused_s=0.05, failed_s=0.02, orphan_s=0.5)


class Killed(BaseException):
    """The process dies here."""


@dataclass
class Fuse:
    """Dies at one step of all, counted from 1; 0: never. With `since`, steps before that one are not counted."""

    at: int = 0
    since: str = ""
    steps: int = 0
    died_at: str = ""

    def step(self, name: str) -> None:
        if self.since not in ("", name):
            return
        self.since = ""
        self.steps += 1
        if self.steps == self.at:
            self.died_at = name
            raise Killed(name)


class Mortal:
    """A vendor's API whose caller may die before each request, and behind it with the reply lost."""

    def __init__(self, api: Any, fuse: Fuse) -> None:
        self._api, self._fuse, self.has_files = api, fuse, api.has_files

    def __getattr__(self, name: str) -> Callable[..., Any]:
        assert name in ASKED, name

        async def asked(*arguments: Any) -> Any:
            self._fuse.step(f"before {name}")
            found = await getattr(self._api, name)(*arguments)
            self._fuse.step(f"behind {name}")
            return found

        return asked

    async def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        self._fuse.step("before answers")
        async for one in self._api.answers(sent):
            yield one
        self._fuse.step("behind answers")


class MortalStore(Store):
    """A store whose process may die before each command that changes something, and behind it."""

    fuse: Fuse

    async def command(self, *parts: Any) -> Any:
        changes = parts[0] in ("HSET", "ZADD", "ZREM", "UNLINK", "LPUSH", "HDEL")
        if changes:
            self.fuse.step(f"before {parts[0]}")
        found = await super().command(*parts)
        if changes:
            self.fuse.step(f"behind {parts[0]}")
        return found

    async def run(self, script: Any, keys: Any = (), args: Any = ()) -> Any:
        self.fuse.step(f"before {script.name}")
        found = await super().run(script, keys, args)
        self.fuse.step(f"behind {script.name}")
        return found


@dataclass
class Ledger:
    """What came of one batch.

    Attributes:
        fuse: Where it died.
        answers: Tasks that have an answer.
        freed: Tasks that go on by other lanes.
    """

    fuse: Fuse
    answers: int = 0
    freed: int = 0
    billed: Counter[str] = field(default_factory=Counter)


def settings_of(kind: str, url: str) -> Settings:
    return Settings.model_validate({
        "providers": {"api": {"kind": kind, "base_url": f"{url}/v1" if kind == "openai" else url}},
        "pools": {"work": {"provider": "api", "model": "m", "bots": 3}},
        "prices": {"api/m": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 4,
                             "tiers": {"batch": {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 2}}}},
        "lanes": {"batch_after_s": 0},
    })  # fmt: skip


def api_of(kind: str, url: str) -> BatchApi:
    made: Any = OpenAICompatible(URL(f"{url}/v1")) if kind == "openai" else Anthropic(URL(url))
    found: BatchApi = made.batches(lambda: "test-key")
    return found


LIMIT = "api/m/default"
#: What each task may cost at most, 10^-12 dollars.
MOST_PICOS = 150_000_000


def body_of(prompt: str) -> bytes:
    content = f'{{"model":"m","max_tokens":50,"messages":[{{"role":"user","content":"{prompt}"}}]}}'
    return content.encode()


async def enrol(store: Store, tasks: list[str], *, by_s: float, rescue_s: float) -> None:
    """Enrol tasks as workers do, and park their messages."""
    jobs, (whole_s, micros) = JobStore(store), await store.command("TIME")
    seconds = float(whole_s) + float(micros) / 1e6
    for number, task in enumerate(tasks):
        asked = Enrolled(
            "work", "work-001", "", "sum", "", LIMIT, seconds + by_s, seconds + rescue_s, seconds, MOST_PICOS
        )
        await jobs.enrol(task, asked, body_of(f"What is {number} + {number}?"), life_s=by_s)
        await store.command("HSET", keys.parked(), task, "list\n{}\nmessage")
        await store.command("ZADD", keys.parked_order(keys.queue("work")), repr(seconds + by_s), task)


async def send(
    redis_url: str, url: str, kind: str, *, tasks: list[str], die_at: int | Fuse, rescue_s: float = 3600,
    within_s: float = 30,
) -> Ledger:  # fmt: skip
    """Send tasks in a batch, and die at one step; another sender goes on. Return what came."""
    fuse = die_at if isinstance(die_at, Fuse) else Fuse(die_at)
    api, settings = api_of(kind, url), settings_of(kind, url)
    plain = Store(redis_url)
    try:
        await enrol(plain, tasks, by_s=7200, rescue_s=rescue_s)
        await _sender(redis_url, api, settings, fuse, within_s)
        jobs, found = JobStore(plain), Ledger(fuse)
        for task in tasks:
            came = await jobs.came(task)
            found.answers += came is not None and bool(came.answer)
            found.freed += came is not None and came.is_freed
        assert not await jobs.jobs(), "a job is left"
        return found
    finally:
        await plain.close()
        await api._http._provider.close()  # type: ignore[attr-defined]


async def _sender(redis_url: str, api: BatchApi, settings: Settings, fuse: Fuse, within_s: float) -> None:
    """Be senders, one after the other as they die, until no job and no gathering task is left."""
    ends = asyncio.get_running_loop().time() + within_s
    while True:
        store = MortalStore(redis_url)
        store.fuse = fuse
        mortal: Any = Mortal(api, fuse)
        duty = BatchDuty(
            store, store, settings, PriceList(settings), api_of=dict.fromkeys([LIMIT], mortal).get,
            process=secrets.token_hex(4), timings=QUICK,
        )  # fmt: skip
        try:
            while asyncio.get_running_loop().time() < ends:
                await duty.round()
                if not await JobStore(store).jobs() and not await JobStore(store).gathered():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("the batch did not end in time")
        except Killed:
            pass
        finally:
            fuse.at = 0 if fuse.died_at else fuse.at
            await store.close()
