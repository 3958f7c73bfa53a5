"""Bots of one process. What makes a bot what it is: `workers/bot/persona.py`."""

from __future__ import annotations

from collections.abc import Callable

from fleet.models import Bot


class Bots:
    """Bots of this process, each made once: it is the same until its remedy changes.

    Args:
        make: Makes a bot by its name.
    """

    def __init__(self, make: Callable[[str], Bot]) -> None:
        self._make = make
        self._made: dict[str, Bot] = {}

    def of(self, name: str) -> Bot:
        """Return the bot of that name."""
        bot = self._made.get(name)
        if bot is None:
            bot = self._made[name] = self._make(name)
        return bot

    def forget(self, names: set[str]) -> None:
        """Make these bots anew."""
        for name in names:
            self._made.pop(name, None)
