"""A place where the tests of payouts on an EVM network run: settings, a Redis with earnings, and a small network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

from fleet import config
from fleet.payouts.book import read_payouts
from fleet.payouts.slip import Slip, read_slip
from tests.payouts.fake_evm import CHAIN_ID, MULTISEND, TOKEN, FakeEvm
from tests.payouts.faulty import Door
from tests.payouts.purse import PAYER, earn, fleet, key_file, payees, write_settings

CENT = 10**16
ADDRESSES = payees(3)


class Place:
    """A folder with settings, a Redis with earnings, and a network."""

    def __init__(self, folder: Path, client: redis.Redis, chain: FakeEvm, door: Door) -> None:
        self.folder, self.client, self.chain, self.door = folder, client, chain, door
        self.key = key_file(folder)

    def configure(self, *, network: dict[str, Any] | None = None, **payouts: Any) -> None:
        usual = {
            "url": self.door.url, "chain_id": CHAIN_ID, "token": TOKEN, "payer": PAYER["evm"], "multisend": MULTISEND,
        }  # fmt: skip
        write_settings(self.folder, {**usual, **(network or {})}, ADDRESSES, payouts)

    def rename(self, name: str) -> None:
        """Give the network another name, with all else as it is."""
        path = self.folder / "fleet.toml"
        text = path.read_text().replace("[networks.test]", f"[networks.{name}]")
        path.write_text(text.replace('network = "test"', f'network = "{name}"'))
        config.current.cache_clear()

    def earn(self, tasks: int = 30, prefix: str = "t") -> None:
        earn(self.client, config.current(), tasks, bots=3, prefix=prefix)

    def prepared(self, name: str = "slip.json") -> Slip:
        fleet("prepare", "test", "-o", self.folder / name, "--now")
        return read_slip(self.folder / name)

    def signed(self, slip: str = "slip.json", to: str = "signed.json") -> Path:
        passphrase = self.folder / "passphrase"
        fleet("sign", self.folder / slip, "--key", self.key, "--passphrase-file", passphrase, "-o", self.folder / to)
        return self.folder / to

    def paid(self) -> list[int]:
        balances, _ = self.chain.state()
        return [balances[address.lower()] for address in ADDRESSES]

    def due_units(self) -> list[tuple[str, int]]:
        """Return payees and what they are due now."""
        return [(one["payee"], int(one["units"])) for one in json.loads(fleet("due", "--json"))["due"]]

    def states(self) -> list[str]:
        return [one.state for record in read_payouts(self.client) for one in record.standings]

    def check(self) -> list[str]:
        fleet("check")
        return self.states()
