"""What budgets are charged for an entry of the bill, so that both are one record. Pure; the script is `settle.lua`."""

from __future__ import annotations

from fleet.economy.bill.writer import Batch, ScriptCall
from fleet.economy.budgets.keeper import Settlement, settle_call
from fleet.economy.budgets.scopes import Payer
from fleet.economy.budgets.scripts import SETTLE
from fleet.entries import Entry


def settlement_of(entry: Entry) -> Settlement:
    """Return what the reservation of a call came to; one of unknown cost may be told later, within a day."""
    scopes = Payer(entry.pool, entry.bot, entry.tenant, entry.run).scopes
    return Settlement(entry.reservation, scopes, entry.usd_picos, entry.state == "unknown")


def charge_batch(batch: Batch) -> ScriptCall | None:
    """Return what charges the reservations of a batch at what the bill has of them; None: it has none.

    What its own process has settled already stays so: to charge it again does nothing.
    """
    ended = [settlement_of(entry) for entry in batch.entries if entry.reservation]
    return (SETTLE, *settle_call(ended)) if ended else None
