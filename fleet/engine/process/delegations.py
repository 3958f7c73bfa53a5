"""Whether tasks of delegated pools are signed: looked at by each worker before a bot is checked out.

What workers check by lies where Redis does not reach, in fleet.toml and files: public keys, and which pools are
delegated. Redis tells which delegations are revoked; what a process has heard of that it never forgets.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from fleet.config import Settings
from fleet.config.scopes import ScopeSettings
from fleet.engine.messages.delegated import LOCAL, WARRANTED, Chains, Warranted, digests, fields_of
from fleet.engine.messages.envelope import DELEGATION, NO_CANVAS
from fleet.errors import ConfigurationError, NotDelegated, StoreUnavailable
from fleet.models import BotTask
from fleet.quoting import brief
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.vault.delegation import check_chain, read_chain
from fleet.vault.delegations import hear_revoked_delegations, root_keys, seal_secret
from fleet.vault.revocations import earliest
from fleet.vault.scopes import narrowed
from fleet.vault.warrant import Warrant
from fleet.waits import MOST_TOLD, Wait

#: Seconds between two looks at what is revoked, and at the keys to check by.
LOOK_EVERY_S = 1.0
#: Seconds until a task that waits for a key to check by looks again.
PROBE_S = 5.0

logger = logging.getLogger("fleet.worker")


class Delegations:
    """One per process, on its loop. Where no pool is delegated, nothing here is looked at.

    Args:
        settings: Which pools are delegated, and where the keys to check by are.
        now_s: Unix time in seconds, as Redis has it.
    """

    def __init__(self, settings: Settings, *, now_s: Callable[[], float] = CLOCK.now_s) -> None:
        self._settings = settings
        self._pools = frozenset(name for name, pool in settings.pools.items() if pool.delegated)
        self._now_s = now_s
        self._roots: frozenset[str] = frozenset()
        self._seal: bytes | None = None
        self._wait: Wait | None = None
        self._revoked: dict[str, float] = {}
        #: By what the tasks came that are under way: as long as a request of theirs is. Two messages of one id may be.
        self._under_way: WeakValueDictionary[str, Chains] = WeakValueDictionary()
        if self._pools:
            self._read_keys()

    def shut(self, pool: str) -> Wait | None:
        """Return why this process can take no task of a pool: it has nothing to check signatures by. Never waits."""
        return self._wait if pool in self._pools else None

    def check(self, task_id: str, task: BotTask, pool: str, request: MutableMapping[str, Any]) -> None:
        """Refuse a task of a delegated pool that nobody has signed who may; note in a request that somebody has.

        A signed task of another pool is not refused: only what follows it is not sealed, where its signature is wrong.

        Args:
            task_id: Of the message.
            task: What it holds.
            pool: That it is for.
            request: Celery's request dict.

        Raises:
            NotDelegated: See above.
        """
        request.pop(WARRANTED, None)
        if request.get(DELEGATION) is LOCAL:
            return
        if pool in self._pools:
            found = self._warranted(task_id, task, pool, request)
            chains = self._under_way.setdefault(task_id, Chains())
            if found.chain.text not in {one.text for one in chains}:
                chains.append(found.chain)
            request[WARRANTED] = replace(found, under_way=chains)
        elif self._pools and DELEGATION in request and any(request.get(name) for name in NO_CANVAS):
            with suppress(NotDelegated):
                request[WARRANTED] = self._warranted(task_id, task, pool, request, is_pools_own=False)

    def _warranted(
        self, task_id: str, task: BotTask, pool: str, request: MutableMapping[str, Any], *, is_pools_own: bool = True
    ) -> Warranted:
        warrant = Warrant.of(request.get(DELEGATION))
        chain = read_chain(warrant.chain, self._roots)
        asked, follows = digests(fields_of(task), pool, {name: request.get(name) for name in NO_CANVAS})
        warrant.check(chain, task_id, pool, asked, follows, seal=self._seal)
        check_chain(chain, pool if is_pools_own else None, task.tenant, self._now_s(), self._revoked)
        provider = self._settings.pools[pool].provider
        if is_pools_own and chain.provider != provider:
            raise NotDelegated(f"expected a delegation of a key of {provider}, the pool's provider, got another one's")
        return Warranted(chain, follows=follows == warrant.canvas)

    def scope_of(self, task: str) -> ScopeSettings | None:
        """Return the scope that a task under way came by; None: it came by no delegation."""
        found = self._under_way.get(task)
        if found is None:
            return None
        (first, *others) = found
        return first.scope if not others else narrowed(*(one.scope for one in found))

    def scopes_of(self, task: str) -> Mapping[str, ScopeSettings]:
        """Return the scope of each link that a task under way came by, by the name that its caps count under."""
        found = self._under_way.get(task)
        if found is None:
            return {}
        (first, *others) = found
        return first.counted if not others else {name: scope for one in found for name, scope in one.counted.items()}

    async def load(self, store: Store) -> None:
        """Hear what is revoked.

        Raises:
            StoreUnavailable: When Redis does not answer.
        """
        if self._pools:
            self._revoked = earliest(self._revoked, await hear_revoked_delegations(store))

    async def keep(self, store: Store) -> None:
        """Look once a second, for ever; where no pool is delegated there is nothing to look at."""
        while self._pools:
            await asyncio.sleep(LOOK_EVERY_S * random.uniform(0.7, 1.2))
            with suppress(StoreUnavailable):
                await self.load(store)
            await asyncio.to_thread(self._read_keys)

    def _read_keys(self) -> None:
        try:
            self._roots, self._seal = root_keys(self._settings), seal_secret(self._settings)
        except ConfigurationError as error:
            if self._wait is None:
                logger.warning("delegated_pools_wait pools=%s: %s", ",".join(sorted(self._pools)), error)
            about, at_s = "[vault]", self._now_s() + PROBE_S
            told = brief(str(error), MOST_TOLD)
            self._wait = Wait("configuration", at_s, about, told, probe_every_s=PROBE_S)
        else:
            self._wait = None
