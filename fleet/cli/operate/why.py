"""`fleet why TASK`: a task's story, as far as Redis knows it. Rules: `fleet/engine/operations/story.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.terminal import fitted

if TYPE_CHECKING:
    from fleet.engine.operations.story import Story


@click.command()
@click.argument("task_id", metavar="TASK")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def why(ctx: click.Context, task_id: str, as_json: bool) -> None:
    """Tell where a task is: what it waits for, who holds it, how it ended.

    Exits with 1 when nothing is known of the task. Neither prompt nor answer is shown.

    \b
    Examples:
      fleet why 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet why 7c9e6679-7425-40de-944b-e07fc1f90ae7 --json | jq .state
    """
    story = read_story(task_id, config.current())
    if as_json:
        click.echo(story.model_dump_json(indent=2))
    else:
        where = f", pool {story.pool}" if story.pool else ""
        click.echo(f"{task_id}: {story.state}{where}")
        for line in story.lines:
            click.echo("\n".join(fitted([f"  {line}"])))
    if story.state == "unknown":
        ctx.exit(EXIT_FAILURE)


def read_story(task_id: str, settings: config.Settings) -> Story:
    """Look a task up in both Redis servers.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    from fleet.engine.operations.story import tell
    from fleet.engine.operations.task_facts import gather
    from fleet.engine.operations.waits import read_limit
    from fleet.store.private.two_redis import two_redis
    from fleet.store.running.brokers import Brokers

    with two_redis(settings) as clients:
        story = tell(
            gather(
                task_id,
                state=clients.state,
                broker=clients.broker,
                settings=settings,
                limit_of=lambda pool: read_limit(clients.state, settings, pool),
            )
        )
    away = clients.broker.away if isinstance(clients.broker, Brokers) else {}
    if story.state != "unknown" or not away:
        return story
    told = [f"broker {name} does not answer: {why}; a task that waits there is not seen" for name, why in away.items()]
    return story.model_copy(update={"lines": (*story.lines, *told)})
