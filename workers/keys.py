"""Which of its provider's keys a call may go with, and in which order they are asked for. Pure.

The one place where that is decided: scopes narrow the choice here, and warmth (a key whose prefix cache knows a bot's
prompt) would order it. Which of them takes the call in the end is the limiter's: the one that lets it go soonest.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence

from fleet.grants import Caller
from fleet.workers.rungs import Route

#: Keys that one question to the limiter names at most: each costs it a look of its own (8 keys of Redis).
MOST_ASKED = 8

#: Returns those keys that a call may use: (all of its provider, its pool, for whom it is). Raises what refuses it.
Allowed = Callable[[Sequence[Route], str, Caller], Sequence[Route]]


class KeyChoice:
    """Chooses among the keys of a provider; where it has one, and nothing narrows that, this costs nothing.

    Args:
        stands: True when calls with the key of a limit wait, as far as is known here.

    Attributes:
        allowed: Narrows the choice by scopes; None: every call may use all keys.
    """

    def __init__(self, stands: Callable[[str], bool]) -> None:
        self._stands = stands
        self.allowed: Allowed | None = None

    def of(self, route: Route, pool: str, caller: Caller, without: Collection[str] = ()) -> Sequence[Route]:
        """Return the keys that a call may go with, best first; none that waits, unless all do.

        Of several that are free equally soon the limiter takes the first. So bots begin with different ones, and each
        with the same again: what a provider has cached of its prompt is cached by key.

        Args:
            route: Where the call goes.
            pool: Whose call it is.
            caller: For whom.
            without: Limits whose keys have refused this call.

        Raises:
            FleetError: As `allowed` raises it.
        """
        if not route.keys and self.allowed is None:
            return (route,)
        keys: Sequence[Route] = route.keys or (route,)
        if self.allowed is not None:
            keys = self.allowed(keys, pool, caller)
        if without:
            keys = [key for key in keys if key.limit not in without]
        if len(keys) < 2:
            return keys
        first = zlib.crc32(caller.bot.encode()) % len(keys)
        turned = (*keys[first:], *keys[:first])
        free = [key for key in turned if not self._stands(key.limit)]
        return (free or turned)[:MOST_ASKED]
