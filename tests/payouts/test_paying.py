"""From earnings to final blocks, by the commands, on a small but strict network: nobody paid twice, none forgotten."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import config
from fleet.earnings.ledger import rows_ever, take_back
from fleet.earnings.rows import Asset
from fleet.payouts.book import PayoutBook, read_payouts
from fleet.payouts.netting import dues
from fleet.payouts.office import SUSPICION, held_bots
from fleet.payouts.slip import read_slip, write_slip
from fleet.roster.health import HEAD_BYTES, ROW
from fleet.store import keys, payout_keys
from tests.every import every
from tests.house import ROOT
from tests.payouts.each_step import EVM_DEPTH, kill_at_each_step
from tests.payouts.evm_place import ADDRESSES, CENT, Place
from tests.payouts.fake_evm import CHAIN_ID, MULTISEND, TOKEN
from tests.payouts.purse import PAYER, Dying, Round, earn, fleet, key_file, payees


def test_what_is_due_is_prepared_signed_sent_and_settled_in_a_final_block(place: Place) -> None:
    place.earn()
    assert {row["tokens"] for row in json.loads(fleet("due", "--json"))["due"]} == {"0.1"}
    slip = place.prepared()
    assert [one.units for one in slip.payments] == [10 * CENT] * 3 and len(slip.transfers) == 1
    assert json.loads(fleet("due", "--json"))["due"] == []
    place.earn(prefix="later")
    assert "under way" in fleet("prepare", "test", "-o", place.folder / "other.json", "--now", code=1)
    fleet("send", place.signed())
    assert place.states() == ["broadcast"] and place.paid() == [0, 0, 0]
    place.chain.mine()
    assert place.check() == ["broadcast"], "a block that may be undone settles nothing"
    place.chain.mine(2)
    assert place.check() == ["settled"] and place.paid() == [10 * CENT] * 3
    (line, *_) = json.loads(fleet("report", "--json"))["lines"]
    assert (line["earned"], line["paid"]) == ("0.2", "0.1")
    place.configure(threshold="1")
    assert "below the threshold" in fleet("due")


def test_earnings_of_a_bot_in_quarantine_are_held_and_what_was_taken_back_is_less_next_time(place: Place) -> None:
    place.earn()
    place.client.zadd(keys.quarantined("research"), {"research-001": float("inf")})
    take_back(place.client, "t1", config.current(), by="me", why="copied")
    found = {row["payee"]: row for row in json.loads(fleet("due", "--json"))["due"]}
    assert (found["p001"]["units"], found["p001"]["held_units"]) == ("0", str(10 * CENT))
    assert "held" in found["p001"]["waits"] and found["p002"]["units"] == str(9 * CENT)
    slip = place.prepared()
    assert [(one.payee, one.units) for one in slip.payments] == [("p002", 9 * CENT), ("p003", 10 * CENT)]
    take_back(place.client, "t4", config.current(), by="me", why="copied, too")  # after it was taken up
    (row,) = [row for row in json.loads(fleet("due", "--json"))["due"] if row["payee"] == "p002"]
    assert row["units"] == str(-CENT)


def test_a_schedule_and_fees_make_payees_wait_and_say_so(place: Place) -> None:
    place.earn(3)
    place.configure(threshold="0", network={"native_price": "900"})
    refused = fleet("prepare", "test", "-o", place.folder / "a.json", code=1)
    assert "its fees would take" in refused and "max_fee_share" in refused and not (place.folder / "a.json").exists()
    place.configure(threshold="0", every_hours=24, network={"native_price": "1"})
    place.prepared()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    place.earn(3, "again")
    assert "the next payout on test is in 2" in fleet("due")


def test_another_network_other_decimals_or_a_poor_payer_are_refused_before_anything_is_taken_up(place: Place) -> None:
    place.earn()
    for network, expected in (
        ({"chain_id": 97}, "expected network 97"), ({"decimals": 6}, "as its contract has them, 18, got 6"),
        ({"native_price": "0"}, "native_price"), ({"max_fee_gwei": "0.01"}, "expected gas for at most 0.01 gwei"),
    ):  # fmt: skip
        place.configure(network=network)
        if "decimals" in network:
            earn(place.client, config.current(), 3000, bots=3, prefix="six")
        assert expected in fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    place.chain.supply = CENT
    place.configure()
    assert "got 0.01: send it some" in fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    place.chain.supply, place.chain.coins = 10**30, 10**12
    told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    assert "of the network's own coin with the payer" in told and "got 0.000001: send it some" in told
    assert place.states() == [] and not place.client.exists(payout_keys.netted())


def test_a_slip_that_was_changed_signed_by_another_or_has_expired_is_not_sent(place: Place) -> None:
    place.earn()
    slip = place.prepared()
    signed = read_slip(place.signed())
    (transfer,) = slip.transfers
    thief = replace(transfer, payments=(replace(transfer.payments[0], to=payees(5)[4]), *transfer.payments[1:]))
    write_slip(replace(signed, transfers=(thief,)), place.folder / "changed.json")
    assert "find out who changed it" in fleet("send", place.folder / "changed.json", code=1)
    other = key_file(place.folder, "0x" + "18" * 32, "other.json")
    words = ("--key", other, "--passphrase-file", place.folder / "passphrase", "-o", place.folder / "o.json")
    assert "expected the key of the payer" in fleet("sign", place.folder / "slip.json", *words, code=1)
    own = (*words[:1], place.key, *words[2:])
    told = fleet("sign", place.folder / "slip.json", *own, "--most", "0.2", "--pin", code=1)
    assert "expected at most 0.2 tokens (--most), got 0.3" in told
    write_slip(replace(slip, main_net=True), place.folder / "main.json")
    assert "expected --main-net" in fleet("sign", place.folder / "main.json", *words, code=1)
    write_slip(replace(slip, expires_s=1), place.folder / "old.json")
    assert "has not expired" in fleet("sign", place.folder / "old.json", *words, code=1)
    assert place.states() == ["prepared"] and not place.chain.pool


def test_a_second_person_must_confirm_where_that_is_said_and_the_signer_is_not_one(place: Place) -> None:
    second = key_file(place.folder, "0x" + "19" * 32, "second.json")
    from fleet.payouts.keyfiles import addresses_of

    place.configure(confirmers=[addresses_of(b"\x19" * 32)["evm"], PAYER["evm"]])
    place.earn()
    place.prepared()
    signed = place.signed()
    assert "expected a confirmation by one of" in fleet("send", signed, code=1)
    passphrase = ("--passphrase-file", place.folder / "passphrase")
    fleet("confirm", signed, "--key", place.key, *passphrase, "-o", place.folder / "own.json")
    assert "expected a confirmation by one of" in fleet("send", place.folder / "own.json", code=1)
    fleet("confirm", signed, "--key", second, *passphrase, "-o", place.folder / "confirmed.json")
    fleet("send", place.folder / "confirmed.json")
    assert place.states() == ["broadcast"]


def test_what_a_contract_reverts_is_due_again_once_that_is_final(place: Place) -> None:
    place.earn()
    place.prepared()
    place.chain.refused.add(ADDRESSES[1].lower())
    fleet("send", place.signed())
    place.chain.mine()
    assert place.check() == ["broadcast"]
    place.chain.mine(3)
    assert place.check() == ["failed"] and place.paid() == [0, 0, 0]
    assert {row["tokens"] for row in json.loads(fleet("due", "--json"))["due"]} == {"0.1"}


def test_what_a_reorganisation_takes_back_is_sent_again_the_same_bytes(place: Place) -> None:
    place.earn()
    place.prepared()
    fleet("send", place.signed())
    for _ in range(3):
        place.chain.mine()
        assert place.check() == ["broadcast"] and place.paid()[0] == 10 * CENT
        place.chain.reorganise(1)
        assert place.paid()[0] == 0
        assert place.check() == ["broadcast"] and len(place.chain.pool) == 1
    place.chain.mine(4)
    assert place.check() == ["settled"] and place.paid() == [10 * CENT] * 3


def test_a_voided_payout_fails_once_its_nonce_is_gone_for_good_and_never_before(place: Place) -> None:
    place.earn()
    slip = place.prepared()
    first = place.signed()
    fleet("void", slip.id, "-o", place.folder / "void.json")
    fleet("send", place.signed("void.json", "void.signed"))
    assert place.check() == ["prepared"]
    place.chain.mine()
    assert place.check() == ["prepared"]
    place.chain.mine(3)
    assert place.check() == ["failed"]
    assert "its nonce went to 0x" in fleet("list")
    assert "got one that has ended" in fleet("send", first, code=1)
    place.chain.mine(4)
    place.prepared("second.json")
    fleet("send", place.signed("second.json", "second.signed"))
    place.chain.mine(4)
    assert sorted(place.check()) == ["failed", "settled"] and place.paid() == [10 * CENT] * 3


def test_a_payout_that_was_sent_by_other_means_is_found_by_its_nonce_and_not_paid_again(place: Place) -> None:
    place.earn()
    place.prepared()
    (signed,) = read_slip(place.signed()).signed
    place.chain.ask("eth_sendRawTransaction", [signed.raw])
    place.chain.mine(4)
    assert place.check() == ["broadcast"]
    assert place.check() == ["settled"] and place.paid() == [10 * CENT] * 3


def test_a_redis_that_has_forgotten_a_payout_does_not_pay_it_again(place: Place) -> None:
    place.earn()
    place.prepared()
    signed = place.signed()
    for key in (payout_keys.netted(), payout_keys.payouts(), payout_keys.open_payouts()):
        place.client.delete(key)
    assert "must not be sent" in fleet("send", signed, code=1)
    place.prepared("first.json")
    fleet("send", place.signed("first.json", "first.signed"))
    place.chain.mine(4)
    assert place.check() == ["settled"]
    for key in (payout_keys.netted(), payout_keys.payouts()):
        place.client.delete(key)
    told = fleet("prepare", "test", "-o", place.folder / "again.json", "--now", code=1)
    assert "expected 0 transactions of payer" in told and "got 1" in told


def test_signing_needs_no_network_no_redis_and_no_settings(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place.earn()
    place.prepared()
    alone = tmp_path_factory.mktemp("alone")
    for name in ("slip.json", "payer.json", "passphrase"):
        shutil.copy(place.folder / name, alone / name)
    command = [sys.executable, "-m", "fleet.cli.main", "payouts", "sign", "slip.json", "--key", "payer.json",
               "--passphrase-file", "passphrase", "-o", "signed.json", "--json"]  # fmt: skip
    apart = (
        ["unshare", "-rn"] if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0 else []
    )
    if not apart:
        pytest.skip("needs unshare -n: this machine allows no network namespaces")
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(alone), "FLEET_REDIS__URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run([*apart, *command], cwd=alone, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in alone.iterdir()) == [
        "passphrase", "payer.json", "payer.json.pins", "signed.json", "slip.json"
    ]  # fmt: skip
    fleet("send", alone / "signed.json")
    assert place.states() == ["broadcast"]


def test_keys_never_show(place: Place) -> None:
    made = fleet("key", place.folder / "new.json", "--passphrase-file", place.folder / "passphrase", "--json")
    assert set(json.loads(made)) == {"evm", "tron"}
    assert (place.folder / "new.json").stat().st_mode & 0o777 == 0o600
    assert "not overwritten" in fleet(
        "key", place.folder / "new.json", "--passphrase-file", place.folder / "passphrase", code=2
    )
    (place.folder / "wrong").write_text("no\n")
    place.earn()
    place.prepared()
    told = fleet("sign", place.folder / "slip.json", "--key", place.key, "--passphrase-file", place.folder / "wrong",
                 "-o", place.folder / "s.json", code=1)  # fmt: skip
    assert "and its passphrase" in told and "17" * 8 not in told


@pytest.mark.parametrize("multisend", [MULTISEND, None])
def test_commands_that_are_killed_at_any_step_by_a_bad_network_pay_nobody_twice_and_forget_nobody(
    place: Place, multisend: str | None
) -> None:
    one_by_one = {} if multisend else {"multisend": None}
    place.configure(network=one_by_one)
    place.door.trouble = 0.3
    dying, luck = Dying(seed=7), random.Random(7)
    round_ = Round(place.folder, place.client, dying)
    done = Counter[str]()
    while dying.crashes < 25:
        if luck.random() < 0.3:
            place.earn(15, f"r{sum(done.values())}-")
        done[round_.step()] += 1
        if luck.random() < 0.5:
            place.chain.mine(luck.randrange(1, 3))
    place.door.trouble = 0.0
    place.configure(threshold="0", network={"native_price": "0.001", **one_by_one})
    while PayoutBook(place.client).open_on("test") is not None or _left(place):
        round_.step(mortal=False)
        place.chain.mine(2)
    earned = Counter[str]()
    for row, count in rows_ever(place.client).items():
        earned[row.payee] += row.units * count
    assert place.paid() == [earned[f"p{number:03d}"] for number in (1, 2, 3)]
    assert every(one in ("settled", "failed") for one in place.states()) and len(done) == 5


def test_signing_dies_at_each_of_its_steps(place: Place) -> None:
    place.configure(threshold="0", network={"native_price": "0.001"})
    assert kill_at_each_step(place, "sign", depth=EVM_DEPTH) >= 4


def _left(place: Place) -> bool:
    return bool(dues(rows_ever(place.client), PayoutBook(place.client).netted(), set()))


def test_the_asset_of_a_row_says_what_it_is_worth() -> None:
    assert Asset.of(Asset("n", TOKEN, 18).spelt) == Asset("n", TOKEN, 18)


def test_the_check_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.payouts", "--npm", str(tmp_path)]
    variables = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1 and "npm install @foundry-rs/anvil tronweb" in done.stderr


def test_a_bot_under_suspicion_is_held(place: Place) -> None:
    place.earn()
    rows = bytearray(HEAD_BYTES + 4 * ROW.struct.size)
    heavy = ROW.struct.pack(*[SUSPICION if at == 0 else 0 for at in range(ROW.size)])
    rows[HEAD_BYTES + 2 * ROW.struct.size : HEAD_BYTES + 3 * ROW.struct.size] = heavy
    place.client.set(keys.health("research"), bytes(rows))
    assert held_bots(place.client, config.current()) == {("research", "research-002")}


def test_what_the_node_objects_to_is_told_and_another_network_ends_nothing(place: Place) -> None:
    place.earn()
    place.prepared()
    place.chain.objection = "insufficient funds for gas"
    fleet("send", place.signed())
    assert "insufficient funds for gas" in fleet("list") and place.states() == ["broadcast"]
    place.chain.chain_id = 97
    assert "put networks.test back until it has ended" in fleet("check", code=1)
    assert place.states() == ["broadcast"]
    place.configure(network={"url": "http://127.0.0.1:1"})
    told = fleet("check", code=1)
    assert "broadcast" in told and "expected an answer of the node at 127.0.0.1:1" in told
    place.configure()
    place.chain.chain_id, place.chain.objection = CHAIN_ID, ""
    fleet("check")
    place.chain.mine(4)
    assert place.check() == ["settled"] and "insufficient" not in fleet("list")
    assert every(not one.raw for record in read_payouts(place.client) for one in record.standings)


def test_real_money_wants_a_redis_that_knows_what_is_on_its_disk(place: Place) -> None:
    place.configure(network={"main_net": True})
    place.earn()
    is_kept = place.client.config_get("appendonly")["appendonly"] == "yes"
    place.client.config_set("appendonly", "no")
    try:
        told = fleet("prepare", "test", "-o", place.folder / "x.json", "--now", code=1)
    finally:
        place.client.config_set("appendonly", "yes" if is_kept else "no")
    assert "`appendonly yes` for real money" in told and place.states() == []
