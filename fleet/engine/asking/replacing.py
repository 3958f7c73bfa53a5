"""Another bot for a member that has failed: from the spare seats of an ask, which no other member can take.

A member is tried again by other bots of its seat, as any task is. When it has failed for good, a bot of a spare seat is
asked in its place, unless the failure would be any bot's: of the question, its bounds, the configuration. So
it is when all bots of its seat are in quarantine, and it waits for them: in a small pool a seat has one bot.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

from fleet.asking import Seat
from fleet.config import Settings
from fleet.engine.asking.question import AskTerms, Member, expected_source, seats_of
from fleet.engine.messages.desk import Desk
from fleet.engine.outcomes.dead_letters import CAUSES, Cause
from fleet.models import BotResult, BotTask, bot_name
from fleet.roster import load_of
from fleet.store import keys

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
        stuck_count: Those of them that had no result: all bots of their seat are in quarantine.
    """

    def __init__(self, question: AskTerms, pools: Sequence[str], settings: Settings) -> None:
        self._settings = settings
        self._ask = question.ask_id
        self._spare = {
            pool: [Seat(self._ask, number, seats.total) for number in range(seats.total, seats.expected, -1)]
            for pool, seats in seats_of(question, pools, settings).items()
        }
        self.count = self.stuck_count = 0

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

    async def stuck(self, waiting: Mapping[int, tuple[BotTask, str]], desk: Desk) -> dict[int, set[str]]:
        """Return the members that wait for bots that are all in quarantine, by place, and which bots of its pool are.

        One at which its bot works is none: by `health.running` it ends, and is stopped and parked otherwise. Two round
        trips a pool, two more where a member may be stuck.

        Args:
            waiting: The members without a result, and their ids, by place.
            desk: Where it stands who is out, and what waits.

        Raises:
            FleetError: When Redis does not answer.
        """
        found: dict[int, set[str]] = {}
        for pool in dict.fromkeys(str(task.pool) for task, _ in waiting.values()) if any(self._spare.values()) else ():
            out = {name.decode() for name in await desk.state.command("ZRANGE", keys.quarantined(pool), 0, -1)}
            for place, (task, task_id) in waiting.items():
                if not (out and task.pool == pool and task.seat):
                    continue
                seat = Seat.read(str(task.seat))
                if self._is_out(seat, pool, out) and await self._waits(seat, pool, task_id, desk):
                    found[place] = out
        return found

    async def _waits(self, seat: Seat, pool: str, task_id: str, desk: Desk) -> bool:
        """True when nobody works on a member: it is parked, or its bots have no work and it has no result."""
        if await desk.is_parked(task_id):
            return True
        places = [await desk.state.command("ZSCORE", keys.bots(pool), one) for one in self._bots_of(seat, pool)]
        if any(place is not None and load_of(float(place)) for place in places):
            return False
        return not await desk.state.command(
            "EXISTS", keys.result(task_id)
        )  # asked last: a bot is free once it is there

    def instead_of_stuck(self, task: BotTask, out: Collection[str]) -> Member | None:
        """Return who is asked in the place of a member that is stuck; None: no spare seat is left.

        Args:
            task: The member's.
            out: Bots of its pool that are in quarantine.
        """
        other = self._another(task, out)
        self.stuck_count += other is not None
        return other

    def _is_out(self, seat: Seat, pool: str, out: Collection[str]) -> bool:
        """True when all bots of a seat are out."""
        return all(one in out for one in self._bots_of(seat, pool))

    def _bots_of(self, seat: Seat, pool: str) -> list[str]:
        bots = self._settings.pools[pool].bots
        return [bot_name(pool, one) for one in seat.bots(bots, most=bots, draw=random.Random())]

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
