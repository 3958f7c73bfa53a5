"""What is wrong with scopes in fleet.toml: those by which some pool could never work, as all of its tasks would end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from fleet.config.hosts import host_of
from fleet.config.providers import ProviderSettings
from fleet.config.scopes import EVERYTHING, ScopeSettings, serves
from fleet.config.sections import PoolSettings
from fleet.quoting import nearest, quote

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
        bots = [f"{pool}-{n:03d}" for n in range(1, settings.bots + 1)]
        for number, (name, model) in enumerate(calls_of(pool)):
            if name not in providers:
                continue
            wants = {"pools": [pool], "models": [model], "bots": bots}
            uses = f"pool {pool} {'falls back on' if number else 'uses'}"
            for where, scopes in _lots(name, providers[name]):
                _check_served(where, scopes, wants, uses)
                for scope in scopes:
                    if scope.usd_per_day is not None:
                        check_price(f"{name}/{model}", f"{where}.usd_per_day")
    for name, provider in providers.items():
        _check_hosts(name, provider)


def _lots(name: str, provider: ProviderSettings) -> Iterator[tuple[str, list[ScopeSettings]]]:
    """Yield the scopes of which one has to serve a pool: its provider's own, and those of the several keys."""
    if provider.scope is not None:
        yield f"providers.{name}.scope", [provider.scope]
    if provider.keys:
        own = [provider.keys[label].scope if label in provider.keys else None for label in provider.labels]
        which = next(iter(provider.keys)) if len(own) == 1 else "*"
        yield f"providers.{name}.keys.{which}.scope", [one or EVERYTHING for one in own]


def _check_served(where: str, scopes: list[ScopeSettings], wants: Mapping[str, Sequence[str]], uses: str) -> None:
    """Refuse scopes none of which serves a pool, its model and at least one of its bots."""
    for what, names in wants.items():
        serving = [one for one in scopes if any(serves(getattr(one, what), name) for name in names)]
        if not serving and what == "bots":
            raise ValueError(f"{where}.bots: expected at least one of pool {uses.split()[1]}, got none")
        if not serving:
            raise ValueError(f"{where}.{what}: expected {quote(names[0])} among them, which {uses}")
        scopes = serving


def unknown_name(scope: ScopeSettings, known: Mapping[str, Collection[str]]) -> str | None:
    """Return what is wrong with the first name in a scope that stands for nothing that there is; None: each does.

    Args:
        scope: To look at.
        known: The names that there are, by the part of the scope; parts that are left out may have any.
    """
    for what, names in known.items():
        for pattern in getattr(scope, what) or ():
            if not any(serves((pattern,), name) for name in names):
                noun = what.removesuffix("s")
                return f"expected a {noun} that there is, got {quote(pattern)}; {nearest(pattern.rstrip('*'), names)}"
    return None


def host_asked(provider: ProviderSettings) -> str:
    """Return the host that a provider's calls go to; empty where that is its SDK's affair."""
    return host_of(provider.base_url) or _HOSTS.get(provider.kind, "")


def _check_hosts(name: str, provider: ProviderSettings) -> None:
    own = {f"providers.{name}.keys.{label}.scope.hosts": key.scope for label, key in provider.keys.items()}
    for where, scope in {f"providers.{name}.scope.hosts": provider.scope, **own}.items():
        if scope is None or scope.hosts is None:
            continue
        host = host_asked(provider)
        if not host:
            raise ValueError(f"{where}: expected a `base_url` beside it, for its SDK says else where calls go")
        if not serves(scope.hosts, host):
            raise ValueError(f"{where}: expected {quote(host)} among them, which its calls go to")
