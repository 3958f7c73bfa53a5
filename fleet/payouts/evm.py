"""Transactions of EVM networks: calldata of a token's transfer and of a multisend, and what their logs say. Pure.

Addresses and whole numbers are all that these calls take, so their encoding (the contract ABI, 32 bytes a value) is
written out here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import MOST_TOGETHER, Payment, Slip, Transfer
from fleet.quoting import quote

#: First bytes of calls: transfer(address,uint256), disperseTokenSimple(address,address[],uint256[]), and what is asked.
TRANSFER, DISPERSE = "a9059cbb", "51ba162c"
DECIMALS, BALANCE_OF, ALLOWANCE, APPROVE = "313ce567", "70a08231", "dd62ed3e", "095ea7b3"
#: Topic of the event Transfer(address,address,uint256).
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
#: Gas of a transaction that pays nobody and only uses its nonce up.
PLAIN_GAS = 21_000
_WORD = 64
_HEX = re.compile(rf"[0-9a-f]{{1,{_WORD}}}")


def word(value: int | str) -> str:
    """Return a whole number or an address as 32 bytes, in hexadecimal digits.

    Raises:
        PayoutRefused: It needs more: what follows it would be read as something else.
    """
    digits = value.removeprefix("0x").lower() if isinstance(value, str) else f"{value:x}"
    if not _HEX.fullmatch(digits):
        raise PayoutRefused(f"expected a value of 32 bytes in hexadecimal digits, got {quote(digits)}")
    return digits.rjust(_WORD, "0")


def call_data(slip: Slip, transfer: Transfer) -> str:
    """Return what a transaction calls, in hexadecimal digits with 0x."""
    return data_of(transfer.payments, slip.token, slip.multisend)


def data_of(payments: Sequence[Payment], token: str, multisend: str | None) -> str:
    """Return the call that makes payments: one of the token itself, or one of the contract that sends several."""
    if not payments:
        return "0x"
    if multisend is None:
        (payment,) = payments
        return f"0x{TRANSFER}{word(payment.to)}{word(payment.units)}"
    count = len(payments)
    heads = word(token) + word(3 * 32) + word((4 + count) * 32)
    to = word(count) + "".join(word(payment.to) for payment in payments)
    units = word(count) + "".join(word(payment.units) for payment in payments)
    return f"0x{DISPERSE}{heads}{to}{units}"


def target_of(slip: Slip, transfer: Transfer) -> str:
    """Return which contract a transaction calls; the payer itself where it pays nobody."""
    return (slip.multisend or slip.token) if transfer.payments else slip.payer


def transaction_of(slip: Slip, transfer: Transfer) -> dict[str, Any]:
    """Return a transaction as it is signed (EIP-1559): worked out from the payments, never taken from the file."""
    return {
        "type": 2,
        "chainId": slip.chain_id,
        "nonce": transfer.nonce,
        "to": target_of(slip, transfer),
        "value": 0,
        "gas": transfer.gas,
        "maxFeePerGas": slip.max_fee_per_gas,
        "maxPriorityFeePerGas": slip.max_priority_fee_per_gas,
        "data": call_data(slip, transfer),
    }


def pays_exactly(slip: Slip, transfer: Transfer, logs: Iterable[Mapping[str, Any]]) -> bool:
    """True when the logs of a transaction move what the slip says to whom it says, and no more of the payer's."""
    wanted = Counter((payment.to.lower(), payment.units) for payment in transfer.payments)
    payer, via = word(slip.payer), (slip.multisend or "").lower()
    moved = Counter[tuple[str, int]]()
    for log in logs:
        topics = log["topics"]
        of_token = str(log["address"]).lower() == slip.token.lower()
        if not of_token or len(topics) != 3 or topics[0].lower() != TRANSFER_TOPIC:
            continue
        source, target = topics[1].removeprefix("0x").lower(), f"0x{topics[2][-40:].lower()}"
        if source == payer and target == via:
            continue  # on its way through the contract
        if source == payer or (via and source == word(via)):
            moved[target, int(log["data"], 16)] += 1
    return moved == wanted


def parted(payments: Sequence[Payment], multisend: str | None) -> Sequence[tuple[Payment, ...]]:
    """Return payments as they go together into transactions."""
    size = 1 if multisend is None else MOST_TOGETHER
    return [tuple(payments[start : start + size]) for start in range(0, len(payments), size)]
