"""Every vendor that the two native adapters do not speak to, through the models of `pydantic-ai-slim`.

An extra: `celery-fleet[models]`. Nothing here is imported before a provider of kind "pydantic-ai" is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.errors import ConfigurationError

if TYPE_CHECKING:
    from fleet.workers.ports import Lessons
    from fleet.workers.providers.models.adapter import Models

#: What brings what is missing.
INSTALL = "pip install 'celery-fleet[models]'"


def make_models(base_url: str | None, *, timeout_s: float, name: str = "", lessons: Lessons | None = None) -> Models:
    """Return the adapter for all of pydantic-ai's models. Opens no connection yet.

    Args:
        base_url: Root of the API; None: the vendor's own.
        timeout_s: Seconds that the longest call may take.
        name: The provider's name under [providers].
        lessons: What models refuse; None: what this adapter finds out itself.

    Raises:
        ConfigurationError: When the extra is not installed.
    """
    try:
        from fleet.workers.providers.models.adapter import Models
    except ImportError as error:
        if str(error.name).startswith("fleet"):
            raise
        raise ConfigurationError(
            f'kind "pydantic-ai": expected the extra `models`, got no module {error.name}: {INSTALL}'
        ) from error
    return Models(base_url, timeout_s=timeout_s, name=name, lessons=lessons)
