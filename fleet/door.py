"""The door of `celery -A fleet`: the Celery app, and in the process of `celery ... flower` the dashboard over it.

Above the dashboard, so that nothing below imports upward. Not named `app`: a submodule of that name would stand where
`fleet.app` is the Celery app.
"""

from __future__ import annotations

import sys

from fleet.engine.app import app

__all__ = ["app"]


def is_flower() -> bool:
    """True in a process that was started as `celery ... flower`, or `python -m celery ... flower`."""
    return "flower" in sys.argv[1:] and "celery" in sys.argv[0].split("/")[-2:]


if is_flower():  # Celery opens this door before Flower reads its options: Fleet's defaults are laid first
    from fleet import config, dashboard
    from fleet.engine.settings import give_up
    from fleet.errors import ConfigurationError

    try:
        dashboard.install(config.current(), config.home_path())
    except ConfigurationError as error:
        give_up(error)
