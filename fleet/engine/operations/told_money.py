"""What a task that is not done has cost so far, may still cost and asks for just now, in words. Pure; no Redis."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.config import tool_of
from fleet.config.payouts.tables import tokens_in_full
from fleet.engine.operations.task_facts import Facts
from fleet.engine.operations.task_money import CallUnderWay, micros_left
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.engine.outcomes.results import before_of
from fleet.money import dollars_in_full, dollars_of
from fleet.outcome import Before
from fleet.quoting import counted, duration, noun_for, stamp
from fleet.signals.ahead.outlook import usd
from fleet.usage import told


def told_money(facts: Facts) -> Iterator[str]:
    """Yield lines: what it has had, its own bound, the budgets that count it, and its calls without an answer."""
    before = before_of(parts_of(facts.message or b"")[0])
    if had := _told_before(before):
        yield had
    if facts.money.most_picos is not None:
        left = (micros_left(facts.money, before.cost_usd_picos) or 0) / 1e6
        yield f"of its max_cost_usd = {usd(dollars_of(facts.money.most_picos))}, {usd(left)} is left"
    for budget in facts.money.budgets:
        for amount in budget.amounts:
            left = max(0.0, amount.allowed_usd - amount.spent_usd - budget.reserved_usd)
            yield f"the budget of {budget.scope} has {usd(left)} left: {amount.line}"
    silent = {limit.rpartition("/")[0] for worker in facts.workers for limit in worker.unanswered}
    silent |= {wait.about.rpartition("/")[0] for wait in facts.tool_waits if not tool_of(wait.about)}
    for call in facts.money.under_way:
        yield _told_call(call, facts.now_s, hangs=call.api in silent)


def told_lost(facts: Facts) -> Iterator[str]:
    """Yield a line about calls of the task of which nobody knows what they cost; none where there is none."""
    if lost := facts.lost:
        picos = [entry.usd_picos for entry in lost if entry.usd_picos is not None]
        reserved = f", ${dollars_in_full(sum(picos))} reserved" if picos else ""
        yield (
            f"{counted(len(lost), 'call')} of it {noun_for(len(lost), 'is', 'are')} unknown{reserved}: cut off, or the "
            "worker died; what it costs here does not count them (`fleet bill unknown`)"
        )


def told_earned(facts: Facts) -> Iterator[str]:
    """Yield a line about what the task has earned, and one about why that was taken back."""
    if facts.earned is None:
        return
    from fleet.earnings.rows import Asset

    row = facts.earned.row
    asset = Asset.of(row.asset)
    yield f"it has earned {tokens_in_full(row.units, asset.decimals)} on {asset.network} for {row.payee}, by {row.bot}"
    if (undone := facts.earned.taken_back) is not None:
        yield f"that was taken back by {undone['by']} {stamp(undone['at'])}: {undone['why']}"
    if (paid := facts.paid) is None:
        yield "no payout that has not failed has it: `fleet payouts due` says why"
    else:
        transaction = f" in transaction {paid.transaction}" if paid.transaction else ""
        yield f"payout {paid.payout} pays it: {paid.state} since {stamp(paid.since_s)}{transaction}"


def _told_before(before: Before) -> str:
    if not before.attempts and not before.usage.total_tokens:
        return ""
    tokens = f", {told(before.usage.model_dump())}" if before.usage.total_tokens else ""
    cost = "" if before.cost_usd_picos is None else f", ${dollars_in_full(before.cost_usd_picos)}"
    return f"so far it has had {counted(before.attempts, 'provider call')}{tokens}{cost}"


def _told_call(call: CallUnderWay, now_s: float, *, hangs: bool) -> str:
    reserved = "" if call.reserved_usd_micros is None else f", {usd(call.reserved_usd_micros / 1e6)} is reserved for it"
    if call.since > now_s:
        return f"its call to {call.api} leaves in {duration(call.since - now_s)}{reserved}"
    silence = f"; {call.api} answers nothing just now" if hangs else ""
    return (
        f"its call to {call.api} has had no answer for {duration(now_s - call.since)}; it is given up after "
        f"{call.timeout_s:g} s (timeout_s){reserved}{silence}"
    )
