"""What a task that names documents needs before a bot is checked out for it: that they are stored, and that one fits.

Tasks that name none never come here. What the documents say reaches the bot by `Shelf`, as the gateway's `contexts`.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.config import PoolSettings, Settings
from fleet.economy.contexts.shelf import Shelf
from fleet.errors import DocumentsTooLarge
from fleet.models import BotTask
from fleet.roster import WantedBot
from fleet.store.patience import patiently

#: Tokens beside its documents that a task's bot has room for at least, if the task has as many: the rest may be cut.
BESIDE_TOKENS = 512


class SharedContexts:
    """The documents of tasks, as far as the data plane is concerned. One per process, on its loop.

    Args:
        settings: Pools, their windows and the longest answers.
        shelf: Has the documents.
        room_of: Returns the tokens for a conversation: (pool, window, longest answer).
        tokens_of: Estimates the tokens of a task's own conversation.
    """

    def __init__(
        self,
        settings: Settings,
        shelf: Shelf,
        *,
        room_of: Callable[[str, int, int], int],
        tokens_of: Callable[[BotTask], int],
    ) -> None:
        self._pools = settings.pools
        self._shelf = shelf
        self._room_of = room_of
        self._tokens_of = tokens_of

    async def enter(self, task: BotTask, pool: str) -> WantedBot:
        """Return what the bot of a task must be like.

        Raises:
            NotStored: A document is not there: the task waits.
            InvalidTask: One is another tenant's.
            DocumentsTooLarge: No bot of the pool has a window for them.
        """
        shared = await patiently(lambda: self._shelf.opened(task.context, task.tenant))
        settings = self._pools[pool]
        needed = shared.tokens + min(BESIDE_TOKENS, self._tokens_of(task))
        answer = task.max_output_tokens or settings.max_output_tokens
        rooms = {w: self._room_of(pool, w, answer) for w in sorted(set(settings.persona.context_windows_tokens))}
        fitting = [window for window, room in rooms.items() if room >= needed]
        if not fitting:
            raise _too_large(pool, settings, shared.tokens, needed, max(rooms.values()))
        return WantedBot(fitting[0])


def _too_large(pool: str, settings: PoolSettings, tokens: int, needed: int, room: int) -> DocumentsTooLarge:
    largest = max(settings.persona.context_windows_tokens)
    return DocumentsTooLarge(
        f"context: expected documents that fit a bot of pool {pool} whole, got {tokens:,} tokens of them ({needed:,} "
        f"with the prompt) for {max(0, room):,} of the largest window, {largest:,}, less the answer; they are never "
        f"cut: name fewer, or raise pools.{pool}.persona.context_windows_tokens as far as its model allows"
    )
