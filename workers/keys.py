"""Which of its provider's keys a call may go with, and in which order they are asked for. Pure.

The one place where that is decided: scopes narrow the choice here, and so does warmth (keys whose prefix cache has the
beginning of the prompt). Which of them takes the call in the end is the limiter's: the one that lets it go soonest.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from fleet.config.scopes import ScopeAsk
from fleet.errors import FleetError
from fleet.grants import Caller
from fleet.workers.rungs import Route

#: Keys that one question to the limiter names at most: each costs it a look of its own (8 keys of Redis).
MOST_ASKED = 8


#: Characters of a prompt by which its key is chosen, about 1,024 tokens: providers cache no shorter one. Prompts that
#: part before that share less than a cache's least piece.
HEAD_CHARS = 4096


def head_of(texts: Iterable[str]) -> int | None:
    """Return a number that stands for how a prompt begins; None for one that no provider caches.

    Args:
        texts: All that it holds, in its order.
    """
    left, found = HEAD_CHARS, 0
    for text in texts:
        found = zlib.crc32(text[:left].encode("utf-8", "replace"), found)
        left -= len(text)
        if left <= 0:
            return found
    return None


class Seeker(Protocol):
    """Who asks for a key, and for what."""

    @property
    def pool(self) -> str:
        """Whose call it is."""
        ...

    @property
    def caller(self) -> Caller:
        """For whom."""
        ...

    @property
    def task(self) -> str:
        """The task."""
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """Tools that it offers to the model."""
        ...

    @property
    def head(self) -> int | None:
        """Stands for the beginning of its prompt; None: no provider caches one as short."""
        ...


class ScopedKeys(Protocol):
    """Whom each of several keys serves."""

    def tells_apart(self, provider: str) -> bool:
        """True when keys of a provider have scopes of their own. Never waits."""
        ...

    def among(self, limits: Sequence[str], ask: ScopeAsk, task: str, *, full_too: bool = False) -> Collection[str]:
        """Return those limits whose keys a call may use, all of one provider and model. Never waits.

        Args:
            limits: `provider/model/key` of each key.
            ask: The call.
            task: For which it is made.
            full_too: Also those whose daily caps are known to be used up.

        Raises:
            OutOfScope: None ever serves it.
            NotSoon: None does for now.
        """
        ...


class KeyChoice:
    """Chooses among the keys of a provider; where it has one, this costs nothing: its scope is looked at where the call
    asks for its turn (`roads.py`).

    Args:
        stands: True when calls with the key of a limit wait, as far as is known here.

    Attributes:
        scopes: Narrow the choice; None: every call may use all keys.
    """

    def __init__(self, stands: Callable[[str], bool]) -> None:
        self._stands = stands
        self.scopes: ScopedKeys | None = None

    def of(self, route: Route, asking: Seeker, without: Collection[str] = ()) -> Sequence[Route]:
        """Return the keys that a call may go with, best first; none that waits, unless all do.

        Of several that are free equally soon the limiter takes the first. What a provider has cached of a prompt is
        cached by key, so prompts that begin alike begin with the same key, whichever bot asks; bots with short prompts
        begin with different ones. Nobody asks Redis for that: a key that is full leaves calls to the next one.

        Args:
            route: Where the call goes.
            asking: Who asks.
            without: Limits whose keys have refused this call.

        Raises:
            OutOfScope, NotSoon: As `ScopedKeys.among`.
        """
        if not route.keys:
            return (route,)
        keys: Sequence[Route] = route.keys
        if self.scopes is not None and self.scopes.tells_apart(route.provider_name):
            served = self.scopes.among(route.limits, _asked(asking), asking.task)
            keys = [key for key in keys if key.limit in served]
        if asking.caller.warm:
            warm = [key for key in keys if key.limit in asking.caller.warm and key.limit not in without]
            keys = [key for key in warm if not self._stands(key.limit)] or keys
        if without:
            keys = [key for key in keys if key.limit not in without]
        if len(keys) < 2:
            return keys
        home = zlib.crc32(asking.caller.bot.encode()) if asking.head is None else asking.head
        first = home % len(keys)
        turned = (*keys[first:], *keys[:first])
        free = [key for key in turned if not self._stands(key.limit)]
        return (free or turned)[:MOST_ASKED]

    def is_narrowed(self, route: Route, asking: Seeker) -> bool:
        """True when scopes leave a call fewer keys than others of its pool may have: what it waits for is its own."""
        if not route.keys or self.scopes is None or not self.scopes.tells_apart(route.provider_name):
            return False
        try:
            served = self.scopes.among(route.limits, _asked(asking), asking.task, full_too=True)
        except FleetError:  # it has changed since
            return True
        return len(served) < len(route.keys)


def _asked(asking: Seeker) -> ScopeAsk:
    return ScopeAsk(asking.pool, asking.caller.bot, asking.caller.tenant, tools=asking.offers)
