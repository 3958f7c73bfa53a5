"""What Prometheus is told of money: budgets, the bill, the day's cost, and slots that are paid for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.money import PICOS
from fleet.signals.ahead.budget_view import BudgetScopeView
from fleet.signals.cost_view import ComputeView
from fleet.signals.money.bill_view import BillRow
from fleet.signals.money.metric import Metric, Sample
from fleet.signals.money.payout_view import PayoutsView
from fleet.signals.view import FleetView

#: What becomes of a transaction of a payout.
PAYOUT_STATES = ("prepared", "signed", "broadcast", "settled", "failed")

BUDGET_USD = Metric(
    "fleet_budget_usd",
    "gauge",
    "US dollars of a budget of the fleet or a pool: spent in its period, reserved for calls under way, allowed.",
    ("scope", "period", "which"),
)
BUDGET_FULLEST = Metric(
    "fleet_budget_fullest_ratio", "gauge", "Spent share of the fullest budget of each kind of scope.", ("scope",)
)
BILL = Metric("fleet_bill_usd", "counter", "US dollars of settled calls.", ("pool", "model"))
BILL_CALLS = Metric("fleet_bill_calls", "counter", "Calls in the bill.", ("pool", "model"))
BILL_UNPRICED = Metric("fleet_bill_unpriced_calls", "counter", "Calls without a price.", ("pool", "model"))
BILL_UNKNOWN = Metric(
    "fleet_bill_unknown_calls", "gauge", "Calls of which nobody knows what was counted.", ("pool", "model")
)
BILL_RESERVED = Metric("fleet_bill_unknown_usd", "gauge", "US dollars reserved for those.", ("pool", "model"))
BATCH_TASKS = Metric(
    "fleet_batch_tasks", "gauge", "Tasks that gather for a batch, and tasks in batches at vendors.", ("state",)
)
CONTEXT_CALLS = Metric(
    "fleet_context_calls", "counter",
    "Calls with shared documents: that read them from a provider's cache (hit), went first (cold), or missed them.",
    ("what",),
)  # fmt: skip
CONTEXT_TOKENS = Metric("fleet_context_read_tokens", "counter", "Tokens that those have read from caches.")
CONTEXT_SAVED = Metric(
    "fleet_context_saved_usd", "gauge", "US dollars that caches have saved them, less surcharges for what was written."
)
CACHE_TASKS = Metric(
    "fleet_cache_tasks", "counter", "Tasks of deterministic kinds, by whether they were asked.", ("kind", "result")
)
CACHE_SAVED = Metric(
    "fleet_cache_saved_usd", "counter", "US dollars that kept answers had cost which were given again.", ("kind",)
)
DAY_COST = Metric("fleet_day_cost_usd", "gauge", "US dollars since midnight UTC.", ("pool",))
SLOT_HOURS = Metric(
    "fleet_day_slot_hours", "gauge", "Hours of slots with a task and without, last 24 hours.", ("state",)
)
COMPUTE_COST = Metric(
    "fleet_day_compute_cost_usd", "gauge", "What they cost by usd_per_hour of [worker]; absent without it.", ("state",)
)
EARNED_TASKS = Metric("fleet_earned_tasks", "gauge", "Tasks that have earned something, of all time.", ("network",))
EARNED = Metric("fleet_earned_tokens", "gauge", "Tokens that payees have earned, of all time.", ("network",))
PAYOUT_AGE = Metric(
    "fleet_payout_open_seconds", "gauge", "Seconds since the payout under way was prepared; 0: none is.", ("network",)
)
EARNED_UNPAID = Metric(
    "fleet_earned_unpaid_tokens", "gauge", "Tokens earned that no payout has taken up, or one that has failed.",
    ("network",),
)  # fmt: skip
PAYOUT_TRANSACTIONS = Metric(
    "fleet_payout_transactions", "gauge",
    "Transactions of the payout that was prepared last, by what has become of them.", ("network", "state"),
)  # fmt: skip
PAYEES_WAITING = Metric(
    "fleet_payees_waiting", "gauge", "Payees whose address is new or has changed, and is not paid yet.",
    ("network", "what"),
)  # fmt: skip

MONEY_METRICS = (
    DAY_COST, SLOT_HOURS, COMPUTE_COST, BUDGET_USD, BUDGET_FULLEST, BILL, BILL_CALLS, BILL_UNPRICED, BILL_UNKNOWN,
    BILL_RESERVED, BATCH_TASKS, CONTEXT_CALLS, CONTEXT_TOKENS, CONTEXT_SAVED,
    CACHE_TASKS, CACHE_SAVED, EARNED_TASKS, EARNED, EARNED_UNPAID,
    PAYOUT_AGE, PAYOUT_TRANSACTIONS, PAYEES_WAITING,
)  # fmt: skip


def money(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield each metric with its samples."""
    yield DAY_COST, [((row.pool,), row.day_usd_micros / 1e6) for row in view.cost.pools]
    yield from _budgets(view.budgets)
    yield from _compute(view.cost.compute)
    yield from _bill(view.bill.rows)
    batches = view.bill.batches
    yield BATCH_TASKS, [(("gathering",), batches.gathering), (("sent",), batches.tasks)]
    read = view.bill.contexts.ever
    yield CONTEXT_CALLS, [(("hit",), read.hit), (("cold",), read.cold), (("missed",), read.missed)]
    yield CONTEXT_TOKENS, [((), read.read_tokens)]
    yield CONTEXT_SAVED, [((), read.saved_picos / PICOS)]
    found = [(row, result, count) for row in view.bill.cache for result, count in row.counts()]
    yield CACHE_TASKS, [((row.kind, result), count) for row, result, count in found]
    earned = view.bill.earned
    yield EARNED_TASKS, [((row.network,), row.tasks) for row in earned]
    yield EARNED, [((row.network,), float(row.tokens)) for row in earned]
    yield EARNED_UNPAID, [((row.network,), float(row.unpaid)) for row in earned]
    yield from _payouts(view.bill.payouts, view.at)
    yield CACHE_SAVED, [((row.kind,), row.saved_usd_micros / 1e6) for row in view.bill.cache]


def _payouts(payouts: PayoutsView, now_s: float) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield (
        PAYOUT_AGE,
        [((row.network,), max(0.0, now_s - row.prepared_at) if row.is_open else 0.0) for row in payouts.rows],
    )
    yield (
        PAYOUT_TRANSACTIONS,
        [((row.network, state), row.states.get(state, 0)) for row in payouts.rows for state in PAYOUT_STATES],
    )
    found = [
        (row, what, count) for row in payouts.addresses for what, count in (("new", row.new), ("changed", row.changed))
    ]
    yield PAYEES_WAITING, [((row.network, what), count) for row, what, count in found]


def _budgets(budgets: Iterable[BudgetScopeView]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield the budgets of fleet and pools; of tenants, bots and runs, which are without number, the fullest alone."""
    rows: list[Sample] = []
    fullest: dict[str, float] = {}
    for one in budgets:
        kind = one.scope.partition(":")[0]
        fullest[kind] = max(fullest.get(kind, 0.0), one.share)
        for amount in one.amounts if kind in ("fleet", "pool") else ():
            for which, usd in (
                ("spent", amount.spent_usd), ("reserved", one.reserved_usd), ("allowed", amount.allowed_usd)
            ):  # fmt: skip
                rows.append(((one.scope, amount.period, which), usd))
    yield BUDGET_USD, rows
    yield BUDGET_FULLEST, [((kind,), share) for kind, share in fullest.items()]


def _compute(found: ComputeView | None) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    hours, costs = list[Sample](), list[Sample]()
    if found is not None:
        hours = [(("busy",), found.busy_slot_hours), (("idle",), found.idle_slot_hours)]
        if found.usd_micros is not None and found.idle_usd_micros is not None:
            idle = found.idle_usd_micros
            costs = [(("busy",), (found.usd_micros - idle) / 1e6), (("idle",), idle / 1e6)]
    yield SLOT_HOURS, hours
    yield COMPUTE_COST, costs


def _bill(rows: Iterable[BillRow]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    sums = [((row.pool, row.model), row.ever) for row in rows]
    yield BILL, [(labels, one.usd_picos / PICOS) for labels, one in sums]
    yield BILL_CALLS, [(labels, one.calls) for labels, one in sums]
    yield BILL_UNPRICED, [(labels, one.unpriced_calls) for labels, one in sums]
    yield BILL_UNKNOWN, [(labels, one.unknown_calls) for labels, one in sums]
    yield BILL_RESERVED, [(labels, one.unknown_usd_picos / PICOS) for labels, one in sums]
