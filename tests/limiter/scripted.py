"""The limiter's scripts as functions on a real Redis, and a limit's state as the model writes it."""

from __future__ import annotations

import struct
from typing import Any

import redis

from fleet.limiter.call import Reply
from fleet.limiter.limits import Terms
from fleet.limiter.model import Answer, Question
from fleet.limiter.observing import reading_numbers
from fleet.limiter.scripts import ACQUIRE, OBSERVE, PENALISE, SETTLE, SHOW
from fleet.limiter.snapshot import standing_of, terms_in_force
from fleet.rates import RateReading
from fleet.store import keys
from fleet.store.client import Script


class ScriptedLimit:
    """One limit on Redis."""

    def __init__(self, client: redis.Redis, name: str, terms: Terms) -> None:
        self._client = client
        self._terms = terms.pack()
        self.keys = keys.limit_parts(name)

    def _run(self, script: Script, names: list[str], args: list[Any]) -> Any:
        return self._client.eval(script.text, len(names), *names, *args)

    def ask(self, q: Question) -> Answer:
        numbers = struct.pack(
            "<13d", q.priority, q.order, 1, q.charge, q.weight, q.by_tenant, q.tokens, q.input_tokens, q.output_tokens,
            q.money, q.max_wait_us, q.random, q.lease_us,
        )  # fmt: skip
        reply = self._run(ACQUIRE, self.keys, [q.ticket, q.bot, f"q:{q.kind}", numbers, self._terms])
        numbers = Reply.unpack(reply)
        return Answer(*numbers[:9], charged=numbers[9:12])

    def settle(
        self, ticket: str, *, sent: bool, charged: tuple[int, int, int], used: tuple[int, int, int],
        asked: tuple[int, int] = (0, 0), kind: str = "default", learns: bool = False, reserved_money: int = 0,
        money: int = 0, since_slot_us: float = 1000.0,
    ) -> int:  # fmt: skip
        """Settle, and return the time of Redis."""
        state, facts, _, _, log, leases, _ = self.keys
        numbers = struct.pack("<13d", sent, *charged, *used, *asked, reserved_money, money, since_slot_us, learns)
        reply = self._run(SETTLE, [state, facts, log, leases], [ticket, f"q:{kind}", numbers, self._terms])
        return _unpack(reply)[2]

    def penalise(self, retry_after_us: int) -> tuple[int, int]:
        """Hold, and return for how long and the time of Redis."""
        reply = self._run(PENALISE, self.keys[:2], [retry_after_us, self._terms])
        _, held_us, now = _unpack(reply)
        return held_us, now

    def observe(self, mark: tuple[float, float, float], *rates: RateReading) -> int:
        """Take note of headers, and return by how much a clock was moved."""
        numbers = [n for rate in (*rates, *[RateReading()] * (4 - len(rates))) for n in reading_numbers(rate)]
        return _unpack(self._run(OBSERVE, self.keys[:2], [struct.pack("<15d", *mark, *numbers), self._terms]))[1]

    def terms_in_force(self) -> tuple[float, ...]:
        """Return requests, tokens, input and output tokens a minute, as the snapshot has them."""
        state, facts, queue, _, _, leases, _ = self.keys
        standing = standing_of(self._run(SHOW, [state, facts, queue, leases], []))
        return terms_in_force(Terms(*struct.unpack("<10d", self._terms)), standing)[:4]

    def state(self) -> list[float]:
        """Return the state from index 1, as the model has it."""
        state, facts, queue, _, _, leases, _ = self.keys
        reply = self._run(SHOW, [state, facts, queue, leases], [])
        return [0.0, *map(float, reply[7])]

    def queue(self) -> list[tuple[float, str]]:
        """Return the waiting tickets in order."""
        waiting: Any = self._client.zrange(self.keys[2], 0, -1, withscores=True)
        return [(order, ticket.decode()) for ticket, order in waiting]

    def bots(self) -> dict[str, float]:
        """Return the finish tags."""
        tags: Any = self._client.zrange(self.keys[6], 0, -1, withscores=True)
        return {bot.decode(): tag for bot, tag in tags}


def _unpack(reply: bytes) -> tuple[int, int, int]:
    code, number, now = struct.unpack("<3q", reply)
    return code, number, now
