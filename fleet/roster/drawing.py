"""Which bots may take a task that wants one of some kind: a few of them, drawn at random. Pure.

The least loaded of a few random ones is nearly the least loaded of all (Mitzenmacher, "The Power of Two Choices in
Randomized Load Balancing", 2001), and nobody walks through bots that do not fit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fleet.asking import Seat
from fleet.config import PoolSettings
from fleet.models import Bot, BotTask, bot_name

#: Bots among which the least loaded is taken (count), and how many are looked at for them.
AMONG, LOOKED_AT = 16, 64


@dataclass(frozen=True, slots=True)
class WantedBot:
    """What the bot of a task must be like.

    Args:
        least_window_tokens: Its context window has at least so many.
        models: Those whose bots come first; empty: all alike.
        seat: Of whose bots it is one, when its task is a member of an ask.
    """

    least_window_tokens: int
    models: frozenset[str] = frozenset()
    seat: str | None = None


def seated(task: BotTask, wanted: WantedBot | None) -> WantedBot | None:
    """Return what the bot of a task must be like beside `wanted`: one of its seat's, if it has one."""
    if task.seat is None:
        return wanted
    return replace(wanted or WantedBot(0), seat=task.seat)


def fitting_windows(windows: Sequence[int], wanted: WantedBot) -> list[int]:
    """Return the places of a pool's windows, from 0, that are large enough."""
    return [place for place, window in enumerate(windows) if window >= wanted.least_window_tokens]


def drawn(
    pool: str, settings: PoolSettings, wanted: WantedBot, *, bot_of: Callable[[str], Bot], draw: random.Random
) -> list[str]:
    """Return the names of at most `AMONG` bots that may take a task; none when none fits.

    Args:
        pool: Its name.
        settings: Of the pool: how many bots, and the windows that go round among them.
        wanted: What they must be like.
        bot_of: Makes a bot by its name: a remedy may have given it another window.
        draw: Fresh chance.
    """
    windows = settings.persona.context_windows_tokens
    places = fitting_windows(windows, wanted)
    if wanted.seat is not None:
        numbers = Seat.read(wanted.seat).bots(settings.bots, most=LOOKED_AT, draw=draw)
    elif settings.bots <= LOOKED_AT:
        numbers = draw.sample(range(1, settings.bots + 1), settings.bots)
    elif places:
        rounds = -(-settings.bots // len(windows))
        tries = (draw.choice(places) + 1 + draw.randrange(rounds) * len(windows) for _ in range(LOOKED_AT))
        numbers = list(dict.fromkeys(number for number in tries if number <= settings.bots))
    else:
        return []
    bots = [bot_of(bot_name(pool, number)) for number in numbers]
    fit = [bot for bot in bots if bot.persona.context_window_tokens >= wanted.least_window_tokens]
    first = [bot for bot in fit if bot.persona.model in wanted.models] if wanted.models else []
    return [bot.name for bot in (first or fit)[:AMONG]]
