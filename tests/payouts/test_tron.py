"""TRC-20: the same commands on a small TRON, whose transactions expire, and bytes as tronweb has written them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from eth_account import Account

from fleet import config
from fleet.config.payouts.tables import tron_address
from fleet.earnings.ledger import rows_ever
from fleet.payouts import keyfiles, office, preparing, tron
from fleet.payouts.book import PayoutBook, read_payouts
from fleet.payouts.netting import dues
from fleet.payouts.slip import Payment, Slip, Transfer, read_slip
from fleet.store.client import connect
from tests.every import every
from tests.payouts.fake_tron import BLOCK_MS, FINAL_DEPTH, TOKEN, FakeTron, TronSent
from tests.payouts.faulty import Door, door_to
from tests.payouts.purse import PAYER, PAYER_KEY, Dying, Round, earn, fleet, key_file, write_settings

ADDRESSES = [tron_address(b"\x41" + random.Random(n).randbytes(20)) for n in range(3)]
CENT = 10_000
DATA = Path(__file__).parent / "tronweb.jsonl"


class Place:
    """A folder with settings, a Redis with earnings, and a TRON."""

    def __init__(self, folder: Path, client: redis.Redis, chain: FakeTron, door: Door) -> None:
        self.folder, self.client, self.chain, self.door = folder, client, chain, door
        self.key = key_file(folder)

    def configure(self, **network: Any) -> None:
        usual = {"kind": "tron", "url": self.door.url, "token": TOKEN, "payer": PAYER["tron"], "decimals": 6,
                 "native_price": "0.0001"}  # fmt: skip
        write_settings(self.folder, {**usual, **network}, ADDRESSES, {"threshold": "0"})

    def sent(self) -> Slip:
        fleet("prepare", "test", "-o", self.folder / "slip.json", "--now")
        words = ("--key", self.key, "--passphrase-file", self.folder / "passphrase", "-o", self.folder / "signed.json")
        fleet("sign", self.folder / "slip.json", *words)
        fleet("send", self.folder / "signed.json")
        return read_slip(self.folder / "slip.json")

    def check(self) -> list[str]:
        fleet("check")
        return [one.state for record in read_payouts(self.client) for one in record.standings]

    def paid(self) -> list[int]:
        found = self.chain.balances()
        return [found[address] for address in ADDRESSES]


@pytest.fixture
def place(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    chain = FakeTron(PAYER["tron"])
    with connect(redis_url) as client, door_to(chain.execute) as door:
        made = Place(tmp_path, client, chain, door)
        made.configure()
        earn(client, config.current(), 30, bots=3, prefix="t")
        yield made


def test_what_is_due_is_settled_once_its_blocks_are_final(place: Place) -> None:
    slip = place.sent()
    assert [one.units for one in slip.payments] == [10 * CENT] * 3 and len(slip.transfers) == 3
    assert len({one.timestamp_ms for one in slip.transfers}) == 3, "equal transfers have ids of their own"
    place.chain.mine()
    assert place.check() == ["broadcast"] * 3 and place.paid() == [10 * CENT] * 3
    place.chain.mine(FINAL_DEPTH)
    assert place.check() == ["settled"] * 3
    (line, *_) = json.loads(fleet("report", "--json"))["lines"]
    assert (line["earned"], line["paid"]) == ("0.1", "0.1")


def test_what_a_node_has_lost_is_sent_again_until_it_expires_and_then_it_is_due_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "EXPIRES_HOURS", 1)
    place.sent()
    place.chain.forget()
    assert place.check() == ["broadcast"] * 3 and len(place.chain.pool) == 3
    place.chain.forget()
    blocks = 3_600_000 // BLOCK_MS
    place.chain.mine(blocks + FINAL_DEPTH + 1)
    assert place.check() == ["broadcast"] * 3, "a final block within ten minutes of the end proves nothing yet"
    place.chain.mine(600_000 // BLOCK_MS)
    assert place.check() == ["failed"] * 3 and place.paid() == [0, 0, 0]
    assert {row["tokens"] for row in json.loads(fleet("due", "--json"))["due"]} == {"0.1"}


def test_what_the_contract_reverts_is_due_again_and_the_others_are_paid(place: Place) -> None:
    place.sent()
    place.chain.refused.add(ADDRESSES[1])
    place.chain.mine(FINAL_DEPTH + 1)
    assert place.check() == ["settled", "failed", "settled"] and place.paid() == [10 * CENT, 0, 10 * CENT]
    (row,) = json.loads(fleet("due", "--json"))["due"]
    assert (row["payee"], row["tokens"]) == ("p002", "0.1")


def test_who_cannot_be_paid_waits_and_the_others_do_not(place: Place) -> None:
    place.chain.refused.add(ADDRESSES[1])
    place.chain.blocks[-1].append(TronSent("0" * 64, ADDRESSES[0], 1, 0))  # who has none of the token costs more
    place.configure(max_fee_trx="10")
    fleet("prepare", "test", "-o", place.folder / "a.json", "--now")
    assert [one.payee for one in read_slip(place.folder / "a.json").payments] == ["p001"]


def test_who_costs_more_fees_waits_and_lets_nobody_else_wait(place: Place) -> None:
    """On average the fees are above the share: 2.2%; of the two who have some of the token they are 1.7%."""
    place.chain.blocks[-1] += [TronSent(str(number) * 64, ADDRESSES[number], 1, 0) for number in (0, 1)]
    place.configure(native_price="0.0002")
    told = json.loads(fleet("prepare", "test", "-o", place.folder / "slip.json", "--now", "--json"))["waiting"]
    assert list(told) == ["p003"] and "its fees would take 3.4%, more than payouts.max_fee_share" in told["p003"]


def test_an_address_that_the_token_refuses_is_named_and_waits_alone(place: Place) -> None:
    place.chain.refused.add(ADDRESSES[1])
    told = json.loads(fleet("prepare", "test", "-o", place.folder / "slip.json", "--now", "--json"))["waiting"]
    assert (
        list(told) == ["p002"] and "the token refuses its address" in told["p002"] and "REVERT opcode" in told["p002"]
    )
    assert [one.payee for one in read_slip(place.folder / "slip.json").payments] == ["p001", "p003"]


def test_a_token_that_refuses_everybody_accuses_nobody(place: Place) -> None:
    place.chain.refused.update(ADDRESSES)
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "expected payments that go through, got none" in told and not (place.folder / "x.json").exists()
    place.chain.supply = CENT
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "got 0.01: send it some" in told


def test_a_payout_that_was_prepared_and_failed_while_the_node_was_slow_counts_as_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its earnings are due again, and no row tells of it: the schedule that was read is old."""
    usual = office.payer_of

    def slow(*args: Any, **kwargs: Any) -> Any:
        made = usual(*args, **kwargs)
        monkeypatch.setattr(office, "payer_of", usual)
        place.sent()
        place.chain.forget()
        place.chain.mine(8 * 3_600_000 // BLOCK_MS + 600_000 // BLOCK_MS + FINAL_DEPTH + 2)
        assert place.check() == ["failed"] * 3
        return made

    monkeypatch.setattr(office, "payer_of", slow)
    told = fleet("prepare", "test", "-o", place.folder / "second.json", "--now", code=1)
    assert "expected that nobody else prepares a payout now" in told and len(read_payouts(place.client)) == 1


def test_energy_is_estimated_and_bounded_and_what_is_staked_costs_nothing(place: Place) -> None:
    place.configure(max_fee_trx="10")
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "its transfer may burn 16.2857 TRX, more than networks.test.max_fee_trx, 10: rent energy" in told
    place.configure(native_price="0.3")
    assert "its fees would take" in fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    place.configure(native_price="0.00001")
    place.chain.coins = 0
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "expected 49.8921 of the network's own coin" in told and "got 0: send it some" in told
    place.chain.staked_energy, place.chain.coins = 10**6, 10**9
    place.configure(native_price="0.005")
    assert len(place.sent().transfers) == 3


def test_the_main_network_is_refused_unless_that_is_said(place: Place) -> None:
    place.chain.main = True
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "got network 728126428; for real money set main_net" in told
    assert "ends by itself" in fleet("void", place_id(place), "-o", place.folder / "v.json", code=1)


def place_id(place: Place) -> str:
    place.chain.main = False
    fleet("prepare", "test", "-o", place.folder / "slip.json", "--now")
    return read_slip(place.folder / "slip.json").id


def test_commands_that_are_killed_at_any_step_by_a_bad_node_pay_nobody_twice_and_forget_nobody(place: Place) -> None:
    place.door.trouble, place.chain.busy = 0.2, 0.1
    dying, luck = Dying(seed=11), random.Random(11)
    round_ = Round(place.folder, place.client, dying)
    steps = 0
    while dying.crashes < 15:
        steps += 1
        if luck.random() < 0.3:
            earn(place.client, config.current(), 9, bots=3, prefix=f"r{steps}-")
        round_.step()
        if luck.random() < 0.2:
            place.chain.forget()
        place.chain.mine(luck.randrange(10))
    place.door.trouble, place.chain.busy = 0.0, 0.0
    while PayoutBook(place.client).open_on("test") or dues(
        rows_ever(place.client), PayoutBook(place.client).netted(), ()
    ):
        round_.step(mortal=False)
        place.chain.mine(FINAL_DEPTH)
    earned = Counter[str]()
    for row, count in rows_ever(place.client).items():
        earned[row.payee] += row.units * count
    assert place.paid() == [earned[f"p{number:03d}"] for number in (1, 2, 3)]


def test_a_busy_node_or_half_an_answer_proves_no_failure_of_what_was_paid(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "EXPIRES_HOURS", 1)
    place.sent()
    place.chain.mine()
    place.chain.mine(4_300_000 // BLOCK_MS)
    place.chain.busy_with = {"walletsolidity/gettransactioninfobyid"}
    assert "RateLimiterServlet : lack of" in fleet("check", code=1)
    place.chain.busy_with = {"walletsolidity/gettransactionbyid"}
    whole = place.chain._gettransactioninfobyid
    for half, told in (({}, "which the node has in a block"), ({"blockNumber": 31}, "cannot be read: KeyError"),
                       ({"id": "0", "blockNumber": 31, "receipt": {"result": "REVERT"}}, "expected what became of"),
                       ({"blockNumber": 31, "receipt": {}}, "cannot be read: KeyError")):  # fmt: skip
        monkeypatch.setattr(place.chain, "_gettransactioninfobyid", lambda half=half, **_: half)
        if half == {}:
            place.chain.busy_with = set()
        assert told in fleet("check", code=1)
    assert PayoutBook(place.client).open_on("test") is not None, "nothing has failed"
    monkeypatch.setattr(place.chain, "_gettransactioninfobyid", whole)
    assert place.check() == ["settled"] * 3 and place.paid() == [10 * CENT] * 3


def test_the_payer_of_tron_does_not_confirm_itself(place: Place) -> None:
    second = key_file(place.folder, "0x" + "19" * 32, "second.json")
    others = [PAYER["evm"], keyfiles.addresses_of(b"\x19" * 32)["evm"]]
    write_settings(
        place.folder,
        {"kind": "tron", "url": place.door.url, "token": TOKEN, "payer": PAYER["tron"], "decimals": 6,
         "native_price": "0.0001"},
        ADDRESSES, {"threshold": "0", "confirmers": others},
    )  # fmt: skip
    fleet("prepare", "test", "-o", place.folder / "slip.json", "--now")
    passphrase = ("--passphrase-file", place.folder / "passphrase")
    fleet("sign", place.folder / "slip.json", "--key", place.key, *passphrase, "-o", place.folder / "signed.json")
    for key, code in ((place.key, 1), (second, 0)):
        fleet("confirm", place.folder / "signed.json", "--key", key, *passphrase, "-o", place.folder / "c.json")
        told = fleet("send", place.folder / "c.json", code=code)
        assert ("expected a confirmation by one of" in told) == bool(code)


def test_bytes_are_those_that_tronweb_has_written() -> None:
    """Twelve of the thousand that `python -m tests.payouts --check` makes anew with tronweb itself."""
    lines = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 12 and every(bytes_of(one["asked"]) == one["tronweb"] for one in lines)


def bytes_of(asked: dict[str, Any]) -> dict[str, str]:
    """Return what we write and sign for one transfer."""
    transfer = Transfer(
        (Payment("id", "payee", asked["to"], int(asked["units"])),), gas=asked["fee_limit"],
        ref_block_bytes=asked["ref_block_bytes"], ref_block_hash=asked["ref_block_hash"],
        expiration_ms=asked["expiration"], timestamp_ms=asked["timestamp"],
    )  # fmt: skip
    slip = Slip("id", "n", "tron", 0, False, asked["token"], 6, asked["payer"], None, 0, 0, 0, 0, (transfer,))
    signed = keyfiles.sign_transfer(slip, transfer, bytes.fromhex(asked["key"]))
    keyfiles.check_signed(replace(slip, signed=(signed,)))
    raw, signature = tron.parts_of(bytes.fromhex(signed.raw))
    return {"raw": raw.hex(), "id": signed.id, "signature": signature.hex()}


def test_a_key_is_the_same_on_both_kinds_of_networks() -> None:
    evm_bytes = bytes.fromhex(Account.from_key(PAYER_KEY).address[2:])
    assert PAYER["tron"] == tron_address(b"\x41" + evm_bytes)
