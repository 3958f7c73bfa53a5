"""Sending a signed slip, and following it to its end. Written down first, looked up before anything is sent again.

If the process dies right here: before `broadcast` is written nothing was sent; after it the next look finds out. The
same bytes have the same id, so a network takes them once, however often they come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fleet.config.payouts.tables import NetworkSettings
from fleet.payouts.book import ENDED, PayoutBook, Record, TransferState
from fleet.payouts.following import Follow, follow_evm, follow_tron, send_evm, send_tron
from fleet.payouts.keyfiles import check_signed, confirmed_by, payer_as_evm
from fleet.payouts.nodes import EvmNode, TronNode, as_answered, url_of
from fleet.payouts.preparing import chain_id_of
from fleet.payouts.refusals import NodeAway, PayoutRefused
from fleet.payouts.slip import Slip, what_ends

#: Sends signed bytes; returns what the node objected to.
Send = Callable[[str], str]


class Postman:
    """Sends and follows the payouts of one network.

    Args:
        book: Where each transaction stands.
        name: Of the network.
        network: Its settings.
        doubt: Why no payment ends yet by what the node says; empty: it does.
        clock: Returns the Unix time.
    """

    def __init__(
        self, book: PayoutBook, name: str, network: NetworkSettings, *, doubt: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._book, self._network, self._doubt, self._clock = book, network, doubt, clock
        self._follow, self._send = _ways(name, network)
        self._chain_id = chain_id_of(name, network)

    def send(self, slip: Slip, *, main_net: bool) -> Record:
        """Send a signed slip; what cannot be told stays `broadcast`, for `check` to look up.

        Raises:
            PayoutRefused: It is not signed by its payer, changed, expired, unconfirmed, or not prepared here.
        """
        before = self._book.read(slip.voids or slip.id)
        self._check_chain(before.slip)
        self._check(slip, before, main_net)
        if slip.voids:
            return self._void(slip, before)
        if before.has_ended:
            raise PayoutRefused(f"expected a payout to send, got one that has ended: {slip.id}; `fleet payouts list`")
        record = before
        for number, (standing, signed) in enumerate(zip(before.standings, slip.signed, strict=True)):
            if standing.state == "prepared":
                record = self._move(record, number, TransferState("signed", signed.id, signed.raw))
            elif standing.id != signed.id:
                raise PayoutRefused(f"expected {standing.id} as it was signed first, got {signed.id}: send that file")
        for number in range(len(record.standings)):
            record = self._post(record, number)
        return record

    def check(self, payout: str) -> Record:
        """Follow every transaction of a payout that has not ended; send again what the network does not know.

        Raises:
            PayoutRefused: There is no such payout, or somebody else changes it right now.
            NodeAway: Without an answer; nothing has changed.
        """
        record = self._book.read(payout)
        self._check_chain(record.slip)
        for number, standing in enumerate(record.standings):
            if standing.state == "broadcast":
                record, is_known = self._look(record, number)
                if not is_known and record.standings[number].state == "broadcast":
                    record = self._send_again(record, number)
            elif standing.state in ("prepared", "signed"):
                record = self._unsent(record, number)
        return record

    def _void(self, slip: Slip, record: Record) -> Record:
        """Send what uses nonces up; write down at the payments of a nonce what the node objected to there."""
        objections = [self._try(signed.raw) for signed in slip.signed]
        if all(objections):
            raise PayoutRefused(f"expected the node to take what voids {slip.voids}, got {objections[0]}")
        places = {one.nonce: number for number, one in enumerate(record.slip.transfers)}
        for transfer, objection in zip(slip.transfers, objections, strict=True):
            number = places[transfer.nonce]
            if objection and record.standings[number].state not in ENDED:
                why = f"the node did not take what voids it: {objection}"
                record = self._book.change(record, record.moved(number, replace(record.standings[number], why=why)))
        return record

    # -- one transaction

    def _post(self, record: Record, number: int) -> Record:
        standing = record.standings[number]
        if standing.state == "signed":
            record = self._move(record, number, replace(standing, state="broadcast"))
        if record.standings[number].state != "broadcast":
            return record
        try:
            record, is_known = self._look(record, number)
        except NodeAway:
            return record  # it may be there: nothing is sent that was not looked up
        if not is_known and record.standings[number].state == "broadcast":
            record = self._send_again(record, number)
        return record

    def _look(self, record: Record, number: int) -> tuple[Record, bool]:
        standing = record.standings[number]
        now, is_known = self._followed(record, number)
        return (record if now == standing else self._move(record, number, now)), is_known

    def _unsent(self, record: Record, number: int) -> Record:
        """Look after a transaction that this book has not sent: others may have, or its nonce went elsewhere."""
        standing = record.standings[number]
        now, _ = self._followed(record, number)
        return self._move(record, number, now) if now.state != standing.state else record

    def _followed(self, record: Record, number: int) -> tuple[TransferState, bool]:
        """Ask the network; an answer that is not whole, or a refusal to answer, proves nothing.

        Raises:
            NodeAway: Without an answer that can be used.
        """
        slip = record.slip
        try:
            with as_answered():
                now, is_known = self._follow(slip, slip.transfers[number], record.standings[number])
        except PayoutRefused as refused:
            raise NodeAway(str(refused)) from refused
        if now.state in ENDED and self._doubt:
            raise NodeAway(f"expected a node that is known for longer to say that it is {now.state}: {self._doubt}")
        return now, is_known

    def _send_again(self, record: Record, number: int) -> Record:
        """Send the same bytes once more, and write down what the node objected to: it may tell why nothing happens."""
        standing = record.standings[number]
        if self._clock() >= record.slip.expires_s:
            return record
        objection = self._try(standing.raw)
        return record if objection == standing.why else self._move(record, number, replace(standing, why=objection))

    def _try(self, raw: str) -> str:
        try:
            return self._send(raw)
        except NodeAway as lost:
            return str(lost)  # it may have arrived: the next look tells

    def _move(self, record: Record, number: int, standing: TransferState) -> Record:
        if standing.state in ENDED:
            standing = replace(standing, raw="")  # nobody sends it any more
        return self._book.change(record, record.moved(number, replace(standing, since_s=self._clock())))

    def _check_chain(self, slip: Slip) -> None:
        """Refuse another network than the slip's: what it does not know would look as if it had failed."""
        if self._chain_id != slip.chain_id or self._network.payer.lower() != slip.payer.lower():
            raise PayoutRefused(
                f"expected network {slip.chain_id} and payer {slip.payer} as payout {slip.id} has them, got "
                f"{self._chain_id} and {self._network.payer}: put networks.{slip.network} back until it has ended"
            )

    def _check(self, slip: Slip, record: Record, main_net: bool) -> None:
        check_signed(slip)
        if slip.voids:
            _check_void(slip, record.slip)
        elif slip.digest != record.slip.digest:
            raise PayoutRefused(f"expected payout {slip.id} as it was prepared, got another one in this file")
        if slip.main_net and not main_net:
            raise PayoutRefused("expected --main-net for a payout of real money, got none")
        if self._clock() >= slip.expires_s and not any(one.state == "broadcast" for one in record.standings):
            raise PayoutRefused(f"expected a slip that has not expired, got {slip.id}: {what_ends(record.slip)}")
        if slip.confirmers:  # those of when it was prepared: whoever changes fleet.toml later does not change them
            wanted = {one.lower() for one in slip.confirmers} - {payer_as_evm(slip)}
            if not wanted & confirmed_by(slip):
                raise PayoutRefused(
                    f"expected a confirmation by one of {', '.join(sorted(wanted))}, got none that is right: "
                    "`fleet payouts confirm`"
                )


def _check_void(slip: Slip, voided: Slip) -> None:
    """Refuse what would use up anything but nonces of the payout that it voids.

    Raises:
        PayoutRefused: Naming both.
    """
    network, wanted = (
        (one.kind, one.chain_id, one.main_net, one.token.lower(), one.payer.lower()) for one in (slip, voided)
    )
    nonces = {one.nonce for one in slip.transfers} - {one.nonce for one in voided.transfers}
    if network != wanted or nonces or len(slip.transfers) > len(voided.transfers):
        raise PayoutRefused(
            f"expected a slip that uses up nonces of payout {voided.id} and does nothing else, got another one: "
            f"`fleet payouts void {voided.id}`"
        )


def _ways(name: str, network: NetworkSettings) -> tuple[Follow, Send]:
    url = url_of(name, network)
    if network.kind == "tron":
        tron = TronNode(url)
        return follow_tron(tron), send_tron(tron)
    node = EvmNode(url)
    return follow_evm(node, network.confirmations), send_evm(node)
