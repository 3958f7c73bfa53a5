from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from hypothesis import given
from hypothesis import strategies as st

from fleet.config import PriceSettings
from fleet.economy.prices import cost_usd_micros, price_of
from fleet.usage import Usage

tokens = st.integers(min_value=0, max_value=10_000_000)
cents = st.integers(min_value=0, max_value=100_000)


def test_a_dollar_per_million_tokens_is_a_micro_dollar_per_token():
    price = PriceSettings(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)
    assert cost_usd_micros(Usage(input_tokens=300, output_tokens=20), price) == 500


def test_half_a_micro_dollar_is_rounded_up():
    price = PriceSettings(input_usd_per_mtok=0.15, output_usd_per_mtok=0.6)
    costs = [cost_usd_micros(Usage(input_tokens=n, output_tokens=0), price) for n in (0, 3, 4, 10)]
    assert costs == [0, 0, 1, 2]


@given(tokens, tokens, cents, cents)
def test_the_cost_is_what_decimal_arithmetic_says(input_tokens: int, output_tokens: int, input_cents: int, cents: int):
    price = PriceSettings(input_usd_per_mtok=input_cents / 100, output_usd_per_mtok=cents / 100)
    exact = (Decimal(input_tokens) * input_cents + Decimal(output_tokens) * cents) / 100
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    assert cost_usd_micros(usage, price) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))


def test_a_model_without_a_price_costs_an_unknown_amount_and_not_nothing():
    price = price_of({"api/free": PriceSettings(input_usd_per_mtok=0, output_usd_per_mtok=0)})
    assert price("api/free", Usage(input_tokens=9)) == 0
    assert price("api/other", Usage(input_tokens=9)) is None
