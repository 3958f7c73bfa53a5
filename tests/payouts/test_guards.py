"""What is neither signed nor sent: slips that say what nobody of ours wrote."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from eth_utils.address import to_checksum_address

from fleet import config
from fleet.config.payouts.tables import NetworkSettings
from fleet.earnings.board import read_earnings
from fleet.earnings.ledger import rows_ever
from fleet.earnings.rows import day_of
from fleet.errors import FleetError, StoreUnavailable
from fleet.payouts import book, evm, nodes, office
from fleet.payouts.book import PayoutBook
from fleet.payouts.nodes import url_of
from fleet.payouts.refusals import PayoutRefused
from fleet.payouts.slip import read_slip, write_slip
from fleet.store import payout_keys
from fleet.store.client import connect
from fleet.store.private.server import choose_server
from tests.payouts.evm_place import ADDRESSES, CENT, Place
from tests.payouts.fake_evm import MULTISEND, TOKEN
from tests.payouts.purse import PAYER, fleet, payees
from tests.redis_server import RedisServer


def changed(place: Place, **values: Any) -> dict[str, Any]:
    """Return a slip as JSON with other values; those of its first payment begin with `payment_`."""
    data = json.loads((place.folder / "slip.json").read_text())
    for name, value in values.items():
        (first,) = data["transfers"]
        within = {**first["payments"][0]}
        if name.startswith("payment_"):
            within[name.removeprefix("payment_")] = value
            first["payments"][0] = within
        elif name.startswith("transfer_"):
            first[name.removeprefix("transfer_")] = value
        else:
            data[name] = value
    return data


@pytest.mark.parametrize(
    "values",
    [
        {"payment_to": "0x" + "22" * 32 + f"{10**30:064x}", "payment_units": "1"},
        {"payment_to": "T" + "2" * 33},
        {"payment_units": str(2**256)},
        {"payment_units": "0"},
        {"payment_payee": "\x1b[2Kp001"},
        {"payment_id": "a b"},
        {"network": "test\n"},
        {"token": "0x" + "aa" * 21},
        {"payer": "0x"},
        {"multisend": "0x" + "bb" * 19},
        {"multisend": None},
        {"kind": "tron"},
        {"kind": "swift"},
        {"decimals": 37},
        {"chain_id": "97"},
        {"main_net": 0},
        {"transfer_gas": -1},
        {"transfer_ref_block_hash": "\x1b[2K"},
        {"transfer_payments": []},
        {"voids": "20261130-test-1a2b3c4d"},
        {"confirmers": ["me"]},
        {"signed": [{"id": "0x12", "raw": "\x1b[2K"}]},
    ],
)
def test_a_slip_that_says_what_no_slip_of_ours_says_is_not_read(place: Place, values: dict[str, Any]) -> None:
    place.earn()
    place.prepared()
    (place.folder / "odd.json").write_text(json.dumps(changed(place, **values)))
    words = ("--key", place.key, "--passphrase-file", place.folder / "passphrase", "-o", place.folder / "o.json")
    for command in (("sign", place.folder / "odd.json", *words), ("confirm", place.folder / "odd.json", *words),
                    ("send", place.folder / "odd.json")):  # fmt: skip
        told = fleet(*command, code=1)
        assert "expected a slip (fleet-payout-1) as" in told and "\x1b" not in told
    assert not (place.folder / "o.json").exists() and place.states() == ["prepared"]


def test_a_value_of_more_than_32_bytes_is_no_word() -> None:
    assert evm.word("0x" + "ff" * 32) == "ff" * 32
    for value in ("0x" + "ff" * 33, 2**256, "zz", -1):
        with pytest.raises(PayoutRefused, match="expected a value of 32 bytes"):
            evm.word(value)


def test_a_void_uses_up_nonces_of_its_payout_and_nothing_else(place: Place) -> None:
    place.configure(network={"multisend": None})
    place.earn()
    payout = place.prepared()
    fleet("void", payout.id, "-o", place.folder / "void.json")
    void = read_slip(place.folder / "void.json")
    assert len(void.transfers) == 3 and not list(void.payments)
    for wrong in (
        replace(void, transfers=(replace(void.transfers[0], nonce=7),)),
        replace(void, transfers=(*void.transfers, void.transfers[0])),
        replace(void, token=MULTISEND), replace(void, main_net=True),
    ):  # fmt: skip
        write_slip(wrong, place.folder / f"w{id(wrong)}.json")
        signed = _signed(place, f"w{id(wrong)}.json")
        assert "uses up nonces of payout" in fleet("send", signed, "--main-net", code=1)
    assert not place.chain.pool
    passphrase = place.folder / "passphrase"
    told = fleet("sign", place.folder / "void.json", "--key", place.key, "--passphrase-file", passphrase, "--pin",
                 "-o", place.folder / "void.signed")  # fmt: skip
    assert f"voids payout {payout.id} and pays nobody: uses up 3 nonces" in told
    place.chain.objected_nonces = {1}
    fleet("send", place.folder / "void.signed")
    whys = [one.why for one in PayoutBook(place.client).read(payout.id).standings]
    assert (
        whys[0] == whys[2] == ""
        and whys[1]
        == "the node did not take what voids it: expected the node to do "
        "eth_sendRawTransaction, got 'transaction underpriced (-32000)'"
    )
    assert "did not take what voids it" in fleet("list")


def _signed(place: Place, name: str) -> Any:
    slip = place.folder / name
    words = ("--key", place.key, "--passphrase-file", place.folder / "passphrase", "-o", slip.with_suffix(".signed"))
    fleet("sign", slip, *words, "--main-net", "--pin")
    return slip.with_suffix(".signed")


def test_who_must_confirm_is_written_into_the_slip_as_it_is_prepared(place: Place) -> None:
    place.configure(confirmers=[ADDRESSES[0]])
    place.earn()
    place.prepared()
    place.configure(confirmers=[])
    assert "expected a confirmation by one of" in fleet("send", place.signed(), code=1)
    bare = replace(read_slip(place.folder / "signed.json"), confirmers=())
    write_slip(bare, place.folder / "bare.json")
    assert "got another one in this file" in fleet("send", place.folder / "bare.json", code=1)
    place.configure(confirmers=["me"])
    assert "payouts.confirmers: expected 0x and 40" in fleet("list", code=None)


def test_a_slip_never_takes_the_place_of_a_key_or_of_another_slip(place: Place) -> None:
    place.earn()
    slip = place.prepared()
    before = place.key.read_bytes()
    words = ("--key", place.key, "--passphrase-file", place.folder / "passphrase")
    told = fleet("sign", place.folder / "slip.json", *words, "-o", place.key, code=1)
    assert "expected a name that no file has but a copy of slip" in told and place.key.read_bytes() == before
    write_slip(replace(slip, id="another"), place.folder / "another.json")
    assert "copy of slip" in fleet(
        "sign", place.folder / "slip.json", *words, "-o", place.folder / "another.json", code=1
    )
    fleet("sign", place.folder / "slip.json", *words, "-o", place.folder / "slip.json")
    assert read_slip(place.folder / "slip.json").signed


def test_what_another_has_paid_while_the_node_was_slow_is_not_taken_up_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.earn()
    usual = office.payer_of

    def slow(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(office, "payer_of", usual)
        place.prepared("first.json")
        fleet("send", place.signed("first.json", "first.signed"))
        place.chain.mine(4)
        assert place.check() == ["settled"]
        return usual(*args, **kwargs)

    monkeypatch.setattr(office, "payer_of", slow)
    told = fleet("prepare", "test", "-o", place.folder / "second.json", "--now", "--nonce", 1, code=1)
    assert "expected that nobody else prepares a payout now" in told and place.states() == ["settled"]


def test_what_another_connection_has_written_is_not_taken_for_this_one_on_disk(place: Place, tmp_path: Path) -> None:
    """A server that never brings its file to the disk: WAITAOF of a connection that has written nothing is true."""
    program = bundled()
    if program is None:
        pytest.skip("needs a Redis of 7.2 or later")
    place.earn()
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "no", program=program)
    try:
        with connect(server.url) as client, pytest.MonkeyPatch.context() as patched:
            patched.setattr(book, "DISK_MS", 300)
            assert client.waitaof(1, 0, 300) == [1, 0]
            assert book.PayoutBook(client).keeps() is False
            client.config_set("appendfsync", "always")
            assert book.PayoutBook(client).keeps() is True
            slip = place.prepared()
            record = book.Record(slip, (book.TransferState(),) * len(slip.transfers), "me")
            book.PayoutBook(client).begin(record, book.Netting({}, {}), before_it="")
            client.config_set("appendfsync", "no")
            with pytest.raises(StoreUnavailable, match="appendonly yes, appendfsync everysec or always"):
                book.PayoutBook(client).change(record, record.moved(0, book.TransferState("signed")))
    finally:
        server.stop()


def bundled() -> Path | None:
    """Return a server that knows WAITAOF; None: the one of the tests is too old, and there is no other."""
    with contextlib.suppress(FleetError):
        return choose_server("bundled")[0].program
    return None


def test_a_change_that_is_not_on_every_disk_stops_before_anything_is_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer of WAITAOF is given here: the tests' Redis may be older than 7.2, and has no replica."""
    usual = book.on_every_disk
    place.configure(network={"main_net": True})
    place.earn()
    with monkeypatch.context() as patched:
        patched.setattr(book, "on_every_disk", lambda _, replicas: usual([1, 0], replicas))
        place.prepared()
        words = ("--key", place.key, "--passphrase-file", place.folder / "passphrase", "--main-net")
        fleet("sign", place.folder / "slip.json", *words, "-o", place.folder / "signed.json")
        patched.setenv("FLEET_REDIS__REPLICAS", "1")
        config.current.cache_clear()
        told = fleet("send", place.folder / "signed.json", "--main-net", code=None)
        assert "expected Redis and 1 replicas" in told and not place.chain.pool
    config.current.cache_clear()
    monkeypatch.setattr(
        book, "on_every_disk", lambda _, replicas: usual(redis.ResponseError("unknown 'WAITAOF'"), replicas)
    )
    told = fleet("send", place.folder / "signed.json", "--main-net", code=None)
    assert "expected Redis and 0 replicas" in told and not place.chain.pool


def test_a_password_in_a_nodes_address_is_refused_and_in_no_message() -> None:
    url = "http://me:s3cret@127.0.0.1:1"
    network = NetworkSettings(url=url, token=TOKEN, payer=PAYER["evm"])
    with pytest.raises(PayoutRefused, match=r"networks\.test\.url without a user and password") as told:
        url_of("test", network)
    assert "s3cret" not in str(told.value) and nodes._place(url) == "127.0.0.1:1"


def test_a_slip_of_no_known_test_network_is_signed_as_real_money_and_fees_are_shown(place: Place) -> None:
    place.earn()
    slip = place.prepared()
    words = ("--key", place.key, "--passphrase-file", place.folder / "passphrase")
    write_slip(replace(slip, chain_id=43_114), place.folder / "c.json")
    told = fleet("sign", place.folder / "c.json", *words, "-o", place.folder / "c.signed", code=1)
    assert "expected --main-net for a slip of real money (network 43114)" in told
    told = fleet("sign", place.folder / "slip.json", *words, "-o", place.folder / "s.signed")
    assert "fees of at most 0.00" in told and f"through contract {MULTISEND}" in told and "18 decimals" in told


def test_nonces_count_by_payer_and_chain_whatever_a_network_is_called(place: Place) -> None:
    place.configure(address_wait_hours=0)
    place.earn()
    place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    place.rename("other")
    place.earn(prefix="later")
    fleet("prepare", "other", "-o", place.folder / "renamed.json", "--now")
    assert [one.nonce for one in read_slip(place.folder / "renamed.json").transfers] == [1]
    place.configure(network={"payer": payees(5)[4]}, address_wait_hours=0)
    place.earn(prefix="third")
    told = fleet("prepare", "test", "-o", place.folder / "third.json", "--now", code=1)
    assert "expected somebody to pay" not in told and "tokens with the payer" in told, "another payer counts anew"


def test_a_node_that_is_behind_prepares_nothing(place: Place) -> None:
    place.earn()
    place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    place.earn(prefix="later")
    whole, place.chain.blocks = place.chain.blocks, place.chain.blocks[:1]
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "expected 1 transactions of payer" in told and "got 0: the node is behind" in told
    place.chain.blocks = whole
    place.prepared("second.json")


def test_files_that_were_cut_off_sign_and_send_nothing_and_no_link_is_followed(place: Place) -> None:
    place.earn()
    place.prepared()
    words = ("--passphrase-file", place.folder / "passphrase", "-o", place.folder / "o.json")
    whole = (place.folder / "slip.json").read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 2):
        (place.folder / "cut.json").write_bytes(whole[:size])
        for command in (("sign", place.folder / "cut.json", "--key", place.key, *words),
                        ("send", place.folder / "cut.json")):  # fmt: skip
            assert "expected a slip in" in fleet(*command, code=1)
    key = place.key.read_bytes()
    for size in (0, 1, len(key) // 2, len(key) - 2):
        (place.folder / "cut.key").write_bytes(key[:size])
        told = fleet("sign", place.folder / "slip.json", "--key", place.folder / "cut.key", *words, code=1)
        assert "expected an encrypted key file" in told
    (place.folder / "signed.cut").write_bytes((place.signed()).read_bytes()[:-40])
    assert "expected a slip in" in fleet("send", place.folder / "signed.cut", code=1)
    (place.folder / ".o.json.anew").symlink_to(place.key)
    assert fleet("sign", place.folder / "slip.json", "--key", place.key, *words, code=None)
    assert place.key.read_bytes() == key and place.states() == ["prepared"]


def test_two_networks_of_one_chain_and_payer_are_refused() -> None:
    one = {"url": "http://127.0.0.1:1", "token": TOKEN, "payer": "0x" + "ab" * 20}
    networks = {"a": one, "b": {**one, "payer": "0x" + "AB" * 20}}
    with pytest.raises(ValueError, match=r"networks\.b: expected one table for chain 97 and payer .* networks\.a too"):
        config.Settings(networks=networks)
    config.Settings(networks={"a": one, "b": {**one, "chain_id": 1337}})


def test_the_letter_case_of_a_tokens_address_strands_nothing(place: Place) -> None:
    """A row of before, in capitals, stays as it is: it is what netting names."""
    mixed = to_checksum_address(TOKEN)
    place.earn()
    (row,) = [one for one in rows_ever(place.client) if one.payee == "p001"]
    older = row._replace(asset=row.asset.replace(TOKEN, mixed)).spelt
    place.client.hset(payout_keys.earned_ever(), older, 5)
    place.client.hset(payout_keys.earned_day(day_of(time.time())), older, 5)
    place.configure(network={"token": mixed})
    place.earn(prefix="mixed")
    assert sorted(place.due_units()) == [("p001", 25 * CENT), ("p002", 20 * CENT), ("p003", 20 * CENT)]
    (earned,) = read_earnings(place.client, config.current())
    assert earned.units == 65 * CENT
    place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"] and place.paid() == [25 * CENT, 20 * CENT, 20 * CENT]
    assert place.due_units() == [] and PayoutBook(place.client).netted()[older] == 5
    lines = json.loads(fleet("report", "--json"))["lines"]
    assert [(one["earned"], one["paid"]) for one in lines] == [("0.25", "0.25"), ("0.2", "0.2"), ("0.2", "0.2")]


@pytest.mark.parametrize(("states", "most"), [(2**64, 30), (10, 150)])
def test_a_nonce_that_went_elsewhere_is_found_by_a_node_that_has_few_states(
    place: Place, states: int, most: int
) -> None:
    place.chain.mine(500)
    place.earn()
    slip = place.prepared()
    assert slip.final_block == 498
    fleet("void", slip.id, "-o", place.folder / "void.json")
    place.chain.mine(40)
    fleet("send", place.signed("void.json", "void.signed"))
    place.chain.mine(100)
    place.chain.states = states
    place.chain.asked.clear()
    assert place.check() == ["failed"] and "its nonce went to 0x" in fleet("list")
    assert min(place.chain.asked) > slip.final_block and len(place.chain.asked) < most


def test_no_payout_fails_by_a_block_that_the_node_has_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.earn()
    slip = place.prepared()
    fleet("void", slip.id, "-o", place.folder / "void.json")
    fleet("send", place.signed("void.json", "void.signed"))
    place.chain.mine(30)
    place.chain.states = 5
    usual = place.chain._eth_getBlockByNumber
    monkeypatch.setattr(place.chain, "_eth_getBlockByNumber", lambda tag, whole: None if whole else usual(tag, whole))
    assert "which may have nonce 0" in fleet("check", code=1) and place.states() == ["prepared"]
