"""What a slip says that its amounts mean is held against what the key has signed before, and fees against a bound."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.config.payouts.tables import NetworkSettings
from fleet.payouts.slip import Slip, read_slip, write_slip
from tests.payouts.evm_place import Place
from tests.payouts.fake_evm import MULTISEND, TOKEN
from tests.payouts.purse import PAYER, fleet, key_file


def words(place: Place, name: str) -> tuple[Any, ...]:
    """Return what each command that signs needs, and where its slip goes."""
    return ("--key", place.key, "--passphrase-file", place.folder / "passphrase", "-o", place.folder / name)


@pytest.fixture
def slip(place: Place) -> Slip:
    """A slip that was signed, so that the key has its pins."""
    place.earn()
    made = place.prepared()
    told = fleet("sign", place.folder / "slip.json", *words(place, "signed.json"))
    assert "from now on this key signs as" in told
    return made


@pytest.mark.parametrize(
    "values",
    [{"decimals": 17}, {"token": MULTISEND}, {"multisend": TOKEN}, {"chain_id": 97}],
)
@pytest.mark.parametrize("command", ["sign", "confirm"])
def test_a_slip_that_says_something_else_than_before_is_refused_unless_somebody_has_looked(
    place: Place, slip: Slip, values: dict[str, Any], command: str
) -> None:
    write_slip(replace(slip, **values), place.folder / "other.json")
    told = fleet(command, place.folder / "other.json", *words(place, "other.signed"), code=1)
    assert "find out who changed it; if that is right, say --pin" in told and f"{TOKEN} of 18 decimals" in told
    assert not (place.folder / "other.signed").exists()
    fleet(command, place.folder / "other.json", *words(place, "other.signed"), "--pin")
    fleet(command, place.folder / "other.json", *words(place, "other.signed"))
    is_kept = "chain_id" in values  # of another network: that of the first stays
    fleet(command, place.folder / "slip.json", *words(place, "again.signed"), code=0 if is_kept else 1)


def test_an_amount_is_read_by_decimals_that_the_slip_alone_does_not_say(place: Place) -> None:
    place.earn()
    made = place.prepared()
    write_slip(replace(made, decimals=36), place.folder / "thief.json")
    told = fleet("sign", place.folder / "thief.json", *words(place, "t.signed"), "--most", "0.000001", code=1)
    assert "to read --most by, got the first slip of this key" in told
    fleet("sign", place.folder / "slip.json", *words(place, "signed.json"), "--most", "0.3", "--pin")
    fleet("sign", place.folder / "slip.json", *words(place, "signed.json"), "--most", "0.3")
    told = fleet("sign", place.folder / "thief.json", *words(place, "t.signed"), "--most", "0.000001", code=1)
    assert "find out who changed it" in told


def test_fees_have_a_bound_of_the_signers_own(place: Place, slip: Slip) -> None:
    write_slip(replace(slip, max_fee_per_gas=10**18), place.folder / "dear.json")
    told = fleet("sign", place.folder / "dear.json", *words(place, "d.signed"), "--most-fee", "0.01", code=1)
    assert "expected at most 0.01 in fees (--most-fee), got" in told
    fleet("sign", place.folder / "slip.json", *words(place, "signed.json"), "--most-fee", "0.01")
    assert "at most 18 places" in fleet(
        "sign", place.folder / "slip.json", *words(place, "signed.json"), "--most-fee", "0." + "0" * 18 + "1", code=2
    )


def test_pins_that_were_cut_off_or_cannot_be_written_sign_nothing(place: Place, slip: Slip) -> None:
    pins = place.folder / "payer.json.pins"
    pins.write_text(pins.read_text()[:40])
    told = fleet("sign", place.folder / "slip.json", *words(place, "again.json"), code=1)
    assert "expected what a key signs for (fleet-pins-1)" in told and not (place.folder / "again.json").exists()
    pins.unlink()
    (place.folder / ".payer.json.pins.anew").mkdir()
    told = fleet("sign", place.folder / "slip.json", *words(place, "again.json"), code=1)
    assert "by --pins, and keep it for the next slips" in told and not (place.folder / "again.json").exists()


def test_a_void_pins_nothing_for_nobody_is_shown_its_contract(place: Place) -> None:
    place.earn()
    payout = place.prepared()
    fleet("void", payout.id, "-o", place.folder / "void.json")
    write_slip(replace(read_slip(place.folder / "void.json"), decimals=17, multisend=TOKEN), place.folder / "v.json")
    for command, more in (("sign", ("--most", "1")), ("confirm", ())):
        told = fleet(command, place.folder / "v.json", *words(place, f"{command}.json"), *more)
        assert "from now on this key signs as" not in told and not (place.folder / "payer.json.pins").exists()
    told = fleet("sign", place.folder / "slip.json", *words(place, "signed.json"))
    assert "from now on this key signs as" in told and f"through contract {MULTISEND}" in told


@pytest.mark.parametrize("command", ["sign", "confirm"])
def test_a_key_on_media_that_cannot_be_written_signs_with_pins_elsewhere(
    place: Place, slip: Slip, command: str, tmp_path: Path
) -> None:
    """Where it was pinned before beside the key, that is gone by until the other file is there."""
    beside, pins = place.folder / "payer.json.pins", ("--pins", tmp_path / "elsewhere.pins")
    (place.folder / ".payer.json.pins.anew").mkdir()  # nothing is written beside it any more
    write_slip(replace(slip, decimals=17), place.folder / "thief.json")
    told = fleet(command, place.folder / "thief.json", *words(place, "t.json"), *pins, code=1)
    assert "find out who changed it" in told
    before = beside.read_bytes()
    beside.unlink()
    told = fleet(command, place.folder / "slip.json", *words(place, "a.json"), *pins)
    assert f"from now on this key signs as {pins[1]} says" in told and pins[1].read_bytes() == before
    told = fleet(command, place.folder / "thief.json", *words(place, "t.json"), *pins, code=1)
    assert "find out who changed it" in told and not beside.exists()


def test_a_wrong_key_pins_nothing(place: Place) -> None:
    place.earn()
    place.prepared()
    other = key_file(place.folder, "0x" + "18" * 32, "other.json")
    told = fleet("sign", place.folder / "slip.json", "--key", other, *words(place, "o.json")[2:], code=1)
    assert "expected the key of the payer" in told and not other.with_name("other.json.pins").exists()


def test_every_network_that_is_no_known_test_network_is_one_of_real_money() -> None:
    one = {"token": TOKEN, "payer": PAYER["evm"]}
    for chain in (56, 43_114, 100, 250, 324, 59_144, 204, 8453, 987_654):
        with pytest.raises(ValueError, match=rf"known test network .*, got {chain}; all others count as real money"):
            NetworkSettings(chain_id=chain, **one)
        assert NetworkSettings(chain_id=chain, main_net=True, **one).main_net
    assert config.Settings(networks={"bsc": {**one, "chain_id": 97}}).networks["bsc"].chain_id == 97


def test_the_file_of_pins_is_its_owners_alone(place: Place, slip: Slip) -> None:
    pins = place.folder / "payer.json.pins"
    assert pins.stat().st_mode & 0o777 == 0o600
    (pin,) = json.loads(pins.read_text())["pins"]
    assert pin == {"kind": "evm", "chain_id": 31_337, "token": TOKEN, "decimals": 18, "multisend": MULTISEND}
