"""Rates from an entry of the `genai-prices` snapshot, in the classes that Fleet counts. Pure.

Its own arithmetic walks decimals for 0.1 ms a call; here the rates are taken out once, and what they come to is the
same before it is rounded. A context that it does not know silently gets its standard price there; here, none. Nor has
a tier a price whose entry says no more than the usual one: most likely nobody has looked it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from fleet.economy.rates import Rates, rates_of
from fleet.list_prices import Listed

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

#: Price in the snapshot -> class of usage, and for how many it is.
PRICES = {
    "input_mtok": ("input_tokens", 10**6),
    "output_mtok": ("output_tokens", 10**6),
    "cache_read_mtok": ("cached_tokens", 10**6),
    "cache_write_mtok": ("cache_write_tokens", 10**6),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 10**6),
    "output_reasoning_mtok": ("reasoning_tokens", 10**6),
    "input_audio_mtok": ("audio_input_tokens", 10**6),
    "output_audio_mtok": ("audio_output_tokens", 10**6),
    "input_image_mtok": ("image_input_tokens", 10**6),
    "output_image_mtok": ("image_output_tokens", 10**6),
    "cache_audio_read_mtok": ("cached_audio_tokens", 10**6),
    "cache_image_read_mtok": ("cached_image_tokens", 10**6),
    "web_searches_kcount": ("web_searches", 10**3),
    "requests_kcount": ("calls", 10**3),
}
#: What a tier may be called in the snapshot: a tier of service, a way of processing, a speed.
_CONTEXTS = ("service_tier", "processing", "speed")
#: Seconds after which rates are looked up again where they depend on the time.
_MINUTE_S = 60


def list_rates(entry: Listed, tier: str | None, *, standard: bool, now_s: float) -> Rates | None:
    """Return the list rates of a model.

    Args:
        entry: Of the snapshot.
        tier: As the provider calls it; None: not said.
        standard: True: the tier is the usual one, whose price may stand under its name.
        now_s: Unix time: some prices begin on a day, or hold at some hours.

    Returns:
        The rates, or None when there are none for this tier.
    """
    now = datetime.fromtimestamp(now_s, UTC)
    context = None if tier is None else _context_of(entry, tier, now)
    if tier is not None and context is None and not standard:
        return None
    price = entry.model.get_prices(now, context)
    until_s = (now_s // _MINUTE_S + 1) * _MINUTE_S if _may_change(entry.model, now) else None
    rates = rates_of(_steps(price), until_s)
    if not standard and rates.costs_as(rates_of(_steps(entry.model.get_prices(now)))):
        return None
    return rates if any(step.input or step.output or step.call for step in rates.steps) or _is_free(price) else None


def _context_of(entry: Listed, tier: str, now: datetime) -> Mapping[str, str] | None:
    """Return the context under which the snapshot has a price of this tier; None when it has none."""
    variants = [one for one in entry.model.price_variants or () if one.constraint is None or one.constraint.active(now)]
    contexts = [{name: tier} for name in _CONTEXTS] if entry.is_own else []
    return next((context for context in contexts if any(one.when == context for one in variants)), None)


def _steps(price: ModelPrice) -> Iterator[tuple[int, Mapping[str, Fraction]]]:
    """Yield the rates for each size of the prompt from which one of them is another."""
    known = {name: rate for name, rate in price.__dict__.items() if name in PRICES and rate is not None}
    starts = {tier.start for rate in known.values() for tier in getattr(rate, "tiers", ())}
    for above in (-1, *sorted(starts)):
        yield above, {PRICES[name][0]: Fraction(_at(rate, above)) / PRICES[name][1] for name, rate in known.items()}


def _at(rate: object, above: int) -> Decimal:
    """Return a rate of prompts that are larger than `above` tokens."""
    if isinstance(rate, Decimal):
        return rate
    found: Decimal = rate.base  # type: ignore[attr-defined]
    for tier in rate.tiers:  # type: ignore[attr-defined]
        found = tier.price if tier.start <= above else found
    return found


def _is_free(price: ModelPrice) -> bool:
    """True when a model costs nothing; one that is billed by what Fleet does not count has no price instead."""
    prices = {name: rate for name, rate in price.__dict__.items() if rate is not None}
    return "input_mtok" in prices and not any(isinstance(rate, Decimal) and rate for rate in prices.values())


def _may_change(model: ModelInfo, now: datetime) -> bool:
    """True when the prices depend on the hour, or begin later."""
    prices = model.prices if isinstance(model.prices, list) else []
    constraints = [one.constraint for one in (*prices, *(model.price_variants or ()))]
    return any(
        one is not None and (not hasattr(one, "start_date") or one.start_date > now.date()) for one in constraints
    )
