"""The tables of [providers] in fleet.toml: LLM APIs, and where their keys come from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from fleet.config.exchange import ExchangeSettings
from fleet.config.hosts import host_of, is_local, is_vendors
from fleet.config.scopes import ScopeSettings, serves
from fleet.config.sections import Section
from fleet.quoting import quote

#: Label of the one key that a provider has; limits are named `provider/model/key`.
KEY_LABEL = "default"

#: What may say where a provider's key comes from.
KEY_SETTINGS = ("api_key_env", "api_key_file", "api_key_secret", "api_key_vault", "exchange")

#: Grants whose tokens only their own vendor's API takes.
_VENDORS = frozenset({"anthropic", "openai", "openai-x509", "google"})

#: Grants whose tokens are taken elsewhere than at the vendor's usual address, and where.
_WANTED = {
    "openai-x509": "https://mtls.api.openai.com/v1",
    "google": "https://REGION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/REGION/endpoints/openapi",
}

#: How names of mounted secrets are written.
SECRET_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,250}$"
#: How labels of keys are written, and how many keys a provider has at most.
LABEL, MOST_KEYS = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", 64

#: Vendors whose limits do not count input that they read from their cache: kinds, names before the model's, hosts.
_UNCOUNTED = frozenset({"anthropic", "bedrock", "groq"})

#: Service tiers that the vendors' own APIs take, and Fleet's words for them, by kind.
_TIERS = {
    "openai": ("standard", "flex", "priority", "auto", "default", "fast", "scale"),
    "anthropic": ("standard", "priority", "auto", "default", "standard_only"),
}

#: Vendors whose keys come from a cloud's own variables and files, by its SDK.
_AMBIENT = ("bedrock", "google-cloud")


def vendor_of(model: str) -> str:
    """Return the vendor in a model's name of kind "pydantic-ai", `vendor:model`; empty when it names none."""
    vendor, found, name = model.partition(":")
    return vendor if found and name else ""


def key_settings_of(table: Section) -> tuple[str, ...]:
    """Return the settings of a table that say where its key comes from."""
    return tuple(name for name in KEY_SETTINGS if getattr(table, name, None))


def check_one_source(found: tuple[str, ...], in_vault: str | None) -> None:
    """Refuse a key that comes from two places, or from none in a vault.

    Args:
        found: The settings that say where it comes from.
        in_vault: `PATH#FIELD`; None: it does not come from there.

    Raises:
        ValueError: Saying what was expected.
    """
    if len(found) > 1:
        raise ValueError(f"expected one source of the key, got {' and '.join(f'`{name}`' for name in found)}")
    if in_vault is not None and not all(in_vault.partition("#")):
        raise ValueError(f"api_key_vault: expected PATH#FIELD, got {quote(in_vault)}")


class KeySettings(Section):
    """Where a key comes from; where nothing is said, from Fleet's own encrypted file (docs/keys.md)."""

    api_key_env: str | None = Field(None, description="Environment variable that holds the key.")
    api_key_file: Path | None = Field(None, description="File that holds the key; must be readable by its owner only.")
    api_key_secret: str | None = Field(
        None,
        pattern=SECRET_NAME,
        description="Name of a secret that systemd, Docker or Kubernetes mounts.",
    )
    api_key_vault: str | None = Field(None, description="`PATH#FIELD` of the key in the KV store of [vault].")
    rotate_days: float | None = Field(
        None, gt=0, description="Days after which a key is due to be replaced: `fleet keys` and `fleet doctor` say so."
    )

    scope: ScopeSettings | None = Field(None, description="Whom this key serves (docs/keys.md). Not set: everybody.")

    @property
    def key_settings(self) -> tuple[str, ...]:
        """The settings here that say where the key comes from."""
        return key_settings_of(self)

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        check_one_source(self.key_settings, self.api_key_vault)
        return self


class ProviderSettings(KeySettings):
    """An LLM API. Limits belong to `provider/model`."""

    kind: Literal["openai", "anthropic", "simulator", "pydantic-ai"] = Field(
        description="Wire protocol of the API; pydantic-ai: any that it knows, see docs/models.md."
    )
    base_url: str | None = Field(None, description="Root of the API. Not set: the vendor's, or the local simulator.")
    keys: dict[str, KeySettings] = Field(
        default_factory=dict,
        description="Several keys, by labels of your own: a table each that says where it comes from, or a list of "
        "labels of keys in Fleet's own encrypted file. A call takes the one with which it can go soonest.",
    )
    exchange: ExchangeSettings | None = Field(
        None, description="Short-lived tokens instead of a key: a table of its own (docs/keys.md)."
    )
    timeout_s: float = Field(120.0, gt=0, description="Seconds until Fleet gives up one HTTP call.")
    scope: ScopeSettings | None = Field(None, description="Whom its keys serve (docs/keys.md). Not set: everybody.")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its keys, by which limits and people tell them apart; that of a single one is `default`."""
        if not self.keys:
            return (KEY_LABEL,)
        return (*([KEY_LABEL] if self.key_settings else ()), *self.keys)

    def labels_for(self, pool: str, model: str) -> tuple[str, ...]:
        """Return the labels of the keys whose own scopes let some call of a pool for a model go."""
        found = []
        for label in self.labels:
            scope = self.keys[label].scope if label in self.keys else None
            if scope is None or (serves(scope.pools, pool) and serves(scope.models, model)):
                found.append(label)
        return tuple(found)

    def key_at(self, label: str) -> KeySettings:
        """Return where the key of a label comes from."""
        return self.keys.get(label, self)

    def rotate_days_of(self, label: str) -> float | None:
        """Return after how many days a key is due: as its own table says, else its provider's; None: never."""
        own = self.key_at(label).rotate_days
        return self.rotate_days if own is None else own

    @property
    def known_tiers(self) -> tuple[str, ...]:
        """The service tiers that its API takes; none are known of other vendors', and behind an address of its own."""
        if self.kind == "simulator" and self.base_url is None:
            return (*dict.fromkeys(tier for tiers in _TIERS.values() for tier in tiers),)
        return _TIERS.get(self.kind, ()) if is_vendors(self.base_url) else ()

    @property
    def needs_key(self) -> bool:
        """True unless a key is of no use: the simulator takes any, a server on this host or network may take none."""
        return self.exchange is not None or (self.kind != "simulator" and not is_local(self.base_url))

    def needs_key_for(self, model: str) -> bool:
        """True unless a key is of no use to this model: also where a cloud's own variables and files hold it."""
        is_ambient = self.kind == "pydantic-ai" and vendor_of(model) in _AMBIENT
        return self.needs_key and not is_ambient

    @field_validator("keys", mode="before")
    @classmethod
    def _labels_alone_are_tables(cls, given: object) -> object:
        if not isinstance(given, (list, tuple)):
            return given
        if len({*map(str, given)}) < len(given) or not all(isinstance(one, str) for one in given):
            raise ValueError(f"expected labels, each once, got {quote(given)}")
        return {label: {} for label in given}

    @model_validator(mode="after")
    def _keys_can_be_told_apart(self) -> Self:
        for label in self.keys:
            if not re.fullmatch(LABEL, label):
                raise ValueError(f"keys: expected labels of at most 32 letters, digits, - and _, got {quote(label)}")
        if KEY_LABEL in self.keys and self.key_settings:
            raise ValueError(f"keys: expected another label than `{KEY_LABEL}`, which `{self.key_settings[0]}` has")
        if len(self.keys) > MOST_KEYS:
            raise ValueError(f"keys: expected at most {MOST_KEYS}, got {len(self.keys)}")
        return self

    @model_validator(mode="after")
    def _takes_tokens(self) -> Self:
        if self.exchange is None:
            return self
        if self.keys:
            raise ValueError("expected `exchange` or `keys`, got both: several identities are several providers")
        if self.kind not in ("openai", "anthropic"):
            raise ValueError(
                f"exchange: expected kind 'openai' or 'anthropic', got {self.kind!r}, which takes keys only"
            )
        if (self.exchange.grant == "anthropic") != (self.kind == "anthropic") and self.exchange.grant in _VENDORS:
            raise ValueError(
                f"exchange: expected a grant whose tokens kind {self.kind!r} takes, got {self.exchange.grant!r}"
            )
        if self.base_url is None and (wanted := _WANTED.get(self.exchange.grant)) is not None:
            raise ValueError(f"exchange: expected a `base_url` with grant {self.exchange.grant!r}, got none: {wanted}")
        return self


def counts_cached(provider: ProviderSettings | None, model: str) -> bool:
    """True unless the vendor's limits are known not to count input that it reads from its cache."""
    kind, host = ("", "") if provider is None else (provider.kind, host_of(provider.base_url))
    return _UNCOUNTED.isdisjoint({kind, vendor_of(model), *host.split(".")})
