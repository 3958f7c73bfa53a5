"""Networks that began anew: a test network that was started again knows fewer transactions than the book, rightly."""

from __future__ import annotations

import time

import pytest

from fleet.payouts import book
from fleet.store import payout_keys
from tests.payouts.evm_place import Place
from tests.payouts.purse import fleet
from tests.waiting import wait_until


def test_a_test_network_that_began_anew_is_paid_on_when_somebody_says_so(place: Place) -> None:
    place.earn()
    first = place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    place.earn(prefix="later")
    place.chain.blocks = place.chain.blocks[:1]
    words = ("prepare", "test", "-o", place.folder / "anew.json", "--now")
    told = fleet(*words, code=1)
    assert "If the test network began anew, such as anvil, say --nonce 0" in told
    assert "got 0" in fleet(*words, "--nonce", 1, code=1), "the node must say the same"
    wait_until(lambda: time.time() >= first.prepared_s + 1)
    fleet(*words, "--nonce", 0)
    fleet("send", place.signed("anew.json", "anew.signed"))
    place.chain.mine(4)
    assert place.check() == ["settled", "settled"]
    place.earn(prefix="third")
    place.prepared("third.json")


def test_a_network_of_real_money_never_begins_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "on_every_disk", lambda *_: True)
    place.configure(network={"main_net": True})
    place.earn()
    place.prepared()
    place.client.delete(payout_keys.open_payouts())
    place.earn(prefix="later")
    words = ("prepare", "test", "-o", place.folder / "x.json", "--now", "--nonce", 0)
    told = fleet(*words, code=1)
    assert "got 0: the node is behind" in told and "anew" not in told
