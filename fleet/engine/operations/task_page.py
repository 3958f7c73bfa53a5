"""One task, opened on the page: its story, what can be done about it, and its texts, if they may be shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import redis
from pydantic import Field

from fleet.config import Settings
from fleet.engine.operations.story import Story, tell
from fleet.engine.operations.task_facts import Facts, gather
from fleet.engine.operations.waits import read_limit
from fleet.engine.outcomes.dead_letters import parts_of
from fleet.frozen import Frozen
from fleet.quoting import brief
from fleet.store import keys
from fleet.store.running.brokers import Anywhere

#: Bytes of a prompt or an answer that are shown.
MOST_TEXT = 20_000
#: What can be done about a task: keep it from starting; stop it while it runs; queue a dead one again; throw it away.
Deed = Literal["cancel", "stop", "replay", "purge"]
_DEEDS: Mapping[str, tuple[Deed, ...]] = {
    "queued": ("cancel",), "parked": ("cancel",), "held": ("cancel", "stop"), "running": ("stop",),
}  # fmt: skip


class Texts(Frozen):
    """What was asked and answered, as far as Redis still has it."""

    prompt: str | None = Field(None, description="None: its message has gone.")
    answer: str | None = Field(None, description="None: it has none yet, or its result has expired.")


class TaskPage(Frozen):
    """One task, opened."""

    story: Story
    deeds: tuple[Deed, ...] = ()
    texts: Texts | None = Field(None, description="None: they are not shown to who asks.")
    hidden: str = Field("", description="Why they are not.")


def read_task(
    task_id: str, state: redis.Redis, broker: Anywhere, settings: Settings, *, is_thorough: bool, with_texts: bool
) -> TaskPage:
    """Return one task. About ten round trips at most, however much waits, unless `is_thorough`.

    Args:
        task_id: The task.
        state: Plain client of the state Redis.
        broker: Plain client of the broker.
        settings: Pools and the inbox.
        is_thorough: Look through the queues as `fleet why` does, not only at their heads.
        with_texts: Show its prompt and answer.
    """
    facts = gather(
        task_id, state=state, broker=broker, settings=settings, is_quick=not is_thorough,
        limit_of=lambda pool: read_limit(state, settings, pool),
    )  # fmt: skip
    story = tell(facts)
    deeds = ("replay", "purge") if story.is_dead_letter and facts.message is None else _DEEDS.get(story.state, ())
    return TaskPage(story=story, deeds=deeds, texts=_texts(facts, state) if with_texts else None)


def _texts(facts: Facts, state: redis.Redis) -> Texts:
    body = parts_of(facts.message)[1] if facts.message else b""
    if not body and facts.filed is not None:
        body = state.hget(keys.dead_letter_bodies(), facts.task_id) or b""  # type: ignore[assignment]
    answer = facts.result.answer if facts.result else None
    return Texts(prompt=_prompt_in(body), answer=None if answer is None else brief(answer, MOST_TEXT))


def _prompt_in(body: bytes) -> str | None:
    """Return what a message's body asks: its prompt, or its conversation as JSON; None when it cannot be read."""
    try:
        args, fields = json.loads(body)[:2]
    except (ValueError, TypeError, RecursionError):
        return None
    first: Any = args[0] if isinstance(args, list) and args else None
    asked = {**(first if isinstance(first, dict) else {}), **(fields if isinstance(fields, dict) else {})}
    prompt = first if isinstance(first, str) else asked.get("prompt")
    if isinstance(prompt, str):
        return brief(prompt, MOST_TEXT)
    messages = asked.get("messages")
    return None if messages is None else brief(json.dumps(messages, ensure_ascii=False), MOST_TEXT)
