"""Tokens that expire, in a process: had anew early and at random, and what an endpoint that fails does to calls."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field

import pytest

from fleet.engine.process.held_keys import held_keys
from fleet.errors import ExchangeFailed
from fleet.vault import Secret, key_fingerprint
from tests.vault.played_source import PlayedSource

LIMIT = "acme/m/default"


@dataclass
class Exchange(PlayedSource):
    """As an exchange is: it gives numbered tokens that live for a while."""

    lives_s: float = 3600.0
    had: int = 0
    asked: list[float] = field(default_factory=list)
    where: str = "exchange"
    gate: threading.Event | None = None

    def current(self) -> Secret:
        self.asked.append(self.now_s)
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        self.had += 1
        return Secret(f"token-{self.had}", lives_s=self.lives_s, identity="svac-1")


def test_each_exchange_is_told_and_what_is_reported_of_a_token_is_its_identity_and_end() -> None:
    told: list[tuple[str, bool]] = []

    async def work() -> None:
        exchange = Exchange(lives_s=100.0)
        ring = exchange.ring()
        ring.on_exchange = lambda *heard: told.append(heard)
        held = await ring.hold("acme", "m")
        exchange.error = ExchangeFailed("expected a token, got 503", is_ours=False)
        await exchange.passes(ring, 80)
        assert told[:2] == [("acme", True), ("acme", False)] and held.failure is not None
        (report,) = held_keys(ring)
        assert (report.key, report.source, report.fingerprint) == ("acme", "exchange", held.fingerprint)
        assert report.expires_at is not None and "503" in report.failure
        assert "token-1" not in report.model_dump_json()

    asyncio.run(work())


def test_a_token_is_had_anew_before_it_expires_at_a_moment_of_each_process_own() -> None:
    moments = []

    async def work() -> None:
        for seed in range(20):
            random.seed(seed)
            exchange = Exchange()
            ring = exchange.ring()
            held = await ring.hold("acme", "m")
            await exchange.passes(ring, 2701)
            assert len(exchange.asked) == 2 and held.value == "token-2" and ring.standing(LIMIT) is None
            assert exchange.turns == [], "the same identity: no breaker and no gate hears of it"
            moments.append(exchange.asked[1] - 1000)

    asyncio.run(work())
    assert 1800 <= min(moments) < 2100 and 2400 < max(moments) <= 2701


def test_an_endpoint_that_fails_costs_nothing_until_the_token_expires_and_then_calls_wait_until_it_is_back() -> None:
    exchange = Exchange(lives_s=600.0)

    async def work() -> None:
        ring = exchange.ring()
        await ring.hold("acme", "m")
        exchange.error = ExchangeFailed("expected a token of idp, got 400 invalid_grant", is_ours=True)
        await exchange.passes(ring, 590)
        assert ring.standing(LIMIT) is None
        exchange.now_s += 6  # no look since: whoever is about to call sees it all the same
        wait = ring.standing(LIMIT)
        assert wait is not None and (wait.cause, wait.about) == ("key", "[providers.acme]")
        assert "invalid_grant" in wait.told
        gaps = [after - before for before, after in zip(exchange.asked[1:], exchange.asked[2:], strict=False)]
        assert len(exchange.asked) < 30 and max(gaps) <= 32, "rarer and rarer, and never given up"
        exchange.error = None
        await exchange.passes(ring, 31)
        assert ring.standing(LIMIT) is None and exchange.turns == ["token-2"], "what waits is opened"

    asyncio.run(work())


def test_an_endpoint_is_left_alone_for_as_long_as_it_asks() -> None:
    exchange = Exchange(error=ExchangeFailed("got 429", after_s=120.0))

    async def work() -> None:
        ring = exchange.ring()
        held = await ring.hold("acme", "m")
        assert held.value == "" and ring.standing(LIMIT) is not None, "a process that starts then waits, too"
        await exchange.passes(ring, 118)
        assert len(exchange.asked) == 1
        exchange.error = None
        await exchange.passes(ring, 3)
        assert ring.standing(LIMIT) is None

    asyncio.run(work())


def test_a_fresh_token_that_is_refused_is_had_anew_once_and_by_one_of_all_who_were_refused() -> None:
    exchange = Exchange()

    async def work() -> None:
        ring = exchange.ring()
        held = await ring.hold("acme", "m")
        assert await asyncio.gather(*(ring.renewed(LIMIT, "token-1") for _ in range(50))) == [True] * 50
        assert (exchange.had, held.value) == (2, "token-2")
        assert not await ring.renewed(LIMIT, "token-2"), "the identity is refused, then, and not its token"
        exchange.now_s += 2
        assert await ring.renewed(LIMIT, "token-2"), "it was taken for a while: its expiry was a lie"

    asyncio.run(work())


def test_a_slow_endpoint_keeps_no_key_from_being_revoked_and_is_asked_once_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fleet.vault.keyring.LOOK_WAITS_S", 0.01)
    exchange = Exchange(lives_s=600.0)
    revoked = {f"acme|{key_fingerprint('acme', 'svac-1')}": 1000.0}

    async def work() -> None:
        ring = exchange.ring()
        await ring.hold("acme", "m")
        exchange.gate = threading.Event()
        await exchange.passes(ring, 452)
        assert len(exchange.asked) == 2
        await exchange.passes(ring, 1, revoked)
        wait = ring.standing(LIMIT)
        assert wait is not None and "is revoked" in wait.told and "name another identity" in wait.told
        exchange.gate.set()

    asyncio.run(work())
    assert len(exchange.asked) == 2


def test_a_token_that_lives_for_two_seconds_is_looked_at_in_time() -> None:
    exchange = Exchange(lives_s=2.0)

    async def work() -> None:
        ring = exchange.ring()
        held = await ring.hold("acme", "m")
        assert 0.99 <= ring._until_due() <= 1.51
        exchange.now_s = held.next_s
        assert ring._until_due() == 0.1

    asyncio.run(work())
