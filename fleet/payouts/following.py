"""What became of a transaction that may have been sent: settled or failed only when nothing can undo it any more.

A node that does not know a transaction proves nothing. It has failed when a final block says so: it was reverted, its
nonce went to another transaction that is named, or (on TRON) no final block can take it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fleet.config.payouts.tables import tron_address
from fleet.payouts import evm
from fleet.payouts.book import TransferState
from fleet.payouts.nodes import EvmNode, TronNode
from fleet.payouts.refusals import NodeAway, PayoutRefused
from fleet.payouts.slip import Slip, Transfer
from fleet.quoting import quote

#: Milliseconds beyond a transaction's expiration that a final block must be, before TRON has surely not taken it.
LATE_MS = 600_000

#: Id of no transaction of an EVM network: asked for where ours is not known, for it was signed elsewhere.
NO_ID = "0x" + "00" * 32

#: Returns where a transaction stands now, and whether the network knows it at all.
Follow = Callable[[Slip, Transfer, TransferState], tuple[TransferState, bool]]


def follow_evm(node: EvmNode, confirmations: int) -> Follow:
    """Return what follows transactions of an EVM network."""

    def follow(slip: Slip, transfer: Transfer, standing: TransferState) -> tuple[TransferState, bool]:
        final = node.final_block(confirmations)
        id_ = standing.id or NO_ID
        (receipt, wrong), (known, _), (spent, told) = node.ask_together(
            ("eth_getTransactionReceipt", [id_]),
            ("eth_getTransactionByHash", [id_]),
            ("eth_getTransactionCount", [slip.payer, hex(max(0, final))]),
        )
        if wrong is not None:
            raise NodeAway(f"expected a receipt or none, got {wrong}")
        if receipt is not None:
            return _by_receipt(node, slip, transfer, standing, receipt, final), True
        if told is None and known is None and int(spent, 16) > transfer.nonce:
            return _by_another(node, slip, transfer, standing, final), True
        return replace(standing, block=None), known is not None

    return follow


def _by_receipt(
    node: EvmNode, slip: Slip, transfer: Transfer, standing: TransferState, receipt: dict[str, Any], final: int
) -> TransferState:
    number = int(receipt["blockNumber"], 16)
    block = node.ask("eth_getBlockByNumber", hex(number), False)
    if block is None or block["hash"] != receipt["blockHash"]:
        return replace(standing, block=None)  # of a block that is no more
    if number > final:
        return replace(standing, block=number, why="")
    if int(receipt["status"], 16) == 0:
        return replace(standing, state="failed", block=number, why="reverted by the contract")
    if not evm.pays_exactly(slip, transfer, receipt["logs"]):
        return replace(standing, block=number, why="final, but its logs do not pay what the slip says: look at it")
    return replace(standing, state="settled", block=number, why="")


def _by_another(node: EvmNode, slip: Slip, transfer: Transfer, standing: TransferState, final: int) -> TransferState:
    """Find the transaction that has the nonce in a final block: only that proves that ours never will be."""
    for number, block in _blocks_of_nonce(node, slip, transfer.nonce, final):
        for found in block["transactions"]:
            if str(found["from"]).lower() != slip.payer.lower() or int(found["nonce"], 16) != transfer.nonce:
                continue
            if _is_ours(slip, transfer, found):  # sent by other means, or signed anew
                return replace(standing, state="broadcast", id=found["hash"])
            if found["hash"] != standing.id:
                return replace(standing, state="failed", block=number, why=f"its nonce went to {found['hash']}")
    return standing


def _blocks_of_nonce(node: EvmNode, slip: Slip, nonce: int, final: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield final blocks of which one has the transaction with a nonce of the payer, the newest first.

    It is one block, found by steps back that double, for nodes keep new states only. Where a state is gone, each block
    from there to that of `prepare` may have it: many, if nobody has checked for long.

    Raises:
        NodeAway: The node has a block no more.
    """
    unused, used, step = min(slip.final_block, final - 1), final, 1
    while used - unused > 1:
        at = max(used - step, (unused + used) // 2)
        ((count, gone),) = node.ask_together(("eth_getTransactionCount", [slip.payer, hex(at)]))
        if gone is not None:
            break
        if int(count, 16) > nonce:
            used, step = at, step * 2
        else:
            unused = at
    for number in range(used, unused, -1):
        block = node.ask("eth_getBlockByNumber", hex(number), True)
        if block is None:
            raise NodeAway(f"expected block {number}, which may have nonce {nonce} of {slip.payer}, got none")
        yield number, block


def _is_ours(slip: Slip, transfer: Transfer, found: dict[str, Any]) -> bool:
    """True for a transaction that pays what the slip says, whatever it spends on fees."""
    to, data = str(found["to"] or "").lower(), str(found["input"]).lower()
    is_same = (to, data) == (evm.target_of(slip, transfer).lower(), evm.call_data(slip, transfer).lower())
    return bool(transfer.payments) and is_same


def follow_tron(node: TronNode) -> Follow:
    """Return what follows transactions of TRON."""

    def follow(slip: Slip, transfer: Transfer, standing: TransferState) -> tuple[TransferState, bool]:
        head = node.ask("walletsolidity/getnowblock")
        final_ms = int(head.get("block_header", {}).get("raw_data", {}).get("timestamp", 0))
        info = node.ask(
            "walletsolidity/gettransactioninfobyid", value=standing.id
        )  # after the head, which it must know
        if info:
            return _by_info(slip, transfer, standing, info), True
        if standing.block is not None:
            raise NodeAway(f"expected what became of {standing.id}, final in block {standing.block}, got nothing")
        known = node.ask("wallet/gettransactionbyid", value=standing.id)
        if final_ms > transfer.expiration_ms + LATE_MS:
            final = node.ask("walletsolidity/gettransactionbyid", value=standing.id)
            if known or final:
                raise NodeAway(f"expected what became of {standing.id}, which the node has in a block, got nothing")
            return replace(standing, state="failed", why="expired: no final block has it, and none can take it"), True
        return standing, known.get("txID") == standing.id

    return follow


def _by_info(slip: Slip, transfer: Transfer, standing: TransferState, info: dict[str, Any]) -> TransferState:
    number, result = int(info["blockNumber"]), info["receipt"]["result"]
    if info["id"] != standing.id or result in ("", "DEFAULT"):
        raise NodeAway(f"expected what became of {standing.id}, got {quote(str(info))}")
    if result != "SUCCESS":
        return replace(standing, state="failed", block=number, why=f"the contract ended with {quote(result)}")
    (payment,) = transfer.payments
    moved = [
        (_address(log["topics"][1]), _address(log["topics"][2]), int(log["data"], 16))
        for log in info.get("log", ())
        if _address(log["address"]) == slip.token and f"0x{log['topics'][0]}" == evm.TRANSFER_TOPIC
    ]
    if (slip.payer, payment.to, payment.units) not in moved:
        return replace(standing, block=number, why="final, but its logs do not pay what the slip says: look at it")
    return replace(standing, state="settled", block=number, why="")


def _address(digits: str) -> str:
    return tron_address(b"\x41" + bytes.fromhex(digits[-40:]))


def send_evm(node: EvmNode) -> Callable[[str], str]:
    """Return what sends signed bytes to an EVM network, once, and says what the node thought of them."""

    def send(raw: str) -> str:
        try:
            node.ask("eth_sendRawTransaction", raw)
        except PayoutRefused as refused:
            return str(refused)
        return ""

    return send


def send_tron(node: TronNode) -> Callable[[str], str]:
    """Return what sends signed bytes to TRON, once, and says what the node thought of them."""

    def send(raw: str) -> str:
        told = node.ask("wallet/broadcasthex", transaction=raw)
        return "" if told.get("result") else str(told.get("code", told))

    return send
