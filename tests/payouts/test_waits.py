"""Whoever changes fleet.toml is not paid the same day: addresses wait from first sight, and guards hold on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.payouts.guards import HOUR_S, TERMS, PayoutTerms, next_terms
from fleet.payouts.slip import read_slip
from fleet.store import payout_keys
from tests.every import every
from tests.payouts import evm_place
from tests.payouts.evm_place import ADDRESSES, CENT, Place
from tests.payouts.fake_evm import FakeEvm
from tests.payouts.faulty import door_to
from tests.payouts.purse import PAYER, fleet, payees
from tests.payouts.test_told import found

DAY_S = 86_401


def waits(place: Place) -> dict[str, str]:
    return {row["payee"]: row["waits"] for row in json.loads(fleet("due", "--json"))["due"]}


def a_day_passes(place: Place) -> None:
    """Let all that Redis has seen be a day older."""
    for name, text in place.client.hgetall(payout_keys.addresses()).items():
        told = json.loads(text)
        told["since_s"] -= DAY_S
        told["prices"] = [[*line, since_s and since_s - DAY_S] for *line, since_s in told.get("prices", ())]
        place.client.hset(payout_keys.addresses(), name, json.dumps(told))


def test_an_address_waits_a_day_from_when_it_was_seen_also_the_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    assert every("its address is new: for 24 h" in told for told in waits(place).values())
    assert "expected somebody to pay" in fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    a_day_passes(place)
    assert every(not told for told in waits(place).values())
    monkeypatch.setattr(evm_place, "ADDRESSES", [payees(4)[3], *ADDRESSES[1:]])
    place.configure(address_wait_hours=24)
    told = waits(place)
    assert "its address has changed: for 24 h" in told["p001"] and told["p002"] == ""
    place.configure(address_wait_hours=0)
    told = waits(place)
    assert "its address has changed" in told["p001"], "the shorter wait is in the same file as the address"
    assert "payouts.address_wait_hours were changed: the old ones hold for 24 h still" in fleet("due")
    assert "payout_guard" in CliRunner().invoke(main, ["events", "--json"]).output
    a_day_passes(place)
    assert every(not told for told in waits(place).values())
    assert json.loads(place.client.hget(payout_keys.addresses(), TERMS))["wait_hours"] == 0


def test_the_case_of_letters_is_no_change_and_a_clock_that_was_put_back_waits_no_longer_than_a_day(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    a_day_passes(place)
    monkeypatch.setattr(evm_place, "ADDRESSES", [one.lower() for one in ADDRESSES])
    place.configure(address_wait_hours=24)
    assert every(not told for told in waits(place).values())
    told = json.loads(place.client.hget(payout_keys.addresses(), "p001"))
    place.client.hset(payout_keys.addresses(), "p001", json.dumps({**told, "since_s": told["since_s"] + 10 * DAY_S}))
    assert "for 24 h still" in waits(place)["p001"]


def test_confirmers_that_were_changed_before_a_slip_is_prepared_do_not_hold_yet(place: Place) -> None:
    place.configure(address_wait_hours=24, confirmers=[ADDRESSES[0]])
    place.earn()
    waits(place)
    a_day_passes(place)
    place.configure(address_wait_hours=24, confirmers=[ADDRESSES[1]])
    assert "payouts.confirmers were changed" in json.loads(fleet("due", "--json"))["changes"]
    fleet("prepare", "test", "-o", place.folder / "slip.json", "--now")
    assert read_slip(place.folder / "slip.json").confirmers == (ADDRESSES[0].lower(),)


def test_terms_that_are_stricter_hold_at_once_and_others_after_the_wait_that_held() -> None:
    day = 24 * HOUR_S
    first = next_terms(None, 24, ("0xa", "0xb"), 0)
    assert not first.changes and next_terms(first, 24, ("0xa", "0xb"), 5) == first
    risen = PayoutTerms(48, ("0xa",), 48, ("0xa",), 5, back_hours=24, rose_s=5, prior=first.seen)
    assert next_terms(first, 48, ("0xa",), 5) == risen
    for hours, confirmers in ((1, ("0xa", "0xb")), (24, ()), (24, ("0xa", "0xb", "0xc")), (24, ("0xc",)), (0, ())):
        later = next_terms(first, hours, confirmers, 5)
        assert (later.wait_hours, later.confirmers) == (24, ("0xa", "0xb")) and later.changes
        assert next_terms(later, hours, confirmers, 4 + day) == later
        held = PayoutTerms(hours, confirmers, hours, confirmers, 5, prior=first.seen)
        assert next_terms(later, hours, confirmers, 5 + day) == held
        other = next_terms(later, hours, ("0xd",), 4 + day)
        assert other.since_s == 4 + day, "another change waits anew"
    assert next_terms(next_terms(None, 24, (), 0), 24, ("0xa",), 5).confirmers == ("0xa",)
    assert next_terms(PayoutTerms(24, (), 0, (), 99), 0, (), 5).since_s == 5, "no change was seen in the future"


def test_a_wait_that_was_raised_by_mistake_is_put_back_as_soon_as_any_other_change_was() -> None:
    day = 24 * HOUR_S
    first = next_terms(None, 24, (), 0)
    risen = next_terms(first, 8000, (), 5)
    assert risen.wait_hours == 8000, "at once"
    back = next_terms(next_terms(risen, 8000, (), 100 * day), 24, (), 101 * day)
    assert (back.wait_hours, back.holds_at_s) == (8000, 102 * day)
    assert next_terms(back, 24, (), 102 * day) == PayoutTerms(24, (), 24, (), 101 * day, rose_s=5, prior=(8000, ()))
    for hours, confirmers in ((23, ()), (8000, ("0xa",)), (0, ())):
        less = next_terms(replace(risen, confirmers=("0xb",)), hours, confirmers, 101 * day)
        assert less.guard_hours == 8000, "that is no way back"
    again = next_terms(next_terms(first, 240, (), 5), 2400, (), 6)
    assert next_terms(again, 24, (), 7).guard_hours == 24, "two rises in a row"
    stood = next_terms(next_terms(first, 48, (), 5), 48, (), 5 + 2 * day)
    assert next_terms(stood, 24, (), 6 + 2 * day).guard_hours == 48, "it has stood for as long as it says"


def test_a_typing_error_that_one_command_has_seen_blocks_payouts_for_no_longer_than_the_wait_before_it(
    place: Place,
) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    place.configure(address_wait_hours=8000)
    fleet("check")
    place.configure(address_wait_hours=24)
    assert "the old ones hold for 24 h still" in fleet("due")
    a_day_passes(place)
    assert every(not told for told in waits(place).values()) and "were changed" not in fleet("due")


def test_two_hosts_with_different_files_are_named_for_the_wait_begins_anew_each_time(place: Place) -> None:
    place.earn()
    for hours in (24, 12, 24):
        place.configure(address_wait_hours=hours)
        assert "to and fro" not in fleet("due")
    for hours in (12, 24):
        place.configure(address_wait_hours=hours)
        told = fleet("due")
        assert "payouts.address_wait_hours went to and fro" in told and "give all of them the same fleet.toml" in told
    assert "terms differ between hosts" in CliRunner().invoke(main, ["events", "--json"]).output
    a_day_passes(place)
    assert "to and fro" not in fleet("due")


def held(place: Place) -> dict[str, int]:
    return {row["payee"]: int(row["held_units"]) for row in json.loads(fleet("due", "--json"))["due"]}


def reprice(place: Place, price: str, before: str = "0.01") -> None:
    """Let somebody change the price of a task in fleet.toml."""
    path = place.folder / "fleet.toml"
    path.write_text(path.read_text().replace(f'price = "{before}"', f'price = "{price}"'))
    config.current.cache_clear()


def test_what_is_earned_by_a_price_that_was_raised_is_held_for_a_day(place: Place) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    a_day_passes(place)
    reprice(place, "5")
    place.earn(3, prefix="dear")
    assert held(place) == dict.fromkeys(("p001", "p002", "p003"), 5 * 10**18)
    assert "prices in payouts.earn are new: what was earned by them is held for 24 h still" in fleet("due")
    assert "price new" in CliRunner().invoke(main, ["events", "--json"]).output
    place.prepared()
    assert [one.units for one in read_slip(place.folder / "slip.json").payments] == [10 * CENT] * 3
    a_day_passes(place)
    assert every(not units for units in held(place).values()) and "are new" not in fleet("due")
    reprice(place, "0.001", before="5")
    place.earn(3, prefix="cheap")
    assert every(not units for units in held(place).values()), "a lower price holds at once"


def test_a_price_that_was_raised_for_an_hour_between_two_looks_is_held_too(place: Place) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    reprice(place, "5")
    place.earn(3, prefix="dear")
    place.configure(address_wait_hours=24)
    assert held(place) == dict.fromkeys(("p001", "p002", "p003"), 5 * 10**18)


def test_another_node_ends_no_payment_and_prepares_none_before_a_day_has_passed(place: Place) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    a_day_passes(place)
    place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    liar = FakeEvm(PAYER["evm"])
    liar.blocks = [list(block) for block in place.chain.blocks]
    liar.refused = {address.lower() for address in ADDRESSES}
    with door_to(liar.execute) as door:
        place.configure(network={"url": door.url}, address_wait_hours=24)
        told = fleet("check", code=1)
        assert "expected a node that is known for longer to say that it is failed: networks.test.url changed" in told
        assert place.states() == ["broadcast"] and door.url not in str(place.client.hgetall(payout_keys.addresses()))
        assert "networks.test.url changed: nothing is paid there" in fleet("due")
        assert "Prices, networks or other terms" in found(place, 0.0)[-1].sentence
        place.configure(address_wait_hours=24)
        assert place.check() == ["settled"], "put back, it holds at once"
        place.earn(prefix="later")
        place.configure(network={"url": door.url}, address_wait_hours=24)
        fleet("due")
        told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
        assert "networks.test.url changed: nothing is paid there, and no payment has ended, for 24 h still" in told
        a_day_passes(place)
        assert "changed" not in fleet("due")


@pytest.mark.parametrize("name", ["token", "multisend"])
def test_another_contract_waits_like_another_node(place: Place, name: str) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    waits(place)
    place.configure(network={name: "0x" + "cc" * 20}, address_wait_hours=24)
    assert f"networks.test.{name} changed" in fleet("due")
    assert "network changed" in CliRunner().invoke(main, ["events", "--json"]).output
