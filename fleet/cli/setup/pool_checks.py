"""The checks of `fleet doctor` that look at providers and pools. Pure, as all checks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fleet.cli.setup.check import Check, fail, ok, place_of, warn
from fleet.cli.setup.findings import HostFacts
from fleet.cli.setup.user_code import UserCode, code_of
from fleet.config import TOOLS, LimitSettings, PoolSettings, ProviderSettings, Settings, is_local, is_loopback
from fleet.config.hosts import is_vendors
from fleet.economy.prices import PriceList
from fleet.money import PICOS
from fleet.quoting import duration
from fleet.usage import Usage
from fleet.vault import account_of
from fleet.vault.exchange import shadows_of


def provider_checks(name: str, settings: Settings, host: HostFacts) -> Iterator[Check]:
    """Yield the checks of one configured provider."""
    provider = settings.providers[name]
    if provider.kind != "simulator":
        models = [model for pool in settings.pools for called, model in settings.calls_of(pool) if called == name]
        for label in provider.labels:
            yield provider_key(name, label, settings, host, models)
            yield from key_age(account_of(name, label), host)
        yield from key_shadow(name, provider, host)
        yield provider_url(name, provider)


def tool_checks(name: str, settings: Settings, host: HostFacts) -> Iterator[Check]:
    """Yield the checks of one tool API: its key, and whether its address keeps it."""
    tool, label = settings.tools[name], f"tool {name}: key"
    if tool.api_key_env:
        is_set, found = tool.api_key_env in host.variables, f"variable {tool.api_key_env}"
        advice = "Export it where the workers start: tasks that need this tool would wait."
        yield ok(label, f"{found} is set") if is_set else fail(label, f"{found} is not set", advice)
    elif tool.api_key_file:
        yield _key_file(label, tool.api_key_file, host)
    elif (source := host.key_sources.get(f"{TOOLS}/{name}")) is not None:
        where, trouble = source
        yield ok(label, where) if trouble is None else fail(label, where, trouble)
    else:
        yield ok(label, "none is sent")
    yield from key_age(f"{TOOLS}/{name}", host)
    address, where = f"tool {name}: address", urlsplit(tool.base_url).hostname or "unknown"
    if urlsplit(tool.base_url).scheme == "https" or is_loopback(tool.base_url):
        yield ok(address, where)
    elif tool.has_key:
        yield fail(address, f"{where}, without TLS", "Use https://: the key is readable on the way.")
    else:
        yield warn(address, f"{where}, without TLS", "Use https:// if it has it: what bots ask for is readable.")


def key_age(account: str, host: HostFacts) -> Iterator[Check]:
    """Yield a warning for a key that is older than its `rotate_days`."""
    if (seconds := host.keys_due.get(account)) is not None:
        told = f"due to be replaced for {duration(seconds)}"
        yield warn(f"key {account}: age", told, f"Make another one at the provider, and `fleet keys rotate {account}`.")


def key_shadow(name: str, provider: ProviderSettings, host: HostFacts) -> Iterator[Check]:
    """Yield a warning for a key in the environment that others would use before the provider's exchange."""
    if provider.exchange is not None and (found := shadows_of(provider.exchange, dict.fromkeys(host.variables, "set"))):
        told = f"{' and '.join(found)} set beside [providers.{name}.exchange]"
        yield warn(
            f"provider {name}: shadow", told, "Unset it: Fleet doesn't use it, but the vendor's SDKs take it first."
        )


def better_than(provider: ProviderSettings, setting: str, account: str) -> str:
    """Return what is better than where a key comes from, to be put behind that; empty: nothing is."""
    can_exchange = provider.kind == "anthropic" or (provider.kind == "openai" and is_vendors(provider.base_url))
    exchange = ["no key at all ([providers.NAME.exchange])"] if can_exchange and not provider.keys else []
    kinds = {"api_key_env": [f"`fleet keys add {account}`", "a vault"], "api_key_vault": []}
    found = [*kinds.get(setting, ["a vault, for several hosts"]), *exchange]
    return "" if setting == "exchange" or not found else f"; better: {', or '.join(found)}"


def provider_key(name: str, key_label: str, settings: Settings, host: HostFacts, models: Sequence[str]) -> Check:
    """Check one key of a provider: whether it can be read."""
    provider, account = settings.providers[name], account_of(name, key_label)
    label, key = f"provider {account}: key", provider.key_at(key_label)
    better = better_than(provider, next(iter(key.key_settings), ""), account)
    if key.api_key_env:
        found = f"variable {key.api_key_env}"
        if key.api_key_env in host.variables:
            return ok(label, f"{found} is set{better}")
        return fail(label, f"{found} is not set", "Export it where the workers start: every call would fail.")
    if key.api_key_file:
        return _key_file(label, key.api_key_file, host, better)
    source = host.key_sources.get(account)
    if source is not None and (key.key_settings or provider.keys or source[1] is None):
        where, trouble = source
        return ok(label, f"{where}{better}") if trouble is None else fail(label, where, trouble)
    if not provider.needs_key:
        return ok(label, "none, and the API is on this host or a private network")
    if models and not any(map(provider.needs_key_for, models)):
        return ok(label, "none of ours: the cloud's own variables and files hold it")
    trouble = source[1] if source is not None else None
    return fail(label, "none", trouble or f"Run `fleet keys add {account}`, or set api_key_file in [providers.{name}].")


def _key_file(label: str, path: Path, host: HostFacts, better: str = "") -> Check:
    file = host.files[path]
    if not file.exists or not file.size_bytes:
        return fail(label, f"{path} is {'empty' if file.exists else 'missing'}", "Write the key into it.")
    if not file.private:
        return fail(label, f"{path} has mode {file.mode:03o}", f"chmod 600 {path}: others can read the key.")
    return ok(label, f"{path}, mode {file.mode:03o}{better}")


def provider_url(name: str, provider: ProviderSettings) -> Check:
    label, url = f"provider {name}: address", provider.base_url
    if url is None:
        return ok(label, "the vendor's own")
    host = urlsplit(url).hostname or "unknown"
    if urlsplit(url).scheme == "https" or is_loopback(url):
        return ok(label, host)
    if is_local(url) and not provider.key_settings:
        return warn(
            label, f"{host}, without TLS", "Use https:// where others share that network: they can read prompts."
        )
    return fail(label, f"{host}, without TLS", "Use https://: the key and every prompt are readable.")


def pool_checks(name: str, settings: Settings, loaded: Mapping[UserCode, str | None]) -> Iterator[Check]:
    """Yield the checks of one pool."""
    yield pool_provider(name, settings)
    for number, (provider, model) in enumerate(settings.calls_of(name)):
        place, (api, limit) = place_of(name, number, settings), settings.limit_at(provider, model)
        yield pool_limit(place, api, limit)
        yield pool_call_fits(place, settings.pools[name], api, limit)
        if settings.provider_named(provider).kind != "simulator":
            yield pool_price(place, settings.pools[name].tier, api, PriceList(settings))
        if limit.usd_per_day is not None:
            yield pool_day_fits(place, settings.pools[name], api, limit.usd_per_day, PriceList(settings))
    yield from pool_ladder(name, settings)
    yield pool_deadline(name, settings)
    yield from pool_wire(name, settings)
    yield from pool_code(name, settings, loaded)


def pool_provider(name: str, settings: Settings) -> Check:
    label, pool = f"pool {name}: provider", settings.pools[name]
    found = f"{pool.provider}/{pool.model}"
    if not settings.is_simulated(name):
        return ok(label, found)
    real = [key for key, provider in settings.providers.items() if provider.kind != "simulator"]
    if not real:
        return ok(label, f"{found}: the simulator answers")
    advice = f"Set provider in [pools.{name}] to one of {', '.join(real)}, or its answers are made up."
    return warn(label, f"{found}: the simulator answers", advice)


def pool_ladder(name: str, settings: Settings) -> Iterator[Check]:
    """Yield where the pool's tasks go when its own API fails, and for which reasons."""
    pool = settings.pools[name]
    for number, rung in enumerate(pool.fallback, start=1):
        api = "a text instead of an answer"
        if rung.answer is None:
            api = f"{rung.provider or pool.provider}/{rung.model or pool.model}"
        label = f"pool {place_of(name, number, settings)}: taken when"
        yield ok(label, f"{', '.join(rung.when)}: {api}")


def pool_limit(place: str, limit_name: str, limit: LimitSettings) -> Check:
    label, found = f"pool {place}: limits", f"rpm {limit.rpm or 'none'}, tpm {limit.tpm or 'none'}"
    if limit.rpm and limit.tpm:
        return ok(label, found)
    missing = " and ".join(key for key in ("rpm", "tpm") if getattr(limit, key) is None)
    advice = f'Set {missing} in [limits."{limit_name}"]: without it every call is sent at once and many get 429.'
    return warn(label, found, advice)


def largest_call_tokens(pool: PoolSettings) -> int:
    """Tokens that one call of this pool may take: its largest context window, which the answer has to fit into too."""
    return max(*pool.persona.context_windows_tokens, pool.max_output_tokens)


def pool_call_fits(place: str, pool: PoolSettings, limit_name: str, limit: LimitSettings) -> Check:
    label, tokens = f"pool {place}: one call", largest_call_tokens(pool)
    found = f"up to {tokens:,} tokens, {f'{limit.tpm:,}' if limit.tpm else 'no limit'} a minute"
    if limit.tpm is None or tokens <= limit.tpm * limit.burst:
        return ok(label, found)
    if tokens <= limit.tpm:
        return ok(label, f"{found}; more than a burst of {limit.tpm * limit.burst:,.0f}, so such calls go one by one")
    name = place.partition(".")[0]
    advice = (
        f"Lower persona.context_windows_tokens and max_output_tokens in [pools.{name}], or raise tpm in "
        f'[limits."{limit_name}"]: the provider can never accept such a call.'
    )
    return fail(label, found, advice)


def pool_day_fits(place: str, pool: PoolSettings, limit_name: str, usd_per_day: float, prices: PriceList) -> Check:
    """Check that the day's money pays for a call that fills the pool's largest window."""
    answer = pool.max_output_tokens
    largest = Usage(input_tokens=max(0, largest_call_tokens(pool) - answer), output_tokens=answer)
    label, picos = f"pool {place}: a day's money", prices(limit_name, largest, pool.tier)
    cost = (picos or 0) / PICOS
    found = f"${usd_per_day:,.4f} a day, up to ${cost:,.4f} a call"
    if cost <= usd_per_day:
        return ok(label, found)
    name = place.partition(".")[0]
    advice = (
        f'Raise usd_per_day in [limits."{limit_name}"], or lower max_output_tokens in [pools.{name}]: '
        "until its kind has shown what it really costs, such a call never starts."
    )
    return warn(label, found, advice)


def pool_code(name: str, settings: Settings, loaded: Mapping[UserCode, str | None]) -> Iterator[Check]:
    """Yield a check for each file and function of the user that the pool's workers will load."""
    for code in code_of(settings.pools[name]):
        label, trouble = f"pool {name}: {code.setting}", loaded[code]
        if trouble is None:
            yield ok(label, f"{code.path} loads")
        else:
            advice = (
                "Correct it, or the path in fleet.toml, and restart the workers: until then this pool's tasks wait."
            )
            yield fail(label, f"{code.path}: {trouble}", advice)


def pool_wire(name: str, settings: Settings) -> Iterator[Check]:
    """Yield what an agent cannot ask: on the wires that pydantic-ai alone writes nobody sees its requests."""
    calls = dict.fromkeys(provider for provider, _ in settings.calls_of(name))
    unseen = [provider for provider in calls if settings.provider_named(provider).kind == "pydantic-ai"]
    if unseen and settings.pools[name].agent:
        yield fail(
            f"pool {name}: provider of the agent",
            f"{', '.join(unseen)}: expected kind openai, anthropic or simulator for an agent's requests, "
            "got pydantic-ai",
            "Give the pool another provider, or a function that asks by bot.chat(): until then its tasks wait.",
        )


def pool_price(place: str, tier: str | None, key: str, prices: PriceList) -> Check:
    label = f"pool {place}: price"
    told = prices.told(key)
    if told is None:
        return warn(label, "none", f'Set [prices."{key}"] (rates, or same_as): what this pool spends is not counted.')
    if tier and (key, tier) in prices.unpriced():
        advice = f'Set [prices."{key}".tiers.{tier}]: what this pool spends in that tier is not counted.'
        return warn(label, f"{told}; none for the tier {tier}", advice)
    return ok(label, told)


def pool_deadline(name: str, settings: Settings) -> Check:
    label, deadline_s, expires_s = f"pool {name}: deadline", settings.pools[name].deadline_s, settings.results.expires_s
    if deadline_s < expires_s:
        return ok(label, f"{deadline_s:g} s")
    advice = f"Set deadline_s in [pools.{name}] below results.expires_s ({expires_s} s): a task must not outlive it."
    return fail(label, f"{deadline_s:g} s", advice)


def unused_tables(settings: Settings) -> Iterator[Check]:
    """Yield a warning for each limit or price whose name no pool has: it is most likely misspelt."""
    used = settings.limits_in_use
    for table, names in (("limits", settings.limits), ("prices", settings.prices)):
        for name in names:
            if name not in used and not (table == "limits" and name in settings.limits_by_key):
                advice = f"No pool uses it. Pools and their ladders use: {', '.join(sorted(used))}."
                yield warn(f'[{table}."{name}"]', "unused", advice)
