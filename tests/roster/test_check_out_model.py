"""The roster's scripts against a model of them in Python, with the same random operations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.config import PoolSettings, Settings
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.errors import BotsQuarantined, ConfigurationError
from fleet.models import BotResult, bot_name
from fleet.roster import LOAD_UNIT, Checkout, Roster, quarantine, release
from fleet.roster.quarantine import OUT
from fleet.roster.roster import REAP_MOST
from fleet.store import keys
from fleet.store.client import Store, connect
from tests.every import every

POOL = "p"
TOKENS = 24
ALL_OUT = "all bots are quarantined"

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("check_out"), st.integers(0, TOKENS - 1)),
        st.tuples(st.just("finish"), st.integers(0, TOKENS - 1)),
        st.tuples(st.just("expire"), st.integers(0, TOKENS - 1)),
        st.tuples(st.just("seed"), st.integers(1, 5)),
        st.tuples(st.just("quarantine"), st.integers(1, 5)),
        st.tuples(st.just("release"), st.integers(1, 5)),
    ),
    max_size=60,
)


@dataclass
class Model:
    """What the scripts should do. Redis's clock is not predicted: `now_ms` is read back after each checkout."""

    load: dict[str, int] = field(default_factory=dict)
    last_ms: dict[str, int] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)  # token -> bot
    expired: list[str] = field(default_factory=list)  # tokens, the longest expired first
    done: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)

    def seed(self, number: int) -> None:
        wanted = [bot_name(POOL, index) for index in range(1, number + 1)]
        for bot in wanted:
            if bot not in self.load:
                self.load[bot] = list(self.leases.values()).count(bot)
                self.last_ms[bot] = 0
        self.load = {bot: self.load[bot] for bot in wanted}

    def check_out(self, token: str) -> str | None:
        """Return the bot that must come, or None when the task is done. `set_clock` completes it."""
        if token in self.done:
            return None
        for dead in self.expired[:REAP_MOST]:
            self.give_back(dead)
        if token in self.expired:
            self.expired.remove(token)
        if token not in self.leases:
            free = self.load.keys() - self.out
            if not free:
                return ALL_OUT
            bot = min(free, key=lambda name: (self.load[name], self.last_ms[name], name))
            self.load[bot] += 1
            self.last_ms[bot] = -1
            self.leases[token] = bot
        return self.leases[token]

    def set_clock(self, bot: str, now_ms: int) -> None:
        if self.last_ms.get(bot) == -1:
            self.last_ms[bot] = now_ms

    def give_back(self, token: str) -> None:
        bot = self.leases.pop(token)
        if token in self.expired:
            self.expired.remove(token)
        if bot in self.load:
            self.load[bot] -= 1

    def finish(self, token: str) -> bool:
        if token in self.leases:
            self.give_back(token)
        stands = token not in self.done
        self.done.add(token)
        return stands


class Fleet:
    """The real thing, with the same verbs."""

    def __init__(self, store: Store, plain: redis.Redis) -> None:
        self.store = store
        self.plain = plain
        self.completion = Finisher(store, self._settings(1))
        self.taken: dict[str, Checkout] = {}
        self.finished = 0

    @staticmethod
    def _settings(bots: int) -> Settings:
        return Settings(pools={POOL: PoolSettings(bots=bots)})

    async def seed(self, number: int) -> None:
        await Roster(self.store, self._settings(number)).seed()

    async def check_out(self, token: str) -> str | None:
        try:
            checkout = await Roster(self.store, self._settings(1)).check_out(POOL, task_id=token, token=token)
        except BotsQuarantined:
            return ALL_OUT
        if checkout is None:
            return None
        self.taken[token] = checkout
        return checkout.bot

    async def finish(self, token: str) -> bool:
        self.finished += 1  # another time of finishing each time: another result
        result = BotResult(task_id=token, status="ok", pool=POOL, finished_at=float(self.finished))
        return await self.completion.finish(Finish(result, checkout=self.taken[token]))

    async def expire(self, token: str, order: int) -> None:
        await self.store.command("ZADD", keys.bot_leases(POOL), "XX", order, self.taken[token].member)

    def quarantine(self, bot: str) -> bool:
        try:
            return quarantine(self.plain, POOL, bot, by="model") or True
        except ConfigurationError:
            return False

    async def scores(self) -> dict[str, int]:
        """Return places; those of quarantined bots without what is added to them."""
        flat = await self.store.command("ZRANGE", keys.bots(POOL), 0, -1, "WITHSCORES")
        places = {bot.decode(): int(float(score)) for bot, score in zip(flat[::2], flat[1::2], strict=True)}
        return {bot: place - OUT if place >= OUT // 2 else place for bot, place in places.items()}

    async def out(self) -> set[str]:
        return {bot.decode() for bot in await self.store.command("ZRANGE", keys.quarantined(POOL), 0, -1)}

    async def leases(self) -> dict[str, str]:
        members = await self.store.command("ZRANGE", keys.bot_leases(POOL), 0, -1)
        pairs = (member.decode().split("|") for member in members)
        return {token: bot for bot, token in pairs}

    async def claims(self) -> dict[str, str]:
        flat = await self.store.command("HGETALL", keys.bot_claims(POOL))
        return {token.decode(): bot.decode() for token, bot in zip(flat[::2], flat[1::2], strict=True)}


async def step(model: Model, fleet: Fleet, verb: str, number: int, order: int) -> None:
    token = f"t{number}"
    if verb == "seed":
        model.seed(number)
        await fleet.seed(number)
    elif verb in ("quarantine", "release"):
        bot = bot_name(POOL, number)
        if verb == "release":
            assert release(fleet.plain, POOL, bot) == (bot in model.out)
            model.out.discard(bot)
        elif fleet.quarantine(bot):
            model.out.add(bot)
        model.last_ms |= {name: place % LOAD_UNIT for name, place in (await fleet.scores()).items() if name == bot}
    elif verb == "check_out":
        expected = model.check_out(token)
        assert await fleet.check_out(token) == expected
        if expected in (scores := await fleet.scores()):
            model.set_clock(expected, scores[expected] % LOAD_UNIT)
    elif token in fleet.taken and verb == "finish":
        assert await fleet.finish(token) == model.finish(token)
    elif token in model.leases and verb == "expire" and token not in model.expired:
        model.expired.append(token)
        await fleet.expire(token, order)


async def compare(url: str, operations: list[tuple[str, int]]) -> None:
    store, plain = Store(url), connect(url)
    try:
        model, fleet = Model(), Fleet(store, plain)
        await step(model, fleet, "seed", 3, 0)
        for order, (verb, number) in enumerate(operations, start=1):
            await step(model, fleet, verb, number, order)
            scores: dict[str, Any] = await fleet.scores()
            assert scores == {bot: model.load[bot] * LOAD_UNIT + model.last_ms[bot] for bot in model.load}
            assert await fleet.leases() == await fleet.claims() == model.leases
            assert await fleet.out() == model.out
            assert every(model.load[bot] == list(model.leases.values()).count(bot) for bot in model.load)
    finally:
        plain.close()
        await store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_the_scripts_do_what_their_model_does(redis_url: str, operations: list[tuple[str, int]]) -> None:
    client = connect(redis_url)
    client.flushdb()
    client.close()
    asyncio.run(compare(redis_url, operations))
