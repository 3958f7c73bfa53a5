"""The Celery app. Building it reads no setting and connects to nothing.

What stands above it, for `celery -A fleet`: `fleet/door.py`.
"""

from __future__ import annotations

import os

from celery import Celery
from kombu import pools

from fleet.engine import file_room
from fleet.engine.outcomes.backend import BACKENDS
from fleet.engine.settings import celery_settings
from fleet.engine.telemetry import log_format


def _build() -> Celery:
    celery = Celery("fleet", include=["fleet.engine.tasks"], amqp="fleet.engine.transport.following:Amqp")
    celery.add_defaults(celery_settings)
    celery.loader.override_backends = BACKENDS
    log_format.install()
    file_room.install()
    return celery


app = _build()


def _forget_connections() -> None:
    """Let a forked process connect anew: two processes on one connection get each other's replies."""
    for group in (pools.producers, pools.connections):
        group.clear()
    app._after_fork()


os.register_at_fork(after_in_child=_forget_connections)
