"""What the commands do about dues: who is paid now, what is taken up, and the slip that says so."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple

import redis

from fleet.config import Settings
from fleet.config.payouts.tables import NetworkSettings, tokens_in_full
from fleet.earnings.ledger import rows_ever
from fleet.models import bot_name
from fleet.payouts.book import Netting, PayoutBook, Record, TransferState, read_payouts
from fleet.payouts.guards import HOUR_S, Guards, read_guards
from fleet.payouts.netting import PayeeDue, dues, judge, within_fees
from fleet.payouts.preparing import PayingAccount, SlipDraft, check_balance, known_id, payer_of
from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import Payment, Slip
from fleet.quoting import duration
from fleet.roster import ENOUGH, health_rows_of
from fleet.store import keys

#: Evidence against a bot from which on its earnings are held: half of what sends it into quarantine.
SUSPICION = ENOUGH / 2


class Dues(NamedTuple):
    """What each payee is due, and what guards that."""

    found: list[PayeeDue]
    guards: Guards


def read_dues(client: redis.Redis, settings: Settings, *, ignore_schedule: bool = False) -> Dues:
    """Return what each payee is due, and why who has to wait has to. Keeps addresses and terms not seen before."""
    now_s = float(client.time()[0])
    ledger = rows_ever(client)
    guards = read_guards(client, settings, ledger, now_s)
    found = dues(ledger, PayoutBook(client).netted(), held_bots(client, settings), guards.held)
    judge(found, settings, guards.waits, {**_waits(client, settings, now_s, ignore_schedule), **guards.networks})
    return Dues(found, guards)


def held_bots(client: redis.Redis, settings: Settings) -> set[tuple[str, str]]:
    """Return pool and name of bots whose earnings are held: in quarantine, on probation, or under suspicion."""
    with client.pipeline(transaction=False) as pipe:
        for pool in settings.pools:
            pipe.zrange(keys.quarantined(pool), 0, -1)
            pipe.zrange(keys.probation(pool), 0, -1)
            pipe.get(keys.health(pool))
        found = iter(pipe.execute())
    held = set()
    for pool, settings_of in settings.pools.items():
        held |= {(pool, bot.decode()) for bots in (next(found), next(found)) for bot in bots}
        evidence = health_rows_of(next(found) or b"", settings_of.bots).evidence
        held |= {(pool, bot_name(pool, at)) for at, weight in enumerate(evidence, 1) if weight >= SUSPICION}
    return held


def _waits(client: redis.Redis, settings: Settings, now_s: float, ignore_schedule: bool) -> dict[str, str]:
    """Return why no payout begins on a network now."""
    last: dict[str, float] = {}
    for record in read_payouts(client):
        if any(one.state != "failed" for one in record.standings):
            last[record.slip.network] = record.slip.prepared_s
    waits = {}
    for network in settings.networks:
        if (under_way := PayoutBook(client).open_on(network)) is not None:
            waits[network] = f"payout {under_way} is under way on {network}"
        elif not ignore_schedule and network in last:
            left_s = last[network] + settings.payouts.every_hours * HOUR_S - now_s
            if left_s > 0:
                waits[network] = f"the next payout on {network} is in {duration(left_s)}"
    return waits


def prepare(
    client: redis.Redis, settings: Settings, name: str, *, by: str, ignore_schedule: bool = False,
    nonce: int | None = None, misspelt: Mapping[str, str] | None = None,
) -> tuple[Slip, list[PayeeDue]]:  # fmt: skip
    """Take up what is due on a network, and return the slip that pays it, and everybody's dues there.

    Args:
        client: Plain client of the state Redis.
        settings: Networks, payees, thresholds.
        name: Of the network.
        by: Who does it.
        ignore_schedule: Also before `payouts.every_hours` have passed.
        nonce: Of the payer's next transaction, when it has made some that are no payouts.
        misspelt: Payee -> what is wrong with its address; the others are paid all the same.

    Raises:
        PayoutRefused: Nobody is paid now, or the network is not as the settings say.
        NodeAway: The node gave no answer; nothing was taken up.
    """
    before_it = _book(client, settings).latest_on(name)  # before all that is read, for what is read rests on it
    everybody, guards = read_dues(client, settings, ignore_schedule=ignore_schedule)
    found = [due for due in everybody if due.asset.network == name]
    for due in found:
        due.waits = due.waits or (misspelt or {}).get(due.payee, "")
    chosen = [due for due in found if not due.waits]
    if not chosen:
        raise PayoutRefused(f"expected somebody to pay on {name} now, got nobody: {_told(found)}")
    if settings.networks[name].main_net and not _book(client, settings).keeps():
        raise PayoutRefused(
            "expected a Redis of 7.2 or later with `appendonly yes` for real money, got one that does not say in time "
            "what is on its disk: after a crash it would not know what was paid"
        )
    now_s = float(client.time()[0])
    payout = f"{datetime.fromtimestamp(now_s, UTC):%Y%m%d}-{name}-{secrets.token_hex(4)}"
    payer = payer_of(name, settings.networks[name], payout, now_s, confirmers=guards.terms.confirmers)
    _check_nonce(client, settings.networks[name], payer.nonce, nonce)
    chosen, draft = _within_fees(chosen, settings, payer, payout)
    check_balance(draft.slip, list(draft.slip.payments), payer.balance)
    if draft.fee > payer.coins:
        raise PayoutRefused(
            f"expected {tokens_in_full(draft.fee, payer.coin_decimals)} of the network's own coin with the payer, as "
            f"fees may be, got {tokens_in_full(payer.coins, payer.coin_decimals)}: send it some"
        )
    slip = draft.slip
    record = Record(slip, tuple(TransferState(id=known_id(slip, one), since_s=now_s) for one in slip.transfers), by)
    _book(client, settings).begin(record, _netting(chosen, payout), before_it=before_it)
    return slip, found


def _book(client: redis.Redis, settings: Settings) -> PayoutBook:
    return PayoutBook(client, replicas=settings.redis.replicas)


def _within_fees(
    chosen: Sequence[PayeeDue], settings: Settings, payer: PayingAccount, payout: str
) -> tuple[list[PayeeDue], SlipDraft]:
    """Return who is paid, and the transactions: without those that the token refuses, or whose fees take too much."""
    kept = list(chosen)
    while True:
        draft = payer.draft([_payment(due, settings, payout) for due in kept])
        for due in kept:
            due.waits = draft.refused.get(due.payee, "")
        still = [due for due in kept if not due.waits]
        if not draft.refused:
            still = within_fees(kept, _fees(draft), settings.payouts.max_fee_share)
        if len(still) == len(kept):
            return kept, draft
        if not still:
            raise PayoutRefused(
                f"expected payments that can be made and are worth their fees, got none: {_told(chosen)}"
            )
        kept = still


def _fees(draft: SlipDraft) -> dict[str, Fraction]:
    """Return payee -> its part of the fees, by what its own transaction may take: nobody pays for a dear address.

    What one transaction pays to many is shared alike, for no node says what each of them takes.
    """
    whole = max(1, sum(one.gas for one in draft.slip.transfers))
    return {
        payment.payee: Fraction(draft.fee_units * one.gas, whole * len(one.payments))
        for one in draft.slip.transfers
        for payment in one.payments
    }


def _payment(due: PayeeDue, settings: Settings, payout: str) -> Payment:
    return Payment(f"{payout}/{due.payee}", due.payee, settings.payees[due.payee].address, due.units)


def _netting(chosen: Sequence[PayeeDue], payout: str) -> Netting:
    """Return what is taken up, on condition that nobody has since the dues were read: the node took its time."""
    rows: dict[str, tuple[int, int]] = {}
    parts: dict[str, Mapping[str, int]] = {}
    for due in chosen:
        taken = {row.spelt: count for row, count in due.rows.items()}
        rows |= {row.spelt: (due.before[row], count) for row, count in due.rows.items()}
        parts[f"{payout}/{due.payee}"] = taken
    return Netting(rows, parts)


def _check_nonce(client: redis.Redis, network: NetworkSettings, nonce: int | None, told: int | None) -> None:
    """Refuse a payer that has made transactions which this book does not know: Redis may be an older copy.

    They count by payer and chain, as the chain does, whatever the network was called as they were prepared. A node
    that knows fewer than the book is behind: payouts end only when the network has used up their nonces.

    Only a test network may begin anew: there the count is believed that the node and the operator both say.

    Raises:
        PayoutRefused: With both numbers.
    """
    if nonce is None:
        return
    known = _known_nonce(client, network)
    expected = told if told is not None else known
    if nonce > expected:
        raise PayoutRefused(
            f"expected {expected} transactions of payer {network.payer} on chain {network.chain_id}, as the book "
            f"knows, got {nonce}: a payout that an older copy of Redis has forgotten may have been paid. If not, say "
            f"--nonce {nonce}"
        )
    if nonce < known and (network.main_net or told != nonce):
        anew = "" if network.main_net else f". If the test network began anew, such as anvil, say --nonce {nonce}"
        raise PayoutRefused(
            f"expected {known} transactions of payer {network.payer} on chain {network.chain_id}, as the book "
            f"knows, got {nonce}: the node is behind, or of another network with the same id; do it again later{anew}"
        )


def _known_nonce(client: redis.Redis, network: NetworkSettings) -> int:
    """Return how many transactions the book knows; on a test network, which may begin anew, by the last payout."""
    account = (network.chain_id, network.payer.lower())
    slips = [record.slip for record in read_payouts(client)]
    slips = [slip for slip in slips if (slip.chain_id, slip.payer.lower()) == account]
    if not network.main_net:
        slips = [slip for slip in slips if slip.prepared_s == slips[-1].prepared_s]
    return max((one.nonce + 1 for slip in slips for one in slip.transfers), default=0)


def _told(found: Sequence[PayeeDue]) -> str:
    lines = [f"{due.payee} ({due.tokens}): {due.waits}" for due in found[:5]]
    more = f", and {len(found) - len(lines)} more" if len(found) > len(lines) else ""
    return "; ".join(lines) + more if lines else "no bot has earned anything there"
