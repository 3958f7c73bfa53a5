"""A real EVM node for the check: anvil, as the npm package brings it, with our contracts on it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_utils.address import to_checksum_address

from fleet.payouts import evm
from fleet.payouts.nodes import EvmNode, post
from fleet.payouts.refusals import NodeAway
from tests.payouts.purse import PAYER, PAYER_KEY
from tests.waiting import wait_until

CONTRACTS = Path(__file__).parent / "contracts" / "contracts.json"
#: Wei of a unit of gas: what BNB Smart Chain has charged since 2025, and twice that.
GAS_PRICE = 10**8
#: The first account that anvil makes: it has coins and deploys.
MAKER = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
SUPPLY = 10**30


class Anvil:
    """A node with a token and a multisend contract, whose blocks are made on demand.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self.url, self.node = url, EvmNode(url)
        made = json.loads(CONTRACTS.read_text(encoding="utf-8"))
        self.node.ask("anvil_setBalance", PAYER["evm"], hex(10**24))
        self.token = self._deploy(PAYER_KEY, made["Token"] + evm.word(18) + evm.word(SUPPLY))
        self.multisend = self._deploy(MAKER, made["Multisend"])
        self._send(PAYER_KEY, to=self.token, data=f"0x{evm.APPROVE}{evm.word(self.multisend)}{'f' * 64}")

    def execute(self, path: str, body: Any) -> Any:
        """Answer as the node does, for a door before it."""
        return post(self.url, body)

    @property
    def nonce(self) -> int:
        """Transactions that the payer has made."""
        return self.node.number("eth_getTransactionCount", PAYER["evm"], "latest")

    def balance(self, address: str) -> int:
        """Return what an address has of the token."""
        return self.node.view(self.token, evm.BALANCE_OF, address)

    def mine(self, count: int = 1) -> None:
        """Make blocks of what waits."""
        for _ in range(count):
            self.node.ask("evm_mine")

    def reorganise(self, number: int) -> bool:
        """Take blocks back from one on, and put others without payments in their place; False: it was empty."""
        latest, before = self.node.number("eth_blockNumber"), self._block(number)
        if not before["transactions"]:
            return False
        self.node.ask("anvil_reorg", latest - number + 1, [])
        self.node.ask("anvil_dropAllTransactions")
        after = self._block(number)
        assert not after["transactions"], "expected another block without payments"
        assert before["hash"] != after["hash"]
        return True

    def _block(self, number: int) -> Any:
        return self.node.ask("eth_getBlockByNumber", hex(number), False)

    def gas_spent(self, transactions: list[str]) -> int:
        """Return wei that transactions have cost."""
        receipts = [self.node.ask("eth_getTransactionReceipt", one) for one in transactions]
        return sum(int(one["gasUsed"], 16) * int(one["effectiveGasPrice"], 16) for one in receipts)

    def _deploy(self, key: str, code: str) -> str:
        return to_checksum_address(self._send(key, data=f"0x{code}")["contractAddress"])

    def _send(self, key: str, *, data: str, to: str | None = None) -> Any:
        account = Account.from_key(key)
        nonce = self.node.number("eth_getTransactionCount", account.address, "latest")
        call = {"chainId": 31_337, "nonce": nonce, "gas": 3_000_000, "maxFeePerGas": 10**10,
                "maxPriorityFeePerGas": 10**8, "data": data, "value": 0}  # fmt: skip
        signed = Account.sign_transaction({**call, **({"to": to} if to else {})}, key)
        id_ = self.node.ask("eth_sendRawTransaction", f"0x{bytes(signed.raw_transaction).hex()}")
        self.mine()
        receipt = self.node.ask("eth_getTransactionReceipt", id_)
        assert receipt["status"] == "0x1", receipt
        return receipt


def program(folders: list[Path]) -> Path | None:
    """Return anvil: of PATH, or of a folder with node_modules; None: it is not there."""
    for folder in folders:
        for found in sorted(folder.glob("node_modules/@foundry-rs/anvil-*/bin/anvil")):
            return found
    on_path = shutil.which("anvil")
    return None if on_path is None else Path(on_path)


@contextmanager
def running(anvil: Path, folder: Path) -> Iterator[Anvil]:
    """Run a node for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(anvil), "--host", "127.0.0.1", "--port", str(port), "--no-mining", "--slots-in-an-epoch", "1",
               "--block-base-fee-per-gas", str(GAS_PRICE), "--disable-min-priority-fee", "--silent"]  # fmt: skip
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return EvmNode(url).number("eth_chainId") == 31_337
        except NodeAway:
            assert process.poll() is None, "anvil has ended"
            return False

    try:
        wait_until(ready, 30, "anvil answers")
        yield Anvil(url)
    finally:
        process.terminate()
        process.wait()
