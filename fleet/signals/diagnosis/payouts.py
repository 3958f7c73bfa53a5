"""Findings about payouts: what is stuck or has failed, and addresses that are about to be paid the first time. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.quoting import clock, counted, duration, noun_for
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case
from fleet.signals.money.payout_view import PayoutRow

#: Seconds for which a payout may lie unsent, and for which nothing may become of what was sent.
UNSENT_S, UNMOVED_S = 2 * 3600.0, 3600.0
#: Seconds for which it is told that payments have failed, unless another payout is prepared before.
FAILED_S = 86_400.0


def stuck(case: Case) -> Iterator[Diagnosis]:
    """Yield payouts that do not go on, and those that have failed."""
    for row in case.view.bill.payouts.rows:
        yield from _of_open(row, case.now_s) if row.is_open else _of_ended(row, case.now_s)


def guards(case: Case) -> Iterator[Diagnosis]:
    """Yield addresses that are new or have changed, while somebody can still object, and terms that will change."""
    payouts = case.view.bill.payouts
    for row in payouts.addresses:
        told = [f"{count} {what}" for count, what in ((row.changed, "changed"), (row.new, "new")) if count]
        unseen = f"{duration(row.wait_s)} after somebody looks"
        when = unseen if row.until is None else f"from {clock(row.until, case.now_s)} on"
        noun = noun_for(row.changed + row.new, "address", "addresses")
        yield diagnosis(
            "payout_guard", "warning" if row.changed else "info", f"{' and '.join(told)} {noun} on {row.network}",
            cause=f"paid {when}", about=row.network, now_s=case.now_s,
            help=Help(advice="ask the owners if they wanted that, by another way than the one by which you heard of it",
                      command="fleet payouts due"),
        )  # fmt: skip
    if payouts.terms_hold_at is not None:
        yield diagnosis(
            "payout_guard", "warning", "Prices, networks or other terms of payouts were changed",
            cause=f"that holds from {clock(payouts.terms_hold_at, case.now_s)} on", about="terms", now_s=case.now_s,
            help=Help(advice="put fleet.toml back until then, if nobody of yours did it", command="fleet payouts due"),
        )  # fmt: skip


def _of_open(row: PayoutRow, now_s: float) -> Iterator[Diagnosis]:
    head = f"Payout {row.payout} of {row.tokens} to {counted(row.payments, 'payee')}"
    if row.unsent:
        if now_s >= row.expires_at:
            end = (
                "`fleet payouts check` ends it ten minutes after it has expired, then prepare another one"
                if row.kind == "tron" else f"fleet payouts void {row.payout}, sign and send that, then check"
            )  # fmt: skip
            cause = "nobody may send it any more"
            yield _told(f"{head} has expired and was not sent", row, now_s, cause=cause, advice=end)
        elif now_s - row.prepared_at >= UNSENT_S:
            state = "signed" if row.states.get("signed") else "prepared"
            cause = f"it is {state}, and expires at {clock(row.expires_at, now_s)}"
            yield _told(f"{head} is not sent", row, now_s, cause=cause, advice="sign its slip and send it, or void it")
    elif "do not pay what the slip says" in row.why:
        advice = "look at its transaction in an explorer: the token may take a fee from transfers"
        yield _told(f"{head} cannot be settled", row, now_s, cause=row.why, advice=advice, is_bad=True)
    elif now_s - row.moved_at >= UNMOVED_S:
        cause = "its blocks are not final" if row.in_blocks else row.why or "no block has it"
        advice = "let a timer run `fleet payouts check`; if one does, its fees may be too low: void it"
        yield _told(f"{head} was sent, and nothing has become of it", row, now_s, cause=cause, advice=advice)


def _of_ended(row: PayoutRow, now_s: float) -> Iterator[Diagnosis]:
    failed = row.states.get("failed", 0)
    if failed and now_s - row.moved_at < FAILED_S:
        head = f"{counted(failed, 'transaction')} of payout {row.payout} {'has' if failed == 1 else 'have'} failed"
        yield _told(head, row, now_s, cause=f"{row.why}; what they were to pay is due again",
                    advice="mend the cause, then prepare another payout")  # fmt: skip


def _told(head: str, row: PayoutRow, now_s: float, *, cause: str, advice: str, is_bad: bool = False) -> Diagnosis:
    return diagnosis(
        "payout_stuck", "critical" if is_bad else "warning", head, cause=cause, about=row.network, since=row.moved_at,
        now_s=now_s, help=Help(advice=advice, command="fleet payouts list"),
    )  # fmt: skip
