"""`fleet tasks`: find tasks by what they are. How: `fleet/engine/operations/task_search.py`. One task: `why.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleet import config
from fleet.cli.operate.cancel import metadata_of
from fleet.cli.operate.dead import REASONS
from fleet.cli.operate.why import why
from fleet.cli.terminal import say, table
from fleet.errors import ConfigurationError
from fleet.quoting import counted, quote, stamp

if TYPE_CHECKING:
    from fleet.engine.operations.task_search import FoundTask, TaskSearch

#: States of `fleet.engine.operations.task_search`, which is imported on use only.
STATES = ("waiting", "held", "failed", "degraded", "ok")
#: Characters of metadata in the list.
METADATA_CHARS = 50
#: What to do where a search ended at a bound.
MORE = {
    "limit": "raise --limit, or say more of them",
    "look": "raise --look, or say more of them",
    "bytes": "it ended after 200 MB of messages, which no option raises; say more of them (--pool, --state)",
}

Decorated = TypeVar("Decorated", bound=Callable[..., object])


def _list_options(command: Decorated) -> Decorated:
    """Add the options of the list, which `fleet tasks` and `fleet tasks list` share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead."),
        click.option("--look", type=click.IntRange(1), default=20_000, show_default=True, help="Tasks looked at."),
        click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Tasks shown."),
        click.option("--error", type=click.Choice(REASONS), metavar="ERROR", help="Failed with this error type."),
        click.option("--metadata", metavar="NAME=VALUE", multiple=True, help="With this in their metadata."),
        click.option("--tenant", help="Of this tenant."),
        click.option("--kind", help="Of this task class."),
        click.option("--pool", help="Of this pool."),
        click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="In this state; repeatable."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@_list_options
@click.pass_context
def tasks(ctx: click.Context, /, **options: Any) -> None:
    """Find tasks by pool, tenant, kind, metadata, state or error; open one.

    What waits, is held by a worker or is a dead letter is read where it lies. Of tasks with a result those are found
    that the bots remember, the last four of each. Neither prompts nor answers are shown.

    \b
    Examples:
      fleet tasks --metadata job=nightly
      fleet tasks list --pool research --state waiting --tenant acme
      fleet tasks list --error BadAnswer --json | jq -r '.tasks[].task_id'
      fleet tasks show 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """
    if ctx.invoked_subcommand is None:
        _list(**options)


@tasks.command("list")
@_list_options
def list_tasks(**options: Any) -> None:
    """Find tasks: the same as `fleet tasks` alone.

    \b
    Examples:
      fleet tasks list --metadata job=nightly --state failed --json
    """
    _list(**options)


tasks.add_command(why, "show")


def _list(
    *, states: tuple[str, ...], pool: str | None, kind: str | None, tenant: str | None, metadata: tuple[str, ...],
    error: str | None, limit: int, look: int, as_json: bool,
) -> None:  # fmt: skip
    from fleet.engine.operations.task_search import FOUND_STATES, Finder, Wish
    from fleet.engine.outcomes.cancelling import Selection
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    if pool is not None and pool not in settings.pools:
        raise ConfigurationError(f"--pool: expected one of {', '.join(settings.pools)}, got {quote(pool)}")
    wish = Wish(
        Selection(pool, tenant, metadata_of(metadata)), kind=kind, error=error, limit=limit, look_most=look,
        states=tuple(one for one in FOUND_STATES if one in states or not states),
    )  # fmt: skip
    with two_redis(settings) as clients:
        found = Finder(clients.state, clients.broker, settings).find(wish)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    for line in _table(found):
        click.echo(line)
    say(_told(found))


def _table(found: TaskSearch) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("TASK", "STATE", "POOL", "SINCE", "KIND", "TENANT", "BOT", "METADATA")]
    rows += [_cells(task) for task in found.tasks]
    yield from table(rows, left=range(8)) if found.tasks else ()


def _cells(task: FoundTask) -> tuple[str, ...]:
    state = f"{task.state}: {task.error}" if task.error else task.state
    at = "" if task.at is None else stamp(task.at)
    pairs = " ".join(f"{name}={value}" for name, value in task.metadata.items())
    short = pairs if len(pairs) <= METADATA_CHARS else f"{pairs[: METADATA_CHARS - 1]}…"
    named = task.task_id if task.task_id.isprintable() else quote(task.task_id)
    return named, state, task.pool or "", at, task.kind or "", task.tenant or "", task.bot or "", quote(short)[1:-1]


def _told(found: TaskSearch) -> str:
    more = f", and there may be more: {MORE[found.ended_by]}" if found.ended_by else ""
    unread = (
        f"; {counted(found.unreadable, 'dead letter')} may be meant, too: they were too large to keep what they asked"
    )
    blind = f"; not searched, for results say neither kind nor tenant: {', '.join(found.unsearched)}"
    of = f"{counted(len(found.tasks), 'task')} of {found.looked_at:,} looked at"
    return f"{of}{more}{blind if found.unsearched else ''}{unread if found.unreadable else ''}"
