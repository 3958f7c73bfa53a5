"""The calls of a process that are under way, and which of them hang: no answer for far longer than is usual. Pure.

What is usual is learnt from the answers of each API, by task class, so a model that thinks for minutes is given them.
What follows from it is others': operators are told, the breaker may open, slots of calls that hang are lent.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from fleet.workers.silence.answer_times import LEAST_S, TIMES, AnswerTimes

#: The same seconds for a probe beyond the calls at the same time that a limit allows: the next one waits for its place.
BRIEF_S = 2.0
#: Answers from which it is known what is usual for a task class: a breaker opens by nothing less (count).
FEWEST_ANSWERS = 10
#: Seconds from which calls of a class hang of which no answer is known here: nobody knows what is usual there, and a
#: slot that is lent for nothing costs little.
UNKNOWN_S = 20.0
#: It is in doubt whether an API answers once it is less likely than this that all calls which left since the one that
#: was answered last are only slow; and the first of them is without an answer for so many seconds at least. Younger
#: ones than the last number (s) say nothing. Nobody sends into a silence.
UNLIKELY, DOUBTED_S, YOUNG_S = 1e-5, 0.3, 0.1
#: Seconds between two looks whether it is so, in health: each goes over calls that are under way.
LOOK_EVERY_S = 0.05
#: Task classes whose times are known for an API, the newest (count).
MOST_KINDS = 200


class OneCall(Protocol):
    """A call that is under way: whose it is. Hashable."""

    @property
    def pool(self) -> str:
        """Its pool."""
        ...

    @property
    def who(self) -> str:
        """Its task."""
        ...

    @property
    def kind(self) -> str:
        """Its task class."""
        ...


class Hanging(NamedTuple):
    """Tasks of a pool whose calls hang.

    Args:
        tasks: How many.
        silent: Limits of these calls under which nothing is answered, not even calls that were sent later.
        outlasted: How many of them are of a silence that has ended: nothing that is sent now need hang for it.
    """

    tasks: int
    silent: frozenset[str]
    outlasted: int = 0


class _Api:
    """What is known of a limit: calls under way and when they left, when it answered last, when an answer last ended a
    silence, when the latest of those left that were answered, what is usual for each task class; since when it is in
    doubt whether it answers, and when to look at that again; the calls that were told to hang while later ones do not.
    """

    __slots__ = ("answered_at", "doubted_since", "heard_at", "heard_from", "look_at", "outlasted", "sent", "usual")

    def __init__(self) -> None:
        self.sent: dict[OneCall, float] = {}
        self.answered_at = self.heard_at = self.heard_from = self.look_at = -math.inf
        self.doubted_since: float | None = None
        self.outlasted = set[OneCall]()
        self.usual: dict[str, AnswerTimes] = {}

    def of_class(self, kind: str) -> AnswerTimes:
        if len(self.usual) >= MOST_KINDS:
            del self.usual[next(iter(self.usual))]
        self.usual[kind] = usual = AnswerTimes()
        return usual

    def unlikely_since(self, now: float) -> float | None:
        """Return when the first of the calls left that are hardly only slow, all of them; None: they may well be.

        It is a sequential test (Wald): each call adds the logarithm of the chance that it takes so long. Where the API
        is well, fewer than one look in 100,000 finds it silent, however times are spread, as long as the time of one
        call says nothing of the next one's.
        """
        first, chance, found = now, 1.0, dict[str, int]()
        for call, sent_at in self.sent.items():  # in the order in which they left
            age_s = now - sent_at
            if age_s < (YOUNG_S if found else DOUBTED_S):
                break
            if sent_at <= self.heard_from or (usual := self.usual.get(call.kind)) is None:
                continue
            found[call.kind] = nth = found.get(call.kind, 0) + 1
            first, chance = min(first, sent_at), chance * usual.chance(age_s, nth)
            if chance < UNLIKELY:
                return first
        return None

    def bound_s(self, call: OneCall) -> float:
        usual = self.usual.get(call.kind)
        return UNKNOWN_S if usual is None else usual.bound_s


class UnderWay:
    """The calls of a process that are under way: which API has not answered for far longer than usual.

    A breaker learns of a provider that answers nothing when calls time out; operators hear of it from here, long
    before. Belongs to one event loop; times are its clock's seconds.

    Weakness: pieces of a streamed answer are none. An API that streams for longer than three times its slowest whole
    answer, while it ends no other call, is taken for silent. So is a task class that was quick and now takes minutes.
    """

    def __init__(self) -> None:
        self._apis: dict[str, _Api] = {}

    def sent(self, limit: str, call: OneCall, now: float) -> None:
        """Note that a call under a limit leaves."""
        api = self._apis.get(limit)
        if api is None:
            api = self._apis[limit] = _Api()
        api.sent[call] = now

    def ended(self, limit: str, call: OneCall, now: float, *, is_answered: bool, is_refused: bool = False) -> None:
        """Note its end, once or more.

        Args:
            limit: `provider/model/key`.
            call: As it was sent.
            now: When.
            is_answered: An answer of any kind says that the API lives.
            is_refused: It is a refusal or an error: that takes no model's time, and tells nothing of what is usual.
        """
        api = self._apis[limit]
        started = api.sent.pop(call, None)
        api.outlasted.discard(call)
        if not is_answered:
            return
        api.heard_from = max(api.heard_from, -math.inf if started is None else started)
        if api.doubted_since is not None:
            api.look_at = now
        if now - api.answered_at >= LEAST_S:
            api.heard_at = now
        api.answered_at = now
        if started is not None and not is_refused:
            usual = api.usual.get(call.kind) or api.of_class(call.kind)
            usual.learn(now - started, in_doubt=api.doubted_since is not None)

    def outlasted(self, limit: str, now: float) -> list[OneCall]:
        """Return the calls that hang while one that left later was answered, each once.

        Nobody works on them any more, it seems. Nothing ends them but their time-outs: an answer may come all the same.
        """
        api = self._apis[limit]
        found = []
        for call, sent_at in api.sent.items():  # in the order in which they left
            if sent_at >= api.heard_from or now - sent_at < api.bound_s(call):
                break
            if call not in api.outlasted:
                api.outlasted.add(call)
                found.append(call)
        return found

    def brief_s(self, limit: str, kind: str) -> float:
        """Return the seconds for which a call that has no place of its own may go without an answer."""
        usual = self._apis[limit].usual.get(kind)
        return LEAST_S if usual is None else max(BRIEF_S, TIMES * usual.slowest_s)

    def doubted_s(self, limit: str, now: float) -> float:
        """Return for how many seconds it is in doubt whether an API answers; 0: it is not.

        Far sooner than a silence is told, and with less proof: who asks only sends less until the first answer. It ends
        with an answer to a call that left after those which are late, or to enough of these.
        """
        api = self._apis.get(limit)
        if api is None:
            return 0.0
        if now >= api.look_at:
            api.doubted_since, api.look_at = api.unlikely_since(now), now + LOOK_EVERY_S
        return 0.0 if api.doubted_since is None else now - api.doubted_since

    def left_at(self, limit: str) -> float:
        """Return when the last of the calls left that are under way."""
        return next(reversed(self._apis[limit].sent.values()), -math.inf)

    def believe(self, limit: str, now: float) -> None:
        """Note that others hear from an API: what is under way here proves nothing."""
        api = self._apis[limit]
        api.heard_from, api.doubted_since, api.look_at = now, None, now + LOOK_EVERY_S

    def unanswered(self, now: float) -> dict[str, tuple[int, float]]:
        """Return limits under which nothing is answered, and calls take far longer than usual: calls, and seconds.

        The seconds are those since the last answer, or since the oldest call left if that is later. Where this process
        has had no answer yet to any of their task classes, nothing is told: nobody knows what is usual there.
        """
        found = {}
        for limit, api in self._apis.items():
            kinds = {call.kind for call in api.sent}
            known = [usual.bound_s for kind in kinds if (usual := api.usual.get(kind)) is not None]
            if known:
                silent_s = now - max(next(iter(api.sent.values())), api.answered_at)
                if silent_s >= max(known):
                    found[limit] = (len(api.sent), round(silent_s, 1))
        return found

    def silent(self, now: float, *, at_least_s: float) -> dict[str, tuple[int, float, float]]:
        """Return limits under which nothing is answered, by calls of which it is well known how long they take.

        Args:
            now: When.
            at_least_s: Seconds that each of these calls is without an answer, and the API silent.

        Returns:
            How many of its calls take far longer than is usual for their task class; seconds since the last answer, or
            since the oldest of them left if that is later; what the slowest of the last answers took in these classes.
        """
        found = {}
        for limit, api in self._apis.items():
            late = [
                (since, usual.slowest_s)
                for call, sent_at in api.sent.items()
                if (usual := api.usual.get(call.kind)) is not None
                and usual.answers >= FEWEST_ANSWERS
                and now - (since := max(sent_at, api.answered_at)) >= max(at_least_s, usual.bound_s)
            ]
            if late:
                found[limit] = len(late), now - late[0][0], max(slowest_s for _, slowest_s in late)
        return found

    def hanging(self, now: float) -> dict[str, Hanging]:
        """Return the tasks whose calls hang, by pool: those that take too long, and all under a limit that is silent.

        Nothing ends them but their time-outs, for an honest answer may still come: this only tells that their slots
        may be lent.
        """
        tasks: dict[str, set[str]] = {}
        silent: dict[str, set[str]] = {}
        outlasted: dict[str, set[str]] = {}
        for limit, api in self._apis.items():
            late = [call for call, sent_at in api.sent.items() if now - sent_at >= api.bound_s(call)]
            if not late:
                continue
            is_silent = any(now - max(api.sent[call], api.answered_at) >= api.bound_s(call) for call in late)
            for call in api.sent if is_silent else late:
                tasks.setdefault(call.pool, set()).add(call.who)
                if is_silent:
                    silent.setdefault(call.pool, set()).add(limit)
                if api.sent[call] < api.heard_at:
                    outlasted.setdefault(call.pool, set()).add(call.who)
        return {
            pool: Hanging(len(who), frozenset(silent.get(pool, ())), len(outlasted.get(pool, ())))
            for pool, who in tasks.items()
        }
