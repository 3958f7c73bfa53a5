"""`fleet lanes`: what is in batches, what waits for one, and by when it is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.terminal import fitted, table
from fleet.quoting import counted, stamp

if TYPE_CHECKING:
    from fleet.economy.lanes.board import LaneBoard
    from fleet.economy.lanes.jobs import LaneJob

#: What each state of a job is called; the others are called as they are.
TOLD = {"intent": "about to go", "uploaded": "about to go", "uploading": "going", "creating": "going",
        "cancelling": "being rescued", "collected": "over", "ended": "over"}  # fmt: skip


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def lanes(as_json: bool) -> None:
    """Show what is in batches or in the background, what waits for a batch, and by when it is needed.

    Tasks go there that say by when they need their answers (`fleet run --by`, `by_s`) and have a day, or as long as 95
    of 100 batches of their model have taken. What each lane would cost: `fleet run IN --dry-run --by 24h`.

    \b
    Examples:
      fleet lanes
      fleet lanes --json | jq '.jobs[] | select(.state == "running")'
    """
    from fleet.economy.lanes.board import read_board
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        board = read_board(client)
    if as_json:
        click.echo(json.dumps(asdict(board), indent=2))
        return
    for line in fitted(_lines(board)):
        click.echo(line)


def _told(job: LaneJob) -> str:
    return "being raced" if job.raced and job.state == "running" else TOLD.get(job.state, job.state)


def _lines(board: LaneBoard) -> Iterator[str]:
    for one in board.gathering:
        by = "" if one.by_at is None else f", the first needed by {stamp(one.by_at)}"
        yield f"{one.limit}: {counted(one.tasks, 'task')} gather since {stamp(one.since)}{by}"
    for limit, until, why in board.shut:
        yield f"{limit}: takes no batches until {stamp(until)}: {why}"
    from fleet.economy.lanes.board import TOLD_STALE

    if board.jobs:
        cells = [
            (one.id, one.limit, one.lane, _told(one), f"{one.count:,}", f"{one.done:,}", stamp(one.made_at),
             stamp(one.by_at), TOLD_STALE if one.id in board.stale else one.why)
            for one in board.jobs
        ]  # fmt: skip
        head = ("BATCH", "LIMIT", "LANE", "STATE", "TASKS", "ANSWERED", "SINCE", "LATEST BY", "SAID")
        yield from table([head, *cells], left=(0, 1, 2, 3, 6, 7, 8))
    if not (board.jobs or board.gathering or board.shut):
        yield "nothing is in a batch, or waits for one"
