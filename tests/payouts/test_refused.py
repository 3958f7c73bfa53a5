"""One payee's address stops nobody else's pay: who cannot be paid is named, and waits alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet import config
from fleet.config.payouts.tables import tron_address
from fleet.payouts.slip import read_slip
from tests.payouts import evm_place
from tests.payouts.evm_place import ADDRESSES, CENT, Place
from tests.payouts.fake_evm import MULTISEND, TOKEN
from tests.payouts.purse import PAYER, earn, fleet


def waiting(place: Place, name: str) -> dict[str, str]:
    """Prepare a payout and return who waits why."""
    told: dict[str, str] = json.loads(fleet("prepare", "test", "-o", place.folder / name, "--now", "--json"))["waiting"]
    return told


@pytest.mark.parametrize("multisend", [MULTISEND, None])
def test_an_address_that_the_token_refuses_waits_and_the_others_are_paid(place: Place, multisend: str | None) -> None:
    place.configure(network={"multisend": multisend})
    place.earn()
    place.chain.refused.add(ADDRESSES[1].lower())
    told = waiting(place, "slip.json")
    assert list(told) == ["p002"] and "the token refuses its address: 'execution reverted" in told["p002"]
    assert [one.payee for one in read_slip(place.folder / "slip.json").payments] == ["p001", "p003"]
    fleet("send", place.signed())
    place.chain.mine(4)
    place.check()
    assert place.paid() == [10 * CENT, 0, 10 * CENT] and ("p002", 10 * CENT) in place.due_units()


def test_a_wrong_checksum_in_an_address_keeps_its_own_payee_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ADDRESSES[2]
    monkeypatch.setattr(evm_place, "ADDRESSES", [*ADDRESSES[:2], f"0x{right[2:].swapcase()}"])
    place.configure()
    place.earn()
    told = waiting(place, "slip.json")
    assert list(told) == ["p003"] and f"expected {right} by its checksum" in told["p003"]


def test_a_token_that_refuses_everybody_or_a_node_in_trouble_accuses_nobody(place: Place) -> None:
    place.earn()
    place.chain.refused.update(address.lower() for address in ADDRESSES)
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "expected payments that go through, got none that does" in told
    place.chain.refused = {ADDRESSES[0].lower()}
    place.chain.reverts_with = "daily request count exceeded"
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "expected payments that go through, got daily request count exceeded" in told
    assert "refuses its address" not in told and place.states() == []


@pytest.mark.parametrize("kind", ["refused_via_multisend", "refused_with_others"])
def test_an_address_that_reverts_only_through_the_contract_or_with_others_waits_alone(place: Place, kind: str) -> None:
    place.earn()
    getattr(place.chain, kind).add(ADDRESSES[1].lower())
    told = waiting(place, "slip.json")
    what = (
        "the token refuses its address" if kind == "refused_via_multisend" else "together with the others its payment"
    )
    assert list(told) == ["p002"] and what in told["p002"]
    assert [one.payee for one in read_slip(place.folder / "slip.json").payments] == ["p001", "p003"]


@pytest.mark.parametrize("multisend", [MULTISEND, None])
def test_a_paused_token_is_not_told_as_an_address_that_is_refused(place: Place, multisend: str | None) -> None:
    place.configure(network={"multisend": multisend})
    earn(place.client, config.current(), 10, bots=1, prefix="alone")
    place.chain.is_paused = True
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "the token may be paused, or refuse the payer or the only payee" in told
    assert "refuses its address" not in told and place.states() == []


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ({}, "0x" + "0" * 40), ({}, TOKEN.upper().replace("X", "x")), ({}, PAYER["evm"].lower()), ({}, MULTISEND),
        ({"kind": "tron", "token": tron_address(b"\x41" + b"\xaa" * 20), "payer": PAYER["tron"], "multisend": None},
         tron_address(b"\x41" + bytes(20))),
    ],
)  # fmt: skip
def test_an_address_that_no_owner_has_is_refused_as_settings_are_read(network: dict[str, Any], address: str) -> None:
    tables = {
        "networks": {"n": {"token": TOKEN, "payer": PAYER["evm"], "multisend": MULTISEND, **network}},
        "payees": {"alice": {"bots": ["*"], "network": "n", "address": address}},
    }
    with pytest.raises(ValueError, match=r"payees\.alice\.address: expected the address of an owner of bots, got"):
        config.Settings.model_validate(tables)
