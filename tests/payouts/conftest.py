"""The place of tests of payouts; those of TRON have their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.store.client import connect
from tests.payouts.evm_place import Place
from tests.payouts.fake_evm import FakeEvm
from tests.payouts.faulty import door_to
from tests.payouts.purse import PAYER


@pytest.fixture
def place(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    chain = FakeEvm(PAYER["evm"])
    with connect(redis_url) as client, door_to(chain.execute) as door:
        made = Place(tmp_path, client, chain, door)
        made.configure()
        yield made
