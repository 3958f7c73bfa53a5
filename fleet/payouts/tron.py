"""Transactions of TRON: the bytes that are signed, written here field by field. Pure.

A transaction is a protobuf message (`Transaction.raw` of TRON's `Tron.proto`) with one TriggerSmartContract in it.
Those two messages have six kinds of fields in all; writing them needs no protobuf, whose versions packages quarrel
about. `python -m tests.payouts --check` holds the bytes against tronweb's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fleet.config.payouts.tables import tron_bytes
from fleet.payouts.evm import TRANSFER, word
from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import Slip, Transfer
from fleet.quoting import quote

#: Of `Transaction.Contract.ContractType`, and its name in `google.protobuf.Any`.
_TRIGGER = 31
_TYPE_URL = b"type.googleapis.com/protocol.TriggerSmartContract"
#: Wire types of protobuf.
_VARINT, _BYTES = 0, 2
#: Bytes that the network counts beyond those of a transaction: what is kept of its result.
RESULT_BYTES = 64
#: Bytes of a signature with the head of its field.
SIGNATURE_BYTES = 67


def raw_data(slip: Slip, transfer: Transfer) -> bytes:
    """Return the bytes of a transaction that are signed: worked out from the payment, never taken from the file."""
    (payment,) = transfer.payments
    trigger = b"".join(
        [
            _bytes(1, address_bytes(slip.payer)),
            _bytes(2, address_bytes(slip.token)),
            _bytes(4, bytes.fromhex(call_data(payment.to, payment.units))),
        ]
    )
    parameter = _bytes(1, _TYPE_URL) + _bytes(2, trigger)
    contract = _number(1, _TRIGGER) + _bytes(2, parameter)
    return b"".join(
        [
            _bytes(1, bytes.fromhex(transfer.ref_block_bytes)),
            _bytes(4, bytes.fromhex(transfer.ref_block_hash)),
            _number(8, transfer.expiration_ms),
            _bytes(11, contract),
            _number(14, transfer.timestamp_ms),
            _number(18, transfer.gas),
        ]
    )


def call_data(to: str, units: int) -> str:
    """Return a token's transfer as hexadecimal digits, without 0x: an address is its 20 bytes there."""
    return f"{TRANSFER}{word(address_bytes(to)[1:].hex())}{word(units)}"


def transaction_id(raw: bytes) -> str:
    """Return the id of a transaction: known before it is sent, and the same however often it is."""
    return hashlib.sha256(raw).hexdigest()


def signed_bytes(raw: bytes, signature: bytes) -> bytes:
    """Return a transaction with its signature, as `broadcasthex` takes it."""
    return _bytes(1, raw) + _bytes(2, signature)


def parts_of(signed: bytes) -> tuple[bytes, bytes]:
    """Return what was signed, and the signature.

    Raises:
        PayoutRefused: When that is not a signed transaction.
    """
    try:
        (first, raw), (second, signature) = _fields(signed)
    except (ValueError, IndexError) as error:
        raise PayoutRefused(f"expected a signed transaction of TRON, got {quote(signed.hex())}") from error
    if (first, second) != (1, 2):
        raise PayoutRefused(f"expected a signed transaction of TRON, got {quote(signed.hex())}")
    return raw, signature


def bandwidth_of(raw: bytes) -> int:
    """Return the bytes of bandwidth that a transaction takes."""
    return len(_bytes(1, raw)) + SIGNATURE_BYTES + RESULT_BYTES


def address_bytes(address: str) -> bytes:
    """Return the 21 bytes of an address.

    Raises:
        PayoutRefused: When it is none.
    """
    found = tron_bytes(address)
    if found is None:
        raise PayoutRefused(f"expected an address of TRON, got {quote(address)}")
    return found


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _number(field: int, number: int) -> bytes:
    """Write a whole number; 0 is left out, as protobuf 3 does."""
    return _varint(field << 3 | _VARINT) + _varint(number) if number else b""


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the fields of a message that has only strings of bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        number, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(message):
        head, length = varint(), varint()
        if head & 7 != _BYTES or at + length > len(message):
            raise ValueError(head)
        yield head >> 3, message[at : at + length]
        at += length
