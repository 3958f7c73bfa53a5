"""For how long a provider is asked to keep documents, where keeping costs more than reading them once. Pure."""

from __future__ import annotations

from typing import NamedTuple

from fleet.conversation import Kept
from fleet.economy.prices import Price
from fleet.usage import Usage

#: Answers within five minutes that are taken to have been before any is known: documents are stored to be asked about.
EXPECTED = 3
#: Tokens that are priced (count): so many that nothing is lost in rounding.
PRICED_TOKENS = 10**6


class CacheCost(NamedTuple):
    """Price of a token that is written for five minutes, for an hour, or read, as a share of plain input's."""

    written_5m: float
    written_1h: float
    read: float


#: Where a model has no price, and so nobody knows better: what Anthropic asks for most of its models.
#: https://docs.claude.com/en/docs/build-with-claude/prompt-caching
UNPRICED = CacheCost(1.25, 2.0, 0.1)


def cache_cost(price: Price, api: str) -> CacheCost:
    """Return what a model's cache costs, by its price.

    Args:
        price: Cost of one call.
        api: `provider/model`.
    """
    given = Usage(input_tokens=PRICED_TOKENS)
    plain = price(api, given, None)
    if not plain:
        return UNPRICED
    of_cache = (
        Usage(input_tokens=PRICED_TOKENS, cache_write_tokens=PRICED_TOKENS),
        Usage(input_tokens=PRICED_TOKENS, cache_write_tokens=PRICED_TOKENS, cache_write_1h_tokens=PRICED_TOKENS),
        Usage(input_tokens=PRICED_TOKENS, cached_tokens=PRICED_TOKENS),
    )
    return CacheCost(*((price(api, usage, None) or 0) / plain for usage in of_cache))


def keeping(short: int, long: int, later: int, cost: CacheCost) -> Kept | None:
    """Return how long documents are to be kept so that the next answer is expected to cost least; None: not at all.

    Args:
        short: Answers that came within five minutes of the one before, as far as is known.
        long: Those that came within an hour.
        later: Those that came later.
        cost: What the cache costs.
    """
    short += EXPECTED
    total = short + long + later
    costs: dict[Kept | None, float] = {
        "5m": (cost.read * short + cost.written_5m * (total - short)) / total,
        "1h": (cost.read * (short + long) + cost.written_1h * later) / total,
        None: 1.0,
    }
    return min(costs, key=lambda kept: costs[kept])
