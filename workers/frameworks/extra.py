"""The extra that brings pydantic-ai: loaded when it is asked for, and named when it is missing."""

from __future__ import annotations

import importlib
from typing import Any

from fleet.errors import ConfigurationError

#: What brings what is missing.
INSTALL = "pip install 'celery-fleet[agents]'"


def from_the_extra(module: str, *, asked: str) -> Any:
    """Return a module of this folder that needs pydantic-ai.

    Args:
        module: Its name.
        asked: What asks for it, for errors: a setting, a method.

    Raises:
        ConfigurationError: When the extra is not installed.
    """
    try:
        return importlib.import_module(f"fleet.workers.frameworks.{module}")
    except ImportError as error:
        if str(error.name).startswith("fleet"):
            raise
        raise ConfigurationError(
            f"{asked}: expected the extra `agents`, got no module {error.name}: {INSTALL}"
        ) from error
