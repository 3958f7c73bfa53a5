"""What one model costs in one tier: whole numbers that are multiplied by tokens. Pure.

A price counts in 10^-12 dollars ("pico-dollars"), in which nearly every rate is whole; where one is not, all of the
model's are kept in finer parts, and only the sum of a call is rounded, half up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm

from fleet.config import PriceSettings, TierPriceSettings
from fleet.money import PICOS
from fleet.usage import Usage

#: Class of usage -> the class that it is part of, whose rate holds where it has none of its own.
WHOLE = {
    "cached_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "audio_input_tokens": "input_tokens",
    "image_input_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "audio_output_tokens": "output_tokens",
    "image_output_tokens": "output_tokens",
    "cached_audio_tokens": "cached_tokens",
    "cached_image_tokens": "cached_tokens",
}
#: Class of what was read from the cache -> the other class that it is part of as well.
OF_BOTH = {"cached_audio_tokens": "audio_input_tokens", "cached_image_tokens": "image_input_tokens"}
#: Every class that can have a rate; `calls` counts 1 each call.
CLASSES = ("input_tokens", "output_tokens", *WHOLE, "web_searches", "calls")
#: Classes that are no tokens.
UNTOKENED = frozenset({"web_searches", "calls"})
#: Rate in fleet.toml -> its class, and for how many it is.
SETTINGS = {
    "input_usd_per_mtok": ("input_tokens", 10**6),
    "output_usd_per_mtok": ("output_tokens", 10**6),
    "cached_usd_per_mtok": ("cached_tokens", 10**6),
    "cache_write_usd_per_mtok": ("cache_write_tokens", 10**6),
    "cache_write_1h_usd_per_mtok": ("cache_write_1h_tokens", 10**6),
    "reasoning_usd_per_mtok": ("reasoning_tokens", 10**6),
    "audio_input_usd_per_mtok": ("audio_input_tokens", 10**6),
    "audio_output_usd_per_mtok": ("audio_output_tokens", 10**6),
    "image_input_usd_per_mtok": ("image_input_tokens", 10**6),
    "image_output_usd_per_mtok": ("image_output_tokens", 10**6),
    "cached_audio_usd_per_mtok": ("cached_audio_tokens", 10**6),
    "cached_image_usd_per_mtok": ("cached_image_tokens", 10**6),
    "usd_per_search": ("web_searches", 1),
    "usd_per_call": ("calls", 1),
}


@dataclass(frozen=True, slots=True)
class Step:
    """Rates of calls whose input is above so many tokens, in parts of a pico-dollar."""

    above_tokens: int
    call: int
    input: int
    output: int
    #: What a class costs more (or less) than the class that it is part of.
    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs in one tier.

    Args:
        steps: By the size of the prompt, the smallest first.
        scale: Parts of a pico-dollar that they are in.
        until_s: Unix time at which the rates may be others; None: they stay.
    """

    steps: tuple[Step, ...]
    scale: int
    until_s: float | None = None

    @property
    def input_usd_per_mtok(self) -> float:
        return self.steps[0].input / self.scale / PICOS * 10**6

    @property
    def output_usd_per_mtok(self) -> float:
        return self.steps[0].output / self.scale / PICOS * 10**6

    def costs_as(self, other: Rates) -> bool:
        """True when every call costs the same by both."""
        return (self.scale, self.steps) == (other.scale, other.steps)

    def at_share(self, share: Fraction) -> Rates:
        """Return rates at which tokens cost a share of these; what is paid by the call, or the search, stays."""
        of, whole = share.numerator, share.denominator
        steps = (
            Step(
                step.above_tokens, step.call * whole, step.input * of, step.output * of,
                tuple((name, more * (whole if name in UNTOKENED else of)) for name, more in step.parts),
            )
            for step in self.steps
        )  # fmt: skip
        return Rates(tuple(steps), self.scale * whole, self.until_s)

    def cost_usd_picos(self, usage: Usage) -> int:
        """Return the cost of one call in pico-dollars."""
        given = usage.input_tokens
        step = self.steps[0]
        for later in self.steps[1:]:
            if given > later.above_tokens:
                step = later
        cost = step.call + given * step.input + usage.output_tokens * step.output
        for name, more in step.parts:
            cost += getattr(usage, name) * more
        return max(0, cost if self.scale == 1 else (cost + self.scale // 2) // self.scale)


def rates_of(steps: Iterable[tuple[int, Mapping[str, Fraction]]], until_s: float | None = None) -> Rates:
    """Return rates as whole numbers.

    Args:
        steps: By the size of the prompt above which they hold: dollars for one of each class that has a rate.
        until_s: See `Rates`.
    """
    ordered = sorted(steps, key=lambda step: step[0])
    scale = lcm(*((rate * PICOS).denominator for _, rates in ordered for rate in rates.values()))
    return Rates(tuple(_step(above, rates, scale) for above, rates in ordered), scale, until_s)


def _step(above: int, rates: Mapping[str, Fraction], scale: int) -> Step:
    names = [*rates, *(name for name in OF_BOTH if name not in rates)]
    more = {name: int(_more(name, rates) * PICOS * scale) for name in names}
    call, given, made = (more.pop(name, 0) for name in ("calls", "input_tokens", "output_tokens"))
    return Step(above, call, given, made, tuple((name, rate) for name, rate in more.items() if rate))


def _more(name: str, rates: Mapping[str, Fraction]) -> Fraction:
    """Return what one of a class costs beyond what it has been charged as a part of other classes."""
    more = _rate_of(name, rates) - _rate_of(WHOLE.get(name), rates)
    if name in OF_BOTH:  # counted twice: as cached, and as sound or images
        more -= _rate_of(OF_BOTH[name], rates) - _rate_of("input_tokens", rates)
    return more


def _rate_of(name: str | None, rates: Mapping[str, Fraction]) -> Fraction:
    """Return the rate of a class: its own, or that of the nearest class which it is part of and which has one."""
    while name is not None and name not in rates:
        name = WHOLE.get(name)
    return rates[name] if name is not None else Fraction(0)


def configured_rates(price: PriceSettings, tier: str | None) -> Rates | None:
    """Return the rates of fleet.toml for a tier (None: the standard one); None when it has none for it."""
    base = price.rates()
    if tier is None:
        return rates_of(_configured_steps(base, price))
    own = price.tiers.get(tier)
    return None if own is None else rates_of(_configured_steps({**base, **own.rates()}, own))


def _configured_steps(
    base: Mapping[str, float], price: TierPriceSettings
) -> Iterable[tuple[int, Mapping[str, Fraction]]]:
    yield -1, _in_classes(base)
    for above, rates in price.above.items():
        yield above, _in_classes({**base, **rates.rates()})


def _in_classes(rates: Mapping[str, float]) -> dict[str, Fraction]:
    """Return dollars for one of each class; a rate is what is written in the file, not the float nearest to it."""
    return {name: Fraction(Decimal(repr(rate))) / per for key, rate in rates.items() for name, per in [SETTINGS[key]]}
