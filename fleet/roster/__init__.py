"""The roster: which bots exist, how much each carries, and which one takes the next task.

Bots are data in Redis. Health and quarantine are not here yet; personas are in `workers/persona.py`.
"""

from fleet.roster.roster import LEASE_S, LOAD_UNIT, Checkout, Roster

__all__ = ["LEASE_S", "LOAD_UNIT", "Checkout", "Roster"]
