"""Whose calls a provider's export is about: which providers of fleet.toml, and which of its keys are whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import click

from fleet.config import KEY_LABEL, ProviderSettings, Settings
from fleet.economy.exports.export import ProviderExport, Vendor
from fleet.economy.exports.matching import Scope
from fleet.errors import KeyMissing
from fleet.quoting import quote
from fleet.workers.providers.keys import read_key
from fleet.workers.simulator.ledger import key_label

#: Hosts of the vendors that export.
_HOSTS: Mapping[Vendor, str] = {"openai": "openai.com", "anthropic": "anthropic.com"}


def scope_of(
    export: ProviderExport, settings: Settings, in_bill: Iterable[str], named: Iterable[str], keys: Iterable[str]
) -> Scope:
    """Return what of the fleet an export is compared with.

    Args:
        export: An export.
        settings: Providers and their keys.
        in_bill: Names of the providers that have entries.
        named: Of the providers that were asked for; none: those whose export it can be.
        keys: `ID=PROVIDER[/KEY]`, as somebody has named them.

    Raises:
        click.BadParameter: A provider is not known, or a key is not named so.
    """
    known = {*settings.providers, *in_bill, *(line.provider for line in export.lines if line.provider in in_bill)}
    accounts = dict(_named(one, known) for one in keys)
    providers = frozenset(_known(name, known, "--provider") for name in named)
    if accounts:
        return Scope(providers or frozenset(one.partition("/")[0] for one in accounts.values()), accounts)
    if export.vendor == "simulator":
        return _simulated(export, settings, providers or frozenset(known))
    if not providers and export.vendor:
        kinds = [name for name in known if settings.provider_named(name).kind == export.vendor]
        own = [name for name in kinds if _is_at(settings.provider_named(name), _HOSTS[export.vendor])]
        providers = frozenset(own or kinds)
    return Scope(providers or frozenset(known))


def _named(one: str, known: set[str]) -> tuple[str, str]:
    key, found, account = one.rpartition("=")
    if not found or not key:
        raise click.BadParameter(f"expected ID=PROVIDER or ID=PROVIDER/KEY, got {quote(one)}", param_hint="--key")
    provider, _, label = account.partition("/")
    return key, f"{_known(provider, known, '--key')}/{label or KEY_LABEL}"


def _known(name: str, known: set[str], hint: str) -> str:
    if name not in known:
        raise click.BadParameter(f"expected one of {', '.join(sorted(known))}, got {quote(name)}", param_hint=hint)
    return name


def _labelled(accounts: Mapping[str, str]) -> dict[str, str]:
    return {key: f"{provider}/{KEY_LABEL}" for key, provider in accounts.items()}


def _is_at(provider: ProviderSettings, host: str) -> bool:
    found = urlsplit(provider.base_url).hostname if provider.base_url else host
    return found == host or (found or "").endswith(f".{host}")


def _simulated(export: ProviderExport, settings: Settings, among: frozenset[str]) -> Scope:
    """Tell the providers apart by their keys: a ledger shows the label of each.

    Those that share a key are compared together.
    """
    labels = {name: label for name in among if (label := _label(settings.provider_named(name))) is not None}
    told = {line.key for line in export.lines}
    simulated = {name for name in among if settings.provider_named(name).kind == "simulator"}
    providers = frozenset(name for name in among if labels.get(name) in told) | simulated
    shared = Counter(labels[name] for name in providers if name in labels)
    if not providers or max(shared.values(), default=0) > 1:
        return Scope(providers or among)
    return Scope(providers, _labelled({labels[name]: name for name in providers if name in labels}))


def _label(provider: ProviderSettings) -> str | None:
    try:
        key = read_key(provider)
    except KeyMissing:
        return None
    return key_label(key) if key else None
