"""What doctor says of earnings: bots that earn for nobody, tables that do nothing, simulated answers for real money."""

from __future__ import annotations

from fleet.cli.setup.payout_checks import payout_checks
from fleet.config import Settings
from tests.earnings.test_rows import EARN, NETWORKS, OWNER, settings


def said(known: Settings) -> list[tuple[str, str]]:
    return [(one.level, one.found) for one in payout_checks(known)]


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
