"""What `fleet doctor` says of what models have taught, where a pool's settings do not fit it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import redis

from fleet.cli.setup.check import Check, warn
from fleet.config import Settings
from fleet.engine.answers.lessons import read_lessons
from fleet.errors import FleetError
from fleet.lessons import UNSENT, WINDOW, Lesson
from fleet.store.client import connect
from fleet.store.private.embedded import state_url


def known_lessons(settings: Settings) -> tuple[Lesson, ...]:
    """Return what models have taught the fleet; nothing when Redis does not answer."""
    try:
        with connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s) as client:
            return tuple(read_lessons(client))
    except (FleetError, redis.RedisError, OSError):
        return ()


def lesson_checks(settings: Settings, lessons: Iterable[Lesson]) -> Iterator[Check]:
    """Yield what to know of pools whose personas ask for what their model refuses, or for more than it takes."""
    known = {(lesson.api, lesson.what): lesson for lesson in lessons}
    for name, pool in settings.pools.items():
        api, persona = settings.limit_of(name)[0], pool.persona
        is_refused, is_unsent = (api, "temperature") in known, (api, f"{UNSENT}temperature") in known
        if (is_refused or is_unsent) and len(set(persona.temperatures)) > 1:
            yield warn(
                f"pools.{name}: temperatures",
                f"{api} {'refuses' if is_refused else 'is not sent'} `temperature`: its bots differ by archetype alone",
                f"Set persona.temperatures to one value; `fleet limits forget {api} temperature` if it takes it again.",
            )
        window, widest = known.get((api, WINDOW)), max(persona.context_windows_tokens)
        if window is not None and window.value < widest:
            yield warn(
                f"pools.{name}: context windows",
                f"{api} takes {window.value:,.0f} tokens, its bots have up to {widest:,}",
                "Lower persona.context_windows_tokens, or give the model's server a larger context.",
            )
