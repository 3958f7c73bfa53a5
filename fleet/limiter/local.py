"""A limit as one process knows it: what is configured, who waits here, and what was heard of it last."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fleet.config import LimitSettings
from fleet.limiter.clock import RedisClock
from fleet.limiter.limits import Terms
from fleet.limiter.sleepers import Sleepers
from fleet.store import keys

if TYPE_CHECKING:
    from fleet.limiter.call import WaitingCall

#: Tenants whose keys are kept; names are quickly made again.
MOST_TENANTS = 10_000


@dataclass(slots=True, eq=False)
class LocalLimit:
    """A limit in this process. All times are the loop's (s).

    Args:
        name: `provider/model/key`.
        configured_as: The same, or `provider/model` where that is what is configured.
        settings: What is configured.
        terms: The same as numbers.
        packed: The same for the scripts.
        slack_s: How much later than promised a call may be sent.
        sleepers: Its waiting calls.
    """

    name: str
    configured_as: str
    settings: LimitSettings
    terms: Terms
    packed: bytes
    slack_s: float
    sleepers: Sleepers[WaitingCall]
    clock: RedisClock = field(default_factory=RedisClock)
    #: Until when it is held, as far as this process knows.
    held_until: float = 0.0
    #: When this process itself held it: replies to older questions do not know of it.
    penalised_at: float = -math.inf
    #: Seconds that a call would have waited, as last heard.
    backlog_s: float = 0.0
    #: What an operator had set when a reply last said so (None: none did), and when that was.
    was_set: bytes | None = None
    heard_at: float = 0.0
    #: When the next reading of headers is handed on.
    observe_at: float = 0.0
    #: Calls that have a slot which is far ahead.
    promised: set[WaitingCall] = field(default_factory=set)
    #: Looks for changes while nobody asks.
    watch: asyncio.Task[None] | None = None
    _keys: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, configured_as: str, settings: LimitSettings, ask: Callable[[WaitingCall], None]
    ) -> LocalLimit:
        """Return a limit of which nothing was heard yet; `ask` puts the question of one call to Redis."""
        terms = Terms.of(settings)
        slack_s = settings.burst * 60 if terms.has_rates else math.inf
        return cls(name, configured_as, settings, terms, terms.pack(), slack_s, Sleepers(ask))

    def keys_for(self, tenant: str) -> list[str]:
        """Return its keys in the order of `acquire.lua`."""
        names = self._keys.get(tenant)
        if names is None:
            if len(self._keys) > MOST_TENANTS:
                self._keys.clear()
            names = self._keys[tenant] = keys.limit_parts(self.name, tenant)
        return names

    def hold(self, until: float) -> None:
        """Nobody goes before that time."""
        self.held_until = max(until, self.held_until)
