"""`fleet backup` and `fleet restore`: what Redis holds of a fleet, to a file and back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.cli.finite import FiniteRange
from fleet.cli.terminal import say
from fleet.quoting import counted, duration, stamp

if TYPE_CHECKING:
    from fleet.engine.operations.backup.restoring import Restored
    from fleet.engine.operations.backup.servers import BackedServer
    from fleet.store.private.two_redis import TwoRedis


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--most-s", type=FiniteRange(1), default=30.0, show_default=True, help="Seconds for which writes may be held."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def backup(file: Path, most_s: float, as_json: bool) -> None:
    """Write what Redis holds of the fleet to a file, while it runs.

    Writes are held meanwhile, so that the file shows one moment: tasks and workers wait, and go on by themselves. The
    file holds prompts and answers, so only you may read it. Providers' keys are not in Redis: keep the vault's.

    \b
    Examples:
      fleet backup monday.fleet
      fleet backup /backups/fleet.backup --most-s 120 --json
    """
    from fleet.engine.operations.backup.taking import take_backup
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    with two_redis(settings) as both:
        done = take_backup(_servers(both), settings, file, most_s=most_s)
    if as_json:
        told = {"file": str(file), "keys": done.keys, "held_s": round(done.held_s, 3), "bytes": done.size}
        click.echo(json.dumps(told))
        return
    say(f"wrote {file}: {_counts(done.keys)}, {done.size / 1e6:,.1f} MB; writes waited {duration(done.held_s)}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Remove what Redis holds of this fleet first.")
@click.option("--dry-run", is_flag=True, help="Only check the file and the servers.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def restore(file: Path, force: bool, dry_run: bool, as_json: bool) -> None:
    """Put a backup into Redis: another server, a newer version, or the same one.

    Stop workers first, and start them when it is done. Tasks that ran when the backup was made wait again: they run a
    second time, as after the death of a worker. What was done since then is not known, so it is done again as well.

    \b
    Examples:
      fleet restore monday.fleet --dry-run
      fleet restore monday.fleet
      fleet restore monday.fleet --force --json
    """
    from fleet.cli.operator import operator_name
    from fleet.engine.operations.backup.restoring import restore as put
    from fleet.signals.catalogue import RESTORED
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import two_redis

    settings = config.current()
    with two_redis(settings) as both:
        done = put(_servers(both), settings, file, is_forced=force, is_meant=not dry_run)
        if not dry_run:
            told = {"made_at": stamp(done.head.made_at), "keys": sum(done.keys.values()), "requeued": done.requeued}
            record_deed(both.state, RESTORED, operator_name(), **told)
    _tell(done, dry_run, as_json)


def _servers(both: TwoRedis) -> list[BackedServer]:
    from fleet.engine.operations.backup.file import BRANCH, BROKER, STATE
    from fleet.engine.operations.backup.servers import BackedServer
    from fleet.store.running.brokers import MAIN, all_of, main_of

    brokers = all_of(both.broker)
    servers = [BackedServer(f"{BRANCH}{name}" if name != MAIN else BROKER, one) for name, one in brokers.items()]
    return servers if both.state is main_of(both.broker) else [*servers, BackedServer(STATE, both.state)]


def _counts(keys: dict[str, int]) -> str:
    return ", ".join(f"{counted(count, 'key')} of the {role}" for role, count in keys.items()) or "no key"


def _tell(done: Restored, is_dry: bool, as_json: bool) -> None:
    if as_json:
        told = {
            "made_by": done.head.fleet, "made_at": done.head.made_at, "servers": done.head.servers, "keys": done.keys,
            "replaced": done.replaced, "requeued": done.requeued, "restored": not is_dry,
        }  # fmt: skip
        click.echo(json.dumps(told))
        return
    age = duration(max(0.0, time.time() - done.head.made_at))
    gone = f"; {counted(done.replaced, 'key')} that {'go' if is_dry else 'went'} first" if done.replaced else ""
    what = f"a backup of Fleet {done.head.fleet}, {age} old: {_counts(done.keys)}{gone}"
    say(f"fits: {what}; nothing has changed" if is_dry else f"restored {what}")
    if done.requeued:
        say(f"{counted(done.requeued, 'task')} that ran then wait{'s' * (done.requeued == 1)} again, at the head")
