"""Counts requests of tool APIs that failed, by bot, where the failed calls of models are counted: the error matrix."""

from __future__ import annotations

from collections.abc import Container

from fleet.signals.catalogue import NOBODY, ErrorField, error_name, tool_errors_of
from fleet.store import keys
from fleet.store.client import Script, Store

_COUNT = Script.beside(__file__, "count_error.lua", keys="errors totals", argv="field counter life_s")


class ToolErrorCounter:
    """Those of one worker process. A process that cannot reach Redis loses its counts: they stop nothing.

    Args:
        store: State Redis.
        pools: Names of the pools: no other becomes a key.
    """

    def __init__(self, store: Store, pools: Container[str]) -> None:
        self._store = store
        self._pools = pools

    def failed(self, pool: str, bot: str, tool: str, error: str) -> None:
        """Count one, some time soon. Never waits, never raises.

        Args:
            pool: Of the bot.
            bot: Its name.
            tool: As `tools/NAME`.
            error: Type of the error.
        """
        kind, place = error_name(error), pool if pool in self._pools else NOBODY
        call = _COUNT.call(
            errors=keys.errors(place),
            totals=keys.pool_totals(place),
            field=ErrorField(bot, tool, kind, "call").spell(),
            counter=tool_errors_of(tool, kind).name,
            life_s=keys.STATE_TTL_S,
        )
        self._store.send(_COUNT, *call)
