"""The Celery app. Building it reads no setting and connects to nothing.

What stands above it, for `celery -A fleet`: `fleet/door.py`.
"""

from __future__ import annotations

from celery import Celery

from fleet.engine import file_room
from fleet.engine.settings import celery_settings
from fleet.engine.telemetry import log_format


def _build() -> Celery:
    control = "fleet.engine.outcomes.revocation:Control"
    celery = Celery("fleet", include=["fleet.engine.tasks"], control=control)
    celery.add_defaults(celery_settings)
    log_format.install()
    file_room.install()
    return celery


app = _build()
