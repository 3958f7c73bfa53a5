"""A small EVM network in Python: one token, one multisend, blocks that can be taken back. It runs no code of contracts.

What it takes must be signed and have the next nonce, so that the product cannot pass here by what no node would take.
`python -m tests.payouts --check` runs the same on anvil, with real contracts.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from fleet.payouts import evm

CHAIN_ID = 31_337
TOKEN, MULTISEND = "0x" + "aa" * 20, "0x" + "bb" * 20
#: Blocks upon a final one.
FINAL_DEPTH = 2
GAS_PRICE = 10**8


@dataclass
class Sent:
    """A transaction as the network has it."""

    hash: str
    payer: str
    nonce: int
    to: str
    data: str


@dataclass
class FakeEvm:
    """The network. All but `ask` are for tests."""

    payer: str
    decimals: int = 18
    supply: int = 10**30
    blocks: list[list[Sent]] = field(default_factory=lambda: [[]])
    pool: dict[str, Sent] = field(default_factory=dict)
    #: Addresses to which transfers are reverted.
    refused: set[str] = field(default_factory=set)
    #: Addresses that revert only when the multisend contract pays them, and only when it pays others too.
    refused_via_multisend: set[str] = field(default_factory=set)
    refused_with_others: set[str] = field(default_factory=set)
    #: The token moves nothing for the payer.
    is_paused: bool = False
    forks: int = 0
    chain_id: int = CHAIN_ID
    #: Wei of the payer.
    coins: int = 10**18
    #: What the node says to all that is sent; empty: it takes it.
    objection: str = ""
    #: Newest blocks whose states it has still: full nodes keep about 128.
    states: int = 2**64
    #: Counts and blocks that it was asked for by number.
    asked: list[int] = field(default_factory=list)
    #: What the node says to an estimate of what the token refuses.
    reverts_with: str = "execution reverted"
    #: Nonces of transactions that the node does not take.
    objected_nonces: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._snapshots: list[int] = []

    def execute(self, path: str, body: Any) -> Any:
        with self._lock:
            return [self._one(one) for one in body] if isinstance(body, list) else self._one(body)

    def _one(self, call: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            answer["result"] = self.ask(call["method"], call["params"])
        except ValueError as error:
            answer["error"] = {"code": -32000, "message": str(error)}
        return answer

    def ask(self, method: str, params: list[Any]) -> Any:
        """Answer one method."""
        return getattr(self, f"_{method}")(*params)

    # -- what nodes answer

    def _eth_chainId(self) -> str:
        return hex(self.chain_id)

    def _eth_blockNumber(self) -> str:
        return hex(len(self.blocks) - 1)

    def _eth_gasPrice(self) -> str:
        return hex(GAS_PRICE)

    _eth_maxPriorityFeePerGas = _eth_gasPrice

    def _eth_getTransactionCount(self, address: str, tag: str) -> str:
        if tag.startswith("0x"):
            self.asked.append(int(tag, 16))
        if self._number(tag) < len(self.blocks) - self.states:
            raise ValueError("missing trie node")
        known = self.blocks[: self._number(tag) + 1]
        count = sum(one.payer == address.lower() for block in known for one in block)
        if tag == "pending":
            nonces = {one.nonce for one in self.pool.values() if one.payer == address.lower()}
            while count in nonces:
                count += 1
        return hex(count)

    def _eth_getBalance(self, address: str, tag: str) -> str:
        return hex(self.coins)

    def _eth_call(self, call: dict[str, str], tag: str) -> str:
        data = call["data"].removeprefix("0x")
        balances, allowed = self.state()
        if data.startswith(evm.DECIMALS):
            return hex(self.decimals)
        if data.startswith(evm.BALANCE_OF):
            return hex(balances["0x" + data[-40:]])
        if data.startswith(evm.ALLOWANCE):
            return hex(allowed)
        raise ValueError("execution reverted")

    def _eth_estimateGas(self, call: dict[str, str]) -> str:
        moves = self._moves(call["to"].lower(), call["data"])
        if moves is None or self.is_paused or any(to in self.refused for to, _ in moves):
            raise ValueError(self.reverts_with)
        odd = self.refused_via_multisend if call["to"].lower() == MULTISEND else set[str]()
        odd = odd | (self.refused_with_others if len(moves) > 1 else set())
        if any(to in odd for to, _ in moves):
            raise ValueError(self.reverts_with)
        if sum(units for _, units in moves) > self.state()[0][self.payer.lower()]:
            raise ValueError("execution reverted: too little")
        return hex(25_000 + 35_000 * len(moves))

    def _eth_sendRawTransaction(self, raw: str) -> str:
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        hash_ = f"0x{keccak(HexBytes(raw)).hex()}"
        payer = Account.recover_transaction(raw).lower()
        sent = Sent(
            hash_, payer, int(fields["nonce"]), f"0x{bytes(fields['to']).hex()}", f"0x{bytes(fields['data']).hex()}"
        )
        if self.objection:
            raise ValueError(self.objection)
        if sent.nonce in self.objected_nonces:
            raise ValueError("transaction underpriced")
        if int(fields["chainId"]) != self.chain_id:
            raise ValueError("invalid chain id")
        if hash_ in self.pool or self._block_of(hash_) is not None:
            raise ValueError("already known")
        if sent.nonce < int(self._eth_getTransactionCount(payer, "latest"), 16):
            raise ValueError("nonce too low")
        for other in [one for one in self.pool.values() if (one.payer, one.nonce) == (payer, sent.nonce)]:
            del self.pool[other.hash]  # all that come later here pay more
        self.pool[hash_] = sent
        return hash_

    def _eth_getTransactionByHash(self, hash_: str) -> Any:
        number = self._block_of(hash_)
        known = self.pool.get(hash_) if number is None else self._in(number, hash_)
        return None if known is None else self._shown(known)

    def _eth_getTransactionReceipt(self, hash_: str) -> Any:
        number = self._block_of(hash_)
        if number is None:
            return None
        sent = self._in(number, hash_)
        moves = self._moves(sent.to, sent.data)
        is_well = moves is not None and not any(to in self.refused for to, _ in moves)
        logs = [self._log(sent.payer, to, units) for to, units in moves or ()] if is_well else []
        return {
            "blockNumber": hex(number), "blockHash": self._hash(number), "status": hex(is_well), "logs": logs,
            "gasUsed": hex(21_000), "effectiveGasPrice": hex(GAS_PRICE),
        }  # fmt: skip

    def _eth_getBlockByNumber(self, tag: str, whole: bool) -> Any:
        number = self._number(tag)
        if tag.startswith("0x"):
            self.asked.append(number)
        if not 0 <= number < len(self.blocks):
            return None
        shown = [self._shown(one) if whole else one.hash for one in self.blocks[number]]
        return {"number": hex(number), "hash": self._hash(number), "transactions": shown}

    # -- what tests do

    def mine(self, count: int = 1, *, only_empty: bool = False) -> None:
        """Make blocks, with what waits in the order of nonces."""
        with self._lock:
            for _ in range(count):
                block: list[Sent] = []
                for sent in sorted(self.pool.values(), key=lambda one: one.nonce) if not only_empty else ():
                    done = int(self._eth_getTransactionCount(sent.payer, "latest"), 16)
                    if sent.nonce == done + sum(one.payer == sent.payer for one in block):
                        block.append(sent)
                for sent in block:
                    del self.pool[sent.hash]
                self.blocks.append(block)

    def reorganise(self, depth: int) -> None:
        """Take the last blocks back; what was in them is forgotten, as a node may do."""
        with self._lock:
            del self.blocks[-depth:]
            self.forks += 1
            self.pool.clear()
            self.blocks += [[] for _ in range(depth)]

    def state(self) -> tuple[Counter[str], int]:
        """Return what each address has, and that the contract may move everything of the payer."""
        balances = Counter({self.payer.lower(): self.supply})
        for block in self.blocks:
            for sent in block:
                moves = self._moves(sent.to, sent.data)
                if moves is None or any(to in self.refused for to, _ in moves):
                    continue
                for to, units in moves:
                    balances[sent.payer] -= units
                    balances[to] += units
        return balances, 2**256 - 1

    # -- within

    def _number(self, tag: str) -> int:
        last = len(self.blocks) - 1
        named = {"latest": last, "pending": last, "finalized": max(0, last - FINAL_DEPTH)}
        return named[tag] if tag in named else int(tag, 16)

    def _hash(self, number: int) -> str:
        within = ",".join(one.hash for one in self.blocks[number])
        return f"0x{hashlib.sha256(f'{number} {self.forks} {within}'.encode()).hexdigest()}"

    def _block_of(self, hash_: str) -> int | None:
        numbers = (n for n, block in enumerate(self.blocks) if any(one.hash == hash_ for one in block))
        return next(numbers, None)

    def _in(self, number: int, hash_: str) -> Sent:
        return next(one for one in self.blocks[number] if one.hash == hash_)

    @staticmethod
    def _shown(sent: Sent) -> dict[str, Any]:
        return {"hash": sent.hash, "from": sent.payer, "nonce": hex(sent.nonce), "to": sent.to, "input": sent.data}

    @staticmethod
    def _moves(to: str, data: str) -> list[tuple[str, int]] | None:
        words = [data[10 + start : 74 + start] for start in range(0, len(data) - 10, 64)]
        selector = data[2:10]
        if (to, selector) == (TOKEN, evm.TRANSFER):
            return [(f"0x{words[0][-40:]}", int(words[1], 16))]
        if (to, selector) == (MULTISEND, evm.DISPERSE):
            count = int(words[3], 16)
            return [(f"0x{words[4 + n][-40:]}", int(words[5 + count + n], 16)) for n in range(count)]
        return [] if data == "0x" else None

    @staticmethod
    def _log(source: str, to: str, units: int) -> dict[str, Any]:
        topics = [evm.TRANSFER_TOPIC, f"0x{evm.word(source)}", f"0x{evm.word(to)}"]
        return {"address": TOKEN, "topics": topics, "data": f"0x{evm.word(units)}"}
