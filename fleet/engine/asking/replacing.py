"""Another bot for a member that has failed: from the spare seats of an ask, which no other member can take.

A member is tried again by other bots of its seat, as any task is. When it has failed for good, a bot of a spare seat is
asked in its place, unless the failure would be any bot's: of the question, its bounds, the configuration. So
it is when all bots of its seat are in quarantine, and it would wait for them: in a small pool a seat has one bot.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from fleet.asking import Seat
from fleet.config import Settings
from fleet.engine.asking.question import AskTerms, Member, expected_source, seats_of
from fleet.engine.outcomes.dead_letters import CAUSES, Cause
from fleet.models import BotResult, BotTask, bot_name
from fleet.store import keys
from fleet.store.client import Store

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
        stuck: Those of them that had no result: all bots of their seat are in quarantine.
    """

    def __init__(self, question: AskTerms, pools: Sequence[str], settings: Settings) -> None:
        self._settings = settings
        self._ask = question.ask_id
        self._spare = {
            pool: [Seat(self._ask, number, seats.total) for number in range(seats.total, seats.expected, -1)]
            for pool, seats in seats_of(question, pools, settings).items()
        }
        self.count = self.stuck = 0

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
        return self._another(task)

    async def instead_of_stuck(self, waiting: Mapping[int, BotTask], state: Store) -> dict[int, Member]:
        """Return who is asked in the place of members whose bots are all in quarantine, by place. A round trip a pool.

        Args:
            waiting: The members without a result, by place.
            state: Where it stands who is out.

        Raises:
            FleetError: When Redis does not answer.
        """
        found: dict[int, Member] = {}
        for pool in dict.fromkeys(str(task.pool) for task in waiting.values()) if any(self._spare.values()) else ():
            out = {name.decode() for name in await state.command("ZRANGE", keys.quarantined(pool), 0, -1)}
            mine = [(place, task) for place, task in waiting.items() if out and task.pool == pool and task.seat]
            for place, task in mine:
                if self._is_out(Seat.read(str(task.seat)), pool, out) and (other := self._another(task, out)):
                    found[place] = other
                    self.stuck += 1
        return found

    def _is_out(self, seat: Seat, pool: str, out: Collection[str]) -> bool:
        """True when all bots of a seat are out."""
        bots = self._settings.pools[pool].bots
        return all(bot_name(pool, one) in out for one in seat.bots(bots, most=bots, draw=random.Random()))

    def _another(self, task: BotTask, out: Collection[str] = ()) -> Member | None:
        """Take a spare seat for a member; not one whose bots are `out`, of its own pool."""
        for pool in dict.fromkeys((str(task.pool), *self._spare)):  # one of the same pool, if it has one
            seats = self._spare.get(pool, [])
            free = [seat for seat in seats if pool != task.pool or not (out and self._is_out(seat, pool, out))]
            if free:
                self.count += 1
                seats.remove(free[-1])
                other = task.model_copy(update={"pool": pool, "seat": str(free[-1])})
                return Member(other, expected_source(pool, self._settings))
        return None
