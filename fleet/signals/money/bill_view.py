"""The bill as the Fleet tab, `fleet top`, `fleet stats` and the metrics show it: the hour, today, and all."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen


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


class BillView(Frozen):
    """The bill just now. Hours and days are those of UTC."""

    hour: BillSums = Field(BillSums(), description="Since the hour began.")
    day: BillSums = Field(BillSums(), description="Since midnight UTC.")
    ever: BillSums = Field(BillSums(), description="Since counting began.")
    rows: tuple[BillRow, ...] = Field((), description="By pool and model, today's dearest first.")
    batches: BatchesView = Field(BatchesView(), description="Tasks in batches, and on their way there.")
