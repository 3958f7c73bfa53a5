"""A small TRON in Python: one token, and blocks. Transactions must be signed, and refer to a block that there is."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from eth_keys.datatypes import Signature

from fleet.config.payouts.tables import tron_address
from fleet.payouts import evm, tron

TOKEN = tron_address(b"\x41" + b"\xaa" * 20)
#: Energy of a transfer, and of one to somebody who has none of the token yet.
ENERGY, ENERGY_OF_NEW = 64_285, 130_285
PRICES = {"getEnergyFee": 100, "getTransactionFee": 1000}
#: Milliseconds between blocks; blocks until one is final.
BLOCK_MS, FINAL_DEPTH = 3000, 19
START_MS = 1_790_000_000_000
#: Ends of the ids of the first blocks of TRON's main network, and of its test network Nile.
TRON_MAIN, TRON_NILE = 0x2B6653DC, 0xCD8690DC


@dataclass
class TronSent:
    """A transaction as the network has it."""

    id: str
    to: str
    units: int
    expiration_ms: int


@dataclass
class FakeTron:
    """The network. All but `execute` is for tests."""

    payer: str
    decimals: int = 6
    supply: int = 10**15
    staked_energy: int = 0
    main: bool = False
    #: Sun of the payer.
    coins: int = 10**9
    blocks: list[list[TronSent]] = field(default_factory=lambda: [[] for _ in range(30)])
    pool: dict[str, TronSent] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    #: Share of what is asked that the node is too busy for, and methods that it never answers.
    busy: float = 0.0
    busy_with: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock, self._luck = threading.RLock(), random.Random(5)

    def execute(self, path: str, body: dict[str, Any]) -> Any:
        with self._lock:
            if self._luck.random() < self.busy or path.strip("/") in self.busy_with:
                return {"Error": "class org.tron.core.services.http.RateLimiterServlet : lack of computing resources"}
            place, _, method = path.strip("/").partition("/")
            return getattr(self, f"_{method}")(is_final=place == "walletsolidity", **body)

    def mine(self, count: int = 1) -> None:
        """Make blocks; what has expired is in none."""
        with self._lock:
            for _ in range(count):
                now = START_MS + len(self.blocks) * BLOCK_MS
                self.blocks.append([one for one in self.pool.values() if now < one.expiration_ms])
                self.pool.clear()

    def forget(self) -> None:
        """Lose what waits, as nodes do."""
        self.pool.clear()

    def balances(self) -> Counter[str]:
        """Return what each address has."""
        found = Counter({self.payer: self.supply})
        for block in self.blocks:
            for one in block:
                if one.to not in self.refused:
                    found[self.payer] -= one.units
                    found[one.to] += one.units
        return found

    # -- what nodes answer

    def _getnowblock(self, *, is_final: bool) -> Any:
        number = self._last(is_final)
        return self._block(number)

    def _getblockbynum(self, *, num: int, is_final: bool) -> Any:
        first = TRON_MAIN if self.main else TRON_NILE
        return {"blockID": f"{first:064x}"} if num == 0 else self._block(num)

    def _triggerconstantcontract(self, *, function_selector: str, parameter: str, is_final: bool, **_: Any) -> Any:
        words = [parameter[start : start + 64] for start in range(0, len(parameter), 64)]
        if function_selector == "decimals()":
            return self._constant(self.decimals, 500)
        if function_selector == "balanceOf(address)":
            return self._constant(self.balances()[self._address(words[0])], 1000)
        to = self._address(words[0])
        if to in self.refused:
            return {
                **self._constant(0, 900), "constant_result": ["08c379a0" + "00" * 64],
                "result": {"result": True, "message": b"REVERT opcode executed".hex()},
                "transaction": {"ret": [{"ret": "FAILED"}]},
            }  # fmt: skip
        return self._constant(1, ENERGY if self.balances()[to] else ENERGY_OF_NEW)

    def _getchainparameters(self, *, is_final: bool) -> Any:
        return {"chainParameter": [{"key": key, "value": value} for key, value in PRICES.items()]}

    def _getaccount(self, *, address: str, is_final: bool) -> Any:
        return {"balance": self.coins} if self.coins else {}

    def _getaccountresource(self, *, address: str, is_final: bool) -> Any:
        return {"EnergyLimit": self.staked_energy} if self.staked_energy else {}

    def _broadcasthex(self, *, transaction: str, is_final: bool) -> Any:
        raw, signature = tron.parts_of(bytes.fromhex(transaction))
        id_ = tron.transaction_id(raw)
        plain = Signature(signature[:-1] + bytes([signature[-1] - 27]))
        signer = plain.recover_public_key_from_msg_hash(bytes.fromhex(id_)).to_canonical_address()
        if tron_address(b"\x41" + signer) != self.payer:
            return {"code": "SIGERROR"}
        sent, reference = self._read(id_, raw)
        if id_ in self.pool or self._block_of(id_) is not None:
            return {"code": "DUP_TRANSACTION_ERROR"}
        if reference not in {self._id(n)[12:32] for n in range(len(self.blocks))}:
            return {"code": "TAPOS_ERROR"}
        if START_MS + len(self.blocks) * BLOCK_MS >= sent.expiration_ms:
            return {"code": "TRANSACTION_EXPIRATION_ERROR"}
        self.pool[id_] = sent
        return {"result": True, "txid": id_}

    def _gettransactionbyid(self, *, value: str, is_final: bool) -> Any:
        return {"txID": value} if value in self.pool or self._block_of(value) is not None else {}

    def _gettransactioninfobyid(self, *, value: str, is_final: bool) -> Any:
        number = self._block_of(value)
        if number is None or (is_final and number > self._last(is_final=True)):
            return {}
        sent = next(one for one in self.blocks[number] if one.id == value)
        if sent.to in self.refused:
            return {"id": value, "blockNumber": number, "receipt": {"result": "REVERT"}}
        topics = [
            evm.TRANSFER_TOPIC[2:],
            *(evm.word(tron.address_bytes(one)[1:].hex()) for one in (self.payer, sent.to)),
        ]
        log = {"address": tron.address_bytes(TOKEN)[1:].hex(), "topics": topics, "data": evm.word(sent.units)}
        return {"id": value, "blockNumber": number, "receipt": {"result": "SUCCESS"}, "log": [log]}

    # -- within

    def _last(self, is_final: bool) -> int:
        return max(0, len(self.blocks) - 1 - (FINAL_DEPTH if is_final else 0))

    def _block(self, number: int) -> Any:
        stamp = START_MS + number * BLOCK_MS
        return {"blockID": self._id(number), "block_header": {"raw_data": {"number": number, "timestamp": stamp}}}

    @staticmethod
    def _id(number: int) -> str:
        return f"{number:016x}{hashlib.sha256(str(number).encode()).hexdigest()[:48]}"

    def _block_of(self, id_: str) -> int | None:
        return next((n for n, block in enumerate(self.blocks) if any(one.id == id_ for one in block)), None)

    @staticmethod
    def _constant(value: int, energy: int) -> Any:
        return {"result": {"result": True}, "constant_result": [evm.word(value)], "energy_used": energy}

    @staticmethod
    def _address(word: str) -> str:
        return tron_address(b"\x41" + bytes.fromhex(word[-40:]))

    @staticmethod
    def _read(id_: str, raw: bytes) -> tuple[TronSent, str]:
        """Read the fields of a transaction by their places in a message of protobuf."""
        fields = dict(_all_fields(raw))
        contract = dict(_all_fields(fields[11]))
        trigger = dict(_all_fields(dict(_all_fields(contract[2]))[2]))
        assert trigger[2] == tron.address_bytes(TOKEN)
        data = trigger[4].hex()
        to = FakeTron._address(data[8:72])
        return TronSent(id_, to, int(data[72:136], 16), fields[8]), fields[1].hex() + fields[4].hex()


def _all_fields(message: bytes) -> Any:
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
        head = varint()
        if head & 7:
            length = varint()
            yield head >> 3, message[at : at + length]
            at += length
        else:
            yield head >> 3, varint()
