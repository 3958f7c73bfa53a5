"""What a task weighs before it is sent: pool, model, tokens, as a bot of a worker would ask it.

The bots' own code counts and cuts, so that what is expected is what will be reserved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from fleet.config import Settings
from fleet.conversation import Message
from fleet.economy.estimate import Weighed
from fleet.economy.habits import JSON_CALLS, PLAIN_CALLS
from fleet.engine.messages.pool_choice import asks_of_pools, candidates
from fleet.errors import InvalidTask
from fleet.models import Bot, BotTask
from fleet.money import PICOS
from fleet.schema import compiled
from fleet.workers.bot.json_answer import rules
from fleet.workers.bot.persona import facet_of, make_bot
from fleet.workers.bot.wishes import check_room, wishes_of
from fleet.workers.calls import PLAIN
from fleet.workers.context import (
    CONVERSATION_OVERHEAD_TOKENS,
    count_message_tokens,
    count_tokens,
    room_for_input,
)
from fleet.workers.lanes import named_prefix
from fleet.workers.load import beside_tokens

#: Bots of a pool whose personas are looked at: with the built-in ones all have come round by then.
MOST_BOTS = 420


class _Voice(NamedTuple):
    """What of a persona weighs: tokens of its system prompt, its window."""

    system_tokens: int
    window_tokens: int


@dataclass(frozen=True, slots=True)
class _Crowd:
    """The bots of a pool.

    Args:
        first: One of them.
        models: Of all of them, in turn.
        voices: How many have each.
    """

    first: Bot
    models: tuple[str, ...]
    voices: Counter[_Voice]

    @property
    def narrowest_tokens(self) -> int:
        """The smallest window."""
        return min(voice.window_tokens for voice in self.voices)


class Scales:
    """Weighs tasks. Those that name no pool are shared out over the pools that take them, by their bots.

    Args:
        settings: Pools and their personas.
        documents: Tokens of the shared documents that are stored, by id.
    """

    def __init__(self, settings: Settings, documents: Mapping[str, int] | None = None) -> None:
        self._settings = settings
        self._documents = documents or {}
        self._crowds: dict[str, _Crowd] = {}
        self._given: Counter[str] = Counter()
        self._taking: dict[tuple[str | None, str], list[str]] = {}

    def weigh(self, task: BotTask) -> Weighed:
        """Return what a task asks for.

        Raises:
            InvalidTask: When no pool takes it, or its bot could not ask it, or a document that it names is not stored.
        """
        if missing := [one for one in task.context if one not in self._documents]:
            raise InvalidTask(f"context: expected documents of `fleet context list`, got {missing[0]}")
        pool = self._pool_for(task)
        settings, crowd = self._settings.pools[pool], self._crowd_of(pool)
        wishes = wishes_of(task, settings, crowd.first.persona)
        most = task.max_output_tokens or settings.max_output_tokens
        check_room(wishes, most)
        beside = 0 if wishes is PLAIN else beside_tokens(wishes)
        if task.answer_schema is not None:
            schema = compiled(task.answer_schema)
            rules(schema, room_for_input(crowd.narrowest_tokens, most))
            beside += _schema_tokens(schema.text)
        mean, variance = _sizes(count_message_tokens(task.conversation()) + beside, most, crowd)
        self._given[pool] += 1
        usd = task.max_cost_usd or settings.max_cost_usd
        return Weighed(
            pool=pool,
            api=f"{settings.provider}/{crowd.models[self._given[pool] % len(crowd.models)]}",
            kind=task.kind,
            tier=wishes.tier,
            input_tokens=mean + sum(self._documents.get(one, 0) for one in task.context),
            most_tokens=most * wishes.n,
            variance=variance,
            beside_tokens=beside,
            calls=PLAIN_CALLS if task.answer_schema is None else JSON_CALLS,
            most_picos=None if usd is None else round(usd * PICOS),
            tenant=task.tenant,
            by_s=task.by_s,
            prefix=named_prefix(task.prefix, wishes.extra_body) if task.by_s is not None else "",
        )

    def _pool_for(self, task: BotTask) -> str:
        key = (task.pool, task.kind)
        taking = None if asks_of_pools(task) else self._taking.get(key)
        if taking is None:
            taking = candidates(task, self._settings)
            if not asks_of_pools(task):
                self._taking[key] = taking
        if len(taking) == 1:
            return taking[0]
        return min(taking, key=lambda name: self._given[name] / self._settings.pools[name].bots)

    def _crowd_of(self, pool: str) -> _Crowd:
        if pool not in self._crowds:
            settings = self._settings.pools[pool]
            bots = [make_bot(pool, index, settings.persona) for index in range(1, min(settings.bots, MOST_BOTS) + 1)]
            models = tuple(bot.persona.model or settings.model for bot in bots)
            self._crowds[pool] = _Crowd(bots[0], models, Counter(map(_voice_of, bots)))
        return self._crowds[pool]


def _voice_of(bot: Bot) -> _Voice:
    facet = facet_of(bot) if bot.persona.temperature is None else ""
    return _Voice(_system_tokens(f"{bot.persona.system_prompt} {facet}".rstrip()), bot.persona.context_window_tokens)


def _sizes(bare: int, most: int, crowd: _Crowd) -> tuple[float, float]:
    """Return the mean and the variance of a task's input over the bots that may get it, cut to their windows.

    Weakness: of a dialogue whole turns are cut out, so less may be left than the window holds.
    """
    sizes = [
        (min(bare + voice.system_tokens, _room(voice.window_tokens, most)), bots)
        for voice, bots in crowd.voices.items()
    ]
    return _mean_and_variance(sizes)


def _mean_and_variance(sizes: Iterable[tuple[int, int]]) -> tuple[float, float]:
    count = total = squares = 0
    for size, bots in sizes:
        count, total, squares = count + bots, total + size * bots, squares + size * size * bots
    mean = total / count
    return mean, max(0.0, squares / count - mean * mean)


@cache
def _room(window_tokens: int, most: int) -> int:
    return room_for_input(window_tokens, most) + CONVERSATION_OVERHEAD_TOKENS


@cache
def _system_tokens(prompt: str) -> int:
    """Return the tokens that a system prompt adds to a conversation."""
    turn = Message(role="user", content="-")
    both = (Message(role="system", content=prompt), turn)
    return count_message_tokens(both) - count_message_tokens((turn,))


@cache
def _schema_tokens(text: str) -> int:
    return count_tokens(text)
