"""What a limit will give: the limiter's own rules played through in simulated time, without sending anything."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from dataclasses import dataclass, replace

from fleet.config import LimitSettings
from fleet.limiter.limits import Terms
from fleet.limiter.simulated.model import ASK_AGAIN, SEND, LimitModel
from fleet.limiter.simulated.question import Answer, Question

#: Simulated time at which everything begins (us): any time that is not 0, for 0 means "never" in the state.
START_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """Who calls.

    Args:
        bots: Bots, each of which makes one call after the other.
        tokens: Smallest and largest reservation of a call; sizes between are equally likely.
        used_share: Share of its reservation that a call uses on average.
        latency_s: Time to an answer.
        critical: Bots whose calls are critical; the others' are normal.
    """

    bots: int
    tokens: tuple[int, int] = (200, 1200)
    used_share: float = 1.0
    latency_s: float = 1.0
    critical: int = 0


@dataclass(frozen=True, slots=True)
class Forecast:
    """What came out.

    Args:
        seconds: Simulated time.
        calls_by_second: Calls sent in each second.
        tokens: Tokens used.
        waits_s: Sorted waits of normal calls for their turn.
        critical_waits_s: Sorted waits of critical calls.
        fewest: Calls of the bot with the fewest.
        most: Calls of the bot with the most.
        questions: Questions to Redis.
    """

    seconds: float
    calls_by_second: tuple[int, ...]
    tokens: int
    waits_s: tuple[float, ...]
    critical_waits_s: tuple[float, ...]
    fewest: int
    most: int
    questions: int

    @property
    def calls(self) -> int:
        """Calls sent."""
        return sum(self.calls_by_second)


def forecast(settings: LimitSettings, load: Load, *, seconds: float, seed: int = 0) -> Forecast:
    """Play `load` against a limit for `seconds` of simulated time.

    Weakness: the provider answers every call after exactly `latency_s`, and nobody else uses the key.

    Args:
        settings: The limit.
        load: Who calls.
        seconds: Simulated time.
        seed: Decides sizes and jitter.
    """
    return _Play(settings, load, seconds=seconds, seed=seed).run()


class _Play:
    """One run: a heap of (time, what happens)."""

    def __init__(self, settings: LimitSettings, load: Load, *, seconds: float, seed: int) -> None:
        self._model = LimitModel(Terms.of(settings))
        self._charge = 1000.0 if settings.charge == "call" else 0.0
        self._load = load
        self._draw = random.Random(seed)
        self._end_us = START_US + round(seconds * 1e6)
        self._seconds = seconds
        self._events: list[tuple[int, int, int, Question | None, int]] = []
        self._number = self._questions = self._tokens = 0
        self._calls: Counter[int] = Counter()
        self._by_second: Counter[int] = Counter()
        self._waits: tuple[list[float], list[float]] = ([], [])
        #: Waiting calls by bot: the event that lets them ask again.
        self._waiting: dict[int, tuple[int, int, int, Question | None, int]] = {}
        self._asked_at = START_US

    def run(self) -> Forecast:
        for bot in range(self._load.bots):
            self._plan(START_US, bot, None, START_US)
        while self._events and self._events[0][0] < self._end_us:
            event = heapq.heappop(self._events)
            now, _, bot, question, since = event
            if question is None:
                self._ask(now, bot, self._next_call(bot), since)
            elif self._waiting.get(bot) is event:  # else it was nudged before
                del self._waiting[bot]
                self._ask(now, bot, question, since)
        counts = [self._calls[bot] for bot in range(self._load.bots)]
        return Forecast(
            seconds=self._seconds,
            calls_by_second=tuple(self._by_second[second] for second in range(int(self._seconds))),
            tokens=self._tokens,
            waits_s=tuple(sorted(self._waits[0])),
            critical_waits_s=tuple(sorted(self._waits[1])),
            fewest=min(counts),
            most=max(counts),
            questions=self._questions,
        )

    def _plan(self, at: int, bot: int, question: Question | None, since: int) -> None:
        self._number += 1
        event = (at, self._number, bot, question, since)
        if question is not None:
            self._waiting[bot] = event
        heapq.heappush(self._events, event)

    def _nudge(self, now: int, answer: Answer) -> None:
        """Let those who are next ask when slots go unused or nobody has asked for long, as `sleepers.py` does."""
        count = answer.idle or int(now - self._asked_at >= answer.quiet_us)
        self._asked_at = now
        for _ in range(min(count, len(self._waiting))):
            _, bot, question, since = min(
                (question.order, bot, question, since)
                for _, _, bot, question, since in self._waiting.values()
                if question
            )
            self._plan(now + 1, bot, question, since)

    def _next_call(self, bot: int) -> Question:
        tokens = self._draw.randint(*self._load.tokens)
        return Question(
            ticket=f"{self._number:012d}",
            bot=str(bot),
            priority=0 if bot < self._load.critical else 2,
            charge=self._charge,
            tokens=tokens,
            output_tokens=tokens,
        )

    def _ask(self, now: int, bot: int, question: Question, since: int) -> None:
        self._questions += 1
        answer = self._model.ask(replace(question, random=self._draw.random()), now)
        if answer.code == SEND:
            self._nudge(now, answer)
        if answer.code == ASK_AGAIN:
            self._plan(now + answer.wait_us, bot, replace(question, order=answer.order), since)
        elif answer.code == SEND:
            self._send(now + answer.wait_us, bot, question, answer.charged, since)

    def _send(self, at: int, bot: int, question: Question, charged: tuple[int, int, int], since: int) -> None:
        share = self._load.used_share
        used = round(question.tokens * (self._draw.uniform(2 * share - 1, 1) if share > 0.5 else share))
        if at < self._end_us:
            self._calls[bot] += 1
            self._by_second[(at - START_US) // 1_000_000] += 1
            self._tokens += used
            self._waits[question.priority == 0].append((at - since) / 1e6)
        done = at + round(self._load.latency_s * 1e6)
        # Settled ahead of time: the model keeps no order between limits, and a refund moves clocks only.
        self._model.settle(question.ticket, sent=True, charged=charged, used=(used, 0, used), now=at)
        if used != question.tokens and question.tokens:
            self._model.learn(question.kind, (used / question.tokens, used / question.tokens))
        self._plan(done, bot, None, done)
