"""`fleet keys passphrase`: the encrypted file is sealed with a passphrase, which is typed and lies in no argument."""

from __future__ import annotations

import json
import sys
from functools import lru_cache

import click

from fleet import config
from fleet.errors import ConfigurationError


def ask_here() -> None:
    """Let the encrypted file ask whoever sits at this terminal for its passphrase, once; nobody sits at a pipe."""
    from fleet.vault.passphrases import ASK

    if sys.stdin.isatty():
        ASK.set(lru_cache(maxsize=1)(lambda: str(click.prompt("Passphrase", hide_input=True, err=True))))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
def passphrase(as_json: bool) -> None:
    """Seal the encrypted file of keys with a passphrase, or with another one; read from a prompt or stdin.

    The key file beside the state folder then opens nothing any more. Commands at a terminal ask for the passphrase;
    workers read it from `vault.passphrase_file`, a file that only their user can read (mode 0600).

    \b
    Examples:
      fleet keys passphrase
      fleet keys passphrase < new-passphrase.txt
    """
    from fleet.cli.operator import operator_name
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed
    from fleet.store.private.two_redis import state_client
    from fleet.vault.choice import envelope_of
    from fleet.vault.passphrases import checked

    settings = config.current()
    envelope = envelope_of(settings)
    envelope.read()  # asks for the one it has, and tells a damaged file, before a new one is typed
    new = checked(_typed())
    with state_client(settings) as client:
        envelope.reseal(new)
        record_deed(client, catalogue.KEYS_RESEALED, operator_name())
    file = settings.vault.passphrase_file
    if as_json:
        click.echo(json.dumps({"file": str(envelope.path), "opened_by": "passphrase"}))
        return
    click.echo(f"{envelope.path} is sealed with the new passphrase; {envelope.key_file} opens it no more")
    click.echo(
        f"workers read it from {file}: write it there (mode 0600)" if file is not None else
        "workers need it: set vault.passphrase_file to a file (mode 0600) that holds it, or their calls wait"
    )  # fmt: skip


def _typed() -> str:
    """Return what is typed twice without being shown, or all of stdin where that is no terminal."""
    if sys.stdin.isatty():
        return str(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))
    lines = sys.stdin.read(8192).strip().splitlines()
    if len(lines) != 1:
        raise ConfigurationError(f"expected one line with the new passphrase on stdin, got {len(lines)}")
    return lines[0]
