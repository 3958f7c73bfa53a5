"""Encrypted key files and signatures. The only module that needs the extra (`celery-fleet[payouts]`).

The file is version 3 of Ethereum's secret storage (scrypt, AES-128-CTR), which wallets read and write; a key of TRON is
one of the same curve. A key is never shown, logged or kept: it lives as long as one signature takes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from fleet.config.payouts.tables import NetworkKind, tron_address
from fleet.payouts import evm, tron
from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import Signed, Slip, Transfer
from fleet.quoting import quote

# What comes with the extra (py_ecc) lets all of a process recurse 100,000 deep: nested JSON would end it at once.
_DEEPEST = sys.getrecursionlimit()
from eth_account import Account  # noqa: E402
from eth_account.messages import encode_defunct  # noqa: E402
from eth_account.typed_transactions.typed_transaction import TypedTransaction  # noqa: E402
from eth_keys.datatypes import PrivateKey, Signature  # noqa: E402
from eth_utils.address import to_checksum_address  # noqa: E402
from eth_utils.crypto import keccak  # noqa: E402
from hexbytes import HexBytes  # noqa: E402

sys.setrecursionlimit(_DEEPEST)

#: What TRON's wallets add to the last byte of a signature.
_TRON_V = 27


def create(path: Path, passphrase: str, *, private_key: str | None = None) -> dict[NetworkKind, str]:
    """Write a new key's file, or one of a key that is there, which nobody else can read; return its addresses.

    Raises:
        FileExistsError: A key file is never overwritten.
    """
    account = Account.create() if private_key is None else _account_of(private_key)
    text = json.dumps(Account.encrypt(account.key, passphrase))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return addresses_of(account.key)


def opened(path: Path, passphrase: str) -> bytes:
    """Return the private key in a file.

    Raises:
        PayoutRefused: When it is no such file, or the passphrase is another.
    """
    try:
        return bytes(Account.decrypt(json.loads(path.read_text(encoding="utf-8")), passphrase))
    except (ValueError, TypeError, KeyError) as error:
        raise PayoutRefused(
            f"expected an encrypted key file (secret storage, version 3) and its passphrase, got {path} and another: "
            f"{type(error).__name__}"
        ) from None


def addresses_of(private_key: bytes) -> dict[NetworkKind, str]:
    """Return the addresses of a key on each kind of network."""
    address = PrivateKey(private_key).public_key.to_canonical_address()
    return {"evm": to_checksum_address(address), "tron": tron_address(b"\x41" + address)}


def sign_transfer(slip: Slip, transfer: Transfer, private_key: bytes) -> Signed:
    """Sign one transaction of a slip."""
    if slip.kind == "tron":
        raw = tron.raw_data(slip, transfer)
        digest = bytes.fromhex(tron.transaction_id(raw))
        plain = PrivateKey(private_key).sign_msg_hash(digest).to_bytes()
        signature = plain[:-1] + bytes([plain[-1] + _TRON_V])
        return Signed(digest.hex(), tron.signed_bytes(raw, signature).hex())
    transaction = evm.transaction_of(slip, transfer)
    signed = Account.sign_transaction({**transaction, "to": to_checksum_address(transaction["to"])}, private_key)
    return Signed(f"0x{bytes(signed.hash).hex()}", f"0x{bytes(signed.raw_transaction).hex()}")


def check_signed(slip: Slip) -> None:
    """Refuse a slip whose signatures are not of its payer, or not on exactly what it says.

    Raises:
        PayoutRefused: Naming the transaction.
    """
    if len(slip.signed) != len(slip.transfers):
        raise PayoutRefused(
            f"expected a slip with {len(slip.transfers)} signatures, got {len(slip.signed)}: `fleet payouts sign`"
        )
    for transfer, signed in zip(slip.transfers, slip.signed, strict=True):
        if not _is_signed(slip, transfer, signed):
            raise PayoutRefused(
                f"expected transaction {quote(signed.id)} to pay what slip {slip.id} says, signed by {slip.payer}; "
                "got another one: sign the slip anew, and find out who changed it"
            )


def _is_signed(slip: Slip, transfer: Transfer, signed: Signed) -> bool:
    if slip.kind == "tron":
        raw, signature = tron.parts_of(bytes.fromhex(signed.raw))
        digest = bytes.fromhex(tron.transaction_id(raw))
        plain = signature[:-1] + bytes([signature[-1] - _TRON_V])
        signer = Signature(plain).recover_public_key_from_msg_hash(digest).to_canonical_address()
        is_same = raw == tron.raw_data(slip, transfer) and signed.id == digest.hex()
        return is_same and tron_address(b"\x41" + signer) == slip.payer
    signer = Account.recover_transaction(signed.raw)
    return signer.lower() == slip.payer.lower() and _same_transaction(slip, transfer, signed)


def _same_transaction(slip: Slip, transfer: Transfer, signed: Signed) -> bool:
    """True when signed bytes hold the transaction that the slip stands for, field by field."""
    raw = HexBytes(signed.raw)
    fields = TypedTransaction.from_bytes(raw).as_dict()
    wanted = evm.transaction_of(slip, transfer)
    numbers = ("chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas")
    return (
        all(int(fields[name]) == wanted[name] for name in numbers)
        and not fields.get("accessList")
        and bytes(fields["to"]).hex() == wanted["to"].removeprefix("0x").lower()
        and f"0x{bytes(fields['data']).hex()}" == wanted["data"].lower()
        and f"0x{keccak(raw).hex()}" == signed.id
    )


def confirm(slip: Slip, private_key: bytes) -> tuple[str, str]:
    """Return the address of who confirms a slip, and the signature of its digest (EIP-191)."""
    signed = Account.sign_message(encode_defunct(text=_said(slip)), private_key)
    return addresses_of(private_key)["evm"], f"0x{bytes(signed.signature).hex()}"


def confirmed_by(slip: Slip) -> set[str]:
    """Return the addresses (in lower case) whose confirmations of a slip are right."""
    said = encode_defunct(text=_said(slip))
    found = set()
    for address, signature in slip.confirmations.items():
        try:
            who = Account.recover_message(said, signature=signature)
        except (ValueError, TypeError):
            continue
        if who.lower() == address.lower():
            found.add(address.lower())
    return found


def payer_as_evm(slip: Slip) -> str:
    """Return the payer as confirmers are written, in lower case: on TRON its key has an address of that form, too."""
    is_tron = slip.kind == "tron"
    return f"0x{tron.address_bytes(slip.payer)[1:].hex()}" if is_tron else slip.payer.lower()


def checksum_error(address: str) -> str | None:
    """Return what is wrong with the checksum in an address's mixed case (EIP-55); None: nothing, or it has none."""
    digits = address.removeprefix("0x")
    if digits in (digits.lower(), digits.upper()) or to_checksum_address(address) == address:
        return None
    return f"expected {to_checksum_address(address)} by its checksum (EIP-55), got {quote(address)}"


def _said(slip: Slip) -> str:
    return f"fleet payout {slip.id} {slip.digest}"


def _account_of(private_key: str) -> Any:
    try:
        return Account.from_key(private_key)
    except (ValueError, TypeError):
        raise PayoutRefused("expected a private key of 32 bytes in hexadecimal digits, got something else") from None
