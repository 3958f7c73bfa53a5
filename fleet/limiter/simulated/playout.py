"""A list of tasks played through a limit and so many slots, in simulated time: how long, who waits, what is used."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.config import LimitSettings
from fleet.grants import Tokens
from fleet.limiter.limits import BY_MONEY, BY_REQUESTS, DAY_US, Terms
from fleet.limiter.simulated.forecast import START_US
from fleet.limiter.simulated.model import ASK_AGAIN, SEND, LimitModel
from fleet.limiter.simulated.question import Answer, Question

#: Longest wait for a turn (us): what is further away is a used-up day.
_PATIENCE_US = DAY_US / 2
#: Everything begins at midnight: a whole day's money is there.
_MIDNIGHT_US = START_US - START_US % DAY_US


@dataclass(frozen=True, slots=True)
class PlayedTask:
    """One task: when it comes, what it may use, and what it will.

    Args:
        at_s: When it comes.
        kind: Its kind.
        input_tokens: Its input.
        most_tokens: Its longest answer.
        output_tokens: The answer that it will get.
        latency_s: Time to that.
        most_usd_micros: The most that it may cost.
        usd_micros: What it will cost.
    """

    at_s: float
    kind: str
    input_tokens: int
    most_tokens: int
    output_tokens: int
    latency_s: float
    most_usd_micros: float = 0.0
    usd_micros: float = 0.0

    @property
    def used(self) -> Tokens:
        """What it will use."""
        return Tokens(self.input_tokens + self.output_tokens, self.input_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class Playout:
    """What came out.

    Args:
        seconds: From the first task that came to the last answer.
        done: Tasks that were answered.
        tokens: What they used.
        busy_s: Seconds of slots with a call under way.
        waits_s: Sorted waits from a task's coming to its call.
        stopped: What of the day was used up before the last task; empty: nothing.
        questions: Questions to Redis.
    """

    seconds: float
    done: int
    tokens: int
    busy_s: float
    waits_s: tuple[float, ...]
    stopped: str
    questions: int


def play(settings: LimitSettings, jobs: Sequence[PlayedTask], *, slots: int, seed: int = 0) -> Playout:
    """Play tasks through a limit.

    Each slot takes the task that came first, waits for its turn, calls, and takes the next one. When the day's money or
    requests are used up, it ends there. Weakness: no call fails.

    Args:
        settings: The limit.
        jobs: The tasks in the order in which they come.
        slots: Tasks at work at the same time.
        seed: Decides jitter.
    """
    return _Playing(settings, jobs, slots=slots, seed=seed).run()


@dataclass(slots=True)
class _AtWork:
    """A slot with a task: at its question, or at its answer."""

    slot: int
    job: PlayedTask | None = None
    question: Question | None = None
    granted: Answer | None = None


class _Playing:
    def __init__(self, settings: LimitSettings, jobs: Sequence[PlayedTask], *, slots: int, seed: int) -> None:
        self._model = LimitModel(Terms.of(settings))
        self._charge = 1000.0 if settings.charge == "call" else 0.0
        self._jobs, self._slots = jobs, slots
        self._next = self._number = self._questions = self._tokens = 0
        self._draw = random.Random(seed)
        self._events: list[tuple[int, int, _AtWork]] = []
        #: Waiting calls by slot: the event that lets them ask again.
        self._waiting: dict[int, tuple[int, int, _AtWork]] = {}
        self._waits_s: list[float] = []
        self._busy_s, self._last_us, self._asked_at, self._stopped = 0.0, _MIDNIGHT_US, _MIDNIGHT_US, ""

    def run(self) -> Playout:
        for slot in range(min(self._slots, len(self._jobs))):
            self._plan(_MIDNIGHT_US, _AtWork(slot))
        while self._events:
            event = heapq.heappop(self._events)
            now, _, turn = event
            if turn.granted is not None:
                self._end(now, turn)
            elif turn.question is None:
                self._take(now, turn)
            elif self._waiting.get(turn.slot) is event:  # else it was nudged before
                del self._waiting[turn.slot]
                self._ask(now, turn)
        began_us = _us(self._jobs[0].at_s) if self._jobs else 0
        return Playout(
            seconds=max(0, self._last_us - _MIDNIGHT_US - began_us) / 1e6, done=len(self._waits_s),
            tokens=self._tokens, busy_s=self._busy_s, waits_s=tuple(sorted(self._waits_s)), stopped=self._stopped,
            questions=self._questions,
        )  # fmt: skip

    def _plan(self, at: int, turn: _AtWork) -> None:
        self._number += 1
        event = (at, self._number, turn)
        if turn.question is not None and turn.granted is None:
            self._waiting[turn.slot] = event
        heapq.heappush(self._events, event)

    def _take(self, now: int, turn: _AtWork) -> None:
        """Let a free slot take the task that came first, or wait for it."""
        if self._stopped or self._next >= len(self._jobs):
            return
        job = self._jobs[self._next]
        if (comes := _MIDNIGHT_US + _us(job.at_s)) > now:
            self._plan(comes, turn)
            return
        self._next += 1
        question = Question(
            ticket=f"{self._next:012d}", bot=str(turn.slot), kind=job.kind, charge=self._charge,
            tokens=job.input_tokens + job.most_tokens, input_tokens=job.input_tokens, output_tokens=job.most_tokens,
            money=round(job.most_usd_micros), max_wait_us=_PATIENCE_US, patience_us=_PATIENCE_US,
        )  # fmt: skip
        self._ask(now, _AtWork(turn.slot, job, question))

    def _ask(self, now: int, turn: _AtWork) -> None:
        question, job = turn.question, turn.job
        if question is None or job is None or self._stopped:
            return
        self._questions += 1
        answer = self._model.ask(replace(question, random=self._draw.random()), now)
        if answer.code == ASK_AGAIN:
            self._plan(now + answer.wait_us, _AtWork(turn.slot, job, replace(question, order=answer.order)))
        elif answer.code == SEND:
            sent = now + answer.wait_us
            self._waits_s.append((sent - _MIDNIGHT_US) / 1e6 - job.at_s)
            self._busy_s += job.latency_s
            self._plan(sent + _us(job.latency_s), _AtWork(turn.slot, job, question, answer))
            self._nudge(now, answer)
        elif answer.cause in (BY_MONEY, BY_REQUESTS) and answer.wait_us >= _PATIENCE_US / 2:
            self._stopped = "the day's money" if answer.cause == BY_MONEY else "the day's requests"
        else:  # what calls in flight have reserved may come back
            self._plan(now + answer.wait_us, turn)

    def _end(self, now: int, turn: _AtWork) -> None:
        """Settle a call, and let its slot take the next task."""
        job, question, answer = turn.job, turn.question, turn.granted
        if job is None or question is None or answer is None:
            return
        used = job.used
        self._model.settle(
            question.ticket, sent=True, charged=answer.charged, used=used, now=now, reserved_money=answer.cost,
            money=job.usd_micros, since_slot_us=job.latency_s * 1e6,
        )  # fmt: skip
        if question.tokens and used.total != question.tokens:
            output = used.output / question.output_tokens if question.output_tokens else 1.0
            money = (job.usd_micros / question.money,) if question.money else ()
            self._model.learn(question.kind, (used.total / question.tokens, output, *money))
        self._tokens += used.total
        self._last_us = max(self._last_us, now)
        self._take(now, _AtWork(turn.slot))

    def _nudge(self, now: int, answer: Answer) -> None:
        """Let those who are next ask when slots go unused or nobody has asked for long, as `sleepers.py` does."""
        count = answer.idle or int(now - self._asked_at >= answer.quiet_us)
        self._asked_at = now
        for _ in range(min(count, len(self._waiting))):
            slot = min(self._waiting, key=lambda one: self._order(one))
            self._plan(now + 1, self._waiting[slot][2])

    def _order(self, slot: int) -> float:
        question = self._waiting[slot][2].question
        return question.order if question is not None else 0.0


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
