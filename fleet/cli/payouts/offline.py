"""`fleet payouts sign`, `confirm` and `key`: a file and a key file, and nothing else: no Redis, settings or network."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.terminal import say, table
from fleet.config.payouts.tables import TEST_NETS, tokens_in_full, units_of
from fleet.errors import ConfigurationError
from fleet.quoting import duration

if TYPE_CHECKING:
    from fleet.payouts.pins import Pins
    from fleet.payouts.slip import Slip

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_key_option = click.option("--key", "key_file", type=_FILE, required=True, help="Encrypted key file.")
_passphrase_option = click.option(
    "--passphrase-file", type=_FILE, help="File whose first line is the passphrase; else it is asked for."
)
_pin_option = click.option(
    "--pin", "is_pinned_anew", is_flag=True, help="The network, token, decimals and contract that it shows are right."
)
_pins_option = click.option(
    "--pins", "pins_file", type=_NEW_FILE, help="Where that is kept; else beside the key, as KEY.pins."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")


def extra() -> Any:
    """Return the module that signs.

    Raises:
        ConfigurationError: When the extra is not installed.
    """
    try:
        from fleet.payouts import keyfiles
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"expected the extra for payouts, got no module {error.name}: pip install 'celery-fleet[payouts]'"
        ) from None
    return keyfiles


@click.command()
@click.argument("slip_file", metavar="SLIP", type=_FILE)
@_key_option
@_passphrase_option
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="Where the signed slip goes.")
@click.option("--most", help="Refuse a slip that pays more tokens than this.")
@click.option("--most-fee", help="Refuse one whose fees may be more than this, in the network's own coin.")
@click.option("--main-net", is_flag=True, help="Sign a payout of real money.")
@_pin_option
@_pins_option
@_json_option
def sign(
    slip_file: Path, key_file: Path, passphrase_file: Path | None, output: Path, most: str | None,
    most_fee: str | None, main_net: bool, is_pinned_anew: bool, pins_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Sign a slip offline: needs the slip, the payer's encrypted key file, and nothing else.

    What is signed is worked out from the amounts that are shown, so the slip's maker cannot slip in another call.
    What the amounts mean (network, token, decimals, contract) is written beside the key, or into --pins, at first use;
    a slip that says something else is refused.

    \b
    Examples:
      fleet payouts sign slip.json --key payer.json -o signed.json
      fleet payouts sign slip.json --key payer.json --most 500 --most-fee 0.01 -o signed.json
      fleet payouts sign slip.json --key /media/stick/payer.json --pins payer.pins -o signed.json
    """
    from fleet.payouts.pins import Pins
    from fleet.payouts.refusals import PayoutRefused
    from fleet.payouts.slip import read_slip, what_ends, write_slip

    keyfiles, pins = extra(), Pins(key_file, pins_file)
    slip = read_slip(slip_file)
    if (slip.main_net or slip.chain_id not in TEST_NETS) and not main_net:
        raise PayoutRefused(f"expected --main-net for a slip of real money (network {slip.chain_id}), got none")
    if time.time() >= slip.expires_s:
        raise PayoutRefused(f"expected a slip that has not expired, got {slip.id}: {what_ends(slip)}")
    pins.check(slip, is_new=is_pinned_anew)
    if most is not None and not slip.voids and not is_pinned_anew and not pins.knows(slip):
        raise PayoutRefused(
            f"expected decimals that {pins.path} says, to read --most by, got the first slip of this key: sign without "
            "--most to see what it says, or say --pin"
        )
    _check_most(slip, most, most_fee)
    if not as_json:
        _show(slip)
    private_key = keyfiles.opened(key_file, _passphrase(passphrase_file))
    own = keyfiles.addresses_of(private_key)[slip.kind]
    if own.lower() != slip.payer.lower():
        raise PayoutRefused(f"expected the key of the payer {slip.payer}, got that of {own}")
    _pin(pins, slip)
    signed = tuple(keyfiles.sign_transfer(slip, transfer, private_key) for transfer in slip.transfers)
    write_slip(replace(slip, signed=signed), output)
    if as_json:
        click.echo(json.dumps({"payout": slip.id, "digest": slip.digest, "ids": [one.id for one in signed]}))
    else:
        say(f"signed {len(signed)} transactions of payout {slip.id} in {output}")


@click.command()
@click.argument("slip_file", metavar="SLIP", type=_FILE)
@_key_option
@_passphrase_option
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="Where the confirmed slip goes.")
@_pin_option
@_pins_option
@_json_option
def confirm(
    slip_file: Path, key_file: Path, passphrase_file: Path | None, output: Path, is_pinned_anew: bool,
    pins_file: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Confirm a slip as a second person, offline, with a key of your own: one of payouts.confirmers.

    What the amounts mean is held against what your key has confirmed before, as `fleet payouts sign` does.

    \b
    Examples:
      fleet payouts confirm signed.json --key second.json -o confirmed.json
    """
    from fleet.payouts.pins import Pins
    from fleet.payouts.slip import read_slip, write_slip

    keyfiles, pins = extra(), Pins(key_file, pins_file)
    slip = read_slip(slip_file)
    pins.check(slip, is_new=is_pinned_anew)
    if not as_json:
        _show(slip)
    private_key = keyfiles.opened(key_file, _passphrase(passphrase_file))
    _pin(pins, slip)
    address, signature = keyfiles.confirm(slip, private_key)
    write_slip(replace(slip, confirmations={**slip.confirmations, address: signature}), output)
    if as_json:
        click.echo(json.dumps({"payout": slip.id, "digest": slip.digest, "by": address}))
    else:
        say(f"{address} confirms payout {slip.id} in {output}")


@click.command()
@click.argument("key_file", metavar="FILE", type=_NEW_FILE)
@_passphrase_option
@click.option("--import", "is_import", is_flag=True, help="Of a private key that is read from stdin.")
@_json_option
def key(key_file: Path, passphrase_file: Path | None, is_import: bool, as_json: bool) -> None:
    """Make a key in an encrypted file (secret storage, version 3), and show its addresses; never the key.

    \b
    Examples:
      fleet payouts key payer.json
    """
    keyfiles = extra()
    private = sys.stdin.readline().strip() if is_import else None
    try:
        found = keyfiles.create(key_file, _passphrase(passphrase_file, is_new=True), private_key=private)
    except FileExistsError:
        raise ConfigurationError(
            f"expected a name that no file has, got {key_file}: keys are not overwritten"
        ) from None
    if as_json:
        click.echo(json.dumps(found))
    else:
        for kind, address in found.items():
            click.echo(f"{kind:5} {address}")


def _show(slip: Slip) -> None:
    """Tell who signs what is paid: from the amounts themselves."""
    if slip.voids:
        say(f"voids payout {slip.voids} and pays nobody: uses up {len(slip.transfers)} nonces")
    rows = [(one.payee, one.to, tokens_in_full(one.units, slip.decimals)) for one in slip.payments]
    for line in table([("PAYEE", "ADDRESS", "TOKENS"), *rows], left=(0, 1)):
        say(line)
    fees = tokens_in_full(*_most_fees(slip))
    via = f", through contract {slip.multisend}" if slip.multisend and not slip.voids else ""
    say(f"fees of at most {fees} of the network's own coin{via}; the token is taken to have {slip.decimals} decimals")
    place = f"{slip.kind} network {slip.chain_id}" if slip.chain_id else slip.kind
    money = "REAL MONEY, " if slip.main_net else ""
    say(
        f"{money}{tokens_in_full(slip.units, slip.decimals)} of token {slip.token} by {slip.payer} on {place}, in "
        f"{len(slip.transfers)} transactions; may be sent for {duration(max(0.0, slip.expires_s - time.time()))}"
    )


def _pin(pins: Pins, slip: Slip) -> None:
    """Keep what a slip says of its amounts, once the key is open; say so where it is news. A void has no amounts."""
    if not slip.voids and pins.add(slip):
        say(f"from now on this key signs as {pins.path} says: compare its contracts and decimals with what you know")


def _check_most(slip: Slip, most: str | None, most_fee: str | None) -> None:
    """Refuse a slip that pays or costs more than the signer wants.

    Raises:
        PayoutRefused: With both amounts.
    """
    from fleet.payouts.refusals import PayoutRefused

    fees, places = _most_fees(slip)
    bounds = (("--most", most, slip.units, slip.decimals, "tokens"), ("--most-fee", most_fee, fees, places, "in fees"))
    for option, text, units, decimals, what in bounds:
        if text is not None and units > _units(text, decimals, option):
            raise PayoutRefused(f"expected at most {text} {what} ({option}), got {tokens_in_full(units, decimals)}")


def _most_fees(slip: Slip) -> tuple[int, int]:
    """Return the most that a slip's fees can be, in smallest units of the network's own coin, and its decimals."""
    gas = sum(one.gas for one in slip.transfers)
    return (gas, 6) if slip.kind == "tron" else (gas * slip.max_fee_per_gas, 18)


def _units(text: str, decimals: int, option: str) -> int:
    try:
        return units_of(text, decimals)
    except (ValueError, ZeroDivisionError) as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _passphrase(file: Path | None, *, is_new: bool = False) -> str:
    if file is not None:
        return file.read_text(encoding="utf-8").partition("\n")[0]
    return str(click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=is_new))
