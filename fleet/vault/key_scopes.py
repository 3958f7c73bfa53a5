"""The scopes of a process' keys, as fleet.toml, Redis and delegations have them: whether a call is within.

fleet.toml decides what is never served: such a task ends, with a typed refusal. What is set while the fleet runs only
narrows that, and is taken back as easily: what it shuts out waits.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from fleet.config import KEY_LABEL, TOOLS, Settings, tool_of
from fleet.config.hosts import host_of
from fleet.config.scope_checks import host_asked
from fleet.config.scopes import ScopeAsk, ScopeSettings, serves
from fleet.errors import ConfigurationError, NotSoon, OutOfScope, StoreUnavailable
from fleet.quoting import brief
from fleet.store import vault_keys
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.vault.keyring import about_key
from fleet.vault.scopes import ScopeRefusal, allowed, narrowed, widening
from fleet.waits import MOST_TOLD, Wait

#: Seconds between two looks at scopes that are set while the fleet runs.
LOOK_EVERY_S = 1.0
#: Seconds until a task that waits for its key's scope looks again.
PROBE_S = 5.0
#: Stands for the host of calls whose SDK chooses it: no scope that names hosts serves it.
_UNKNOWN_HOST = "one that its SDK chooses"
#: Parts of a scope that shut out a whole pool, and not one task or bot of it.
_EVERYONES = ("pools", "models", "hosts")


@dataclass(frozen=True, slots=True)
class _Key:
    scope: ScopeSettings | None
    label: str = KEY_LABEL


class KeyScopes:
    """One per process, on its loop. Implements `fleet.workers.roads.Scopes`.

    Args:
        settings: Scopes in fleet.toml.
        delegated: Scopes of the tasks that came by a delegation and are under way, by task.
        now_s: Unix time in seconds, as Redis has it.
    """

    def __init__(
        self, settings: Settings, delegated: Callable[[str], ScopeSettings | None] = lambda task: None, *,
        now_s: Callable[[], float] = CLOCK.now_s,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._delegated = delegated
        self._now_s = now_s
        self._configured = configured_scopes(settings)
        self._live: dict[str, ScopeSettings] = {}
        self._raw: dict[bytes, bytes] = {}
        self._turned: set[str] = set()
        self._out: dict[str, tuple[str, ...]] = {}
        #: Providers whose keys have scopes of their own: those keys as fleet.toml has them, and as they serve now.
        self._several: dict[str, tuple[tuple[_Key, ...], tuple[_Key, ...]]] = {}
        self._tell_apart()

    def _tell_apart(self) -> None:
        names = {name.partition("/")[0] for name in {*self._configured, *self._live} if _is_one_of_several(name)}
        self._several = {
            name: (
                tuple(_Key(self._configured.get(f"{name}/{label}"), label)
                      for label in known.labels),
                tuple(_Key(self.scope_of(f"{name}/{label}"), label)
                      for label in known.labels),
            )
            for name in names if (known := self._settings.provider_named(name)).keys
        }  # fmt: skip

    def concerns(self, task: str) -> bool:
        """True when there is any scope that may have a say in a task's calls. Never waits."""
        return bool(self._configured or self._live) or self._delegated(task) is not None

    def tells_apart(self, provider: str) -> bool:
        """True when keys of a provider have scopes of their own. Never waits."""
        return provider in self._several

    def among(self, limits: Sequence[str], ask: ScopeAsk, task: str) -> Collection[str]:
        """Return those limits whose keys a call may use, by the keys' own scopes.

        Args:
            limits: `provider/model/key`, all of one provider and model.
            ask: The call; model and host are added here.
            task: For which it is made.

        Raises:
            OutOfScope, NotSoon: As `check`.
        """
        provider, model = _parts(limits[0])
        if provider not in self._several:
            return limits
        served = self._labels(provider, self._completed(provider, model, ask))
        return [limit for limit in limits if limit.rpartition("/")[2] in served]

    def _labels(self, provider: str, ask: ScopeAsk) -> set[str]:
        """Return the labels of the keys that a call may use, of a provider whose keys have scopes of their own."""
        configured, now = self._several[provider]
        found = allowed(configured, ask)
        if isinstance(found, ScopeRefusal):
            raise self._refused(found, provider, ask, f"each key of {about_key(provider)}")
        labels = {key.label for key in found}
        serving = allowed([key for key in now if key.label in labels], ask)
        if isinstance(serving, ScopeRefusal):
            advice = (
                f"`fleet keys scope {provider}/LABEL --reset` takes back what narrows the keys that serve such calls"
            )
            is_anyones = labels.issuperset(self._settings.provider_named(provider).labels_for(ask.pool, ask.model))
            has_bound = any(key.scope is not None and key.scope.tenants is not None for key in now)
            raise self._not_now(serving, provider, advice, may_be_everyones=is_anyones and not has_bound)
        return {key.label for key in serving}

    def check(self, limit: str, ask: ScopeAsk, task: str) -> None:
        """Refuse a call that no scope allows, before anything is asked or sent for it.

        Args:
            limit: `provider/model/key` of the call, or the first of several; of a tool API `tools/NAME/KEY`.
            ask: The call; model and host are added here.
            task: For which it is made.

        Raises:
            OutOfScope: It is never served: by fleet.toml, or by the delegation that its task came with.
            NotSoon: It is not served for now: by what is set in Redis.
        """
        name, (_, model) = provider_of(limit), _parts(limit)
        delegated, configured = self._delegated(task), self._configured.get(name)
        tool = tool_of(limit)
        ask = self._completed(name, model, ask)
        of_delegation = ScopeAsk(ask.pool, ask.bot, ask.tenant, tools=(tool,)) if tool else ask
        for scope, asked, whose in (
            (delegated, of_delegation, "the delegation that it was signed by"), (configured, ask, about_key(name)),
        ):  # fmt: skip
            if isinstance(found := allowed([_Key(scope)], asked), ScopeRefusal):
                raise self._refused(found, name, ask, f"the scope of {whose}")
        if isinstance(found := allowed([_Key(self._live.get(name))], ask), ScopeRefusal):
            raise self._not_now(found, name, f"`fleet keys scope {name} --reset` takes that back")
        if name in self._several:
            self._labels(name, ask)

    def _completed(self, name: str, model: str, ask: ScopeAsk) -> ScopeAsk:
        """Return a call as scopes see it, with what the settings say of its API."""
        if tool := tool_of(name):
            return ScopeAsk(ask.pool, ask.bot, ask.tenant, host=host_of(self._settings.tools[tool].base_url))
        host = host_asked(self._settings.provider_named(name)) or _UNKNOWN_HOST
        return ScopeAsk(ask.pool, ask.bot, ask.tenant, model, host, ask.tools)

    def _refused(self, found: ScopeRefusal, name: str, ask: ScopeAsk, whose: str) -> OutOfScope | NotSoon:
        """Return what becomes of a call that is never served."""
        if self._is_fallback(name, ask.pool):
            return self._not_now(found, name, "it waits for its pool's own key", may_be_everyones=False)
        return OutOfScope(f"{found.told}: outside {whose}")

    def _is_fallback(self, provider: str, pool: str) -> bool:
        """True for a key that a pool's tasks only come to when their own is not to be had: that is not their end."""
        own = self._settings.pools.get(pool)
        return not tool_of(provider) and own is not None and own.provider != provider

    def _not_now(self, found: ScopeRefusal, provider: str, advice: str, *, may_be_everyones: bool = True) -> NotSoon:
        is_everyones = found.what in _EVERYONES and may_be_everyones
        about, opens_at = about_key(provider), self._now_s() + PROBE_S
        wait = Wait(
            "key", opens_at, about, brief(found.told, MOST_TOLD), is_everyones=is_everyones, probe_every_s=PROBE_S,
            advice=advice,
        )  # fmt: skip
        return NotSoon(wait)

    def bots_out(self, pool: str) -> tuple[str, ...]:
        """Return the bots of a pool that the key of its provider does not serve: others had better be checked out."""
        if not self._configured and not self._live:
            return ()
        if pool not in self._out:
            from fleet.models import bot_name

            names = (bot_name(pool, number + 1) for number in range(self._settings.pools[pool].bots))
            scopes = self._serving(pool)
            self._out[pool] = tuple(name for name in names if not any(serves(one.bots, name) for one in scopes))
        return self._out[pool]

    def _serving(self, pool: str) -> list[ScopeSettings]:
        """Return the scopes of the keys that may serve a pool's own calls."""
        provider = self._settings.pools[pool].provider
        of_all = self.scope_of(provider)
        own = [key.scope for key in self._several[provider][1]] if provider in self._several else [None]
        return [narrowed(of_all, one) for one in own if one is None or serves(one.pools, pool)] or [of_all]

    def scope_of(self, provider: str) -> ScopeSettings:
        """Return what a key serves now, by its name; of several keys without what holds for all of them."""
        return narrowed(self._configured.get(provider), self._live.get(provider))

    async def load(self, store: Store) -> None:
        """Hear what is set while the fleet runs.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        parts = await store.command("HGETALL", vault_keys.scopes())
        raw = dict(zip(parts[::2], parts[1::2], strict=True))
        if raw != self._raw:
            before, self._raw, self._live = self._live, raw, _read(raw)
            self._out.clear()
            self._tell_apart()
            self._turned |= {name for name in {*before, *self._live} if before.get(name) != self._live.get(name)}

    async def keep(self, store: Store, on_turn: Callable[[str], Awaitable[None]]) -> None:
        """Hear it once a second, for ever, by one command; let what waits for a scope that changed ask again."""
        self._turned.clear()
        while True:
            with suppress(StoreUnavailable):
                await self.load(store)
                while self._turned:
                    await on_turn(next(iter(self._turned)))
                    self._turned.pop()
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.7, 1.2))


def configured_scopes(settings: Settings) -> dict[str, ScopeSettings]:
    """Return the scopes in fleet.toml, by the names of keys: `provider`, `provider/label`, `tools/NAME`."""
    found = {name: one.scope for name, one in settings.providers.items()}
    for name, one in settings.providers.items():
        found |= {f"{name}/{label}": key.scope for label, key in one.keys.items()}
    found |= {f"{TOOLS}/{name}": tool.scope for name, tool in settings.tools.items()}
    return {name: scope for name, scope in found.items() if scope is not None}


def provider_of(limit: str) -> str:
    """Return whose key a limit is of: a provider, or `tools/NAME`."""
    tool = tool_of(limit)
    return f"{TOOLS}/{tool}" if tool else limit.partition("/")[0]


def _parts(limit: str) -> tuple[str, str]:
    """Return provider and model."""
    provider, _, rest = limit.partition("/")
    return provider, rest.rpartition("/")[0]


def _is_one_of_several(name: str) -> bool:
    return "/" in name and not tool_of(name)


def table_of(name: str) -> str:
    """Return the table of fleet.toml that has the scope of a key."""
    provider, _, label = name.partition("/")
    if tool_of(name):
        return f"[tools.{label}.scope]"
    return f"[providers.{provider}.keys.{label}.scope]" if label else f"[providers.{provider}.scope]"


def read_scopes(client: redis.Redis) -> dict[str, ScopeSettings]:
    """Return the scopes that are set in Redis, by the names of keys."""
    return _read(client.hgetall(vault_keys.scopes()))  # type: ignore[arg-type]


def set_scope(client: redis.Redis, provider: str, scope: ScopeSettings, configured: ScopeSettings | None) -> None:
    """Narrow what a key serves, on all workers within two seconds.

    Args:
        client: Plain client of the state Redis.
        provider: Whose key; `provider/label`: one of several; `tools/NAME`: a tool's.
        scope: What it serves.
        configured: Its scope in fleet.toml; None: it has none.

    Raises:
        ConfigurationError: It would serve more than fleet.toml says.
    """
    wider = (
        [] if configured is None else [what for what in widening(scope, configured) if getattr(scope, what) is not None]
    )
    if configured is not None and wider:
        raise ConfigurationError(
            f"{', '.join(wider)}: expected no more than fleet.toml allows ({configured.told()}), got {scope.told()}; "
            f"change {table_of(provider)} to widen it"
        )
    client.hset(vault_keys.scopes(), provider, scope.model_dump_json(exclude_none=True))


def reset_scope(client: redis.Redis, provider: str) -> bool:
    """Let what fleet.toml says hold again; False: nothing else did."""
    return bool(client.hdel(vault_keys.scopes(), provider))


def _read(raw: Mapping[bytes, bytes]) -> dict[str, ScopeSettings]:
    """What cannot be read as a scope was written to narrow one: it serves nobody."""
    found = {}
    for name, text in raw.items():
        try:
            told: Any = json.loads(text)
            found[name.decode()] = ScopeSettings.model_validate(told)
        except (ValueError, RecursionError):
            found[name.decode("utf-8", "replace")] = ScopeSettings(pools=())
    return found
