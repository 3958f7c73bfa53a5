"""The roster: which bots exist, how much each carries, and which one takes the next task.

Bots are data in Redis. A quarantined bot takes no new task. Personas are in `workers/bot/persona.py`.
"""

from fleet.roster.drawing import WantedBot, fitting_windows, seated
from fleet.roster.health import (
    ENOUGH,
    HEALTH,
    SUSPECTED,
    TESTS,
    Deed,
    Health,
    Skill,
    bot_health_of,
    read_probation,
    read_skills,
    row_of,
)
from fleet.roster.health_rows import HealthRows, health_rows_of, read_reasons
from fleet.roster.pool_bots import PoolBots, load_of, read_bots
from fleet.roster.quarantine import (
    LOAD_UNIT,
    Quarantine,
    quarantine,
    quarantine_all,
    read_quarantined,
    release,
    release_all,
)
from fleet.roster.roster import LEASE_S, Checkout, Roster

__all__ = [
    "ENOUGH",
    "HEALTH",
    "LEASE_S",
    "LOAD_UNIT",
    "SUSPECTED",
    "TESTS",
    "Checkout",
    "Deed",
    "Health",
    "HealthRows",
    "PoolBots",
    "Quarantine",
    "Roster",
    "Skill",
    "WantedBot",
    "bot_health_of",
    "fitting_windows",
    "health_rows_of",
    "load_of",
    "quarantine",
    "quarantine_all",
    "read_bots",
    "read_probation",
    "read_quarantined",
    "read_reasons",
    "read_skills",
    "release",
    "release_all",
    "row_of",
    "seated",
]  # fmt: skip
