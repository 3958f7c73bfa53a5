"""What makes two tasks equal: everything that can change an answer, as one digest. Pure.

What is left out is listed, and what is not listed counts: a new field makes fewer tasks equal, never too many.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fleet.config import Settings
from fleet.models import Bot, BotTask

#: Fields of a task that say where, when and for how much it is asked, and not what; its words come as a conversation.
_NOT_ASKED = frozenset({
    "prompt", "messages", "pool", "priority", "deadline_s", "expires_at", "by_s", "max_cost_usd", "idempotency_key",
    "run", "metadata", "reuse", "right", "right_by",
})  # fmt: skip
#: Settings of a pool that change no answer: its ladder's answers are never kept.
_NOT_OF_ANSWERS = frozenset({
    "bots", "kinds", "deadline_s", "expires_s", "max_attempts", "max_cost_usd", "canaries", "fallback", "delegated",
    "allow", "persona",
})  # fmt: skip


def digest_of_pool(settings: Settings, name: str) -> str:
    """Return a digest of what a pool says of its calls, and of where they go."""
    pool, provider = settings.pools[name], settings.provider_of(name)
    told = pool.model_dump(mode="json", exclude=set(_NOT_OF_ANSWERS))
    return _digest([name, told, pool.persona.models, provider.kind, provider.base_url])


def reads_metadata(settings: Settings, pool: str) -> bool:
    """True where a user's own code sees a task's metadata, and may answer, or judge, by it."""
    return bool(settings.pools[pool].own_bot or settings.pools[pool].validator)


def digest_of(task: BotTask, *, of_pool: str, bot: Bot | None = None, with_metadata: bool = False) -> str:
    """Return the digest of a task: the same for all to which the same answer may be given.

    Args:
        task: With its tenant and kind.
        of_pool: `digest_of_pool`.
        bot: Whose persona counts; None: none does.
        with_metadata: Its metadata counts.
    """
    asked = task.model_dump(mode="json", exclude=set(_NOT_ASKED), exclude_defaults=True)
    words = [message.model_dump(mode="json") for message in task.conversation()]
    persona = None if bot is None else [bot.persona.model_dump(mode="json"), bot.remedy and bot.remedy.mark]
    return _digest([of_pool, asked, words, persona, task.metadata if with_metadata else None])


def _digest(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
