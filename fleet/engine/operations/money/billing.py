"""The bill for pages and metrics: read from its sums, and kept for a moment where they are many."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

import redis

from fleet.config import Settings
from fleet.economy.bill.reader import read_now
from fleet.economy.bill.rows import Sums
from fleet.economy.contexts.told import ContextBoard, Reads, read_contexts
from fleet.economy.lanes.board import LaneBoard, read_board
from fleet.engine.operations.money.cached import counts_in
from fleet.signals.money.bill_view import (
    BatchesView,
    BillRow,
    BillSums,
    BillView,
    ContextRow,
    ContextsView,
    EarnedRow,
    ReadsView,
)
from fleet.signals.money.payout_view import AddressRow, PayoutRow, PayoutsView

#: Rows from which a reading is kept for a while (count), and for how long (s): reading 10,000 takes 0.1 s of Python.
MANY, KEPT_S = 500, 10.0
#: Documents that are shown (count).
MOST_DOCUMENTS = 50
#: Nothing.
_NOTHING = Sums()


class Billing:
    """Reads the bill for one overview.

    Args:
        settings: Which kinds are deterministic.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._view = BillView()
        self._until_s = 0.0

    def read(self, client: redis.Redis, now_s: float, totals: Mapping[bytes, int]) -> BillView:
        """Return the bill.

        Args:
            client: Plain client of the state Redis.
            now_s: Unix time of Redis.
            totals: All counters.
        """
        if time.monotonic() < self._until_s:
            return self._view
        (hour, day, ever), rows = read_now(client, now_s)
        self._until_s = time.monotonic() + KEPT_S if rows >= MANY else 0.0
        lines = [
            BillRow(
                pool=pool, model=model, hour=_shown(hour.get((pool, model))), day=_shown(day.get((pool, model))),
                ever=_shown(sums),
            )
            for (pool, model), sums in ever.items()
        ]  # fmt: skip
        self._view = BillView(
            hour=_whole(hour), day=_whole(day), ever=_whole(ever),
            rows=tuple(sorted(lines, key=lambda row: (-row.day.usd_picos, -row.ever.usd_picos, row.pool, row.model))),
            batches=_batches(read_board(client)), contexts=_contexts(read_contexts(client, now_s)),
            cache=counts_in(totals, self._settings), earned=_earned(client, self._settings),
            payouts=_payouts(client, self._settings, now_s),
        )  # fmt: skip
        return self._view


def _earned(client: redis.Redis, settings: Settings) -> tuple[EarnedRow, ...]:
    if not settings.payouts.earn:
        return ()
    from fleet.earnings.board import read_earnings  # nobody else pays for it

    return tuple(
        EarnedRow(network=one.asset.network, tasks=one.tasks, tokens=one.tokens, unpaid=one.unpaid)
        for one in read_earnings(client, settings)
    )


def _payouts(client: redis.Redis, settings: Settings, now_s: float) -> PayoutsView:
    """Return where payouts stand, also when nothing is earned any more."""
    if not settings.networks:
        return PayoutsView()
    from fleet.earnings.under_way import read_payouts_under_way, read_waiting_addresses

    addresses, terms_hold_at = read_waiting_addresses(client, settings, now_s)
    return PayoutsView(
        rows=tuple(PayoutRow(**asdict(one)) for one in read_payouts_under_way(client)),
        addresses=tuple(AddressRow(**asdict(one)) for one in addresses), terms_hold_at=terms_hold_at,
    )  # fmt: skip


def _batches(board: LaneBoard) -> BatchesView:
    return BatchesView(
        gathering=sum(one.tasks for one in board.gathering),
        tasks=sum(job.count for job in board.jobs),
        batches=len(board.jobs),
        latest_by=min((job.by_at for job in board.jobs), default=None),
    )


def _contexts(board: ContextBoard) -> ContextsView:
    return ContextsView(
        stored=board.stored, lately=_reads(board.lately), ever=_reads(board.totals),
        rows=tuple(
            ContextRow(id=one.id, name=one.name, reads=_reads(one.reads)) for one in board.documents[:MOST_DOCUMENTS]
        ),
    )  # fmt: skip


def _reads(reads: Reads) -> ReadsView:
    return ReadsView(**asdict(reads))


def _whole(sums: Mapping[tuple[str, str], Sums]) -> BillSums:
    return _shown(sum(sums.values(), _NOTHING))


def _shown(sums: Sums | None) -> BillSums:
    if sums is None:
        return BillSums()
    return BillSums(
        calls=sums.calls, unknown_calls=sums.unknown_calls, unpriced_calls=sums.unpriced_calls,
        usd_picos=sums.usd_picos, unknown_usd_picos=sums.unknown_usd_picos,
    )  # fmt: skip
