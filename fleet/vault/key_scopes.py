"""The scopes of a process' keys, as fleet.toml, Redis and delegations have them: whether a call is within.

fleet.toml decides what is never served: such a task ends, with a typed refusal. What is set while the fleet runs only
narrows that, and is taken back as easily: what it shuts out waits.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from fleet.config import TOOLS, Settings
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

    def concerns(self, task: str) -> bool:
        """True when there is any scope that may have a say in a task's calls. Never waits."""
        return bool(self._configured or self._live) or self._delegated(task) is not None

    def check(self, limit: str, ask: ScopeAsk, task: str) -> None:
        """Refuse a call that no scope allows, before anything is asked or sent for it.

        Args:
            limit: `provider/model/key` of the call; of a tool API `tools/NAME/KEY`.
            ask: The call; model and host are added here.
            task: For which it is made.

        Raises:
            OutOfScope: It is never served: by fleet.toml, or by the delegation that its task came with.
            NotSoon: It is not served for now: by what is set in Redis.
        """
        provider, _, rest = limit.partition("/")
        model = rest.rpartition("/")[0]
        if provider == TOOLS:
            ask = ScopeAsk(ask.pool, ask.bot, ask.tenant, tools=(model,))
        else:
            host = host_asked(self._settings.provider_named(provider)) or _UNKNOWN_HOST
            ask = ScopeAsk(ask.pool, ask.bot, ask.tenant, model, host, ask.tools)
        delegated, configured = self._delegated(task), self._configured.get(provider)
        for scope, whose in ((delegated, "the delegation that it was signed by"), (configured, about_key(provider))):
            if isinstance(found := allowed([_Key(scope)], ask), ScopeRefusal):
                if self._is_fallback(provider, ask.pool):
                    told = f"{found.told}; so it waits for its pool's own key"
                    raise self._not_now(found, provider, told, is_fallback=True)
                raise OutOfScope(f"{found.told}: outside the scope of {whose}")
        if isinstance(found := allowed([_Key(self._live.get(provider))], ask), ScopeRefusal):
            told = f"{found.told}; `fleet keys scope {provider} --reset` takes that back"
            raise self._not_now(found, provider, told)

    def _is_fallback(self, provider: str, pool: str) -> bool:
        """True for a key that a pool's tasks only come to when their own is not to be had: that is not their end."""
        own = self._settings.pools.get(pool)
        return provider != TOOLS and own is not None and own.provider != provider

    def _not_now(self, found: ScopeRefusal, provider: str, told: str, *, is_fallback: bool = False) -> NotSoon:
        is_everyones = found.what in _EVERYONES and not is_fallback
        about, opens_at = about_key(provider), self._now_s() + PROBE_S
        wait = Wait("key", opens_at, about, brief(told, MOST_TOLD), is_everyones=is_everyones, probe_every_s=PROBE_S)
        return NotSoon(wait)

    def bots_out(self, pool: str) -> tuple[str, ...]:
        """Return the bots of a pool that the key of its provider does not serve: others had better be checked out."""
        if not self._configured and not self._live:
            return ()
        scope = self.scope_of(self._settings.pools[pool].provider)
        if scope.bots is None:
            return ()
        if pool not in self._out:
            from fleet.models import bot_name

            names = (bot_name(pool, number + 1) for number in range(self._settings.pools[pool].bots))
            self._out[pool] = tuple(name for name in names if not serves(scope.bots, name))
        return self._out[pool]

    def scope_of(self, provider: str) -> ScopeSettings:
        """Return what a provider's key serves now."""
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
    """Return the scopes in fleet.toml, by provider."""
    return {name: one.scope for name, one in settings.providers.items() if one.scope is not None}


def read_scopes(client: redis.Redis) -> dict[str, ScopeSettings]:
    """Return the scopes that are set in Redis, by provider."""
    return _read(client.hgetall(vault_keys.scopes()))  # type: ignore[arg-type]


def set_scope(client: redis.Redis, provider: str, scope: ScopeSettings, configured: ScopeSettings | None) -> None:
    """Narrow what a key serves, on all workers within two seconds.

    Args:
        client: Plain client of the state Redis.
        provider: Whose key.
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
            f"change [providers.{provider}.scope] to widen it"
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
