"""Whose calls a provider's export is about: which providers of fleet.toml, and which of its keys are whose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from urllib.parse import urlsplit

import click

from fleet.config import KEY_LABEL, ProviderSettings, Settings
from fleet.economy.exports.export import Billed, ProviderExport, Vendor, model_name
from fleet.economy.exports.matching import Scope, model_of, provider_of
from fleet.errors import KeyMissing
from fleet.quoting import listed, quote
from fleet.vault import read_key
from fleet.workers.simulator.ledger import key_label

#: Hosts of the vendors that export.
_HOSTS: Mapping[Vendor, str] = {"openai": "openai.com", "anthropic": "anthropic.com"}
#: Kinds of which a provider may be any vendor's; "" is one that is configured no more.
_OF_ANYBODY = ("", "pydantic-ai")


def scope_of(
    export: ProviderExport, settings: Settings, limits: frozenset[str], named: Iterable[str], keys: Iterable[str]
) -> Scope:
    """Return what of the fleet an export is compared with.

    Args:
        export: An export.
        settings: Providers and their keys.
        limits: `provider/model/key` of all that have entries.
        named: Of the providers that were asked for; none: those whose export it can be.
        keys: `ID=PROVIDER[/KEY]`, as somebody has named them.

    Raises:
        click.UsageError: A provider is not known, a key is not named so, or the file can be of several providers.
    """
    known = {*settings.providers, *map(provider_of, limits)}
    providers = frozenset(_known(name, known, "--provider") for name in named)
    accounts = dict(_named(one, providers or known) for one in keys)
    if accounts:
        return Scope(providers or frozenset(one.partition("/")[0] for one in accounts.values()), accounts)
    if export.vendor == "simulator":
        among = providers or frozenset(known)
        found = _simulated(export, settings, among)
        return found or Scope(providers or _told_by_models(export.lines, among, limits))
    if providers:
        return Scope(providers)
    return Scope(_of_vendor(export, settings, known, limits) if export.vendor else _of_plain(export, known, limits))


def _of_vendor(export: ProviderExport, settings: Settings, known: set[str], limits: frozenset[str]) -> frozenset[str]:
    """Return the providers at the vendor's own address; else those of its wire, or of any, whose models it has."""
    kinds = {name: _kind(settings, name) for name in known}
    ofs = frozenset(name for name, kind in kinds.items() if kind == export.vendor)
    own = frozenset(name for name in ofs if _is_at(settings.provider_named(name), _HOSTS[export.vendor]))
    among = ofs or frozenset(name for name, kind in kinds.items() if kind in _OF_ANYBODY)
    return own or _told_by_models(export.lines, among, limits)


def _of_plain(export: ProviderExport, known: set[str], limits: frozenset[str]) -> frozenset[str]:
    """Return the providers that the lines name, and those whose models stand in lines that name none."""
    told = frozenset(line.provider for line in export.lines if line.provider)
    silent = [line for line in export.lines if not line.provider]
    return told & known | (_told_by_models(silent, frozenset(known), limits) if silent else frozenset())


def _told_by_models(lines: Iterable[Billed], among: frozenset[str], limits: frozenset[str]) -> frozenset[str]:
    """Return the providers that have calls of a model in these lines.

    What the lines are not about is not compared with them: it would seem to have cost nothing.

    Raises:
        click.UsageError: They name no model of ours, or one that several providers have.
    """
    ours = {(provider_of(limit), model_name(model_of(limit))) for limit in limits if provider_of(limit) in among}
    within = frozenset(provider for provider, _ in ours)
    told = {model_name(line.model) for line in lines if line.model}
    met = [(provider, model) for provider, model in ours if model in told]
    if not within and among:
        return among
    if not told and len(within) == 1:
        return within
    if not met or len({model for _, model in met}) < len(met):
        raise click.UsageError(
            "expected --provider NAME (repeatable): the file does not tell whose calls it counts; here are calls of "
            f"{listed(sorted(within), len(within)) or 'no provider that it can be about'}"
        )
    return frozenset(provider for provider, _ in met)


def refuse_absent(export: ProviderExport, keys: Iterable[str]) -> None:
    """Refuse a key that stands in no line of a whole file: its calls would seem to have cost nothing.

    Raises:
        click.BadParameter: One does.
    """
    told = {line.key for line in export.lines if line.key}
    for one in keys:
        key = one.rpartition("=")[0]
        if key and key not in told:
            raise click.BadParameter(
                f"expected a key of the file ({listed(sorted(told), len(told)) or 'it has none'}), got {quote(key)}",
                param_hint="--key",
            )


def _named(one: str, known: Set[str]) -> tuple[str, str]:
    key, found, account = one.rpartition("=")
    if not found or not key:
        raise click.BadParameter(f"expected ID=PROVIDER or ID=PROVIDER/KEY, got {quote(one)}", param_hint="--key")
    provider, _, label = account.partition("/")
    return key, f"{_known(provider, known, '--key')}/{label or KEY_LABEL}"


def _known(name: str, known: Set[str], hint: str) -> str:
    if name not in known:
        raise click.BadParameter(f"expected one of {', '.join(sorted(known))}, got {quote(name)}", param_hint=hint)
    return name


def _is_at(provider: ProviderSettings, host: str) -> bool:
    found = urlsplit(provider.base_url).hostname if provider.base_url else host
    return found == host or (found or "").endswith(f".{host}")


def _kind(settings: Settings, name: str) -> str:
    """Return the kind of a provider; "" of one that is configured no more."""
    return settings.provider_named(name).kind if name in settings.providers or name == "simulator" else ""


def _simulated(export: ProviderExport, settings: Settings, among: frozenset[str]) -> Scope | None:
    """Tell the providers apart by their keys: a ledger shows the label of each. None: no provider is known by it.

    Those that share a key are compared together.
    """
    labels = {
        f"{name}/{key}": label
        for name in among
        for key in settings.provider_named(name).labels
        if (label := _label(name, settings, key)) is not None
    }
    told = {line.key for line in export.lines}
    simulated = {name for name in among if _kind(settings, name) == "simulator"}
    providers = frozenset(provider_of(account) for account, label in labels.items() if label in told) | simulated
    ours = {account: label for account, label in labels.items() if provider_of(account) in providers}
    if not providers:
        return None
    if max(Counter(ours.values()).values(), default=0) > 1:
        return Scope(providers)
    return Scope(providers, {label: account for account, label in ours.items()})


def _label(name: str, settings: Settings, of_key: str) -> str | None:
    try:
        key = read_key(name, settings, label=of_key)
    except KeyMissing:
        return None
    return key_label(key) if key else None
