"""What pages, metrics and people are told of payouts: where they stand, what is not paid, and what pays a task."""

from __future__ import annotations

import json
import time

import pytest

from fleet import config
from fleet.config.payouts.tables import MOST_HOURS, PayoutSettings
from fleet.earnings.paid import paid_by
from fleet.earnings.rows import EarningRow
from fleet.engine.operations.money.billing import Billing
from fleet.payouts.guards import HOUR_S, TERMS
from fleet.signals.diagnosis.finding import Diagnosis
from fleet.signals.diagnosis.payouts import guards, stuck
from fleet.signals.diagnosis.symptoms import Case
from fleet.signals.metrics import exposition
from fleet.signals.money.bill_view import BillView
from fleet.signals.view import FleetView
from fleet.store import payout_keys
from tests.payouts.evm_place import Place
from tests.payouts.purse import fleet
from tests.signals.played_fleet import symptoms_of, view_of


def shown(place: Place, later_s: float = 0.0) -> FleetView:
    """Return what pages show, some time from now."""
    bill = Billing(config.current()).read(place.client, time.time(), {})
    return view_of().model_copy(update={"bill": bill, "at": time.time() + later_s})


def found(place: Place, later_s: float) -> list[Diagnosis]:
    case = Case(shown(place, later_s), symptoms_of())
    return [*stuck(case), *guards(case)]


def test_a_payout_is_shown_from_its_preparation_to_its_end_and_never_a_payee(place: Place) -> None:
    place.earn()
    assert shown(place).bill.earned[0].unpaid == "0.3"
    slip = place.prepared()
    view = shown(place)
    (row,) = view.bill.payouts.rows
    assert (row.payout, row.tokens, row.payments, row.states) == (slip.id, "0.3", 3, {"prepared": 1})
    assert row.is_open and view.bill.earned[0].unpaid == "0"
    (told,) = found(place, 2.5 * HOUR_S)
    assert f"Payout {slip.id} of 0.3 to 3 payees is not sent" in told.sentence and told.kind == "payout_stuck"
    assert "has expired and was not sent" in found(place, 9 * HOUR_S)[0].sentence
    assert found(place, 60.0) == []
    fleet("send", place.signed())
    assert "nothing has become of it" in found(place, 1.5 * HOUR_S)[0].sentence
    place.chain.mine()
    place.check()
    (row,) = shown(place).bill.payouts.rows
    assert (row.states, row.in_blocks) == ({"broadcast": 1}, 1)
    place.chain.mine(3)
    place.check()
    view = shown(place)
    (row,) = view.bill.payouts.rows
    assert (row.states, row.is_open, row.in_blocks) == ({"settled": 1}, False, 0) and found(place, 9 * HOUR_S) == []
    text = exposition(view).decode()
    assert 'fleet_payout_transactions{network="test",state="settled"} 1.0' in text
    assert 'fleet_payout_open_seconds{network="test"} 0.0' in text and "p001" not in text
    assert "p001" not in view.bill.payouts.model_dump_json()


def test_transactions_that_have_failed_are_told_and_what_they_were_to_pay_is_unpaid(place: Place) -> None:
    place.earn()
    slip = place.prepared()
    fleet("void", slip.id, "-o", place.folder / "void.json")
    fleet("send", place.signed("void.json", "void.signed"))
    place.chain.mine(4)
    assert place.check() == ["failed"] and shown(place).bill.earned[0].unpaid == "0.3"
    (told,) = found(place, 60.0)
    assert f"1 transaction of payout {slip.id} has failed" in told.sentence and "its nonce went to" in told.sentence
    assert found(place, 25 * HOUR_S) == []


def test_addresses_and_terms_that_are_about_to_hold_are_told(place: Place) -> None:
    place.configure(address_wait_hours=24)
    place.earn()
    (told,) = found(place, 0.0)
    assert told.sentence == "3 new addresses on test: paid 24 h after somebody looks" and told.severity == "info"
    place.configure(address_wait_hours=72)
    assert found(place, 0.0)[0].sentence == "3 new addresses on test: paid 3 days after somebody looks"
    place.configure(address_wait_hours=24)
    fleet("due")
    (told,) = found(place, 0.0)
    assert told.sentence.startswith("3 new addresses on test: paid from ")
    known = json.loads(place.client.hget(payout_keys.addresses(), "p001"))
    place.client.hset(payout_keys.addresses(), "p001", json.dumps({**known, "address": "0x" + "ab" * 20}))
    place.configure(address_wait_hours=1)
    fleet("due")
    address, terms = found(place, 0.0)
    assert address.sentence.startswith("1 changed and 2 new addresses on test: paid from ")
    assert (address.severity, terms.about) == ("warning", "terms") and "that holds from" in terms.sentence
    assert 'fleet_payees_waiting{network="test",what="changed"} 1.0' in exposition(shown(place)).decode()


def test_a_wait_without_end_is_refused_and_one_that_was_kept_before_is_a_year_at_most(place: Place) -> None:
    for hours in (8761, float("inf"), float("nan"), 1e300):
        for name in ("address_wait_hours", "every_hours"):
            with pytest.raises(ValueError, match=name):
                PayoutSettings.model_validate({name: hours})
    place.configure(address_wait_hours=24)
    place.earn()
    fleet("due")
    terms = json.loads(place.client.hget(payout_keys.addresses(), TERMS))
    for hours in (1e300, float("inf"), float("nan")):
        kept = {**terms, "wait_hours": hours, "next_wait_hours": 24}
        place.client.hset(payout_keys.addresses(), TERMS, json.dumps(kept))
        view = shown(place)
        assert view.bill.payouts.addresses[0].until == pytest.approx(time.time() + MOST_HOURS * HOUR_S, abs=60)
        assert len(found(place, 0.0)) == 2
        assert "for 365 days still" in fleet("due")


def test_a_task_is_told_which_payout_pays_it(place: Place) -> None:
    place.earn()
    rows = [EarningRow.of(name) for name in place.client.hkeys(payout_keys.earned_ever())]
    row = next(one for one in rows if one.payee == "p001")
    assert paid_by(place.client, row, time.time()) is None
    slip = place.prepared()
    found = paid_by(place.client, row, time.time() - 1)
    assert found is not None and (found.payout, found.state, found.transaction) == (slip.id, "prepared", "")
    assert paid_by(place.client, row, time.time() + 5) is None, "it ended later than the payout was prepared"
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    found = paid_by(place.client, row, time.time() - 5)
    assert found is not None and found.state == "settled" and found.transaction.startswith("0x")


def test_a_fleet_without_networks_asks_redis_for_nothing_of_payouts(place: Place) -> None:
    place.earn()
    none = config.current().model_copy(
        update={"networks": {}, "payees": {}, "payouts": type(config.current().payouts)()}
    )
    bill = Billing(none).read(place.client, time.time(), {})
    assert (bill.earned, bill.payouts) == ((), BillView().payouts)
