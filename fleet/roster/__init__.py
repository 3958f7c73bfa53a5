"""The roster: which bots exist, how much each carries, and which one takes the next task.

Bots are data in Redis. A quarantined bot takes no new task. Personas are in `workers/persona.py`.
"""

from fleet.roster.quarantine import Quarantine, quarantine, read_quarantined, release
from fleet.roster.roster import LEASE_S, LOAD_UNIT, Checkout, Roster

__all__ = [
    "LEASE_S", "LOAD_UNIT", "Checkout", "Quarantine", "Roster", "quarantine", "read_quarantined", "release",
]  # fmt: skip
