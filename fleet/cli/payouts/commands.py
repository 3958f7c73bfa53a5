"""`fleet payouts`: what bots have earned for whom, and how it is paid (docs/payouts.md)."""

from __future__ import annotations

import click

from fleet.cli.payouts.earnings import report, revoke


@click.group()
def payouts() -> None:
    """Show what bots have earned for their payees; pay it.

    \b
    Examples:
      fleet payouts report --since 30d
      fleet payouts revoke TASK_ID --why "copied its answer"
    """


for _command in (report, revoke):
    payouts.add_command(_command)
