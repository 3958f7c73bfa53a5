"""What a validator needs to know of those of other processes, as a Protocol; `engine/answers/peers.py` fills it in."""

from __future__ import annotations

from typing import Protocol


class Peers(Protocol):
    """The other processes whose validators are asked about answers of one pool, and what this one leaves to them."""

    async def gave_verdict_at(self) -> float | None:
        """Return when one of theirs that is in no doubt gave its last verdict, Unix time (s); None: none is known.

        Never raises: while Redis does not answer, none is known.
        """
        ...

    def leave(self, seconds: float) -> None:
        """Take none of the pool's tasks for so long; 0: take them again. Never waits."""
        ...

    def make_room(self, tasks: int) -> None:
        """Take so many tasks beyond the slots: that many wait in them for a verdict. Never waits."""
        ...

    def lift(self) -> None:
        """End the hold of the pool that this process has put, if it is still there. Never waits."""
        ...


class Alone:
    """No other processes."""

    async def gave_verdict_at(self) -> float | None:
        """Return None."""
        return None

    def leave(self, seconds: float) -> None:
        """Leave the pool to nobody."""

    def make_room(self, tasks: int) -> None:
        """Take no more tasks."""

    def lift(self) -> None:
        """Lift nothing."""
