"""Renews the leases of everything that a process holds, on a loop and thread of their own.

The data plane's loop may stand: then what runs on it must not pass to another worker, which would pay for it again.
Weakness: a C function that holds the GIL for longer than a lease stops this thread too, and so does SIGSTOP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from fleet.config import Settings
from fleet.engine.transport import leases, suspicion
from fleet.errors import FleetError
from fleet.quoting import quote
from fleet.roster import Checkout, Roster
from fleet.store.client import Store
from fleet.store.private.branches import broker_stores
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.running.brokers import AnyStore, each, named

logger = logging.getLogger("fleet.worker")


class Renewer:
    """The renewals of one process.

    Args:
        broker: Where messages and their leases are.
        roster: Renews the bots' leases.
        held: The checkouts of the tasks that run, by token; read only.
    """

    def __init__(self, broker: AnyStore, roster: Roster, held: Mapping[str, Checkout]) -> None:
        self._broker = broker
        self._roster = roster
        self._held = held

    async def run(self) -> None:
        """Keep all leases alive, of messages and of bots, for ever."""
        while True:
            await asyncio.sleep(leases.RENEW_EVERY_S)
            try:
                await asyncio.gather(self._renew_messages(), self._renew_bots())
            except Exception as error:  # noqa: BLE001 - without renewals the worker loses everything it holds
                logger.warning("lease renewal failed error=%s: %s", type(error).__name__, quote(error))

    async def _renew_messages(self) -> None:
        renewals = []
        for holdings in leases.all_holdings():
            tags = list(holdings.held)
            holdings.renewed_at_s = time.monotonic()
            if tags:
                renewals.append(self._renew_at(named(self._broker, holdings.broker), holdings, tags))
        await asyncio.gather(*renewals)

    async def _renew_at(self, store: Store, holdings: leases.Holdings, tags: list[str]) -> None:
        """Renew what is held at one broker; one that is away keeps no other's leases from being renewed."""
        try:
            lost = await store.run(leases.RENEW, *leases.renew_call(tags))
            holdings.lose(tag.decode() for tag in lost)
            if lost:  # they may pass for a dead worker's by now, but this one lives
                await store.run(suspicion.ABSOLVE, *suspicion.absolve_call(leases.process_id()))
        except FleetError as error:
            logger.warning("lease renewal failed broker=%s error=%s", holdings.broker, type(error).__name__)

    async def _renew_bots(self) -> None:
        for lost in await self._roster.renew(tuple(self._held.values())):
            if lost.token in self._held:  # else it finished while the renewal was under way
                logger.warning("lease lost bot=%s task=%s", lost.bot, lost.task_id)


async def renew(settings: Settings, held: Mapping[str, Checkout]) -> None:
    """Renew for ever, over connections of its own: those of the data plane belong to its loop."""
    state = Store(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
    same = broker_url(settings) == state_url(settings)
    main = state if same else Store(broker_url(settings), timeout_s=settings.redis.socket_timeout_s)
    broker = broker_stores(settings, main)
    try:
        await Renewer(broker, Roster(state, settings), held).run()
    finally:
        await state.close()
        for store in each(broker):
            await store.close()
