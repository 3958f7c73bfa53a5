"""The user's own bot of a pool: a function, or an agent. Only who has an agent pays for its framework."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection

from fleet.config import PoolSettings
from fleet.workers.bot.function import load_bot
from fleet.workers.bot.user_function import UserFunction
from fleet.workers.frameworks.extra import from_the_extra

#: What the models of an API's kind come with; the first request would load it, which takes a second on a user's loop.
_SLOW = {"anthropic": "pydantic_ai.models.anthropic"}
_USUAL = "pydantic_ai.models.openai"


def load_own(pool: PoolSettings, kinds: Collection[str] = ()) -> UserFunction:
    """Import what a pool names as its bot, and what that will need.

    Args:
        pool: Settings with a `function` or an `agent`.
        kinds: Of the providers that its calls go to.

    Raises:
        ConfigurationError: When it cannot be imported or is none; or an extra is missing.
    """
    loaded = load_bot(pool.function) if pool.function else load_agent(pool.agent or "", pool.deps)
    if "pydantic_ai" in sys.modules:
        _warm(kinds)
    return loaded


def load_agent(path: str, deps: str | None) -> UserFunction:
    """Import an agent, and what gives it its `deps`.

    Args:
        path: `package.module:agent`.
        deps: `package.module:function`; None: the agent needs none.

    Raises:
        ConfigurationError: As `fleet.workers.frameworks.agents.load_agent`; or the extra is missing.
    """
    loaded: UserFunction = from_the_extra("agents", asked=f"agent {path}").load_agent(path, deps)
    return loaded


def _warm(kinds: Collection[str]) -> None:
    """Load what models come with now, while nobody waits; what is not installed is told when it is asked for."""
    for module in {_SLOW.get(kind, _USUAL) for kind in kinds}:
        try:
            importlib.import_module(module)
        except ImportError:
            continue
