"""The limiter's scripts as functions on a real Redis, and a limit's state as the model writes it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Any

import redis

from fleet.config import LimitSettings
from fleet.grants import Mark, Tokens
from fleet.limiter.layouts import ASKED, BESIDE, SETTLED, STATE, Asked, Reply, Settled
from fleet.limiter.limits import DAY_US, Terms
from fleet.limiter.observing import packed_readings
from fleet.limiter.scripts import ACQUIRE, NARROW, OBSERVE, PENALISE, SET, SETTLE, SHOW
from fleet.limiter.simulated.question import Answer, Question
from fleet.limiter.snapshot import LimitSnapshot, snapshot_of, standing_of, terms_in_force
from fleet.rates import RateReading
from fleet.store import keys
from fleet.store.client import Script, run_script

_numbers = itertools.count()


def new_name() -> str:
    """Return the name of a limit that no test has had."""
    return f"p/m/scripted-{next(_numbers)}"


def a_limit(client: redis.Redis, settings: LimitSettings) -> ScriptedLimit:
    """Return a new limit."""
    return ScriptedLimit(client, new_name(), Terms.of(settings))


def ask(limit: ScriptedLimit, number: int, **fields: Any) -> Answer:
    """Let a bot of this number ask."""
    return limit.ask(Question(f"{number:04d}", f"bot-{number}", **fields))


def _asked(q: Question) -> Asked:
    return Asked(
        priority=q.priority, asked_order=q.order, asked_candidate=1, charge=q.charge, weight=q.weight,
        by_tenant=q.by_tenant, tokens=q.tokens, input=q.input_tokens, output=q.output_tokens, usd_micros=q.money,
        max_wait_us=q.max_wait_us, random=q.random, lease_us=q.lease_us, patience_us=q.patience_us, beyond=q.beyond,
    )  # fmt: skip


def _answer(reply: Reply) -> Answer:
    return Answer(
        *reply[:9],
        Tokens(*reply[9:12]),
        reply.cost_usd_micros,
        reply.cause,
        bool(reply.is_own),
        reply.lowest,
        bool(reply.is_beyond),
    )


class ScriptedLimit:
    """One limit on Redis."""

    def __init__(self, client: redis.Redis, name: str, terms: Terms) -> None:
        self._client = client
        self._terms = terms
        self.keys = keys.limit_keys(name)
        #: What the last reading surely lowered, by rate.
        self.lowered: tuple[int, ...] = ()
        #: Who has told of the hold that stopped the last question.
        self.held_by = b""

    def _run(self, script: Script, **arguments: Any) -> Any:
        names = {name: getattr(self.keys, name) for name in script.names.keys.names}
        return run_script(self._client, script, *script.call(**names, **arguments))

    def ask(self, q: Question, note: str = "") -> Answer:
        """Ask once."""
        return self.ask_together([q], note)[0]

    def ask_together(self, questions: Sequence[Question], note: str = "") -> list[Answer]:
        """Ask in one step."""
        calls = [part for q in questions for part in (q.ticket, q.bot, f"q:{q.kind}", ASKED.pack(_asked(q)), note)]
        found = self._run(ACQUIRE, terms=self._terms.pack(), calls=calls)
        replies = [Reply.unpack(reply) for reply in (found if len(questions) > 1 else [found])]
        self.held_by = replies[-1].held_by
        return [_answer(reply) for reply in replies]

    def settle(
        self, ticket: str, *, sent: bool, charged: tuple[int, int, int], used: tuple[int, int, int],
        asked: tuple[int, int] = (0, 0), kind: str = "default", learns: bool = False, reserved_money: float = 0,
        money: float = 0, reserved_day: int | None = None, since_slot_us: float = 1000.0, asked_money: float = 0,
    ) -> int:  # fmt: skip
        """Settle, and return the time of Redis."""
        call = self.settlement(
            ticket, sent=sent, charged=charged, used=used, asked=asked, kind=kind, learns=learns,
            reserved_money=reserved_money, money=money, reserved_day=reserved_day, since_slot_us=since_slot_us,
            asked_money=asked_money,
        )  # fmt: skip
        return self.settle_together(call)

    def settle_together(self, *calls: tuple[str, str, bytes, str]) -> int:
        """Settle calls in one step, and return the time of Redis."""
        flat = [part for call in calls for part in call]
        return _unpack(self._run(SETTLE, terms=self._terms.pack(), calls=flat))[2]

    def settlement(
        self, ticket: str, *, sent: bool, charged: tuple[int, int, int], used: tuple[int, int, int],
        asked: tuple[int, int] = (0, 0), kind: str = "default", learns: bool = False, reserved_money: float = 0,
        money: float = 0, reserved_day: int | None = None, since_slot_us: float = 1000.0, asked_money: float = 0,
    ) -> tuple[str, str, bytes, str]:  # fmt: skip
        """Return a call that is over as the script takes it."""
        day = self.today() if reserved_day is None else reserved_day
        settled = Settled(sent, *charged, *used, *asked, reserved_money, money, day, since_slot_us, learns, asked_money)
        return ticket, f"q:{kind}", SETTLED.pack(settled), ""

    def today(self) -> int:
        """Return the day, by Redis."""
        seconds: Any = self._client.time()[0]
        return int(seconds) * 1_000_000 // DAY_US

    def penalise(self, retry_after_us: int) -> tuple[int, int]:
        """Hold, and return for how long and the time of Redis."""
        reply = self._run(PENALISE, retry_after_us=retry_after_us, held_by="429", terms=self._terms.pack())
        _, held_us, now = _unpack(reply)
        return held_us, now

    def observe(self, mark: Mark, *rates: RateReading) -> int:
        """Take note of headers, and return by how much a clock was moved."""
        heard = packed_readings(mark, rates)
        reply = self._run(OBSERVE, heard=heard, terms=self._terms.pack())
        self.lowered = struct.unpack("<7q", reply)[3:]
        return _unpack(reply[:24])[1]

    def narrow(self, most: int = 0, flying: int = 0) -> int:
        """Refuse a call of too many at once, and return how many may go."""
        return _unpack(self._run(NARROW, most=most, flying=flying, terms=self._terms.pack()))[1]

    def snapshot(self, settings: LimitSettings) -> LimitSnapshot:
        """Return how it stands, for operators."""
        return snapshot_of("limit", standing_of(self._run(SHOW)), settings)

    def terms_in_force(self) -> tuple[float, ...]:
        """Return requests, tokens, input and output tokens a minute, as the snapshot has them."""
        return terms_in_force(self._terms, standing_of(self._run(SHOW))).rates

    def state(self) -> list[float]:
        """Return the state from index 1, as the model has it."""
        return list(standing_of(self._run(SHOW)).state)

    def write(self, state: list[float]) -> None:
        """Put a state, from index 1, in the place of what is there."""
        self._client.set(self.keys.state, STATE.struct.pack(*state[1 : STATE.size + 1]), keepttl=True)
        self._client.hset(self.keys.facts, "beside", BESIDE.struct.pack(*state[STATE.size + 1 :]))

    def reset(self) -> None:
        """Let the limit begin anew."""
        self._run(SET, set="", terms=self._terms.pack())

    def queue(self) -> list[tuple[float, str]]:
        """Return the waiting tickets in order."""
        waiting: Any = self._client.zrange(self.keys.queue, 0, -1, withscores=True)
        return [(order, ticket.decode()) for ticket, order in waiting]

    def bots(self) -> dict[str, float]:
        """Return the finish tags."""
        tags: Any = self._client.zrange(self.keys.bots, 0, -1, withscores=True)
        return {bot.decode(): tag for bot, tag in tags}


def _unpack(reply: bytes) -> tuple[int, int, int]:
    code, number, now = struct.unpack("<3q", reply)
    return code, number, now
