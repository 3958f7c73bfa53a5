"""`fleet demo`: the whole system on this machine, from nothing to answers and back to nothing.

It lives in a state folder of its own (`demo` below the usual one) with its own configuration, so that it can never
touch real work. The stack runs in the background, exactly as `fleet up -d` starts it.
"""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.demo.tasks import DEMO_TOML, demo_tasks
from fleet.cli.shadow import refuse_shadow
from fleet.cli.stack.background import Background, StackFailed
from fleet.cli.stack.local_services import stop_local_services
from fleet.cli.stack.stack_file import Stack, hold_lock
from fleet.cli.stop_signals import StopSignals
from fleet.cli.terminal import say
from fleet.models import BotTask

if TYPE_CHECKING:
    from fleet.cli.demo.board import Board

#: Seconds between two looks at Redis while the demo runs.
REFRESH_S = 0.2
#: Seconds between two lines of progress when the output is no terminal.
LINE_EVERY_S = 2.0
#: Seconds without a single result after which the demo gives up.
STALLED_S = 60.0
#: Width of the exported picture in columns.
SVG_COLUMNS = 110


@click.command()
@click.option("--tasks", "count", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Tasks.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides tasks, latencies and errors.")
@click.option("--keep", is_flag=True, help="Leave everything up at the end.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the last screen as a picture.")
def demo(count: int, seed: int, keep: bool, svg: Path | None) -> None:
    """Run 100 bots over 500 tasks against the simulator, on this machine.

    Starts a private Redis, the simulator, two workers and Flower; shows the run; prints the answers' summary and the
    three signals; stops everything. So does Ctrl-C at any moment. Exit code 0: every task has a result.

    \b
    Examples:
      fleet demo
      fleet demo --tasks 2000 --keep
    """
    refuse_shadow()
    home = config.home_path() / "demo"
    with StopSignals() as signals, _stack(home, seed, signals, keep=keep) as (background, stack):
        _perform(demo_tasks(count, seed=seed), background, stack, signals, svg)
        if keep:
            say(f"left up; `fleet --home {home} --config {home / config.CONFIG_NAME} stats` looks at it")
            say(f"`fleet --home {home} down` stops it")


@contextmanager
def _stack(home: Path, seed: int, signals: StopSignals, *, keep: bool) -> Iterator[tuple[Background, Stack]]:
    """Start the stack in a state of its own; stop it at the end, unless all went well and it is to be kept."""
    hold_lock(home).close()  # refuses a second demo before anything of the first is touched
    _prepare(home, seed)
    say("starting Redis, the simulator, two workers and Flower; Ctrl-C stops everything")
    background = Background(home)
    well = False
    try:
        yield background, background.wait_ready(lambda: signals.asked)
        well = True
    finally:
        if not (keep and well):
            say("stopping everything")
            background.stop(lambda: signals.asked)  # the tasks of a demo need no grace


def _prepare(home: Path, seed: int) -> None:
    """Make `home` the state folder of this process and its children: empty Redis, own settings, no others."""
    stop_local_services(home)
    shutil.rmtree(home / "redis", ignore_errors=True)
    file = home / config.CONFIG_NAME
    file.write_text(DEMO_TOML.format(seed=seed), encoding="utf-8")
    for name in [name for name in os.environ if name.startswith("FLEET_")]:
        del os.environ[name]
    os.environ |= {"FLEET_HOME": str(home), "FLEET_CONFIG": str(file)}
    config.current.cache_clear()


def _perform(
    tasks: Iterable[BotTask], background: Background, stack: Stack, signals: StopSignals, svg: Path | None
) -> None:
    """Submit, show the run until every task has a result, print what came of it."""
    from rich.console import Console

    from fleet.cli.demo.board import Board

    with closing(Board(config.current(), stack)) as board:
        board.submit(tasks)
        _show(board, lambda: _go_on(board, background, signals))
        board.settle()
        console = Console()
        console.print(board.outcome(console.width))
        if svg is not None:
            _export(board, svg)


def _show(board: Board, go_on: Callable[[], bool]) -> None:
    """Show the progress until all is done: a live view on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        _show_lines(board, go_on)
        return
    with Live(console=console, auto_refresh=False) as live:
        while go_on():
            board.refresh()
            live.update(board.frame(console.width), refresh=True)
            time.sleep(REFRESH_S)


def _show_lines(board: Board, go_on: Callable[[], bool]) -> None:
    due_s = 0.0
    while go_on():
        board.refresh()
        if time.monotonic() >= due_s or not board.score.pending:
            due_s = time.monotonic() + LINE_EVERY_S
            say(board.line())
        time.sleep(REFRESH_S)


def _go_on(board: Board, background: Background, signals: StopSignals) -> bool:
    """True while tasks are pending.

    Raises:
        KeyboardInterrupt: When a stop was asked for.
        StackFailed: When the supervisor is gone, or nothing has come back for `STALLED_S`.
    """
    if signals.asked:
        raise KeyboardInterrupt
    if not background.running:
        raise StackFailed(f"the stack ended before the tasks did; see {background.log}")
    if board.silent_s > STALLED_S:
        raise StackFailed(
            f"no result for {STALLED_S:g} s, {len(board.score.pending)} tasks are pending; see {background.log.parent}"
        )
    return bool(board.score.pending)


def _export(board: Board, file: Path) -> None:
    from rich.console import Console, Group

    console = Console(record=True, width=SVG_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Group(board.frame(SVG_COLUMNS), board.outcome(SVG_COLUMNS)))
    console.save_svg(str(file), title="fleet demo")
    say(f"wrote {file}")
