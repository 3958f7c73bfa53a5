"""What calls cost, in whole pico-dollars: by [prices] in fleet.toml, else as the provider says, else by list price.

Price each call, never a sum of calls: rates differ by tier and by the size of a prompt. Rates are looked up once for a
model and tier; then a call costs a few multiplications.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction

from fleet.config import Settings
from fleet.economy.list_rates import list_rates
from fleet.economy.rates import Rates, configured_rates
from fleet.list_prices import Listed, listed_as, listed_of
from fleet.usage import Usage

#: Gives the cost of one call in pico-dollars by `provider/model`, usage and the tier that answered (None: the usual
#: one), or None when that model has no price in that tier.
Price = Callable[[str, Usage, str | None], int | None]

#: What providers call the usual tier.
STANDARD_TIERS = frozenset({"", "default", "standard", "auto", "on_demand", "standard_only"})


def told_unpriced(model: str, tier: str | None) -> str:
    """Return in one line that a model has no price (in a tier), and what to do."""
    of_tier = f" in the tier {tier}" if tier else ""
    place = f'[prices."{model}"{f".tiers.{tier}" if tier else ""}]'
    return f"{model} has no price{of_tier}: what it costs is not counted; set {place} in fleet.toml"


#: What OpenAI asks for tokens of background responses, of the usual price, by the tier that Fleet bills them as:
#: https://developers.openai.com/api/docs/guides/background
BACKGROUND_SHARES: Mapping[str, Fraction] = {"background-8h": Fraction(6, 10), "background-2h": Fraction(7, 10)}

#: Not looked up yet.
_UNKNOWN = Rates((), 1)


class PriceList:
    """Prices of the models that are configured.

    Args:
        settings: Pools, providers and [prices].
        now_s: The clock, Unix time in seconds: some list prices begin on a day or hold at some hours.
    """

    def __init__(self, settings: Settings, *, now_s: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._configured = settings.price_table
        self._now_s = now_s
        self._rates: dict[tuple[str, str | None], Rates | None] = {}

    def __call__(self, model: str, usage: Usage, tier: str | None = None) -> int | None:
        """Return what one call costs in pico-dollars.

        An unknown cost must not look like a cost of zero: it is None for a model without a price, and for a tier
        that nobody has priced.

        Args:
            model: `provider/model`.
            usage: Of one call.
            tier: The tier that answered; None: the usual one.
        """
        rates = self._rates.get((model, tier), _UNKNOWN)
        if rates is _UNKNOWN or (rates is not None and rates.until_s is not None and self._now_s() >= rates.until_s):
            rates = self._rates[model, tier] = self._look_up(model, tier)
        if usage.told_usd_picos and model not in self._configured:
            return usage.told_usd_picos
        return None if rates is None else rates.cost_usd_picos(usage)

    def told(self, model: str) -> str | None:
        """Return the price of `provider/model` for people, and where it comes from; None when it has none."""
        rates = self._look_up(model, None)
        if rates is None:
            return None
        told = f"${rates.input_usd_per_mtok:g} in, ${rates.output_usd_per_mtok:g} out per M tokens"
        if model in self._configured and not self._configured[model].same_as:
            return told
        entry = self._entry(model)
        return told if entry is None else f"{told}, the list price of {entry.name} (genai-prices)"

    def unpriced(self) -> list[tuple[str, str | None]]:
        """Return each `provider/model` of a pool or its ladder without a price, and the tier that the pool asks for.

        The tier is None where the model has no price at all; what such calls cost is not counted.
        """
        pools = [
            (f"{provider}/{model}", pool.tier)
            for name, pool in self._settings.pools.items()
            for provider, model in self._settings.calls_of(name)
        ]
        none = [(model, None) for model, _ in pools if self._look_up(model, None) is None]
        without = [(model, tier) for model, tier in pools if (model, None) not in none and not self._has(model, tier)]
        return list(dict.fromkeys([*none, *without]))

    def unpriced_of(self, pools: Iterable[str]) -> list[tuple[str, str | None]]:
        """Return those of `unpriced` that these pools, or their ladders, call."""
        models = {f"{provider}/{model}" for pool in pools for provider, model in self._settings.calls_of(pool)}
        return [one for one in self.unpriced() if one[0] in models]

    def _has(self, model: str, tier: str | None) -> bool:
        return self._look_up(model, tier) is not None

    def _look_up(self, model: str, tier: str | None) -> Rates | None:
        wanted = tier.lower() if tier else None
        standard = wanted is None or wanted in STANDARD_TIERS
        configured = self._configured.get(model)
        if configured is not None and not configured.same_as:
            own = configured_rates(configured, wanted) if wanted else None
            return own or (configured_rates(configured, None) if standard else None)
        entry = self._entry(model)
        if entry is None:
            return None
        if wanted is not None and wanted in BACKGROUND_SHARES and self._is_openais(model):
            usual = list_rates(entry, None, standard=True, now_s=self._now_s())
            return None if usual is None else usual.at_share(BACKGROUND_SHARES[wanted])
        return list_rates(entry, wanted, standard=standard, now_s=self._now_s())

    def _is_openais(self, model: str) -> bool:
        """True for a model at OpenAI's own address: others need not know of windows."""
        seller = self._settings.seller_of(model.partition("/")[0])
        return seller.kind == "openai" and seller.base_url is None

    def _entry(self, model: str) -> Listed | None:
        configured = self._configured.get(model)
        if configured is not None and configured.same_as:
            return listed_as(configured.same_as)
        provider, _, name = model.partition("/")
        return listed_of(self._settings.seller_of(provider), name)
