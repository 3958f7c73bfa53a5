"""`fleet context`: documents that many tasks share, stored once under a digest of what they say."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet import config
from fleet.bounds import MAX_DOCUMENT_CHARS
from fleet.cli.terminal import say, table
from fleet.errors import ConfigurationError, InvalidTask
from fleet.money import dollars_of
from fleet.quoting import brief, counted, quote, stamp
from fleet.store.running.brokers import Anywhere

if TYPE_CHECKING:
    import redis

    from fleet.config import Settings
    from fleet.economy.contexts.documents import Document
    from fleet.economy.contexts.told import Reads
    from fleet.signals.catalogue import Event

#: What a tenant's name may be (`fleet/models.py`).
_TENANT = r"[A-Za-z0-9_.-]{1,64}"
#: Bytes that a file may have at most: no character has more than four.
_MOST_FILE_BYTES = 4 * MAX_DOCUMENT_CHARS


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.pass_context
def context(ctx: click.Context, as_json: bool) -> None:
    """Store documents that many tasks share; list and remove them.

    A task names them by their ids: `context=["ctx-..."]`. They stand first in the prompt, so that the provider's cache
    has them, and are never cut.

    \b
    Examples:
      fleet context add handbook.md
      fleet context
      fleet context remove ctx-0f3a52c1d6b7e8a9c0d1e2f3
    """
    if ctx.invoked_subcommand is None:
        _list(as_json=as_json)


@context.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tenant", default="", help="For this tenant's tasks alone; `fleet forget` erases it with the tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def add(files: tuple[Path, ...], tenant: str, as_json: bool) -> None:
    """Store documents, and print the ids that tasks name them by. The same text always has the same id.

    FILE is UTF-8 text; `-` reads stdin. Tasks that wait for a document go on.

    \b
    Examples:
      fleet context add handbook.md rules.txt
      cat handbook.md | fleet context add - --json
    """
    from fleet.economy.contexts import documents
    from fleet.signals import catalogue
    from fleet.store.private.two_redis import two_redis
    from fleet.workers.context import count_tokens

    if tenant and not re.fullmatch(_TENANT, tenant):
        raise click.UsageError(f"--tenant: expected 1 to 64 letters, digits, `_`, `.` or `-`, got {quote(tenant)}")
    texts = [(_name_of(file), _text_of(file)) for file in files]
    stored: list[Document] = []
    with two_redis(config.current()) as both:
        for name, text in texts:
            one, is_new = documents.add(both.state, text, name=name, tokens=count_tokens(text), tenant=tenant)
            stored.append(one)
            if is_new:
                _note(both.state, catalogue.CONTEXT_ADDED, one.id)
                _open(both.broker, config.current(), one.id)
            say(f"{name}: {_became(one, name, is_new=is_new)}, about {one.tokens:,} tokens")
    if as_json:
        click.echo(json.dumps({"contexts": [asdict(one) for one in stored]}, indent=2))
        return
    click.echo("\n".join(one.id for one in stored))


@context.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def list_contexts(as_json: bool) -> None:
    """List the stored documents: the same as `fleet context` alone.

    \b
    Examples:
      fleet context list --json | jq -r '.contexts[].id'
    """
    _list(as_json=as_json)


@context.command()
@click.argument("context_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print what is known of it as JSON, without its text.")
def show(context_id: str, as_json: bool) -> None:
    """Print what a document says.

    \b
    Examples:
      fleet context show ctx-0f3a52c1d6b7e8a9c0d1e2f3 > handbook.md
    """
    from fleet.economy.contexts import documents
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        text = documents.text_of(client, context_id)
        found = documents.find(client, context_id)
    if as_json:
        click.echo(json.dumps({"contexts": [] if found is None else [asdict(found)]}, indent=2))
        return
    click.echo(text, nl=not text.endswith("\n"))


@context.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def remove(ids: tuple[str, ...], as_json: bool) -> None:
    """Remove documents. Tasks that name one wait until it is added again; workers let go of it within 30 seconds.

    \b
    Examples:
      fleet context remove ctx-0f3a52c1d6b7e8a9c0d1e2f3
    """
    from fleet.economy.contexts import documents
    from fleet.signals import catalogue
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        unknown = [one for one in ids if documents.find(client, one) is None]
        if unknown:
            raise ConfigurationError(f"expected ids of `fleet context list`, got {quote(unknown[0])}: nothing went")
        for one in ids:
            if documents.remove(client, one):
                _note(client, catalogue.CONTEXT_REMOVED, one)
    say(f"removed {counted(len(ids), 'document')}: tasks that name them wait until they are added again")
    if as_json:
        click.echo(json.dumps({"removed": list(ids)}, indent=2))


def _list(*, as_json: bool) -> None:
    from fleet.economy.contexts import documents
    from fleet.economy.contexts.told import Reads, read_contexts
    from fleet.store.private.two_redis import state_client

    with state_client(config.current()) as client:
        found = list(documents.listed(client))
        reads = {one.id: one.reads for one in read_contexts(client, float(client.time()[0])).documents}
    if as_json:
        none = Reads()
        rows = [{**asdict(one), "reads": asdict(reads.get(one.id, none))} for one in found]
        click.echo(json.dumps({"contexts": rows}, indent=2))
        return
    if not found:
        click.echo("no documents are stored: `fleet context add FILE` stores one")
        return
    head = ("ID", "TOKENS", "CALLS", "READ", "SAVED", "TENANT", "ADDED", "NAME")
    click.echo("\n".join(table([head, *_cells(found, reads)], left=(0, 5, 6, 7))))


def _cells(found: Iterable[Document], reads: Mapping[str, Reads]) -> Iterable[tuple[str, ...]]:
    """Yield a line of each document; calls are those of the last 70 minutes at least."""
    for one in found:
        read = reads.get(one.id)
        of_late = ("0", "", "") if read is None else (f"{read.calls:,}", f"{read.share:.0%}", _saved(read.saved_picos))
        yield one.id, f"{one.tokens:,}", *of_late, one.tenant or "everybody's", stamp(one.added_at), one.name


def _saved(picos: int) -> str:
    return f"{'-' if picos < 0 else ''}${dollars_of(abs(picos)):,.4f}"


def _became(one: Document, name: str, *, is_new: bool) -> str:
    """Say under which id a file is stored, and under which other name where it was before."""
    if is_new:
        return f"stored as {one.id}"
    return f"is stored already as {one.id}" + (f", from {quote(one.name)}" if one.name != name else "")


def _name_of(file: Path) -> str:
    name = "stdin" if str(file) == "-" else file.name
    return brief("".join(char if char.isprintable() else "?" for char in name), 128)


def _text_of(file: Path) -> str:
    """Return the text of a file.

    Raises:
        InvalidTask: When it is none, or too large.
    """
    if str(file) != "-" and not file.exists():
        raise click.UsageError(f"FILE: expected a file that exists, got {quote(str(file))}")
    with sys.stdin.buffer if str(file) == "-" else file.open("rb") as source:
        raw = source.read(_MOST_FILE_BYTES + 1)
    if len(raw) > _MOST_FILE_BYTES:
        raise InvalidTask(f"{_name_of(file)}: expected at most {MAX_DOCUMENT_CHARS:,} characters, got a larger file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidTask(
            f"{_name_of(file)}: expected UTF-8 text, got bytes that are none at {error.start:,}; turn a PDF or a page "
            "into text first"
        ) from None


def _note(client: redis.Redis, event: Event, context_id: str) -> None:
    """Tell who did it; never what the document says, nor its name."""
    from fleet.cli.operator import operator_name
    from fleet.signals.events import record_deed

    record_deed(client, event, operator_name(), context=context_id)


def _open(broker: Anywhere, settings: Settings, context_id: str) -> None:
    """Let tasks go on that wait for a document."""
    from fleet.engine.transport.parking.opening import open_early_now
    from fleet.store import keys

    for pool in settings.pools:
        open_early_now(broker, keys.queue(pool), about=context_id, causes=("document",))
