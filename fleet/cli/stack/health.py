"""`fleet health`: whether one worker works, for probes of containers and service managers. One round trip.

It goes by what the worker reports every two seconds. So a process that is stopped, whose threads stand still or that
has lost its way to Redis is found, and no probe starts a Celery app, as `celery inspect ping` does. While Redis does
not answer nobody is judged: to end all workers then would help nobody.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_UNWELL
from fleet.cli.stack.watchdog import MAIN_FACTOR
from fleet.errors import FleetError
from fleet.quoting import duration

if TYPE_CHECKING:
    from fleet.signals.recorder import WorkerReport

#: Seconds between two questions of one that is patient: workers report every two.
ASK_EVERY_S = 3.0


class WorkerHealth(NamedTuple):
    """Whether a worker works, and how that shows."""

    is_well: bool
    line: str


@click.command()
@click.option("--worker", "name", help="Its name, as Celery has it. Not given: celery@ and this host's.")
@click.option("--patient", is_flag=True, help="Ask for worker.hang_s before it says that a worker is not well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def health(ctx: click.Context, name: str | None, patient: bool, as_json: bool) -> None:
    """Tell whether a worker works: for probes of containers.

    Exits with 4 when it has reported nothing for worker.hang_s, or its main thread has stood still three times as long.
    While Redis does not answer it exits with 0, because that is not the worker's fault.

    A worker that starts has not reported yet, nor one that comes back as Redis does. So what restarts workers asks with
    --patient, or several times, and goes by the code 4 alone: any other tells of the probe.

    \b
    Examples:
      fleet health
      fleet health --worker w1@host-1
      fleet health --patient --worker w1@host-1 || echo $?
    """
    settings = config.current()
    worker = name or f"celery@{socket.gethostname()}"
    found = _ask_patiently(worker, settings) if patient else _ask(worker, settings)
    click.echo(json.dumps({"worker": worker, "is_well": found.is_well, "line": found.line}) if as_json else found.line)
    if not found.is_well:
        ctx.exit(EXIT_UNWELL)


def _ask_patiently(worker: str, settings: config.Settings) -> WorkerHealth:
    """Return how a worker is once it is well, or has not been for as long as it may stand still."""
    until = time.monotonic() + settings.worker.hang_s
    while not (found := _ask(worker, settings)).is_well and time.monotonic() < until:
        time.sleep(ASK_EVERY_S)
    return found


def _ask(worker: str, settings: config.Settings) -> WorkerHealth:
    from fleet.signals.recorder import split_reports
    from fleet.store import keys
    from fleet.store.private.embedded import redis_lives
    from fleet.store.private.two_redis import state_client

    if settings.redis.url is None and settings.redis.state_url is None and not redis_lives(config.home_path()):
        return WorkerHealth(
            True, f"{worker} is not judged: no Redis runs in {config.home_path()}"
        )  # nor is one started here
    try:
        with state_client(settings) as client:
            seconds, _ = client.time()
            rows = client.hgetall(keys.workers())
    except FleetError as error:  # it does not answer, or does not let us in
        return WorkerHealth(True, f"{worker} is not judged: {error}")
    reports, _ = split_reports(rows, now_s=0.0)  # type: ignore[arg-type]  # at 0, none is stale: silence is what we look for
    return judge(worker, reports, float(seconds), settings.worker.hang_s)


def judge(worker: str, reports: Iterable[WorkerReport], now_s: float, hang_s: float) -> WorkerHealth:
    """Return whether a worker works.

    Args:
        worker: Its name.
        reports: Of all workers.
        now_s: Unix time of Redis.
        hang_s: Seconds for which a worker may stand still.
    """
    own = max((one for one in reports if one.name == worker), key=lambda one: one.at, default=None)
    if own is None:
        return WorkerHealth(
            False, f"expected a worker {worker} that reports, got none: it starts, or is called otherwise"
        )
    silent_s = now_s - own.at
    if silent_s > hang_s:
        return WorkerHealth(False, f"{worker} has reported nothing for {duration(silent_s)}")
    stuck_s = 0.0 if own.beat_at is None else own.at - own.beat_at
    if stuck_s > MAIN_FACTOR * hang_s:
        return WorkerHealth(False, f"{worker} reports, but its main thread has stood still for {duration(stuck_s)}")
    return WorkerHealth(True, f"{worker} works: {own.busy} of {own.slots} slots busy")
