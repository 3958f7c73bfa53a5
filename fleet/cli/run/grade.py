"""`fleet grade`: tell the fleet whether answers were right. redis is imported on use only."""

from __future__ import annotations

import json
from typing import Any

import click

from fleet import config
from fleet.cli.terminal import say


@click.command()
@click.argument("task_ids", metavar="TASK...", nargs=-1, required=True)
@click.option("--right/--wrong", "right", default=None, help="What their answers were.")
@click.option("--answer", help="The right answer, instead: theirs are compared with it.")
@click.option(
    "--right-by",
    metavar="WHAT",
    help="What of an answer is compared: .FIELD of JSON, or the words that it stands behind.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def grade(
    task_ids: tuple[str, ...], right: bool | None, answer: str | None, right_by: str | None, as_json: bool
) -> None:
    """Tell the fleet whether answers were right: its record of bots, kinds and models learns it.

    Their results must still be kept. The first grade of a task counts, and workers learn it within seconds.

    \b
    Examples:
      fleet grade 7c9e6679-7425-40de-944b-e07fc1f90ae7 --wrong
      fleet grade 7c9e6679-7425-40de-944b-e07fc1f90ae7 --answer 42 --right-by "A:"
    """
    if (right is None) == (answer is None):
        raise click.UsageError("expected one of --right, --wrong and --answer")
    if right_by is not None and answer is None:
        raise click.UsageError("--right-by: expected --answer beside it")
    from fleet.answers.marking import is_right
    from fleet.engine.answers.grades import Worth, tell_here
    from fleet.engine.asking.grading import check
    from fleet.engine.outcomes.stored import read_result
    from fleet.store import keys
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        stored: Any = client.mget([keys.result(one) for one in task_ids])
        results = zip(task_ids, map(read_result, stored), strict=True)
        found = [(one, check(one, result).answer or "") for one, result in results]
        told = [
            Worth(task=one, right=bool(right) if answer is None else is_right(given, answer, right_by))
            for one, given in found
        ]
        tell_here(client, told)
    if as_json:
        click.echo(json.dumps({"tasks": [{"task_id": one.task, "right": one.right} for one in told]}, indent=2))
        return
    for one in told:
        say(f"{one.task}: {'right' if one.right else 'wrong'}; workers learn it within seconds")
