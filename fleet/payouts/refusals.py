"""What is said when a payout does not go on: what was expected, what came, what to do."""

from __future__ import annotations

from fleet.errors import FleetError


class PayoutRefused(FleetError):
    """A payout is not prepared, signed or sent as things stand; nothing was paid by this step."""


class CallReverted(PayoutRefused):
    """A contract would end a call that it was asked about: its own word, of no other call."""


class NodeAway(FleetError):
    """A node gave no answer that can be used: whatever was asked of it may have happened all the same."""
