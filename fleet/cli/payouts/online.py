"""`fleet payouts due`, `prepare`, `send`, `check`, `void` and `list`: where Redis is, and a network's node."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet import config
from fleet.cli.exit_codes import EXIT_FAILURE
from fleet.cli.money.times import iso
from fleet.cli.payouts.offline import extra
from fleet.cli.terminal import say, table
from fleet.config import Settings
from fleet.config.payouts.tables import tokens_in_full
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import nearest, quote

if TYPE_CHECKING:
    import redis

    from fleet.payouts.book import Record
    from fleet.payouts.guards import Guards
    from fleet.payouts.netting import PayeeDue

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


@click.command()
@_json_option
def due(as_json: bool) -> None:
    """Show what each payee is due, what is held, and why who has to wait has to.

    \b
    Examples:
      fleet payouts due
      fleet payouts due --json | jq '.due[] | select(.waits == "")'
    """
    from fleet.payouts.office import read_dues

    with _state() as (client, settings):
        found, guards = read_dues(client, settings)
    _show_dues(found, as_json, guards.told)


@click.command()
@click.argument("network")
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="Where the slip goes.")
@click.option("--now", "ignore_schedule", is_flag=True, help="Also before payouts.every_hours have passed.")
@click.option("--nonce", type=click.IntRange(0), help="Of the payer's next transaction, if it has made others.")
@_json_option
def prepare(network: str, output: Path, ignore_schedule: bool, nonce: int | None, as_json: bool) -> None:
    """Take up what is due on a network into a payout, and write the slip that pays it.

    Asks the network's node about the token, the payer and fees. One payout at a time is under way on a network.

    \b
    Examples:
      fleet payouts prepare bsc-test -o slip.json
    """
    from fleet.payouts import office
    from fleet.payouts.slip import write_slip

    if output.exists():
        raise ConfigurationError(f"expected a name that no file has, got {output}: slips are not overwritten")
    keyfiles = extra()
    with _state() as (client, settings):
        known = _network(network, settings)
        error_of = keyfiles.checksum_error if known.kind == "evm" else lambda _: None
        for address in (known.token, known.payer, known.multisend or known.payer):
            if wrong := error_of(address):
                raise ConfigurationError(wrong)
        slip, found = office.prepare(
            client, settings, network, by=_name(), ignore_schedule=ignore_schedule, nonce=nonce,
            misspelt={
                payee: wrong for payee, one in settings.payees.items()
                if one.network == network and (wrong := error_of(one.address))
            },
        )  # fmt: skip
        write_slip(slip, output)
        _record(client, slip.id, network, "prepared")
    if as_json:
        waiting = {one.payee: one.waits for one in found if one.waits}
        click.echo(json.dumps({"payout": slip.id, "slip": str(output), "digest": slip.digest, "waiting": waiting}))
        return
    _show_dues(found, as_json=False)
    say(f"payout {slip.id} pays {tokens_in_full(slip.units, slip.decimals)}; sign {output}, then send it")


@click.command()
@click.argument("slip_file", metavar="SLIP", type=_FILE)
@click.option("--main-net", is_flag=True, help="Send real money.")
@_json_option
def send(slip_file: Path, main_net: bool, as_json: bool) -> None:
    """Send a signed slip. What is not known to have arrived is looked up by `fleet payouts check`, never paid twice.

    \b
    Examples:
      fleet payouts send signed.json
    """
    from fleet.payouts.slip import read_slip

    extra()
    slip = read_slip(slip_file)
    with _state() as (client, settings):
        postman = _postman(client, slip.network, settings, _guards(client, settings))
        record = postman.send(slip, main_net=main_net)
        _record(client, slip.voids or slip.id, slip.network, "voided" if slip.voids else "sent")
    _show_records([record], as_json)


@click.command()
@click.argument("payout", required=False)
@_json_option
@click.pass_context
def check(ctx: click.Context, payout: str | None, as_json: bool) -> None:
    """Follow the payouts under way until nothing can undo them, and hold each network's node against the settings.

    What has failed for good is due again. What a network has lost is sent again, the very same bytes.

    \b
    Examples:
      fleet payouts check
      fleet payouts check 20261130-bsc-test-1a2b3c4d
    """
    from fleet.payouts.book import PayoutBook

    extra()
    with _state() as (client, settings):
        guards = _guards(client, settings)
        book = PayoutBook(client)
        records, troubles = [], []
        for one in [payout] if payout else book.under_way().values():
            before = book.read(one)
            try:
                after = _postman(client, before.slip.network, settings, guards).check(one)
            except FleetError as error:  # other networks are looked at all the same
                troubles.append(f"{one}: {error}")
                after = book.read(one)
            if after.has_ended and not before.has_ended:
                _record(client, one, before.slip.network, "ended")
            records.append(after)
        if not as_json and not records:
            for name, network in settings.networks.items():
                say(f"{name}: {_told_of(name, network)}")
    _show_records(records, as_json)
    for trouble in troubles:
        say(trouble)
    if troubles:
        ctx.exit(EXIT_FAILURE)


@click.command()
@click.argument("payout")
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="Where the slip that voids it goes.")
@_json_option
def void(payout: str, output: Path, as_json: bool) -> None:
    """Write a slip that uses up the nonces of a payout, so that it can never be paid: sign and send it, too.

    Whichever of both a block takes, the other is out for good; `fleet payouts check` finds out which it was. On TRON a
    payout that no block has taken ends by itself some hours after it was prepared.

    \b
    Examples:
      fleet payouts void 20261130-bsc-test-1a2b3c4d -o void.json
    """
    from fleet.payouts.book import PayoutBook
    from fleet.payouts.preparing import void_of
    from fleet.payouts.slip import write_slip

    with _state() as (client, settings):
        slip = PayoutBook(client).read(payout).slip
        network = _network(slip.network, settings)
        made = void_of(slip, network, f"void-{secrets.token_hex(4)}", time.time())
        write_slip(made, output)
    if as_json:
        click.echo(json.dumps({"payout": payout, "slip": str(output), "nonces": [one.nonce for one in made.transfers]}))
    else:
        say(f"{output} uses up {len(made.transfers)} nonces of {payout}; sign it, send it, then check")


@click.command()
@click.argument("payout")
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="Where the slip goes.")
@_json_option
def slip(payout: str, output: Path, as_json: bool) -> None:
    """Write the slip of a payout that was prepared once more, unsigned: its file was lost.

    \b
    Examples:
      fleet payouts slip 20261130-bsc-test-1a2b3c4d -o slip.json
    """
    from fleet.payouts.book import PayoutBook
    from fleet.payouts.slip import write_slip

    with _state() as (client, _):
        found = PayoutBook(client).read(payout).slip
    write_slip(found, output)
    if as_json:
        click.echo(json.dumps({"payout": payout, "slip": str(output), "digest": found.digest}))
    else:
        say(f"payout {payout} pays {tokens_in_full(found.units, found.decimals)}; sign {output}, then send it")


@click.command("list")
@_json_option
def list_payouts(as_json: bool) -> None:
    """List payouts and where each of their payments stands.

    \b
    Examples:
      fleet payouts list
      fleet payouts list --json | jq '.payouts[].payments[] | select(.state == "failed")'
    """
    from fleet.payouts.book import read_payouts

    with _state() as (client, _):
        records = read_payouts(client)
    _show_records(list(records), as_json)


# -- what people see


def _show_dues(found: list[PayeeDue], as_json: bool, changes: str = "") -> None:
    if as_json:
        rows = [
            {
                "payee": one.payee, **one.asset._asdict(), "units": str(one.units), "tokens": one.tokens,
                "held_units": str(one.held), "tasks": sum(one.rows.values()), "waits": one.waits,
            }
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps({"due": rows, "changes": changes}, indent=2))
        return
    cells = [
        (
            one.payee,
            one.asset.network,
            one.tokens,
            tokens_in_full(one.held, one.asset.decimals),
            one.waits or "paid next",
        )
        for one in found
    ]
    for line in table([("PAYEE", "NETWORK", "DUE", "HELD", ""), *cells], left=(0, 1, 4)):
        click.echo(line)
    if not found:
        say("nobody is due anything")
    if changes:
        say(changes)


def _show_records(records: list[Record], as_json: bool) -> None:
    from fleet.payouts.book import payments_of

    if as_json:
        rows = [
            {
                "payout": one.slip.id, "network": one.slip.network, "by": one.by, "prepared": iso(one.slip.prepared_s),
                "has_ended": one.has_ended,
                "payments": [{**each._asdict(), "units": str(each.units)} for each in payments_of(one)],
            }
            for one in records
        ]  # fmt: skip
        click.echo(json.dumps({"payouts": rows}, indent=2))
        return
    cells = [
        (
            each.payout,
            each.payee,
            tokens_in_full(each.units, one.slip.decimals),
            each.state,
            each.transaction[:20],
            each.why,
        )
        for one in records
        for each in payments_of(one)
    ]
    if cells:
        for line in table([("PAYOUT", "PAYEE", "TOKENS", "STATE", "TRANSACTION", ""), *cells], left=(0, 1, 3, 4, 5)):
            click.echo(line)
    else:
        say("no payouts")


def _told_of(name: str, network: Any) -> str:
    from fleet.payouts.preparing import check_network

    try:
        return check_network(name, network)
    except FleetError as error:
        return str(error)


# -- what they share


@contextmanager
def _state() -> Iterator[tuple[redis.Redis, Settings]]:
    from fleet.store.private.two_redis import state_client

    settings = config.current()
    with state_client(settings) as client:
        yield client, settings


def _network(name: str, settings: Settings) -> Any:
    if name not in settings.networks:
        raise ConfigurationError(
            f"NETWORK: expected a table of [networks], got {quote(name)}; {nearest(name, settings.networks)}"
        )
    return settings.networks[name]


def _guards(client: redis.Redis, settings: Settings) -> Guards:
    from fleet.earnings.ledger import rows_ever
    from fleet.payouts.guards import read_guards

    return read_guards(client, settings, rows_ever(client), float(client.time()[0]))


def _postman(client: redis.Redis, name: str, settings: Settings, guards: Guards) -> Any:
    from fleet.payouts.book import PayoutBook
    from fleet.payouts.sending import Postman

    book = PayoutBook(client, replicas=settings.redis.replicas)
    return Postman(book, name, _network(name, settings), doubt=guards.networks.get(name, ""))


def _name() -> str:
    from fleet.cli.operator import operator_name

    return operator_name()


def _record(client: redis.Redis, payout: str, network: str, now: str) -> None:
    from fleet.signals import catalogue
    from fleet.signals.events import record_deed

    record_deed(client, catalogue.PAYOUT_MOVED, _name(), payout=payout, network=network, now=now)
