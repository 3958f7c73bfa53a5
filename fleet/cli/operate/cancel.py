"""`fleet cancel`: tasks never start, by their ids or by what they are. Celery and redis are imported on use only."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.terminal import say
from fleet.errors import ConfigurationError
from fleet.quoting import MOST_NAMES, counted, quote

if TYPE_CHECKING:
    from fleet.engine.outcomes.cancelling import Selection, Tally
    from fleet.engine.outcomes.revocation import Revocation

#: Tasks that one message to the workers names at most (count).
TOLD_AT_ONCE = 1000


@click.command()
@click.argument("task_ids", metavar="[TASK]...", nargs=-1)
@click.option("--pool", help="All tasks of this pool.")
@click.option("--tenant", help="All tasks of this tenant.")
@click.option("--metadata", metavar="NAME=VALUE", multiple=True, help="All tasks with this in their metadata.")
@click.option("--running", is_flag=True, help="Also stop those that run; what they have used so far is counted.")
@click.option("--dry-run", is_flag=True, help="Only say how many that would be.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def cancel(
    task_ids: tuple[str, ...], pool: str | None, tenant: str | None, metadata: tuple[str, ...], running: bool,
    dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Keep tasks from starting, wherever they wait, also while no worker is alive.

    Name tasks, or say what they are: of several options all must apply. Whoever waits for one of them gets Celery's
    TaskRevokedError, and so does what follows it in a canvas. A task that has a result keeps it, one that runs goes on
    unless you say --running, and a cancelled task's idempotency key may be submitted again. An id with neither message
    nor result is told as unknown, and does not count. If its message is on its way, it does not start when it comes.
    When all are unknown, the exit code is 1. What a batch makes of a task that has gone with it is billed all the same.

    \b
    Examples:
      fleet cancel 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet cancel --running 7c9e6679-7425-40de-944b-e07fc1f90ae7
      fleet cancel --pool research --dry-run
      fleet cancel --tenant acme --metadata job=nightly --running --yes
    """
    chosen = _selection(pool, tenant, metadata)
    if bool(task_ids) == (chosen is not None):
        raise click.UsageError("expected either task ids, or some of --pool, --tenant and --metadata")
    if chosen is None:
        if dry_run:
            raise click.UsageError("--dry-run: expected --pool, --tenant or --metadata beside it, got task ids")
        _by_id(task_ids, running, as_json)
    else:
        _by_kind(chosen, running, dry_run, yes, as_json)


def _selection(pool: str | None, tenant: str | None, metadata: tuple[str, ...]) -> Selection | None:
    """Return which tasks the options mean; None when they say nothing."""
    from fleet.engine.outcomes.cancelling import Selection

    pairs = metadata_of(metadata)
    if pool is not None:
        _check_pool(pool)
    return Selection(pool, tenant, pairs) if pool is not None or tenant is not None or pairs else None


def _check_pool(pool: str) -> None:
    """Refuse a pool that is none; one that was taken out of the settings may have tasks that wait still."""
    from fleet.engine.messages.broker import broker
    from fleet.engine.transport.withdrawal.message_search import former_pools
    from fleet.store.client import store_errors

    settings = config.current()
    if pool in settings.pools:
        return
    with store_errors(broker().url):
        former = former_pools(broker().client, settings)
    if pool not in former:
        known = ", ".join([*settings.pools, *(f"{name} (no longer in the settings)" for name in former)])
        raise ConfigurationError(f"--pool: expected one of {known}, got {quote(pool)}")


def metadata_of(given: Sequence[str]) -> dict[str, str]:
    """Read `--metadata NAME=VALUE`, given several times.

    Raises:
        click.UsageError: When one is no pair.
    """
    pairs = dict[str, str]()
    for pair in given:
        name, is_pair, value = pair.partition("=")
        if not is_pair or not name:
            raise click.UsageError(f"--metadata: expected NAME=VALUE, got {quote(pair)}")
        pairs[name] = value
    return pairs


def _by_id(task_ids: tuple[str, ...], running: bool, as_json: bool) -> None:
    from fleet.engine.app import app
    from fleet.engine.messages.broker import broker
    from fleet.engine.outcomes.revocation import revoke, state_here
    from fleet.engine.transport.withdrawal.message_search import may_wait
    from fleet.store.client import store_errors
    from fleet.store.private.embedded import state_url

    settings = config.current()
    with store_errors(broker().url), store_errors(state_url(settings)):
        where = broker().client
        done = revoke(
            task_ids, broker=where, state=state_here(), settings=settings,
            find=lambda names: may_wait(where, names, settings),
        )  # fmt: skip
    known = [task_id for task_id in dict.fromkeys(task_ids) if task_id not in set(done.unknown)]
    if known:
        app.control.revoke(known, terminate=running)
        _note(known, {"ended": len(done.ended)}, running)
    if as_json:
        click.echo(json.dumps({"revoked": known, "ended": done.ended, "unknown": done.unknown}, indent=2))
    else:
        _tell_ids(known, done, running)
    if not known:
        click.get_current_context().exit(EXIT_FAILURE)


def _tell_ids(known: list[str], done: Revocation, running: bool) -> None:
    if known:
        say(f"{counted(len(known), 'task')} revoked, {len(done.ended):,} of them waited and ended with it")
    others = len(known) - len(done.ended)
    if others:
        what = "is stopped by its worker" if running else "goes on"
        say(f"{others:,} had a result, or were held by a worker: what runs {what}")
    if done.unknown:
        named = ", ".join(quote(task_id) for task_id in done.unknown[:MOST_NAMES])
        more = f" and {len(done.unknown) - MOST_NAMES:,} more" if len(done.unknown) > MOST_NAMES else ""
        say(
            f"{counted(len(done.unknown), 'task')} unknown, with no message and no result: {named}{more}. What is "
            "still on its way does not start when it comes"
        )


def _by_kind(chosen: Selection, running: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    from fleet.engine.app import app
    from fleet.engine.messages.broker import broker
    from fleet.engine.outcomes.cancelling import Canceller
    from fleet.engine.outcomes.follow_ups import FollowUps
    from fleet.engine.outcomes.revocation import state_here
    from fleet.store.client import store_errors
    from fleet.store.private.embedded import state_url

    settings = config.current()
    with store_errors(broker().url), store_errors(state_url(settings)):
        canceller = Canceller(broker().client, state_here(), settings, FollowUps(app))
        if dry_run or not yes:
            tally = canceller.count(chosen)
            if dry_run:
                _tell(tally, "would be cancelled", running, as_json)
                return
            _confirm(tally)
        tally = canceller.cancel(chosen)
    if running:
        for start in range(0, len(tally.held), TOLD_AT_ONCE):
            app.control.revoke(list(tally.held[start : start + TOLD_AT_ONCE]), terminate=True)
    by = "+".join(name for name in ("pool", "tenant", "metadata") if getattr(chosen, name))
    pool = {"pool": chosen.pool} if chosen.pool else {}
    _note([], {**pool, "chosen_by": by, "ended": tally.waiting}, running)  # whose they were is nobody's to read
    _tell(tally, "cancelled", running, as_json)


def _note(tasks: Sequence[str], what: dict[str, object], running: bool) -> None:
    """Record who did it; the deed holds also where that fails."""
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.levers import note_cancelled
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as state:
        note_cancelled(state, tasks, what | ({"stopped": "those that run"} if running else {}), by=operator_name())


def _confirm(tally: Tally) -> None:
    """Ask before a whole set is cancelled; a script must say --yes."""
    what = counted(tally.waiting, "waiting task")
    if not sys.stdin.isatty():
        raise click.UsageError(f"expected --yes to cancel {what} without being asked")
    click.confirm(f"cancel {what}?", abort=True, err=True)


def _tell(tally: Tally, verb: str, running: bool, as_json: bool) -> None:
    if as_json:
        data: dict[str, Any] = {"waiting": tally.waiting, "held": list(tally.held), "stopped": running}
        click.echo(json.dumps(data, indent=2))
        return
    say(f"{counted(tally.waiting, 'waiting task')} {verb}")
    if tally.held:
        what = "are stopped by their workers" if running else "go on, but begin no second time"
        say(f"{counted(len(tally.held), 'task')} held by workers: those {what}")
