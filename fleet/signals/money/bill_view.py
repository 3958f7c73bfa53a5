"""The bill as the Fleet tab, `fleet top`, `fleet stats` and the metrics show it: the hour, today, and all."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen
from fleet.signals.money.cached import CacheRow
from fleet.signals.money.payout_view import PayoutsView


class BillSums(Frozen):
    """What calls have cost; amounts are whole numbers of 10^-12 US dollars."""

    calls: int = 0
    unknown_calls: int = Field(0, description="Those of them of which nobody knows what was counted.")
    unpriced_calls: int = Field(0, description="Those of them without a price.")
    usd_picos: int = Field(0, description="Of the settled ones.")
    unknown_usd_picos: int = Field(0, description="What was reserved for the unknown ones.")


class BillRow(Frozen):
    """The bill of one pool's calls to one model."""

    pool: str
    model: str = Field(description="provider/model")
    hour: BillSums = BillSums()
    day: BillSums = BillSums()
    ever: BillSums = BillSums()


class BatchesView(Frozen):
    """What has left for a cheaper lane, and is answered later."""

    gathering: int = Field(0, description="Tasks that wait for others to go with.")
    tasks: int = Field(0, description="Tasks in batches at vendors.")
    batches: int = Field(0, description="Those batches.")
    latest_by: float | None = Field(None, description="Unix time (s) by which the first of them is needed; None: none.")


class ReadsView(Frozen):
    """What calls with documents have read from providers' caches."""

    hit: int = Field(0, description="Calls that have read them.")
    cold: int = Field(0, description="Calls that went first, because no key was believed to have them.")
    missed: int = Field(0, description="Calls that should have read them, and did not.")
    read_tokens: int = Field(0, description="Tokens read from caches.")
    saved_picos: int = Field(0, description="What caches have saved, less surcharges for writing, in 10^-12 dollars.")


class ContextRow(Frozen):
    """One document."""

    id: str
    name: str = Field(description="That of its file; empty: it is not stored any more.")
    reads: ReadsView


class ContextsView(Frozen):
    """Documents that tasks share, and what providers' caches make of them."""

    stored: int = Field(0, description="Documents.")
    rows: tuple[ContextRow, ...] = Field((), description="Those asked about within 70 minutes, the most calls first.")
    lately: ReadsView = Field(ReadsView(), description="Of all documents in that time.")
    ever: ReadsView = Field(ReadsView(), description="Of all documents since counting began.")


class EarnedRow(Frozen):
    """What bots have earned on one network (docs/payouts.md)."""

    network: str
    tasks: int = Field(0, description="That have earned something, less those that were taken back.")
    tokens: str = Field("0", description="Earned, less what was taken back; every digit.")
    unpaid: str = Field("0", description="Earned, and taken up by no payout that has not failed.")


class BillView(Frozen):
    """The bill just now. Hours and days are those of UTC."""

    hour: BillSums = Field(BillSums(), description="Since the hour began.")
    day: BillSums = Field(BillSums(), description="Since midnight UTC.")
    ever: BillSums = Field(BillSums(), description="Since counting began.")
    rows: tuple[BillRow, ...] = Field((), description="By pool and model, today's dearest first.")
    contexts: ContextsView = Field(ContextsView(), description="Documents that tasks share.")
    batches: BatchesView = Field(BatchesView(), description="Tasks in batches, and on their way there.")
    cache: tuple[CacheRow, ...] = Field((), description="What kept answers have done, by deterministic kind.")
    earned: tuple[EarnedRow, ...] = Field((), description="What bots have earned for their payees, by network.")
    payouts: PayoutsView = Field(PayoutsView(), description="What pays them.")
