"""The Celery app. Building it reads no setting and connects to nothing.

What stands above it, for `celery -A fleet`: `fleet/door.py`.
"""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import Any

from celery import Celery
from celery.app import backends
from celery.app.amqp import AMQP
from kombu import Connection, pools

from fleet.engine import file_room
from fleet.engine.celery_options import celery_command, give_up, take_options
from fleet.engine.messages.envelope import TASK_NAME
from fleet.engine.outcomes.backend import BACKENDS, BotResults
from fleet.engine.settings import celery_settings
from fleet.engine.telemetry import log_format
from fleet.engine.transport import channel, unix_socket
from fleet.errors import ConfigurationError, InvalidTask
from fleet.quoting import quote
from fleet.store.address import masked

#: What nobody may change: a second Redis, or a transport that loses tasks, is what would come of it.
_FIXED = ("broker_url", "broker_transport", "result_backend")


class FleetCelery(Celery):
    """Celery, on the Redis of Fleet's settings and by Fleet's transport only; anything else is refused before it runs.

    Celery itself lets variables and settings of any module override an app's broker, each for a part of its processes.
    """

    _told: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """Return Fleet's settings as Celery's, once it asks for them."""
        self._told = celery_settings()
        return self._told

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any) -> Any:
        """Send a task by name; Fleet's own is checked as `submit_task.apply_async` checks it.

        Raises:
            InvalidTask: When it isn't a task, or an option contradicts it; nothing is queued then.
        """
        if name != TASK_NAME or more or "task_type" in options:
            return super().send_task(name, args, kwargs, *more, **options)
        if name not in self.tasks:
            self.loader.import_default_modules()
        try:
            return self.tasks[name].apply_async(args, kwargs, **options)
        except InvalidTask as error:
            if celery_command() == "call":
                give_up(error)
            raise

    def _connection(self, url: Any, **options: Any) -> Any:
        """Return a connection; the default one leads to Fleet's Redis, however a variable spells its URL."""
        if url not in (self.conf.broker_read_url, self.conf.broker_write_url, self.conf.broker_url):
            return super()._connection(url, **options)
        self._check()
        url, transport = self.conf["broker_url"], options.pop("transport", None)
        if unix_socket.leads_to_one(url):
            url, transport = unix_socket.as_kombu_takes_it(url), unix_socket.Transport
        connection = super()._connection(url, transport=transport, **options)
        if not issubclass(connection.get_transport_cls(), channel.Transport):
            self._refuse(f"broker_transport: expected Fleet's, got {quote(connection.get_transport_cls())}")
        return connection

    def _get_backend(self) -> Any:
        self._check()
        backend, url = backends.by_url(self.conf["result_backend"], self.loader)
        return backend(app=self, url=url)

    def _check(self) -> None:
        """Refuse settings that some module has put in the place of Fleet's.

        Raises:
            ConfigurationError: Naming the setting.
        """
        for name in _FIXED:
            if self.conf[name] != self._told[name]:
                self._refuse(
                    f"{name}: expected {quote(masked(str(self._told[name])))}, which Fleet's own settings make, got "
                    f"{quote(masked(str(self.conf[name])))} from Celery's; remove it there, and set redis.url or "
                    "redis.state_url in fleet.toml"
                )

    def _refuse(self, reason: str) -> None:
        error = ConfigurationError(reason)
        if celery_command() is not None:
            give_up(error)
        raise error


def _build() -> FleetCelery:
    take_options()
    amqp, control = "fleet.engine.transport.following:Amqp", "fleet.engine.outcomes.revocation:Control"
    celery = FleetCelery("fleet", include=["fleet.engine.tasks"], amqp=amqp, control=control)
    celery.add_defaults(celery.settings)
    celery.loader.override_backends = BACKENDS
    log_format.install()
    file_room.install()
    return celery


app = _build()


def _forget_connections() -> None:
    """Let a forked process connect anew: two processes on one connection get each other's replies."""
    for group in (pools.producers, pools.connections):
        group.clear()
    for kind in (type(app), AMQP, BotResults, BotResults.ResultConsumer, Connection, channel.Channel):
        _free_locks(kind)
    app._after_fork()


def _free_locks(kind: type) -> None:
    """Give what a class computes once new locks: a thread that is not in this process may have held the old ones."""
    for base in kind.__mro__:
        for value in vars(base).values():
            if isinstance(value, cached_property) and hasattr(value, "lock"):  # up to Python 3.11, and kombu's own
                value.lock = threading.RLock()


os.register_at_fork(after_in_child=_forget_connections)
