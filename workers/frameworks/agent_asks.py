"""What a task, its pool and its bot's persona ask of a pydantic-ai agent: prompt, history, instructions, settings.

Two layers of settings: what pool and persona say stands below what the agent says, what the task itself says above it.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple, cast

from pydantic_ai.messages import ModelMessage
from pydantic_ai.settings import ModelSettings

from fleet.asking import Asks
from fleet.config import PoolSettings
from fleet.conversation import Message
from fleet.models import BotTask, Persona
from fleet.workers.bot.wishes import wishes_of
from fleet.workers.calls import Call, Wishes
from fleet.workers.providers.models.asked import messages_of, settings_of

#: What `settings_of` says for a call of Fleet's own; here the road says how long it takes, and how often it is sent.
_OF_ONE_CALL = frozenset({"timeout", "max_tokens", "framing_announcement", "max_retries"})
#: Wishes of a task that an agent has its own for.
_THE_AGENTS = ("tools", "tool_choice", "n")
_ASKS_NOTHING = Asks()


class AgentBrief(NamedTuple):
    """What an agent is told.

    Args:
        prompt: The task's; None: it ends the history.
        history: The conversation before it.
        instructions: What the conversation's own system messages say.
    """

    prompt: str | None
    history: list[ModelMessage]
    instructions: list[str]


def told_of(task: BotTask, model: str) -> AgentBrief:
    """Return a task as an agent takes it.

    Args:
        task: Of the producer.
        model: Name of the model, `vendor:model` or as its provider spells it: signed thoughts go to their vendor only.

    Raises:
        BadRequest: When a part of the conversation cannot be sent.
    """
    if task.messages is None:
        return AgentBrief(task.prompt, [], [])
    system = [turn.text for turn in task.messages if turn.role in ("system", "developer")]
    turns = tuple(turn for turn in task.messages if turn.role not in ("system", "developer"))
    return AgentBrief(None, messages_of(_call(model, Wishes(), turns)), system)


def laid_under(pool: PoolSettings, persona: Persona, model: str) -> ModelSettings:
    """Return the settings of pool and persona: a model's own, which an agent's settings override.

    Args:
        pool: Of the bot.
        persona: Of the bot.
        model: As `told_of`.
    """
    wishes = wishes_of(_ASKS_NOTHING, pool, persona)
    found = settings_of(_call(model, wishes, temperature=persona.temperature), without=_OF_ONE_CALL)
    return cast(ModelSettings, {**found, "max_tokens": pool.max_output_tokens, "framing_announcement": "never"})


def laid_over(task: BotTask, pool: PoolSettings, persona: Persona, model: str) -> ModelSettings:
    """Return the settings that the task itself asks for: they override an agent's own.

    Args:
        task: Of the producer.
        pool: Of the bot.
        persona: Of the bot.
        model: As `told_of`.
    """
    whole = wishes_of(task, pool, persona)
    names = {field.name for field in fields(Wishes)} & whole.asked - {*_THE_AGENTS, "extra_body", "extra_headers"}
    own: dict[str, Any] = {name: getattr(whole, name) for name in names}
    own |= {"extra_body": task.extra_body or {}, "extra_headers": task.extra_headers or {}}
    found = settings_of(_call(model, Wishes(**own)), without=_OF_ONE_CALL)
    length = {} if task.max_output_tokens is None else {"max_tokens": task.max_output_tokens}
    return cast(ModelSettings, {**found, **length})


def left_to_the_agent(task: BotTask) -> dict[str, None]:
    """Return what a task asks for and an agent is not told, as it has its own: tools, and which of them to call."""
    return {name: None for name in _THE_AGENTS if getattr(task, name) not in ((), None, 1)}


def _call(model: str, wishes: Wishes, turns: tuple[Message, ...] = (), temperature: float | None = None) -> Call:
    return Call(model, turns, temperature, 1, 1.0, wishes)
