"""What tasks earn, by the settings; and that units and addresses are exact. No Redis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.config import Settings, load
from fleet.config.payouts.tables import tokens_in_full, tron_address, tron_bytes, units_of, wrong_address
from fleet.earnings.rows import Asset, EarningRow, EarningTerms
from fleet.errors import ConfigurationError
from fleet.models import BotResult

EVM, TRON = "0x" + "11" * 20, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
#: Addresses of owners of bots, and of who pays them.
OWNER, PAYER = "0x" + "33" * 20, "0x" + "22" * 20
TRON_OWNER, TRON_PAYER = (tron_address(b"\x41" + bytes([number]) * 20) for number in (3, 2))
NETWORKS = {
    "bsc": {"token": EVM, "payer": PAYER},
    "tron": {"kind": "tron", "token": TRON, "payer": TRON_PAYER, "decimals": 6},
}
PAYEES = {
    "alice": {"bots": ["research-00*"], "network": "bsc", "address": OWNER},
    "bob": {"bots": ["research-*"], "network": "tron", "address": TRON_OWNER},
}
EARN = [
    {"pool": "research", "kind": "essay", "price": "0.5"},
    {"tenant": "acme", "price": "0.02"},
    {"pool": "research", "price": "0.01"},
]


def settings(**fields: Any) -> Settings:
    return Settings.model_validate(
        {"payouts": {"earn": EARN, "pay_simulated": True}, "networks": NETWORKS, "payees": PAYEES, **fields}
    )


def result(**fields: Any) -> BotResult:
    usual = {"task_id": "t", "status": "ok", "pool": "research", "bot": "research-001", "finished_at": 1.0}
    return BotResult.model_validate({**usual, **fields})


def test_the_first_line_that_fits_is_the_price_and_the_first_payee_that_fits_has_it() -> None:
    terms = EarningTerms(settings())
    assert terms.row_of(result(), "essay") == EarningRow(
        "alice", f"bsc/{EVM}/18", "research-001", 5 * 10**17, "research", "essay"
    )
    row = terms.row_of(result(bot="research-900", tenant="acme"), "other")
    assert row == EarningRow("bob", f"tron/{TRON}/6", "research-900", 20_000, "research", "*")


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "failed"}, {"status": "degraded"}, {"bot": None}, {"pool": None}, {"served_by": "cache"},
        {"pool": "writing", "bot": "writing-001"},
    ],
)  # fmt: skip
def test_what_is_not_an_accepted_answer_of_a_bot_with_a_payee_earns_nothing(fields: dict[str, Any]) -> None:
    assert EarningTerms(settings()).row_of(result(**fields), "essay") is None


def test_answers_of_the_simulator_earn_nothing_unless_that_is_said() -> None:
    simulated = result(simulated=True)
    assert EarningTerms(settings()).row_of(simulated, "x") is not None
    assert EarningTerms(settings(payouts={"earn": EARN})).row_of(simulated, "x") is None


@given(st.integers(min_value=-(10**40), max_value=10**40), st.integers(min_value=0, max_value=36))
def test_units_are_written_and_read_without_a_loss(units: int, decimals: int) -> None:
    assert units_of(tokens_in_full(units, decimals), decimals) == units


@given(st.text(min_size=1), st.text(), st.integers())
def test_a_row_is_read_as_it_was_written(payee: str, kind: str, units: int) -> None:
    row = EarningRow(payee, Asset("n", EVM, 18).spelt, "b-1", units, "p", kind)
    assert EarningRow.of(row.spelt) == row
    assert EarningRow.of(row.taken_back.spelt).units == -units


@given(st.binary(min_size=20, max_size=20))
def test_an_address_of_tron_is_read_as_it_is_written_and_a_mistyped_one_refused(body: bytes) -> None:
    address = tron_address(b"\x41" + body)
    assert tron_bytes(address) == b"\x41" + body
    assert wrong_address("tron", address[:-1] + ("1" if address[-1] != "1" else "2")) is not None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"payouts": {"earn": [{"price": "0.0000001"}]}}, "at most 6 places after the point, got '0.0000001' on"),
        ({"payouts": {"earn": [{"pool": "reserch"}]}}, "the nearest known one is `research`"),
        ({"payouts": {"earn": [{"prise": "1"}]}}, "the nearest known one is `price`"),
        ({"payouts": {"earn": [{"price": "nan"}]}}, "expected whole tokens and parts as a string"),
        ({"payees": {"eve": {"bots": ["*"], "network": "bcs", "address": EVM}}}, "the nearest known one is `bsc`"),
        ({"payees": {"eve": {"bots": ["*"], "network": "tron", "address": EVM}}}, "expected an address of TRON"),
        ({"networks": {**NETWORKS, "x": {"token": EVM}}}, "got no payer"),
        ({"networks": {**NETWORKS, "x": {"token": EVM, "payer": EVM, "chain_id": 56}}}, "main_net = true"),
    ],
)  # fmt: skip
def test_wrong_tables_are_refused_in_words(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(**{"payouts": {"earn": EARN}, "networks": NETWORKS, "payees": PAYEES, **fields})
    assert expected in str(caught.value)
