"""What is due to whom: the ledger less what payouts have taken up, by payee, and who has to wait and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from fleet.config import Settings
from fleet.config.payouts.tables import tokens_in_full, units_of
from fleet.earnings.rows import Asset, EarningRow, asset_of


@dataclass(slots=True)
class PayeeDue:
    """What one payee is due of one asset.

    Args:
        units: That may be paid now; below zero when more was taken back than earned since.
        held: Units that bots have earned which are in quarantine or on probation, and those of prices that are new.
        rows: Row -> how many of its tasks a payment takes up.
        before: Row -> how many of its tasks payouts had taken up when that was read.
        waits: Why it is not paid now; empty: it is.
    """

    payee: str
    asset: Asset
    units: int = 0
    held: int = 0
    rows: dict[EarningRow, int] = field(default_factory=dict)
    before: dict[EarningRow, int] = field(default_factory=dict)
    waits: str = ""

    @property
    def tokens(self) -> str:
        """The units as people read them."""
        return tokens_in_full(self.units, self.asset.decimals)


def dues(
    ledger: Mapping[EarningRow, int],
    netted: Mapping[str, int],
    held_bots: Collection[tuple[str, str]],
    held_rows: Collection[EarningRow] = (),
) -> list[PayeeDue]:
    """Return what each payee is due of each asset, by name.

    Args:
        ledger: Row -> tasks, of all time.
        netted: Row as the ledger has it -> tasks that payouts have taken up.
        held_bots: Pool and name of bots whose earnings are held. What was taken back from them counts all the same.
        held_rows: Rows that are held, too: earned by a price that is new.
    """
    found: dict[tuple[str, Asset], PayeeDue] = {}
    for row, count in ledger.items():
        before = netted.get(row.spelt, 0)
        left = count - before
        if not left:
            continue
        asset = Asset.of(row.asset)
        due = found.setdefault((row.payee, asset), PayeeDue(row.payee, asset))
        if row.units > 0 and ((row.pool, row.bot) in held_bots or row in held_rows):
            due.held += row.units * left
        else:
            due.units += row.units * left
            due.rows[row], due.before[row] = left, before
    return [found[key] for key in sorted(found)]


def judge(
    found: list[PayeeDue], settings: Settings, address_waits: Mapping[str, str], payout_waits: Mapping[str, str]
) -> None:
    """Say of each payee why it has to wait, if it has to.

    Args:
        found: As `dues` returns it; changed in place.
        settings: Thresholds, payees, networks.
        address_waits: Payee -> why its address is not paid yet.
        payout_waits: Network -> why no payout begins there now.
    """
    for due in found:
        due.waits = _wait_of(due, settings, address_waits, payout_waits)


def _wait_of(
    due: PayeeDue, settings: Settings, address_waits: Mapping[str, str], payout_waits: Mapping[str, str]
) -> str:
    payee = settings.payees.get(due.payee)
    if payee is None:
        return f"no [payees.{due.payee}] in fleet.toml: nobody knows where to"
    if payee.network != due.asset.network or due.asset != asset_of(payee.network, settings.networks):
        now = asset_of(payee.network, settings.networks).spelt
        return f"earned as {due.asset.spelt}, and the payee is paid {now} now"
    threshold = units_of(payee.threshold or settings.payouts.threshold, due.asset.decimals)
    if due.units < max(threshold, 1):
        held = f", {tokens_in_full(due.held, due.asset.decimals)} held" if due.held else ""
        return f"below the threshold of {tokens_in_full(threshold, due.asset.decimals)}{held}"
    return address_waits.get(due.payee) or payout_waits.get(due.asset.network, "")


def within_fees(chosen: list[PayeeDue], fees: Mapping[str, Fraction], share: float) -> list[PayeeDue]:
    """Return those whose own fees are within a share of what they are paid; the others have to wait.

    Args:
        chosen: Who would be paid together.
        fees: Payee -> its part of the fees, in smallest units of the token.
        share: Most that fees may take.
    """
    kept = [due for due in chosen if fees[due.payee] <= share * due.units]
    for due in chosen:
        if due not in kept:
            taken = float(fees[due.payee] / due.units)
            due.waits = f"its fees would take {taken:.1%}, more than payouts.max_fee_share {share:.1%}"
    return kept
