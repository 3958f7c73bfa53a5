"""What calls cost, in integer micro-dollars, from the prices in fleet.toml.

Pure. Price each call, never a sum of calls: rates may differ by call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleet.config import PriceSettings
from fleet.usage import Usage

#: Parts of a micro-dollar in which rates are kept, so that all arithmetic is on integers.
PARTS_PER_MICRO = 1_000_000

#: Gives the cost of one call by `provider/model` and usage, or None when that model has no price.
Price = Callable[[str, Usage], int | None]


def cost_usd_micros(usage: Usage, price: PriceSettings) -> int:
    """Return the cost of one call in micro-dollars, rounded to the nearest one (half up)."""
    parts = usage.input_tokens * _rate(price.input_usd_per_mtok) + usage.output_tokens * _rate(
        price.output_usd_per_mtok
    )
    return (parts + PARTS_PER_MICRO // 2) // PARTS_PER_MICRO


def price_of(prices: Mapping[str, PriceSettings]) -> Price:
    """Return the function that prices a call.

    Args:
        prices: `Settings.prices`, by `provider/model`.

    Returns:
        A function of `provider/model` and usage; it answers None for a model without a price, because an unknown
        cost must not look like a cost of zero.
    """

    def price(model: str, usage: Usage) -> int | None:
        rates = prices.get(model)
        return None if rates is None else cost_usd_micros(usage, rates)

    return price


def _rate(usd_per_mtok: float) -> int:
    """Dollars per million tokens are micro-dollars per token: return them in parts of a micro-dollar."""
    return round(usd_per_mtok * PARTS_PER_MICRO)
