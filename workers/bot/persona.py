"""Bots and their personas, drawn by a bot's place in its pool: the same settings always give the same bots.

Bots are data: this module makes them, the roster knows their load and health.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from typing import TypeVar
from zlib import crc32

from fleet.config import PersonaSettings, Settings
from fleet.errors import ConfigurationError
from fleet.models import Bot, Persona, Remedy, bot_name
from fleet.quoting import quote
from fleet.workers.calls import Wishes

#: Built-in system prompts by archetype. They differ in how to reason, never in what to answer.
SYSTEM_PROMPTS = {
    "analytical": (
        "You reason step by step. Break the problem into parts, settle each part with explicit facts or figures "
        "before the next, and check the result against the question. State the answer plainly at the end."
    ),
    "creative": (
        "You look for the angle that others miss. Picture the problem in a different setting or form, let an "
        "unexpected connection lead you, then test it against the facts. Put the answer in your own fresh words."
    ),
    "conservative": (
        "You rely on what is well established. Take the most proven method, name the assumptions it rests on, and "
        "prefer a modest claim that holds to a bold one that may not. Say so where you are not certain."
    ),
    "exploratory": (
        "You compare before you choose. Sketch two or three different ways to the answer, follow the most promising "
        "one, and use another to cross-check it. Mention what would change your mind, then commit to one answer."
    ),
}

#: One of these is added to a persona that is drawn anew: bots of one archetype share a prompt until then. Like the
#: archetypes they say how to go about it, never what to answer.
FACETS = (
    "Begin with the fact that constrains the answer most.",
    "Begin with the answer, then give your reasons in order of weight.",
    "Work from a concrete case to the general one.",
    "Work backwards from what a good answer must achieve.",
    "Name the tempting wrong answer first, and say why it is wrong.",
    "Explain it as to somebody from a different field.",
    "Prefer short plain sentences and everyday words.",
    "Weigh the strongest objection before you conclude.",
)
#: What the third rung adds to a bot's temperature, and the highest that it raises one to: models ramble above it.
RAISE, HIGHEST_RAISED = 0.3, 1.2

#: Steps of effort and verbosity, of which the third rung takes the next. Beyond them an answer costs a multiple.
EFFORTS, VERBOSITIES = ("none", "minimal", "low", "medium", "high"), ("low", "medium", "high")

T = TypeVar("T")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def make_bot(pool: str, index: int, settings: PersonaSettings) -> Bot:
    """Return the bot at place `index` of a pool.

    Archetype, temperature and window each go round in turn. With the built-in 4, 7 and 3 of them, which share no
    divisor, 84 bots in a row differ from each other.

    Args:
        pool: Name of the pool.
        index: Place in the pool, from 1.
        settings: The pool's persona settings.
    """
    turn = index - 1
    archetype = settings.archetypes[turn % len(settings.archetypes)]
    persona = Persona(
        archetype=archetype,
        system_prompt=settings.system_prompts.get(archetype, SYSTEM_PROMPTS[archetype]),
        temperature=_in_turn(settings.temperatures, turn),
        effort=_in_turn(settings.efforts, turn),
        verbosity=_in_turn(settings.verbosities, turn),
        # Shifted after each round of the archetypes, so that no archetype belongs to one model.
        model=_in_turn(settings.models, turn + turn // len(settings.archetypes)),
        context_window_tokens=settings.context_windows_tokens[turn % len(settings.context_windows_tokens)],
    )
    return Bot(name=bot_name(pool, index), pool=pool, persona=persona)


def _in_turn(values: Sequence[T], turn: int) -> T | None:
    return values[turn % len(values)] if values else None


def treated(bot: Bot, settings: PersonaSettings, remedy: Remedy) -> Bot:
    """Return the bot as it is under a remedy. The same remedy always gives the same bot.

    Rung 1 reshuffles: the sentences of a built-in system prompt here, the documents of a task in `context.reshuffle`.
    Rung 2 also draws another archetype, window and facet. Rung 3 also raises the temperature; where the model has none,
    effort or verbosity are raised when it is asked (`heated`).

    Weakness: own system prompts (`persona.system_prompts`) are never reordered, because they may depend on their
    order; so rung 1 changes nothing for a task of one message.

    Args:
        bot: The bot as `make_bot` made it.
        settings: The persona settings of its pool.
        remedy: What to do, and what decides the draw.
    """
    persona, draw = bot.persona, random.Random(f"{bot.name}:{remedy.generation}")
    archetype, window, temperature = persona.archetype, persona.context_window_tokens, persona.temperature
    if remedy.rung >= 2:
        archetype = draw.choice([other for other in settings.archetypes if other != archetype] or [archetype])
        window = draw.choice(settings.context_windows_tokens)
    own = {str(name): text for name, text in settings.system_prompts.items()}
    prompt = own.get(archetype) or _shuffled(SYSTEM_PROMPTS[archetype], draw)
    if remedy.rung >= 2:
        prompt = f"{prompt} {draw.choice(FACETS)}"
    if remedy.rung >= 3 and temperature is not None:
        temperature = max(temperature, min(temperature + RAISE, HIGHEST_RAISED))
    drawn = {
        "archetype": archetype,
        "system_prompt": prompt,
        "temperature": temperature,
        "context_window_tokens": window,
    }
    return bot.model_copy(update={"persona": persona.model_copy(update=drawn), "remedy": remedy})


def facet_of(bot: Bot) -> str:
    """Return by what a bot differs where its model has no temperature: a facet; empty when one was drawn for it."""
    if bot.remedy is not None and bot.remedy.rung >= 2:
        return ""
    return FACETS[crc32(bot.name.encode()) % len(FACETS)]


def heated(wishes: Wishes, fixed: Collection[str]) -> dict[str, str]:
    """Return what stands for a raised temperature: the next effort, else the next verbosity; empty when neither goes.

    Args:
        wishes: What is asked so far; a model that is told nothing takes the middle.
        fixed: Names that must stay as they are: the task asks for them, or the model refuses them.
    """
    for name, steps, now in (("effort", EFFORTS, wishes.effort), ("verbosity", VERBOSITIES, wishes.verbosity)):
        at = steps.index(now or "medium") if (now or "medium") in steps else len(steps)
        if name not in fixed and at + 1 < len(steps):
            return {name: steps[at + 1]}
    return {}


def _shuffled(prompt: str, draw: random.Random) -> str:
    """Return the sentences of a prompt in another order than they are in."""
    sentences = _SENTENCE_END.split(prompt)
    order = sentences[:]
    while order == sentences and len(sentences) > 1:
        draw.shuffle(order)
    return " ".join(order)


def bot_of(name: str, settings: Settings) -> Bot:
    """Return the bot of that name, without a remedy.

    Raises:
        ConfigurationError: When no pool in the settings has such a bot.
    """
    pool, index = _place_of(name)
    if pool in settings.pools and 1 <= index <= settings.pools[pool].bots and bot_name(pool, index) == name:
        return make_bot(pool, index, settings.pools[pool].persona)
    pools = ", ".join(f"{bot_name(p, 1)} to {bot_name(p, s.bots)}" for p, s in settings.pools.items())
    raise ConfigurationError(f"expected a bot of the configured pools ({pools}), got {quote(name)}")


def worker_bot_of(name: str, settings: Settings, remedy: Remedy | None = None) -> Bot:
    """Return a bot that was checked out, under its remedy. Not cached: making one takes about 5 us.

    It may be one of another worker's, whose settings have more bots: its task is not to pay for that.
    """
    pool, index = _place_of(name)
    persona = settings.pools[pool].persona
    bot = make_bot(pool, index, persona)
    return treated(bot, persona, remedy) if remedy else bot


def tried_bot_of(bot: Bot, settings: Settings, *, persona: str = "", prompt: str = "", model: str = "") -> Bot | None:
    """Return a bot under what a rollout tries; None when these settings do not know that persona or model.

    Args:
        bot: As it is else.
        settings: Of its pool.
        persona: Archetype, or what the persona of `prompt` is called; empty: its own.
        prompt: System prompt of that persona; empty: that of the archetype.
        model: Of the pool's provider; empty: its own.
    """
    pool = settings.pools[bot.pool]
    own = {str(name): text for name, text in pool.persona.system_prompts.items()}
    text = prompt or own.get(persona) or SYSTEM_PROMPTS.get(persona, "")
    if (persona and not text) or (model and model not in pool.models):
        return None
    drawn = {"archetype": persona, "system_prompt": text} if persona else {}
    return bot.model_copy(
        update={"persona": bot.persona.model_copy(update=drawn | ({"model": model} if model else {})), "remedy": None}
    )


def _place_of(name: str) -> tuple[str, int]:
    pool, _, digits = name.rpartition("-")
    return pool, int(digits) if digits.isascii() and digits.isdigit() else 0
