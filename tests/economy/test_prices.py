"""What one call costs: by fleet.toml, by list price, by the provider's own word; and what has no price."""

from __future__ import annotations

import random
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider
from genai_prices.types import Usage as TheirUsage
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.config import PoolSettings, PriceSettings, ProviderSettings, Settings
from fleet.economy.list_rates import list_rates
from fleet.economy.prices import PriceList
from fleet.economy.rates import configured_rates
from fleet.list_prices import Listed, Seller, listed_of
from fleet.usage import Usage
from fleet.workers.simulator.options import SimulatorOptions

NOW_S = 1_795_000_000.0  # a day of November 2026, when all variants of the snapshot had begun
tokens = st.integers(min_value=0, max_value=10_000_000)
cents = st.integers(min_value=0, max_value=100_000)


def cost(price: PriceSettings, tier: str | None = None, **usage: int) -> int | None:
    rates = configured_rates(price, tier)
    return None if rates is None else rates.cost_usd_picos(Usage(**usage))


def price_list(*, model: str, kind: str = "openai", base_url: str | None = None, **prices: Any) -> PriceList:
    settings = Settings(
        providers={"p": ProviderSettings.model_validate({"kind": kind, "base_url": base_url, "api_key_env": "K"})},
        pools={"a": PoolSettings(provider="p", model=model)},
        prices={f"p/{model}": PriceSettings.model_validate(prices)} if prices else {},
    )
    return PriceList(settings, now_s=lambda: NOW_S)


# ---- fleet.toml


def test_a_dollar_per_million_tokens_is_a_micro_dollar_per_token():
    price = PriceSettings(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)
    assert cost(price, input_tokens=300, output_tokens=20) == 500 * 10**6


def test_a_call_far_below_a_micro_dollar_has_its_exact_cost():
    assert cost(PriceSettings(input_usd_per_mtok=0.02, output_usd_per_mtok=0.02), input_tokens=21) == 420_000


@given(tokens, tokens, cents, cents)
def test_the_cost_is_what_decimal_arithmetic_says(input_tokens: int, output_tokens: int, input_cents: int, cents: int):
    price = PriceSettings(input_usd_per_mtok=input_cents / 100, output_usd_per_mtok=cents / 100)
    exact = (Decimal(input_tokens) * input_cents + Decimal(output_tokens) * cents) * 10**4
    assert cost(price, input_tokens=input_tokens, output_tokens=output_tokens) == exact


def test_half_a_pico_dollar_is_rounded_up():
    price = PriceSettings(input_usd_per_mtok=0.0000005, output_usd_per_mtok=0)
    assert [cost(price, input_tokens=n) for n in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert Decimal("0.5").quantize(Decimal(1), ROUND_HALF_UP) == 1


def test_each_class_of_tokens_has_its_own_rate_and_without_one_that_of_what_it_is_part_of():
    plain = PriceSettings(input_usd_per_mtok=10, output_usd_per_mtok=20)
    full = plain.model_copy(
        update={"cached_usd_per_mtok": 1, "cache_write_usd_per_mtok": 12, "cache_write_1h_usd_per_mtok": 20,
                "reasoning_usd_per_mtok": 30, "usd_per_search": 0.01, "usd_per_call": 0.005}
    )  # fmt: skip
    used = {
        "input_tokens": 100, "cached_tokens": 50, "cache_write_tokens": 30, "cache_write_1h_tokens": 10,
        "output_tokens": 40, "reasoning_tokens": 15, "web_searches": 2,
    }  # fmt: skip
    assert cost(plain, **used) == (100 * 10 + 40 * 20) * 10**6
    tokens = 20 * 10 + 50 * 1 + 20 * 12 + 10 * 20 + 25 * 20 + 15 * 30
    assert cost(full, **used) == tokens * 10**6 + 2 * 10**10 + 5 * 10**9


def test_a_tier_and_a_long_prompt_have_rates_of_their_own():
    price = PriceSettings.model_validate(
        {"input_usd_per_mtok": 2, "output_usd_per_mtok": 8, "cached_usd_per_mtok": 1,
         "above": {"200000": {"input_usd_per_mtok": 4}}, "tiers": {"flex": {"input_usd_per_mtok": 1}}}
    )  # fmt: skip
    assert cost(price, input_tokens=200_000, output_tokens=1) == (200_000 * 2 + 8) * 10**6
    assert cost(price, input_tokens=200_001, output_tokens=1) == (200_001 * 4 + 8) * 10**6
    assert cost(price, "flex", input_tokens=300_000, output_tokens=1) == (300_000 * 1 + 8) * 10**6
    assert cost(price, "priority", input_tokens=1) is None


@pytest.mark.parametrize(
    "wrong", [{"input_usd_per_mtok": 1}, {}, {"same_as": "openai/gpt-4.1", "input_usd_per_mtok": 1}, {"same_as": "gpt"}]
)
def test_a_price_that_is_half_said_or_said_twice_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        PriceSettings.model_validate(wrong)


# ---- list prices


def models() -> list[tuple[Provider, ModelInfo]]:
    return [(provider, model) for provider in get_snapshot().providers for model in provider.models]


#: A tier, and what the snapshot calls it.
CONTEXTS: dict[str | None, list[dict[str, str]]] = {
    None: [{}],
    "flex": [{"service_tier": "flex"}],
    "priority": [{"service_tier": "priority"}],
    "batch": [{"processing": "batch"}],
    "fast": [{"service_tier": "fast"}, {"speed": "fast"}],
}


def drawn_usage(chance: random.Random) -> Usage:
    given, made = chance.choice([0, 1, 999, 150_000, 250_000, 900_000]), chance.randrange(5000)
    cached, written = chance.randrange(given // 2 + 1), chance.randrange(given // 2 + 1)
    return Usage(
        input_tokens=given, output_tokens=made, cached_tokens=cached, cache_write_tokens=written,
        cache_write_1h_tokens=chance.randrange(written + 1), reasoning_tokens=chance.randrange(made + 1),
        web_searches=chance.randrange(3),
    )  # fmt: skip


def theirs(usage: Usage) -> TheirUsage:
    return TheirUsage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_write_tokens, cache_write_1h_tokens=usage.cache_write_1h_tokens,
        output_reasoning_tokens=usage.reasoning_tokens, web_searches=usage.web_searches,
    )  # fmt: skip


def exact_cost(price: ModelPrice, usage: TheirUsage) -> Fraction:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Fraction(price.calc_price(usage)["total_price"]) * 10**12


@pytest.mark.parametrize("tier", CONTEXTS)
def test_every_list_price_of_mixed_usage_is_that_of_genai_prices_and_a_lane_that_costs_as_the_usual_one_has_none(
    tier: str | None,
):
    chance, now, compared = random.Random(14), datetime.fromtimestamp(NOW_S, UTC), 0
    for provider, model in models():
        rates = list_rates(Listed(provider, model), tier, standard=tier is None, now_s=NOW_S)
        usual = model.get_prices(now)
        prices = [model.get_prices(now, context) for context in CONTEXTS[tier]]
        price = usual if tier is None else next((one for one in prices if one != usual), None)
        if price is None or rates is None:
            assert tier is None or rates is None, (provider.id, model.id)  # else the lane would cost the usual price
            usually = list_rates(Listed(provider, model), None, standard=True, now_s=NOW_S)
            assert price is None or usually is None, (provider.id, model.id)  # billed by the hour: Fleet counts tokens
            continue
        usage = drawn_usage(chance)
        assert abs(rates.cost_usd_picos(usage) - exact_cost(price, theirs(usage))) <= Fraction(1, 2), (
            provider.id, model.id, usage,
        )  # fmt: skip
        compared += 1
    assert compared > (1000 if tier is None else 10)


@pytest.mark.parametrize("when", [{"service_tier": "flex"}, {"processing": "flex", "region": "eu"}])
@pytest.mark.parametrize("more", [{}, {"input_mtok": Decimal(2)}, {"cache_read_mtok": Decimal(2)}])
def test_a_lane_whose_entry_says_nothing_of_its_own_has_no_price(when: dict[str, str], more: dict[str, Decimal]):
    usual = ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8))
    provider, model = next((one, model) for one, model in models() if one.id == "openai")
    odd = replace(model, prices=usual, price_variants=[PriceVariant(when=when, prices=ModelPrice(**more))])
    entry = Listed(replace(provider, models=[odd]), odd)
    assert entry.is_own
    assert list_rates(entry, "flex", standard=False, now_s=NOW_S) is None
    assert list_rates(entry, "flex", standard=True, now_s=NOW_S) is not None


def test_sound_and_images_fresh_and_cached_cost_what_genai_prices_says_of_each_model_that_prices_them():
    now, compared = datetime.fromtimestamp(NOW_S, UTC), 0
    for provider, model in models():
        rates, price = list_rates(Listed(provider, model), None, standard=True, now_s=NOW_S), model.get_prices(now)
        media = {
            name for name, rate in price.__dict__.items() if rate is not None and ("audio" in name or "image" in name)
        }
        if rates is None or not media:
            continue
        usage = Usage(
            input_tokens=100_000, audio_input_tokens=10_000, image_input_tokens=5000, cached_tokens=20_000,
            cached_audio_tokens=3000 if "cache_audio_read_mtok" in media else 0,
            cached_image_tokens=2000 if "cache_image_read_mtok" in media else 0,
            output_tokens=10_000, audio_output_tokens=1000, image_output_tokens=2000,
        )  # fmt: skip
        told = TheirUsage(
            input_tokens=100_000, input_audio_tokens=10_000, input_image_tokens=5000, cache_read_tokens=20_000,
            cache_audio_read_tokens=usage.cached_audio_tokens, cache_image_read_tokens=usage.cached_image_tokens,
            output_tokens=10_000, output_audio_tokens=1000, output_image_tokens=2000,
        )  # fmt: skip
        assert abs(rates.cost_usd_picos(usage) - exact_cost(price, told)) <= Fraction(1, 2), (provider.id, model.id)
        compared += 1
    assert compared > 20


def test_cached_sound_without_a_rate_of_its_own_costs_what_is_cached_does():
    price = PriceSettings(
        input_usd_per_mtok=10, output_usd_per_mtok=0, cached_usd_per_mtok=1, audio_input_usd_per_mtok=40
    )
    used = {"input_tokens": 100, "audio_input_tokens": 30, "cached_tokens": 50, "cached_audio_tokens": 20}
    assert cost(price, **used) == (40 * 10 + 10 * 40 + 50 * 1) * 10**6
    own = price.model_copy(update={"cached_audio_usd_per_mtok": 2.5, "image_output_usd_per_mtok": 30})
    assert cost(own, **used, output_tokens=7, image_output_tokens=7) == (40 * 10 + 10 * 40 + 30 + 50 + 7 * 30) * 10**6


@given(given=tokens, made=tokens, share=st.floats(0, 1), kind=st.sampled_from(["gpt-5-mini", "gpt-4.1", "gpt-5.4"]))
def test_any_usage_costs_what_genai_prices_says(given: int, made: int, share: float, kind: str):
    entry = listed_of(Seller("p", "openai"), kind)
    assert entry is not None
    usage = Usage(input_tokens=given, output_tokens=made, cached_tokens=int(given * share))
    rates = list_rates(entry, None, standard=True, now_s=NOW_S)
    price: ModelPrice = entry.model.get_prices(datetime.fromtimestamp(NOW_S, UTC))
    assert rates is not None
    expected = Fraction(price.calc_price(theirs(usage))["total_price"]) * 10**12
    assert abs(rates.cost_usd_picos(usage) - expected) <= Fraction(1, 2)


def test_a_tier_that_the_snapshot_does_not_know_has_no_price_and_not_the_usual_one():
    price, used = price_list(model="gpt-5-mini"), Usage(input_tokens=1000, output_tokens=100)
    usual = price("p/gpt-5-mini", used)
    assert usual and price("p/gpt-5-mini", used, "flex") == usual / 2
    assert price("p/gpt-5-mini", used, "turbo") is None
    assert price("p/gpt-5-mini", used, "scale") is None
    assert {price("p/gpt-5-mini", used, tier) for tier in ("default", "auto", "standard", "DEFAULT", "")} == {usual}


def test_what_fleet_toml_says_wins_over_the_list():
    price = price_list(model="gpt-5-mini", input_usd_per_mtok=1, output_usd_per_mtok=1)
    assert price("p/gpt-5-mini", Usage(input_tokens=10, told_usd_picos=5)) == 10 * 10**6
    assert price("p/gpt-5-mini", Usage(input_tokens=10), "flex") is None


def test_a_model_behind_a_proxy_may_be_priced_as_its_vendors():
    price = price_list(model="house-mini", base_url="https://llm.example.com/v1", same_as="openai/gpt-5-mini")
    vendors = price_list(model="gpt-5-mini")
    used = Usage(input_tokens=1000, cached_tokens=500, output_tokens=100)
    for tier in (None, "flex"):
        assert price("p/house-mini", used, tier) == vendors("p/gpt-5-mini", used, tier) is not None
    assert (
        price.told("p/house-mini")
        == "$0.25 in, $2 out per M tokens, the list price of openai/gpt-5-mini (genai-prices)"
    )


def test_the_providers_own_word_counts_where_nothing_is_configured():
    price = price_list(model="who/knows", base_url="https://llm.example.com/v1")
    assert price("p/who/knows", Usage(input_tokens=10)) is None
    assert price("p/who/knows", Usage(input_tokens=10, told_usd_picos=1234)) == 1234


@pytest.mark.parametrize(
    ("kind", "base_url", "model", "entry"),
    [
        ("openai", None, "gpt-4.1-mini", "openai/gpt-4.1-mini"),
        ("anthropic", None, "claude-haiku-4-5", "anthropic/claude-haiku-4-5"),
        ("openai", "https://api.groq.com/openai/v1", "llama-3.1-8b-instant", "groq/llama-3.1-8b-instant"),
        ("openai", "https://llm.example.com", "openai/gpt-4.1-mini", "openai/gpt-4.1-mini"),
        ("openai", "http://127.0.0.1:4000/v1", "gpt-4.1-mini", "openai/gpt-4.1-mini"),
        ("openai", "http://127.0.0.1:8000/v1", "gpt-oss-20b", None),
        ("openai", "http://127.0.0.1:8000/v1", "mistral-small", None),
        ("openai", None, "no-such-model", None),
    ],
)
def test_a_model_is_found_by_its_address_or_its_vendors_name(kind: str, base_url: str, model: str, entry: str | None):
    local = base_url is not None and "127.0.0.1" in base_url
    found = listed_of(Seller("p", kind, base_url, local), model)
    assert (found and found.name) == entry


@pytest.mark.parametrize(
    ("model", "vendor"),
    [("google:gemini-2.5-flash", "google"), ("openai-responses:gpt-5", "openai"), ("groq:llama-3.1-8b-instant", "groq"),
     ("bedrock:us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws")],
)  # fmt: skip
def test_a_model_that_names_its_vendor_is_found_there(model: str, vendor: str):
    found = listed_of(Seller("p", "pydantic-ai"), model)
    assert found is not None and found.provider.id == vendor


def test_prices_that_change_with_the_hour_are_looked_up_again():
    (model,) = [one for provider, one in models() if provider.id == "deepseek" and one.id == "deepseek-chat"]
    entry = Listed(next(one for one in get_snapshot().providers if one.id == "deepseek"), model)
    rates = list_rates(entry, None, standard=True, now_s=NOW_S)
    assert rates is not None
    assert (rates.until_s is not None) == any(
        "TimeOfDate" in type(one.constraint).__name__
        for one in (model.prices if isinstance(model.prices, list) else [])
    )


@pytest.mark.parametrize(
    ("tier", "factor"),
    [
        (None, 1.0),
        *(
            (tier, getattr(SimulatorOptions(), f"{tier.replace('-', '_')}_factor"))
            for tier in ("batch", "background-8h", "background-2h", "flex", "priority")
        ),
    ],
)
def test_a_simulated_answer_costs_what_the_simulator_bills_by_default(tier: str | None, factor: float):
    price, options, used = PriceList(Settings()), SimulatorOptions(), Usage(input_tokens=100, output_tokens=10)
    billed = (100 * options.input_usd_per_mtok + 10 * options.output_usd_per_mtok) * factor
    assert price("simulator/simulated-1", used, tier) == round(billed * 10**6)


def test_a_model_without_a_price_costs_an_unknown_amount_and_not_nothing():
    price = price_list(model="free", base_url="http://127.0.0.1:1/v1", input_usd_per_mtok=0, output_usd_per_mtok=0)
    assert price("p/free", Usage(input_tokens=9)) == 0
    assert price("p/other", Usage(input_tokens=9)) is None
    assert price.unpriced() == []
    assert price_list(model="m", base_url="http://127.0.0.1:1/v1").unpriced() == [("p/m", None)]


def test_windows_of_background_responses_cost_their_share_of_the_list_price_at_openais_own_address():
    used = Usage(input_tokens=300_001, cached_tokens=7, output_tokens=10, web_searches=2)
    own, elsewhere = price_list(model="gpt-5.2"), price_list(model="gpt-5.2", base_url="https://proxy.example/v1")
    searches = used.model_copy(update={"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0})
    paid, fixed = own("p/gpt-5.2", used), own("p/gpt-5.2", searches)
    assert paid is not None and fixed is not None
    for tier, share in (("background-8h", Fraction(6, 10)), ("background-2h", Fraction(7, 10))):
        assert own("p/gpt-5.2", used, tier) == round((paid - fixed) * share + fixed)
        assert elsewhere("p/gpt-5.2", used, tier) is None
        assert price_list(model="m", input_usd_per_mtok=1, output_usd_per_mtok=1)("p/m", used, tier) is None
