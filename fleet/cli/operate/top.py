"""`fleet top`: the fleet live in a terminal, keys to sort and to pause. Reads what the Fleet tab reads.

A thread reads, so that a Redis that hangs leaves the keys alive and the figures marked as old.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.operate import spans
from fleet.cli.operator import operator_name
from fleet.errors import FleetError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fleet.signals.bot_table import BotColumn
    from fleet.signals.view import FleetView

#: Seconds between two readings.
EVERY_S = 1.0
#: Seconds between two looks at the keyboard: the longest time a key waits.
KEYS_S = 0.2
#: Orders of the bots, in the turn of the key `s`.
SORTS: tuple[BotColumn, ...] = ("evidence", "per_hour", "failed", "load", "mean_ms", "cost_usd_micros")


@dataclass
class Screen:
    """What is shown, and what keys have changed about it."""

    view: FleetView | None = None
    trouble: str | None = None
    read_at_s: float = 0.0
    said: str = ""
    window: str = "1h"
    sort: int = 0
    pool: int = 0
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@click.command()
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option(
    "--every",
    "every_s",
    type=FiniteRange(0.2, 60),
    default=EVERY_S,
    show_default=True,
    help="Seconds between frames.",
)
@spans.option
def top(once: bool, every_s: float, window: str | None) -> None:
    """Watch the fleet live in the terminal: signals, pools, bots, limits, events.

    \b
    Keys: q quits, s sorts the bots by the next column, w takes the next window (15 minutes, an hour, a day), up and
    down choose a pool, p pauses or resumes it.
    \b
    Examples:
      fleet top
      fleet top --window 24h
      fleet top --once | cat
    """
    from rich.console import Console

    from fleet.cli.operate.top_view import frame

    settings, console, screen = config.current(), Console(), Screen(window=window or "1h")
    if once or not (sys.stdin.isatty() and console.is_terminal):
        from fleet.engine.operations.overview import open_overview

        with open_overview(settings) as overview:
            screen.view = overview.read()
        drawn = frame(
            screen.view, width=console.width, height=console.height, sort=SORTS[0], pool=None, window=screen.window
        )
        console.print(drawn)
        return
    _live(settings, screen, every_s)


def _live(settings: config.Settings, screen: Screen, every_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    reader = threading.Thread(target=_read_for_ever, args=(settings, screen, every_s), daemon=True)
    reader.start()
    console = Console()
    with _raw_keys() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        while not screen.is_over:
            live.update(_drawn(screen, console.width, console.height), refresh=True)
            for key in _pressed(keyboard):
                _obey(key, screen, settings)


def _drawn(screen: Screen, width: int, height: int) -> RenderableType:
    from fleet.cli.operate.top_view import frame

    age_s = time.monotonic() - screen.read_at_s
    return frame(
        screen.view, width=width, height=height, sort=SORTS[screen.sort], pool=screen.pool, said=screen.said,
        trouble=screen.trouble, age_s=age_s if screen.view else None, window=screen.window,
    )  # fmt: skip


def _read_for_ever(settings: config.Settings, screen: Screen, every_s: float) -> None:
    from fleet.engine.operations.overview import open_overview

    while not screen.is_over:
        started_s = time.monotonic()
        try:
            with open_overview(settings) as overview:
                screen.view = overview.read()
            screen.read_at_s, screen.trouble = started_s, None
        except FleetError as error:
            screen.trouble = str(error)
        time.sleep(max(0.0, started_s + every_s - time.monotonic()))


def _obey(key: str, screen: Screen, settings: config.Settings) -> None:
    pools = list(settings.pools)
    if key in ("q", "\x03"):
        screen.is_over = True
    elif key == "s":
        screen.sort = (screen.sort + 1) % len(SORTS)
    elif key == "w":
        names = list(spans.WINDOWS)
        screen.window = names[(names.index(screen.window) + 1) % len(names)]
    elif key in ("\x1b[B", "j"):
        screen.pool = min(len(pools) - 1, screen.pool + 1)
    elif key in ("\x1b[A", "k"):
        screen.pool = max(0, screen.pool - 1)
    elif key == "p" and screen.view is not None:
        threading.Thread(target=_toggle, args=(pools[screen.pool], screen, settings), daemon=True).start()


def _toggle(pool: str, screen: Screen, settings: config.Settings) -> None:
    """Pause a pool that is open, resume one that is not."""
    from fleet.engine.admission.gates import CLOSED, read_gates
    from fleet.engine.operations.levers import pause_pool, resume_pool
    from fleet.store import keys
    from fleet.store.private.two_redis import two_redis

    try:
        with two_redis(settings) as clients:
            if read_gates(clients.broker, [keys.queue(pool)])[0].is_open:
                gate = pause_pool(clients.state, clients.broker, pool, lowest=CLOSED, for_s=None, by=operator_name())
                screen.said = f"{pool}: {gate}"
            else:
                resume_pool(clients.state, clients.broker, pool, by=operator_name())
                screen.said = f"{pool}: open"
    except FleetError as error:
        screen.said = str(error)


@contextlib.contextmanager
def _raw_keys() -> Iterator[int]:
    """Let keys come one by one and unseen; Ctrl-C included, so that the screen is always put back."""
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _pressed(keyboard: int) -> Iterator[str]:
    """Yield the keys of the next `KEYS_S`; an arrow is one key."""
    if not select.select([keyboard], [], [], KEYS_S)[0]:
        return
    text = os.read(keyboard, 64).decode(errors="replace")
    while text:
        size = 3 if text.startswith("\x1b[") else 1
        yield text[:size]
        text = text[size:]
