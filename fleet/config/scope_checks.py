"""What is wrong with scopes in fleet.toml: those by which some pool could never work, as all of its tasks would end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fleet.config.hosts import host_of
from fleet.config.providers import ProviderSettings
from fleet.config.scopes import serves
from fleet.config.sections import PoolSettings
from fleet.quoting import quote

#: Hosts of vendors that are asked where no `base_url` says so.
_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com", "simulator": "127.0.0.1"}


def check_scopes(
    providers: Mapping[str, ProviderSettings],
    pools: Mapping[str, PoolSettings],
    calls_of: Callable[[str], Iterable[tuple[str, str]]],
    check_price: Callable[[str, str], None],
) -> None:
    """Refuse scopes by which some pool could never work.

    Args:
        providers: By name.
        pools: By name.
        calls_of: Returns provider and model of all that a pool may call, its own first.
        check_price: Refuses a `provider/model` without a price; told what gives it a budget.

    Raises:
        ValueError: Naming the pool, and the part of the scope.
    """
    for pool, settings in pools.items():
        for number, (name, model) in enumerate(calls_of(pool)):
            scope = None if name not in providers else providers[name].scope
            if scope is None:
                continue
            where = f"providers.{name}.scope"
            for what, names, wanted in (("pools", scope.pools, pool), ("models", scope.models, model)):
                if not serves(names, wanted):
                    uses = f"pool {pool} {'falls back on' if number else 'uses'}"
                    raise ValueError(f"{where}.{what}: expected {quote(wanted)} among them, which {uses}")
            bots = (f"{pool}-{n:03d}" for n in range(1, settings.bots + 1))
            if scope.bots is not None and not any(serves(scope.bots, bot) for bot in bots):
                raise ValueError(f"{where}.bots: expected at least one of pool {pool}, got none")
            if scope.usd_per_day is not None:
                check_price(f"{name}/{model}", f"{where}.usd_per_day")
    for name, provider in providers.items():
        _check_hosts(name, provider)


def host_asked(provider: ProviderSettings) -> str:
    """Return the host that a provider's calls go to; empty where that is its SDK's affair."""
    return host_of(provider.base_url) or _HOSTS.get(provider.kind, "")


def _check_hosts(name: str, provider: ProviderSettings) -> None:
    if provider.scope is None or provider.scope.hosts is None:
        return
    host, where = host_asked(provider), f"providers.{name}.scope.hosts"
    if not host:
        raise ValueError(f"{where}: expected a `base_url` beside it, for its SDK says else where calls go")
    if not serves(provider.scope.hosts, host):
        raise ValueError(f"{where}: expected {quote(host)} among them, which its calls go to")
