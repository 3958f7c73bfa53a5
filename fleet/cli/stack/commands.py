"""`fleet up` and `fleet down`: the stack for real work, in the foreground or in the background."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from fleet.cli.shadow import refuse_shadow
from fleet.cli.stack.background import Background, orphans, stop_stack
from fleet.cli.stack.bystanders import tell
from fleet.cli.stack.foreground import ForegroundStack
from fleet.cli.stack.local_services import stop_local_services
from fleet.cli.stack.slot_bounds import SLOT_BOUNDS, SlotBounds
from fleet.cli.stack.stack_file import Stack, hold_lock, is_up, read_stack
from fleet.cli.stack.supervisor import GRACE_S
from fleet.cli.stop_signals import StopSignals
from fleet.cli.terminal import say, table
from fleet.config import Settings, home_path, load
from fleet.dashboard import PASSWORD_FILE
from fleet.errors import ConfigurationError


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when everything is ready.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes, instead of worker.processes.")
@click.option("--flower/--no-flower", default=True, help="With or without the dashboard.")
@click.option("--autoscale", type=SLOT_BOUNDS, metavar="MIN:MAX", help="Slots of all workers, as many as are wanted.")
def up(detach: bool, workers: int | None, flower: bool, autoscale: SlotBounds | None) -> None:
    """Start the stack: Redis, workers and Flower.

    Runs until Ctrl-C: workers then finish what they run, at most 30 s; a second Ctrl-C ends them at once. A child
    that dies is started again. What is found running already (a configured Redis, an embedded one) is left running.
    What a killed `fleet up` left behind is ended first, as gently.

    Exit codes: 0 ready (with -d), or stopped as asked; 1 already up, or it did not come up; 2 wrong usage or
    configuration; 130 stopped before it was up.

    \b
    Examples:
      fleet up
      fleet up -d --workers 4
      fleet up --autoscale 8:200
    """
    refuse_shadow()
    if workers is not None:
        os.environ["FLEET_WORKER__PROCESSES"] = str(workers)
    settings, home = load(), home_path()
    if autoscale is not None:
        autoscale.check(settings.worker.processes)
    os.environ["FLEET_HOME"] = str(home)  # children find the same state, wherever they start from
    with StopSignals() as signals:
        if detach:
            hold_lock(home).close()  # refuses a second stack before anything is started
            if left := ", ".join(part.name for part in orphans(home)):
                say(f"ending {left} first, which a killed `fleet up` left behind: at most {GRACE_S:g} s")
            show(_start_in_background(home, flower, autoscale, signals), settings)
        else:
            ForegroundStack(settings, home, flower=flower, autoscale=autoscale, signals=signals, say=say).run(
                lambda stack: show(stack, settings)
            )


@click.command()
def down() -> None:
    """Stop the stack that `fleet up` started.

    Also ends what a killed supervisor left behind, and the embedded Redis and simulator of this state folder.
    Tasks stay in Redis: the next `fleet up` goes on with them. Workers that somebody started by hand are named and
    left alone: they wait until Redis is there again. Exit code 0, also when nothing ran.

    \b
    Examples:
      fleet down
      fleet --home /srv/bots/.fleet down
    """
    home = home_path()
    for line in _of_bystanders(home):
        say(line)
    if is_up(home):
        say(f"stopping: workers finish what they run, at most {GRACE_S:g} s")
    stack = stop_stack(home)
    ran = stop_local_services(home)
    children, owned = ([part.name for part in stack.children], stack.owned) if stack else ([], ())
    stopped = dict.fromkeys([*children, *owned, *ran])
    say(f"stopped {', '.join(stopped)}" if stopped else f"nothing runs in {home}")


def _of_bystanders(home: Path) -> Iterator[str]:
    """Yield what a person should hear of what runs on; settings that cannot be read must not keep a stack up."""
    try:
        settings = load()
    except ConfigurationError as error:
        yield f"not known whether other workers run on: {error}"
        return
    stack = read_stack(home)
    yield from tell(settings, home, [part.process.pid for part in stack.children if part.process] if stack else [])


def _start_in_background(home: Path, flower: bool, autoscale: SlotBounds | None, signals: StopSignals) -> Stack:
    """Start a supervisor apart from this terminal; one that does not become ready is stopped again."""
    scaled = () if autoscale is None else ("--autoscale", str(autoscale))
    background = Background(home, ("--flower" if flower else "--no-flower", *scaled))
    try:
        return background.wait_ready(lambda: signals.asked)
    except BaseException:
        background.stop(lambda: signals.asked)
        raise


def show(stack: Stack, settings: Settings) -> None:
    """Print what runs where, and how to get into Flower."""
    rows = [("NAME", "PID", "ADDRESS", "LOG")]
    for part in (*stack.services, *stack.children):
        rows.append((part.name, str(part.process.pid) if part.process else "-", part.address, _near(part.log)))
    for line in table(rows, left=range(4)):
        click.echo(line)
    say(f"up, supervisor pid {stack.supervisor.pid}; `fleet down` stops it")
    if any(part.name == "flower" for part in stack.children):
        say(f"Flower: user {settings.flower.user}, password in {home_path() / PASSWORD_FILE}")
    if settings.simulated:
        say("the simulator answers, not a real provider")


def _near(path: str) -> str:
    """Return a path as short as it can be typed here."""
    return os.path.relpath(path) if path and Path(path).is_relative_to(Path.cwd()) else path
