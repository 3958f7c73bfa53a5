"""The door of `celery -A fleet`: the Celery app, and in the process of `celery ... flower` the dashboard over it.

Above the dashboard, so that nothing below imports upward. Not named `app`: a submodule of that name would stand where
`fleet.app` is the Celery app.
"""

from __future__ import annotations

from fleet.engine.app import app
from fleet.engine.celery_options import celery_command

__all__ = ["app"]


# Celery opens this door before Flower reads its options: Fleet's defaults are laid first.
if celery_command() == "flower":
    from fleet import config, dashboard
    from fleet.engine import core_dumps
    from fleet.engine.celery_options import give_up
    from fleet.errors import ConfigurationError

    core_dumps.begin_closed()
    try:
        core_dumps.settle(config.current().safety.core_dumps)
        dashboard.install(config.current(), config.home_path())
    except ConfigurationError as error:
        give_up(error)
