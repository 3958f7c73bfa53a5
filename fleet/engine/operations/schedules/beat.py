"""The scheduler of `celery -A fleet beat`: Celery's own, and beside it the schedules of fleet.toml.

Entries of Celery's `beat_schedule` work as always, but are not remembered over a restart; who has them and wants that
starts beat with `-S celery.beat:PersistentScheduler`, and a second beat for the schedules.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

import redis
from celery.beat import Scheduler

from fleet import config
from fleet.engine.celery_options import give_up
from fleet.engine.operations.schedules.firing import Clockwork, tasks_of
from fleet.errors import ConfigurationError, InvalidTask, StoreUnavailable
from fleet.store.client import connect
from fleet.store.private.embedded import state_url

#: Seconds until the next look while Redis does not answer.
AWAY_S = 2.0

_LOG = logging.getLogger(__name__)


class Beat(Scheduler):
    """Celery's scheduler, which submits what the schedules of fleet.toml say, too. Never ends for what Redis does."""

    _clockwork: Clockwork | None = None
    _is_away = False

    def setup_schedule(self) -> None:
        """Read the schedules; a task that is none is told now, not when it is due."""
        self.install_default_entries(self.schedule)
        self.merge_inplace(self.app.conf.beat_schedule)
        settings = config.current()
        try:
            for name, schedule in settings.schedules.items():
                if schedule.tasks is None:
                    list(tasks_of(name, schedule))
        except (InvalidTask, ConfigurationError) as error:
            give_up(ConfigurationError(str(error)))

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Submit what is due, and return in how many seconds to look again."""
        return min(float(super().tick(*args, **kwargs)), self._look())

    def _look(self) -> float:
        try:
            if self._clockwork is None:
                settings = config.current()
                client = connect(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
                self._clockwork = Clockwork(client, settings, beat=f"{socket.gethostname()}:{os.getpid()}")
            wait_s = self._clockwork.look(time.time())
        except (redis.RedisError, StoreUnavailable, OSError) as error:
            if not self._is_away:
                _LOG.warning(
                    "redis_away error=%s: what is due is submitted when it answers again", type(error).__name__
                )
            self._is_away = True
            return AWAY_S
        self._is_away = False
        return wait_s
