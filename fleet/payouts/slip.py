"""The slip: a file that says exactly what a payout pays. Signers and confirmers need it, their key, and nothing else.

Amounts are whole numbers as text. The digest covers all that is paid, and what may be spent on fees.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet.config.payouts.tables import NetworkKind
from fleet.payouts.refusals import PayoutRefused
from fleet.quoting import quote

#: What the files of this release say of themselves.
FORMAT = "fleet-payout-1"


@dataclass(frozen=True, slots=True)
class Payment:
    """One payee's money: an id, whom, where to, and how much in smallest units."""

    id: str
    payee: str
    to: str
    units: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transaction of a slip and the payments in it; none in one that only uses a nonce up.

    Args:
        payments: Several through a contract that sends them, else one.
        nonce: Of the payer, on networks that count: no other transaction can have it.
        gas: Units that it may take; on TRON the most it may burn, in sun.
        ref_block_bytes: Hexadecimal, of TRON: a block by which the network knows that it is its own.
        ref_block_hash: Likewise.
        expiration_ms: Unix time after which TRON does not take it any more.
        timestamp_ms: Tells equal transfers apart on TRON.
    """

    payments: tuple[Payment, ...]
    nonce: int = 0
    gas: int = 0
    ref_block_bytes: str = ""
    ref_block_hash: str = ""
    expiration_ms: int = 0
    timestamp_ms: int = 0

    @property
    def units(self) -> int:
        """All that it pays."""
        return sum(payment.units for payment in self.payments)


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed transaction: its id on the network, and its bytes in hexadecimal digits."""

    id: str
    raw: str


@dataclass(frozen=True, slots=True)
class Slip:
    """A payout on one network, as it is prepared, signed and confirmed.

    Args:
        voids: Id of the payout whose nonces it uses up; empty: it pays.
        max_fee_per_gas: Wei; `max_priority_fee_per_gas` is part of it. 0 on TRON.
        expires_s: Unix time after which nobody may sign or send it.
        signed: One for each transfer, in order; empty: not signed.
        confirmations: Address of who has confirmed it -> signature of its digest.
    """

    id: str
    network: str
    kind: NetworkKind
    chain_id: int
    main_net: bool
    token: str
    decimals: int
    payer: str
    multisend: str | None
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    prepared_s: int
    expires_s: int
    transfers: tuple[Transfer, ...]
    voids: str = ""
    signed: tuple[Signed, ...] = ()
    confirmations: Mapping[str, str] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """All that it pays."""
        return sum(transfer.units for transfer in self.transfers)

    @property
    def payments(self) -> Iterator[Payment]:
        """Every payment."""
        return (payment for transfer in self.transfers for payment in transfer.payments)

    @property
    def digest(self) -> str:
        """SHA-256 of everything but signatures, as hexadecimal digits: what confirmers sign and Redis remembers."""
        bare = replace(self, signed=(), confirmations={})
        return hashlib.sha256(json.dumps(bare.as_data(), sort_keys=True).encode()).hexdigest()

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"format": FORMAT, **_texts(asdict(self))}

    @classmethod
    def of(cls, data: Any) -> Slip:
        """Read it.

        Raises:
            PayoutRefused: When it is not a slip of this release.
        """
        try:
            if data["format"] != FORMAT:
                raise ValueError(data["format"])
            fields = {name: value for name, value in data.items() if name != "format"}
            transfers = tuple(
                Transfer(**{**one, "payments": tuple(_payment(each) for each in one["payments"])})
                for one in fields.pop("transfers")
            )
            signed = tuple(Signed(**one) for one in fields.pop("signed"))
            for name in _FEES:
                fields[name] = int(fields[name])
            return cls(**fields, transfers=transfers, signed=signed)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PayoutRefused(
                f"expected a slip ({FORMAT}) as `fleet payouts prepare` writes it, got {quote(str(error))}"
            ) from error


_FEES = ("max_fee_per_gas", "max_priority_fee_per_gas")


def _payment(data: dict[str, Any]) -> Payment:
    if not isinstance(data["units"], str) or int(data["units"]) <= 0:
        raise ValueError(f"units {data['units']!r}")
    return Payment(data["id"], data["payee"], data["to"], int(data["units"]))


def _texts(data: dict[str, Any]) -> dict[str, Any]:
    """Write amounts as text, which no reader of JSON rounds."""
    for name in _FEES:
        data[name] = str(data[name])
    for transfer in data["transfers"]:
        for payment in transfer["payments"]:
            payment["units"] = str(payment["units"])
    data["confirmations"] = dict(data["confirmations"])
    return data


def read_slip(path: Path) -> Slip:
    """Read a slip's file.

    Raises:
        PayoutRefused: When it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PayoutRefused(f"expected a slip in {path}, got {quote(str(error))}") from error
    return Slip.of(data)


def write_slip(slip: Slip, path: Path) -> None:
    """Write a slip's file whole or not at all; only its owner reads it."""
    beside = path.with_name(f".{path.name}.anew")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(slip.as_data(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
