"""The tables of [prices] in fleet.toml, by classes of tokens, sizes of prompts and tiers; and [bill]."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from fleet.config.sections import Section


class RateSettings(Section):
    """Rates of one class of tokens each. A class without a rate costs what the class does that it is part of."""

    input_usd_per_mtok: float | None = Field(None, ge=0, description="US dollars per million input tokens.")
    output_usd_per_mtok: float | None = Field(None, ge=0, description="US dollars per million output tokens.")
    cached_usd_per_mtok: float | None = Field(None, ge=0, description="Input that was read from the provider's cache.")
    cache_write_usd_per_mtok: float | None = Field(None, ge=0, description="Input that was written to its cache.")
    cache_write_1h_usd_per_mtok: float | None = Field(None, ge=0, description="Input that was written for an hour.")
    reasoning_usd_per_mtok: float | None = Field(None, ge=0, description="Output that was thinking.")
    audio_input_usd_per_mtok: float | None = Field(None, ge=0, description="Input that was sound.")
    audio_output_usd_per_mtok: float | None = Field(None, ge=0, description="Output that was sound.")
    image_input_usd_per_mtok: float | None = Field(None, ge=0, description="Input that was images.")
    image_output_usd_per_mtok: float | None = Field(None, ge=0, description="Output that was images.")
    cached_audio_usd_per_mtok: float | None = Field(None, ge=0, description="Sound that was read from its cache.")
    cached_image_usd_per_mtok: float | None = Field(None, ge=0, description="Images that were read from its cache.")
    usd_per_search: float | None = Field(None, ge=0, description="One search of the web by the provider's own tool.")
    usd_per_call: float | None = Field(None, ge=0, description="One call, whatever it uses.")

    def rates(self) -> dict[str, float]:
        """Return the rates that are set, by name."""
        return {name: rate for name in RateSettings.model_fields if (rate := getattr(self, name)) is not None}


class TierPriceSettings(RateSettings):
    """Rates of one tier; what is not set is as in the table above it."""

    above: dict[int, RateSettings] = Field(
        default_factory=dict, description="Rates of all tokens of a call whose input is above so many tokens."
    )


class PriceSettings(TierPriceSettings):
    """What a model costs, instead of its list price (see docs/cost.md).

    Results of a model without any price have no cost. Both rates are wanted, or `same_as`.
    """

    tiers: dict[str, TierPriceSettings] = Field(
        default_factory=dict,
        description="Rates of calls that a tier answered, by its name: `flex`, `priority`, `batch`.",
    )
    same_as: str | None = Field(
        None,
        pattern=r"^[^/]+/.+$",
        description="The vendor's model whose list price holds, for a proxy or an own name: `openai/gpt-6-luna`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _rates_or_a_list_price(cls, told: Any) -> Any:
        if isinstance(told, dict) and not told.get("same_as"):
            missing = [name for name in ("input_usd_per_mtok", "output_usd_per_mtok") if told.get(name) is None]
            if missing:
                raise ValueError(f"expected {' and '.join(missing)}, or same_as, got none")
        return told

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.same_as and (self.rates() or self.above or self.tiers):
            raise ValueError("expected rates or `same_as`, got both")
        return self


class BillSettings(Section):
    """What every call has cost: `fleet bill`. Sums are always kept; each call can be written to a file as well."""

    export: Path | None = Field(
        None,
        description="Folder or file (.jsonl) to which a host's calls are appended as JSON lines. Not set: none.",
    )
    export_max_mb: int = Field(100, ge=1, description="MB at which the file is turned over: to NAME.1, NAME.2, ...")
    export_files: int = Field(10, ge=1, le=1000, description="Files kept, the newest among them.")
