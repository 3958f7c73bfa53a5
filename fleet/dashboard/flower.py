"""Fleet's defaults for Flower and its badge, laid over Flower's own options and templates; nothing is forked.

Only defaults are set, before Flower reads FLOWER_* variables, its configuration file and its command line: all
of these still win. The password travels as basic authentication (RFC 7617): put TLS in front beyond loopback.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import flower.command
from flower import urls
from flower.app import Flower
from flower.views.monitor import Metrics
from tornado.options import options
from tornado.template import DictLoader

from fleet import config
from fleet.config import Settings
from fleet.dashboard.password import PASSWORD_FILE, password
from fleet.store.client import masked

#: Tasks that Flower keeps in memory: 100,000 cost 453 MB, so this is about 45 MB.
MAX_TASKS = 10_000
#: Flower's own switch for an API without authentication; who sets it has chosen.
OPEN_API_VARIABLE = "FLOWER_UNAUTHENTICATED_API"


class Dashboard(Flower):
    """Flower, knowing its final options: it gives way to another kind of login, and says how to get in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        home, user = config.home_path(), config.current().flower.user
        ours = [f"{user}:{password(home)}"]
        if options.auth and options.basic_auth == ours:
            options.basic_auth = []  # both together would ask for two logins
        super().__init__(*args, **kwargs)
        self._login = _login(f"user {user}, password in {home / PASSWORD_FILE}", is_ours=options.basic_auth == ours)

    def start_http_server(self) -> int | None:
        """Listen, and say in one line where and how to log in; never the password."""
        port: int | None = super().start_http_server()
        print(f"Flower: {_address(port)}, {self._login}", file=sys.stderr, flush=True)
        return port

    @cached_property
    def broker_uri(self) -> str:
        """The broker's URL without its password, for pages. kombu would show our transport's class in it."""
        return masked(self.broker_uri_with_password)

    @cached_property
    def broker_uri_with_password(self) -> str:
        """The broker's URL, by whose scheme Flower knows that it is Redis and can count what waits."""
        return str(self.capp.conf.broker_url)


class GuardedMetrics(Metrics):
    """Flower's /metrics behind the password: Flower itself serves worker and task names to anyone."""

    def prepare(self) -> None:
        if self.application.options.basic_auth:
            _ = self.current_user  # answers 401 by itself


def install(settings: Settings, home: Path) -> None:
    """Set Fleet's defaults for the Flower that is about to start in this process.

    Args:
        settings: Where Flower listens, its user, and which pools the simulator answers.
        home: State folder; the password is generated into it once.

    Raises:
        ConfigurationError: When the password file cannot be used.
    """
    options.address = settings.flower.address
    options.port = settings.flower.port
    options.max_tasks = MAX_TASKS
    options.basic_auth = [] if _open_by_choice() else [f"{settings.flower.user}:{password(home)}"]
    flower.command.Flower = Dashboard
    urls.handlers[:] = [_guarded(handler) for handler in urls.handlers]
    if settings.simulated:
        urls.settings["template_loader"] = _templates_with(badge(settings))


def badge(settings: Settings) -> str:
    """Return what every page says about who answers: the simulator for all pools, or for those named."""
    simulated = [name for name in settings.pools if settings.is_simulated(name)]
    where = "" if len(simulated) == len(settings.pools) else f" in {', '.join(simulated)}"
    return f"answers: simulator{where}"


def _open_by_choice() -> bool:
    return os.environ.get(OPEN_API_VARIABLE, "").lower() in ("y", "yes", "t", "true", "on", "1")


def _login(ours: str, *, is_ours: bool) -> str:
    if is_ours:
        return ours
    if options.auth or options.basic_auth:
        return "login as configured for Flower"
    return f"NO authentication, because {OPEN_API_VARIABLE} is set"


def _address(port: int | None) -> str:
    if options.unix_socket:
        return f"unix socket {options.unix_socket}"
    scheme = "https" if options.certfile else "http"
    return f"{scheme}://{options.address or socket.gethostname()}:{port}/{(options.url_prefix or '').strip('/')}"


def _guarded(handler: Any) -> Any:
    """Return the same route, but with our handler in the place of Flower's /metrics."""
    return (handler[0], GuardedMetrics) if isinstance(handler, tuple) and handler[1] is Metrics else handler


def _templates_with(text: str) -> DictLoader:
    """Return Flower's own templates, with a badge behind the brand name in the navigation bar."""
    folder = Path(urls.settings["template_path"])
    pages = {page.name: page.read_text(encoding="utf-8") for page in folder.glob("*.html")}
    mark = f'</a>\n<span class="badge text-bg-warning me-3" title="No real provider answered">{text}</span>'
    pages["navbar.html"] = pages["navbar.html"].replace("</a>", mark, 1)
    return DictLoader(pages)
