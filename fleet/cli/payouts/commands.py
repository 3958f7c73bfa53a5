"""`fleet payouts`: what bots have earned for whom, and how it is paid (docs/payouts.md)."""

from __future__ import annotations

import click

from fleet.cli.payouts.earnings import report, revoke
from fleet.cli.payouts.offline import confirm, key, sign
from fleet.cli.payouts.online import check, due, list_payouts, prepare, send, slip, void


@click.group()
def payouts() -> None:
    """Show what bots have earned for their payees; pay it.

    Prepare a slip where Redis is, sign it where the key is, send it, and check until it has ended.

    \b
    Examples:
      fleet payouts due
      fleet payouts prepare bsc-test -o slip.json
      fleet payouts sign slip.json --key payer.json -o signed.json
      fleet payouts send signed.json
      fleet payouts check
      fleet payouts report --since 30d
    """


for _command in (due, prepare, sign, confirm, send, check, void, slip, list_payouts, report, revoke, key):
    payouts.add_command(_command)
