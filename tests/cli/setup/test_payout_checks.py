"""What doctor says of earnings: bots that earn for nobody, tables that do nothing, simulated answers for real money."""

from __future__ import annotations

from dataclasses import replace

from fleet.cli.setup.findings import RedisFacts
from fleet.cli.setup.payout_checks import payout_checks
from fleet.config import Settings
from tests.earnings.test_rows import EARN, NETWORKS, OWNER, settings

#: A Redis that keeps files.
KEEPS = RedisFacts(role="redis", place="p", aof=True, appendfsync="everysec")


def said(known: Settings, redis: RedisFacts = KEEPS, name: str = "") -> list[tuple[str, str]]:
    """Return what is said of bots and payees; with a name of one network."""
    found = [one for one in payout_checks(known, [redis]) if one.name.startswith("payouts: network") == bool(name)]
    return [(one.level, one.found) for one in found if one.name.endswith(name)]


def test_a_fleet_without_payouts_hears_nothing_of_them() -> None:
    assert said(Settings()) == []


def test_bots_that_earn_for_nobody_are_named() -> None:
    pools = {"research": {"bots": 12}}
    some = {"alice": {"bots": ["research-00*"], "network": "bsc", "address": OWNER}}
    ((level, found),) = said(settings(pools=pools, payees=some))
    assert level == "warn" and "3 bots without a payee, such as research-010: they earn nothing" in found
    every = {"alice": {"bots": ["*"], "network": "bsc", "address": OWNER}}
    ((level, found),) = said(settings(pools=pools, payees=every, payouts={"earn": [{"price": "1"}]}))
    assert (level, found) == ("ok", "1 payee, each bot that earns has one")


def test_tables_that_do_nothing_and_simulated_answers_for_real_money_are_told() -> None:
    assert "without [payees]" in said(settings(payees={}, payouts={"earn": EARN}))[0][1]
    main = {**NETWORKS, "bsc": {**NETWORKS["bsc"], "chain_id": 56, "main_net": True}}
    assert ("warn", "earn real money") in said(settings(networks=main))


def test_a_network_says_what_it_lacks_and_what_real_money_needs() -> None:
    whole = {"url": "http://127.0.0.1:1", "native_price": "900"}
    assert ("warn", "no url and no native_price") in said(settings(), name="bsc")
    test = {**NETWORKS, "bsc": {**NETWORKS["bsc"], **whole}}
    assert said(settings(networks=test), name="bsc") == [("ok", "a test network")]
    main = {**NETWORKS, "bsc": {**test["bsc"], "chain_id": 56, "main_net": True}}
    assert "one person can pay any address" in said(settings(networks=main), name="bsc")[0][1]
    for redis in (replace(KEEPS, aof=False), replace(KEEPS, appendfsync="no")):
        ((level, found),) = said(settings(networks=main), redis, name="bsc")
        assert level == "fail" and "brings nothing to its disk in time" in found
    terms = {"earn": EARN, "confirmers": [OWNER]}
    ((level, found),) = said(settings(networks=main, payouts={**terms, "address_wait_hours": 0}), name="bsc")
    assert level == "warn" and "a new address is paid at once" in found
    ((level, _),) = said(settings(networks=main, payouts=terms), name="bsc")
    assert level == "ok"
