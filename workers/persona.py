"""Bots and their personas, drawn by a bot's place in its pool: the same settings always give the same bots.

Bots are data: this module makes them, the roster knows their load and health.
"""

from __future__ import annotations

from fleet.config import PersonaSettings, Settings
from fleet.errors import ConfigurationError, quote
from fleet.models import Bot, Persona

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
        temperature=settings.temperatures[turn % len(settings.temperatures)],
        context_window_tokens=settings.context_windows_tokens[turn % len(settings.context_windows_tokens)],
    )
    return Bot(name=bot_name(pool, index), pool=pool, persona=persona)


def bot_name(pool: str, index: int) -> str:
    """Return the name of the bot at place `index` (from 1) of a pool."""
    return f"{pool}-{index:03d}"


def bot_of(name: str, settings: Settings) -> Bot:
    """Return the bot of that name. Not cached: making one takes some 5 us.

    Raises:
        ConfigurationError: When no pool in the settings has such a bot.
    """
    pool, _, digits = name.rpartition("-")
    index = int(digits) if digits.isascii() and digits.isdigit() else 0
    if pool in settings.pools and 1 <= index <= settings.pools[pool].bots and bot_name(pool, index) == name:
        return make_bot(pool, index, settings.pools[pool].persona)
    pools = ", ".join(f"{bot_name(p, 1)} to {bot_name(p, s.bots)}" for p, s in settings.pools.items())
    raise ConfigurationError(f"expected a bot of the configured pools ({pools}), got {quote(name)}")
