"""What bots that were asked the same made of it, and what follows for the task and for each of them. Pure.

Who asks them: `opinions.py`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from fleet.engine.answers.deeds import deed_of, lesson_of
from fleet.engine.outcomes.completion import BotShare
from fleet.models import Bot
from fleet.money import PICOS_PER_MICRO
from fleet.outcome import Outcome, Parking
from fleet.roster import Checkout, Deed
from fleet.signals.windows import Share
from fleet.usage import Usage


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one bot made of a task; `is_tried`: under what a rollout tries, for which no bot answers."""

    checkout: Checkout
    bot: Bot
    outcome: Outcome
    is_tried: bool = False


@dataclass(frozen=True, slots=True)
class Opinions:
    """What all bots that were asked made of a task, in order.

    Args:
        given: What they made of it.
        stopped: What came of bots that were quarantined meanwhile, or under what a rollout tries: nothing but what they
            have used.
        most: How many were to be asked at most. When one, it is judged without a second opinion.
        is_revoked: The task was revoked meanwhile: nobody wants its outcome, only what it has used.
        parking: The task waits, and there is no outcome: nobody has given an answer yet.
        asked: The checkouts of all that were asked.
    """

    given: tuple[Opinion, ...]
    stopped: tuple[Opinion, ...]
    most: int
    is_revoked: bool = False
    parking: Parking | None = None
    asked: tuple[Checkout, ...] = ()

    @property
    def chosen(self) -> Opinion:
        """The last one with an answer; without any the last one at fault, for that is why others were asked."""
        if len(self.given) == 1:
            return self.given[0]
        with_answer = [one for one in self.given if one.outcome.answer is not None]
        at_fault = [one for one in self.given if one.outcome.fault is not None]
        return (with_answer or at_fault or self.given)[-1]

    @property
    def agree(self) -> bool:
        """True when several bots were asked, and none did well: the prompt is to blame."""
        return len(self.given) > 1 and all(one.outcome.fault is not None for one in self.given)

    def outcome(self) -> Outcome:
        """Return the task's outcome: the chosen one, with what all that were asked have used."""
        if len(self.given) == 1 and not self.stopped:
            return self.given[0].outcome
        chosen = self.chosen.outcome
        outcomes = [one.outcome for one in (*self.given, *self.stopped)]
        if chosen.error is not None and self.agree:
            chosen.error.blame = "prompt"
        costs = [one.cost_usd_picos for one in outcomes if one.cost_usd_picos is not None]
        return replace(
            chosen,
            usage=sum((one.usage for one in outcomes), Usage()),
            cost_usd_picos=sum(costs) if costs else None,
            attempts=sum(one.attempts for one in outcomes),
            provider_errors=dict(sum((Counter(one.provider_errors) for one in outcomes), Counter[str]())),
            limited_ms=sum(one.limited_ms for one in outcomes),
            ran_ms=sum(one.ran_ms for one in outcomes),
        )

    def other_checkouts(self) -> list[Checkout]:
        """Return the checkouts of all that were asked, but that of the one whose outcome is the task's."""
        return [one.checkout for one in self._others() if one.checkout is not self.chosen.checkout]

    def parts(self) -> list[BotShare]:
        """Return what the bots whose answer was not taken have used, and what went wrong."""
        return [
            BotShare(
                Share(
                    one.bot.name,
                    sum(one.outcome.provider_errors.values()),
                    (one.outcome.cost_usd_picos or 0) / PICOS_PER_MICRO,
                    one.outcome.usage.total_tokens,
                    one.outcome.limited_ms + one.outcome.ran_ms,
                ),
                one.outcome.provider_errors,
                max(one.outcome.bad_answers, int(one.outcome.fault is not None)),
            )
            for one in self._others()
        ]

    def _others(self) -> list[Opinion]:
        if len(self.given) == 1 and not self.stopped:
            return []
        chosen = self.chosen
        return [one for one in (*self.given, *self.stopped) if one is not chosen]

    def deeds(self) -> tuple[Deed, ...]:
        """Return what counts for or against each bot: nothing against any while nobody has done better.

        An answer that was too short and stands all the same teaches what is usual.
        """
        last = self.given[-1].outcome
        if self.is_revoked:
            return ()
        if last.fault is not None and self.most > 1:
            chosen = self.chosen
            return () if chosen.outcome.answer is None else (lesson_of(chosen.bot.name, chosen.outcome),)
        is_settled = self.most == 1 or last.answer is not None
        found = [deed_of(one.bot.name, one.outcome) for one in self.given if not one.is_tried]
        return tuple([deed for deed in found if deed is not None and (is_settled or deed.fault is None)])
