"""`fleet forget`: a tenant's words are found and erased. Celery and redis are imported on use only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.finite import FiniteRange
from fleet.cli.operate.cancel import TOLD_AT_ONCE, metadata_of
from fleet.cli.terminal import say, table
from fleet.quoting import counted, quote

if TYPE_CHECKING:
    from fleet.config import Settings
    from fleet.engine.operations.erasure.forgetting import Eraser, Erasure
    from fleet.engine.outcomes.cancelling import Selection

#: What a tenant's name may be (`fleet/models.py`).
TENANT = r"[A-Za-z0-9_.-]{1,64}"
#: What became of what was found, by where it lay.
DONE = {
    "results": "removed, with the marks of their submission",
    "chords": "removed: their bodies are not called any more",
    "dead letters": "removed",
    "shares of limits": "removed",
    "events": "removed",
    "shared documents": "removed; workers let go of them within a minute",
    "budgets": "removed; in calls under way the name is a pseudonym",
    "requests in batches": "removed; the vendor's copy goes when the batch ends",
    "rows of the bill": "amounts stay, under a pseudonym",
    "calls of unknown cost": "amounts stay, under a pseudonym",
    "calls without a bill yet": "go to the bill under a pseudonym",
    "exported lines": "amounts stay, under a pseudonym; on this host only",
}
#: What to do about what nobody can tell the tenant of.
UNREADABLE = {
    "dead letters without a body": "Their reasons are in `fleet dead list`; `fleet dead purge` removes them",
    "messages that are none": "They lie in Redis under fleet:unreadable: look at them there, then delete them",
}
#: What Fleet does not erase, and what becomes of it.
NOT_OURS = (
    "what providers keep of prompts and answers: ask them",
    "output files of `fleet run`, and what your own code keeps",
    "lines of `bill.export` on other hosts: run this there, too",
    "the tenant's name in fleet.toml ([budgets]), and backups of Redis and its files",
)


@click.command()
@click.option("--tenant", help="Everything of this tenant.")
@click.option("--task", "task_ids", metavar="ID", multiple=True, help="Of this task; may be repeated.")
@click.option("--metadata", metavar="NAME=VALUE", multiple=True, help="Of tasks with this in their metadata.")
@click.option(
    "--running", type=click.Choice(["wait", "cancel"]), default="wait", show_default=True,
    help="What runs is waited for, or stopped.",
)  # fmt: skip
@click.option(
    "--wait-s", type=FiniteRange(0), default=60.0, show_default=True, help="Seconds for which running tasks get."
)
@click.option("--rewrite", is_flag=True, help="Have Redis write its files on disk anew, in the background.")
@click.option("--dry-run", is_flag=True, help="Only say what would be erased.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def forget(
    tenant: str | None, task_ids: tuple[str, ...], metadata: tuple[str, ...], running: Literal["wait", "cancel"],
    wait_s: float, rewrite: bool, dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Erase what Fleet keeps of a tenant, or of some tasks: prompts, answers, names.

    Tasks that wait are cancelled; those that run are waited for, or stopped with --running cancel. Results, dead
    letters, events, budgets and shares of limits go. On the bill the amounts stay, under a pseudonym. The fleet goes
    on meanwhile; the command may be killed and run again. The exit code is 1 while something is left.

    \b
    Examples:
      fleet forget --tenant acme --dry-run
      fleet forget --tenant acme --running cancel --rewrite --yes
      fleet forget --task 7c9e6679-7425-40de-944b-e07fc1f90ae7 --yes
      fleet forget --metadata customer=4711 --yes --json
    """
    chosen = _chosen(tenant, task_ids, metadata)
    with _eraser() as eraser:
        if dry_run or not yes:
            would = eraser.count(chosen)
            if dry_run:
                _tell(would, None, as_json, is_done=False)
                return
            _confirm(would)
        from fleet.cli.operator import operator_name

        done = eraser.erase(chosen, stop=_stop if running == "cancel" else None, wait_s=wait_s, by=operator_name())
        rewritten = _rewritten(config.current()) if rewrite else []
    _tell(done, rewritten, as_json, is_done=True)
    if not done.is_complete:
        click.get_current_context().exit(EXIT_FAILURE)


def _chosen(tenant: str | None, task_ids: Sequence[str], metadata: Sequence[str]) -> Selection:
    from fleet.engine.outcomes.cancelling import Selection

    if tenant is not None and not re.fullmatch(TENANT, tenant):
        raise click.UsageError(f"--tenant: expected 1 to 64 letters, digits, `_`, `.` or `-`, got {quote(tenant)}")
    pairs = metadata_of(metadata)
    if sum((tenant is not None, bool(task_ids), bool(pairs))) != 1:
        raise click.UsageError("expected one of --tenant, --task and --metadata")
    return Selection(None, tenant, pairs, frozenset(task_ids))


@contextmanager
def _eraser() -> Iterator[Eraser]:
    """Connect to both servers; errors inside the block are Fleet's own."""
    from fleet.engine.app import app
    from fleet.engine.messages.broker import broker
    from fleet.engine.operations.erasure.forgetting import Eraser
    from fleet.engine.outcomes.cancelling import Canceller
    from fleet.engine.outcomes.follow_ups import FollowUps
    from fleet.engine.outcomes.revocation import state_here
    from fleet.store.client import store_errors
    from fleet.store.private.embedded import state_url

    settings = config.current()
    with store_errors(broker().url), store_errors(state_url(settings)):
        clients = broker().client, state_here()
        yield Eraser(*clients, settings, Canceller(*clients, settings, FollowUps(app)))


def _stop(task_ids: Sequence[str]) -> None:
    """Have workers stop tasks."""
    from fleet.engine.app import app

    for start in range(0, len(task_ids), TOLD_AT_ONCE):
        app.control.revoke(list(task_ids[start : start + TOLD_AT_ONCE]), terminate=True)


def _rewritten(settings: Settings) -> list[str]:
    """Have each Redis write its files anew; return what it does."""
    from fleet.engine.operations.erasure.forgetting import rewrite_files
    from fleet.store.private.two_redis import two_redis
    from fleet.store.running.brokers import MAIN, all_of

    with two_redis(settings) as servers:
        brokers = all_of(servers.broker)
        roles = {} if servers.state is brokers[MAIN] else {"state": servers.state}
        roles |= {"broker" if name == MAIN else f"broker {name}": one for name, one in brokers.items()}
        return [f"{role}: {rewrite_files(one)}" for role, one in roles.items()]


def _confirm(would: Erasure) -> None:
    """Ask before words are gone; a script must say --yes."""
    what = f"{counted(would.messages.waiting, 'waiting task')} and {would.found.total():,} stored things"
    if not sys.stdin.isatty():
        raise click.UsageError(f"expected --yes to erase {what} without being asked")
    click.confirm(f"erase {what}? Nothing brings them back", abort=True, err=True)


def _tell(erasure: Erasure, rewritten: list[str] | None, as_json: bool, *, is_done: bool) -> None:
    messages = erasure.messages
    if as_json:
        data = {
            "erased": is_done, "pseudonym": erasure.pseudonym or None, "waiting": messages.waiting,
            "put_aside": messages.aside, "left_behind": messages.left, "held": len(messages.held),
            "still_running": list(messages.running), "stored": dict(erasure.found),
            "unreadable": dict(erasure.unreadable), "submitted_meanwhile": erasure.meanwhile,
            "slow_commands": erasure.slow_commands, "rewritten": rewritten or [], "not_fleets_to_erase": NOT_OURS,
        }  # fmt: skip
        click.echo(json.dumps(data, indent=2))
        return
    rows = [
        ("waiting tasks", f"{messages.waiting + messages.aside:,}", "cancelled"),
        ("held by workers", f"{len(messages.held) + messages.left:,}", "ended, or still running: see below"),
        *((name, f"{count:,}", DONE[name]) for name, count in sorted(erasure.found.items()) if count),
    ]
    click.echo("\n".join(table([("WHAT", "FOUND", "WHAT BECOMES OF IT"), *rows], left=(0, 2))))
    for line in _warnings(erasure, rewritten, is_done):
        say(line)


def _warnings(erasure: Erasure, rewritten: list[str] | None, is_done: bool) -> Iterator[str]:
    """Yield what is left, and what nobody but others can erase."""
    if not is_done:
        yield "nothing was changed"
        yield from (f"not Fleet's to erase: {what}" for what in NOT_OURS)
        return
    if erasure.pseudonym:
        yield f"on the bill the tenant is {erasure.pseudonym} from now on"
    if erasure.messages.running:
        still = counted(len(erasure.messages.running), "task")
        yield f"{still} still running: run the command again, or with --running cancel"
    if erasure.meanwhile:
        new = counted(erasure.meanwhile, "task")
        yield f"{new} submitted meanwhile: stop its producers, then run the command again"
    for what, count in erasure.unreadable.items():
        if count:
            yield f"{count:,} {what}: nobody can tell whose. {UNREADABLE[what]}"
    if erasure.slow_commands is None:
        yield "Redis' log of slow commands quotes prompts, and this user may not empty it: have SLOWLOG RESET run"
    elif erasure.slow_commands:
        yield f"Redis' log of slow commands was emptied: {counted(erasure.slow_commands, 'entry', 'entries')}"
    yield "ids of tasks, and numbers made of answers, stay until they expire: see docs/erasure.md"
    if rewritten:
        yield f"Redis writes its files anew in the background: {', '.join(rewritten)}"
    else:
        yield "the files of Redis on disk hold what was erased until they are written anew: --rewrite does that"
    yield from (f"not Fleet's to erase: {what}" for what in NOT_OURS)
