"""List prices of models: which entry of the `genai-prices` snapshot a configured model is. It never updates itself.

The package is loaded with the first model that is looked up: 0.3 s of CPU and 26 MB, in processes that price only.

Weakness: an entry is found by names. A model behind an unknown address counts as the vendor's own of that name, since
most such addresses are proxies; on this host or network only where the vendor alone has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, Provider

#: Vendors whose models run nowhere else: their names are believed at an address of this host or network, too.
CLOSED_VENDORS = frozenset({"anthropic", "google", "openai", "x-ai"})
#: Parts of names of open models that such vendors have given away.
OPEN_MODELS = ("gpt-oss", "gemma", "grok-1")


@dataclass(frozen=True, slots=True)
class Seller:
    """Who sells a model, as configured.

    Args:
        name: Of the provider under [providers].
        kind: Its `kind`.
        base_url: Its address; None: the vendor's own.
        is_local: The address is on this host or a private network.
    """

    name: str
    kind: str
    base_url: str | None = None
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the snapshot."""

    provider: Provider
    model: ModelInfo

    @property
    def name(self) -> str:
        """The vendor and the model, as the snapshot calls them."""
        return f"{self.provider.id}/{self.model.id}"

    @property
    def is_own(self) -> bool:
        """True when the vendor itself has this entry: only then do its tiers hold."""
        return any(self.model is one for one in self.provider.models)


@lru_cache(maxsize=1024)
def listed_as(name: str) -> Listed | None:
    """Return the entry of `vendor/model`; None when there is none."""
    vendor, _, model = name.partition("/")
    return _of_vendor(vendor, model)


@lru_cache(maxsize=1024)
def listed_of(seller: Seller, model: str) -> Listed | None:
    """Return the entry of a model; None when it is not listed, or nobody knows whose it is.

    Args:
        seller: Who sells it.
        model: As that spells it.
    """
    if seller.kind == "simulator":
        return None
    if seller.kind not in ("openai", "anthropic"):  # one that reads the vendor in the model's name
        vendor, found, name = model.partition(":")
        return _of_vendor(vendor, name) if found else None
    if seller.base_url is None:
        return _of_vendor(seller.kind, model)
    return _at(seller.base_url, model) or _named_so(seller.name, model) or _behind(seller, model)


def _at(url: str, model: str) -> Listed | None:
    """Return the entry of the vendor whose address this is."""
    try:
        return _entry(model, url=url)
    except LookupError:
        return None


def _named_so(vendor: str, model: str) -> Listed | None:
    """Return the entry where the provider is named after its vendor."""
    return _of_vendor(vendor, model) if vendor in {one.id for one in _snapshot().providers} else None


def _behind(seller: Seller, model: str) -> Listed | None:
    """Return the entry of a model at an unknown address, by the model's name alone: `gpt-4.1`, `openai/gpt-4.1`."""
    if seller.is_local and any(part in model.lower() for part in OPEN_MODELS):
        return None
    vendor, found, rest = model.partition("/")
    try:
        entry = _named_so(vendor, rest) if found else _entry(model)
    except LookupError:
        return None
    return None if entry is not None and seller.is_local and entry.provider.id not in CLOSED_VENDORS else entry


def _of_vendor(vendor: str, model: str) -> Listed | None:
    try:
        return _entry(model, vendor=vendor)
    except LookupError:
        return None


def _entry(model: str, *, vendor: str | None = None, url: str | None = None) -> Listed:
    return Listed(*_snapshot().find_provider_model(model, None, vendor, url))


def _snapshot() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()
