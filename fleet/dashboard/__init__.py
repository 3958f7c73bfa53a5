"""Flower as Fleet's dashboard: a password by default, a loopback address, and who answers on every page.

Public: `install`, which `fleet/door.py` calls in a process that is about to run Flower, and the password's place.
"""

from __future__ import annotations

from pathlib import Path

from fleet.config import Settings
from fleet.dashboard.password import PASSWORD_FILE, password

__all__ = ["PASSWORD_FILE", "install", "password"]


def install(settings: Settings, home: Path) -> None:
    """Lay Fleet's defaults and badge over Flower in this process; imports Flower only now (0.3 s)."""
    from fleet.dashboard import flower

    flower.install(settings, home)
