"""Another bot for a member that has failed: from the spare seats of an ask, which no other member can take.

A member is tried again by other bots of its seat, as any task is. When it has failed for good, a bot of a spare seat is
asked in its place, unless the failure would be any bot's: of the question, its bounds, the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet.asking import Seat
from fleet.config import Settings
from fleet.engine.asking.question import AskTerms, Member, expected_source, seats_of
from fleet.engine.outcomes.dead_letters import CAUSES, Cause
from fleet.models import BotResult, BotTask

#: Why a task can have died that another bot might not die of.
OTHERS_MAY: frozenset[Cause] = frozenset({"attempts", "deadline", "answer", "function", "circles", "tool", "bug"})


class Replacements:
    """The spare seats of one ask.

    Args:
        question: What is asked.
        pools: Where.
        settings: How many bots they have.

    Attributes:
        count: Members that were replaced.
    """

    def __init__(self, question: AskTerms, pools: Sequence[str], settings: Settings) -> None:
        self._settings = settings
        self._ask = question.ask_id
        self._spare = {
            pool: [Seat(self._ask, number, seats.total) for number in range(seats.total, seats.expected, -1)]
            for pool, seats in seats_of(question, pools, settings).items()
        }
        self.count = 0

    def instead_of(self, task: BotTask, result: BotResult) -> Member | None:
        """Return who is asked in the place of a member with this result; None: it has not failed, or nobody is.

        Args:
            task: The member's.
            result: What came of it.
        """
        if result.status != "failed" or result.error is None:
            return None
        if CAUSES.get(result.error.type, "bug") not in OTHERS_MAY:
            return None
        for pool in dict.fromkeys((str(task.pool), *self._spare)):  # one of the same pool, if it has one
            if seats := self._spare.get(pool):
                self.count += 1
                other = task.model_copy(update={"pool": pool, "seat": str(seats.pop())})
                return Member(other, expected_source(pool, self._settings))
        return None
