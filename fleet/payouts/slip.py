"""The slip: a file that says exactly what a payout pays. Signers and confirmers need it, their key, and nothing else.

Amounts are whole numbers as text. The digest covers all that is paid, and what may be spent on fees.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fleet.config.payouts.tables import MOST_DECIMALS, NetworkKind, wrong_address
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
        confirmers: Of whom one must confirm it, as the settings were when it was prepared; empty: nobody must.
        max_fee_per_gas: Wei; `max_priority_fee_per_gas` is part of it. 0 on TRON.
        final_block: Of the network, final before the payer's nonce was read: only later ones can use the slip's.
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
    final_block: int = 0
    confirmers: tuple[str, ...] = ()
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
            fields["confirmers"] = tuple(fields["confirmers"])
            slip = cls(**fields, transfers=transfers, signed=signed)
            _check_form(slip)
            return slip
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PayoutRefused(
                f"expected a slip ({FORMAT}) as `fleet payouts prepare` writes it, got {quote(str(error))}"
            ) from error


def what_ends(slip: Slip) -> str:
    """Return what ends a slip that has expired, as messages say it."""
    payout = slip.voids or slip.id
    if slip.kind == "tron":
        return "`fleet payouts check` ends it, then prepare another one"
    return f"`fleet payouts void {payout}`, sign and send that, and `fleet payouts check`"


def _check_form(slip: Slip) -> None:
    """Refuse what no slip of ours says, before anybody is shown it: its calls would not be what it seems to say.

    Raises:
        ValueError: Naming what is wrong.
    """
    names = (slip.id, slip.network, slip.voids or "-", *(text for one in slip.payments for text in (one.id, one.payee)))
    for name in names:
        _expect(bool(_NAME.fullmatch(name)), f"a name of letters, digits, . _ / and - {name!r}")
    _expect(slip.kind in ("evm", "tron") and isinstance(slip.main_net, bool), f"kind and main_net {slip.kind!r}")
    contract = (slip.multisend,) if slip.multisend is not None else ()
    for address in (slip.token, slip.payer, *contract, *(one.to for one in slip.payments)):
        if wrong := wrong_address(slip.kind, address):
            raise ValueError(wrong)
    for address in (*slip.confirmers, *slip.confirmations):
        if wrong := wrong_address("evm", address):
            raise ValueError(wrong)
    numbers = [
        slip.chain_id,
        slip.decimals,
        slip.prepared_s,
        slip.expires_s,
        slip.final_block,
        *(slip.max_fee_per_gas, slip.max_priority_fee_per_gas),
    ]
    numbers += [
        number for one in slip.transfers for number in (one.nonce, one.gas, one.expiration_ms, one.timestamp_ms)
    ]
    _expect(all(type(number) is int and 0 <= number < _MOST for number in numbers), f"whole numbers {numbers!r}")
    _expect(slip.decimals <= MOST_DECIMALS, f"decimals {slip.decimals}")
    _expect(all(0 < one.units < _MOST for one in slip.payments), "units of 256 bits")
    for text in (text for one in slip.transfers for text in (one.ref_block_bytes, one.ref_block_hash)):
        _expect(bool(_DIGITS.fullmatch(text)), f"hexadecimal digits {text!r}")
    signed = [text for one in slip.signed for text in (one.id, one.raw)]
    for text in (*signed, *slip.confirmations.values()):
        _expect(bool(_BYTES.fullmatch(text)), f"bytes in hexadecimal digits {text!r}")
    _check_counts(slip)


def _check_counts(slip: Slip) -> None:
    """Refuse transfers with more or fewer payments than their kind of call can make."""
    counts = [len(one.payments) for one in slip.transfers]
    if slip.voids:
        _expect(slip.kind == "evm" and not any(counts), "a slip that voids another one, and pays")
        return
    most = 1 if slip.kind == "tron" or slip.multisend is None else MOST_TOGETHER
    _expect(slip.kind == "evm" or slip.multisend is None, "a multisend contract on TRON")
    _expect(all(1 <= count <= most for count in counts), f"transactions of 1 to {most} payments {counts!r}")


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(what)


#: What names and ids in a slip are made of: they are shown on terminals.
_NAME = re.compile(r"[A-Za-z0-9_./-]{1,300}")
_DIGITS = re.compile(r"[0-9a-f]{0,64}")
_BYTES = re.compile(r"(0x)?([0-9a-f]{2})+")
#: One more than the largest number of a token's contract.
_MOST = 2**256
#: Payments in one transaction at most: a block's gas bounds it, and so does what one failure may hold up.
MOST_TOGETHER = 200
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


def _is_copy(slip: Slip, path: Path) -> bool:
    try:
        return read_slip(path).id == slip.id
    except (PayoutRefused, OSError):
        return False


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
    """Write a slip's file whole or not at all; only its owner reads it.

    Raises:
        PayoutRefused: There is another file of that name, such as a key: only an older copy of the slip is replaced.
    """
    if path.exists() and not _is_copy(slip, path):
        raise PayoutRefused(f"expected a name that no file has but a copy of slip {slip.id}, got {path}")
    beside = path.with_name(f".{path.name}.anew")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(slip.as_data(), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
