"""The tables of [providers] in fleet.toml: LLM APIs, and where their keys come from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fleet.config.hosts import host_of, is_local
from fleet.config.sections import Section
from fleet.quoting import quote

#: Label of the one key that a provider has; limits are named `provider/model/key`.
KEY_LABEL = "default"

#: What may say where a provider's key comes from.
KEY_SETTINGS = ("api_key_env", "api_key_file", "api_key_secret", "api_key_vault")

#: Vendors whose limits do not count input that they read from their cache: kinds, names before the model's, hosts.
_UNCOUNTED = frozenset({"anthropic", "bedrock", "groq"})

#: Vendors whose keys come from a cloud's own variables and files, by its SDK.
_AMBIENT = ("bedrock", "google-cloud")


def vendor_of(model: str) -> str:
    """Return the vendor in a model's name of kind "pydantic-ai", `vendor:model`; empty when it names none."""
    vendor, found, name = model.partition(":")
    return vendor if found and name else ""


class ProviderSettings(Section):
    """An LLM API. Limits belong to `provider/model`."""

    kind: Literal["openai", "anthropic", "simulator", "pydantic-ai"] = Field(
        description="Wire protocol of the API; pydantic-ai: any that it knows, see docs/models.md."
    )
    base_url: str | None = Field(None, description="Root of the API. Not set: the vendor's, or the local simulator.")
    api_key_env: str | None = Field(None, description="Environment variable that holds the key.")
    api_key_file: Path | None = Field(None, description="File that holds the key; must be readable by its owner only.")
    api_key_secret: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,250}$",
        description="Name of a secret that systemd, Docker or Kubernetes mounts.",
    )
    api_key_vault: str | None = Field(None, description="`PATH#FIELD` of the key in the KV store of [vault].")
    timeout_s: float = Field(120.0, gt=0, description="Seconds until Fleet gives up one HTTP call.")

    @property
    def key_settings(self) -> tuple[str, ...]:
        """The settings here that say where the key comes from."""
        return tuple(name for name in KEY_SETTINGS if getattr(self, name))

    @property
    def needs_key(self) -> bool:
        """True unless a key is of no use: the simulator takes any, a server on this host or network may take none."""
        return self.kind != "simulator" and not is_local(self.base_url)

    def needs_key_for(self, model: str) -> bool:
        """True unless a key is of no use to this model: also where a cloud's own variables and files hold it."""
        is_ambient = self.kind == "pydantic-ai" and vendor_of(model) in _AMBIENT
        return self.needs_key and not is_ambient

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if len(found := self.key_settings) > 1:
            raise ValueError(f"expected one source of the key, got {' and '.join(f'`{name}`' for name in found)}")
        if self.api_key_vault is not None and not all(self.api_key_vault.partition("#")):
            raise ValueError(f"api_key_vault: expected PATH#FIELD, got {quote(self.api_key_vault)}")
        return self


def counts_cached(provider: ProviderSettings | None, model: str) -> bool:
    """True unless the vendor's limits are known not to count input that it reads from its cache."""
    kind, host = ("", "") if provider is None else (provider.kind, host_of(provider.base_url))
    return _UNCOUNTED.isdisjoint({kind, vendor_of(model), *host.split(".")})
