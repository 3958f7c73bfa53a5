"""Fleet's defaults for Flower, its tab and its badge, laid over Flower's own options and templates; nothing is forked.

Only defaults are set, before Flower reads FLOWER_* variables, its configuration file and its command line: all
of these still win. The password travels as basic authentication (RFC 7617): put TLS in front beyond loopback.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import flower.command
from celery.contrib.abortable import AbortableTask
from flower import urls
from flower.api.tasks import TaskAbort, TaskApply, TaskAsyncApply, TaskSend
from flower.app import Flower
from flower.utils import broker
from flower.views.monitor import Healthcheck, Metrics
from tornado.options import options
from tornado.template import DictLoader
from tornado.web import HTTPError, RequestHandler, authenticated, url

from fleet import config
from fleet.config import Settings
from fleet.dashboard import handlers, operators
from fleet.dashboard.feed import Feed
from fleet.dashboard.healthcheck import RedisHealthcheck
from fleet.dashboard.late_ends import LateEnds
from fleet.dashboard.password import PASSWORD_FILE, password
from fleet.dashboard.source import Source
from fleet.engine.celery_options import give_up
from fleet.engine.operations.alerts import AlertWatch
from fleet.errors import ConfigurationError, InvalidTask
from fleet.store.address import Address
from fleet.store.client import masked
from fleet.store.private.service import still_running

#: Tasks that Flower keeps in memory: 100,000 cost 453 MB, so this is about 45 MB.
MAX_TASKS = 10_000
#: Longest wait of a Flower that is told to stop for the inspections of workers that it has begun, in seconds.
STOP_S = 5.0
#: Flower's own switch for an API without authentication; who sets it has chosen.
OPEN_API_VARIABLE = "FLOWER_UNAUTHENTICATED_API"
HERE = Path(__file__).parent
#: The tab in Flower's navigation bar.
TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'fleet' %} active{% end %}" href="{{ reverse_url('fleet') }}"
            {% if active_tab == 'fleet' %}aria-current="page"{% end %}>Fleet</a>
        </li>"""


#: Where Flower's settings have our feed.
FEED = "fleet_feed"


class Dashboard(Flower):
    """Flower, knowing its final options: it gives way to another kind of login, and says how to get in."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._by_hand = False
        home, user = config.home_path(), config.current().flower.user
        ours = [f"{user}:{password(home)}"]
        if options.auth and options.basic_auth == ours:
            options.basic_auth = []  # both together would ask for two logins
        super().__init__(*args, **kwargs)
        self._login = _login(f"user {user}, password in {home / PASSWORD_FILE}", is_ours=options.basic_auth == ours)

    def start_http_server(self) -> int | None:
        """Listen, and say in one line where and how to log in; never the password. A taken port is one line too."""
        for number in (signal.SIGTERM, signal.SIGINT):  # from the first word on, not only once it serves
            self.io_loop.asyncio_loop.add_signal_handler(number, self._stop, number)
        try:
            port: int | None = super().start_http_server()
        except OSError as error:
            give_up(ConfigurationError(_taken(error)))
        print(f"Flower: {_address(port)}, {self._login}", file=sys.stderr, flush=True)
        return port

    def start(self) -> None:
        """Serve until SIGTERM or SIGINT, then end within `STOP_S`.

        Flower's own handler raises SystemExit wherever the main thread is: seen with the lock of `logging` in hand,
        which was then never released, so that the threads at work waited for it for ever.
        """
        LateEnds(self.events, config.current()).start()
        AlertWatch(config.current()).start()
        self.io_loop.add_callback(urls.settings[FEED].begin)  # the first reading loads much: nobody need wait for it
        super().start()
        if self._by_hand and (left := still_running()):
            print(f"fleet: {left}", file=sys.stderr, flush=True)
        last_resort = threading.Timer(STOP_S, os._exit, (os.EX_OK,))
        last_resort.daemon = True
        last_resort.start()

    def _stop(self, number: signal.Signals) -> None:
        self._by_hand = number == signal.SIGINT
        self.io_loop.stop()

    @cached_property
    def broker_uri(self) -> str:
        """The broker's URL without its password, for pages. kombu would show our transport's class in it."""
        return masked(self.broker_uri_with_password)

    @cached_property
    def broker_uri_with_password(self) -> str:
        """The broker's URL, by whose scheme Flower knows that it is Redis and can count what waits."""
        return str(self.capp.conf.broker_url)


class SocketPage(broker.RedisSocket):
    """What Flower's broker page asks over a Unix socket: the user and the data base too, which Flower leaves out."""

    def __init__(self, broker_url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(broker_url, *args, **kwargs)
        where = Address.parse(broker_url)
        self.redis.connection_pool.connection_kwargs.update(db=where.db, username=where.username)


class _Worded:
    """A form of Flower's that sends a task: what Fleet refuses is answered in words, not by an empty 500."""

    async def post(self, taskname: str) -> None:
        try:
            await super().post(taskname)  # type: ignore[misc]
        except HTTPError as error:
            if not isinstance(error.__cause__, InvalidTask):
                raise
            raise HTTPError(400, str(error.__cause__).replace("%", "%%")) from error


class WordedApply(_Worded, TaskApply):
    """Send a task and wait."""


class WordedAsyncApply(_Worded, TaskAsyncApply):
    """Send a task."""


class WordedSend(_Worded, TaskSend):
    """Send a task by its name."""


class WordedAbort(TaskAbort):
    """Abort a task that can be: of any other, Flower would store ABORTED in the place of its result."""

    @authenticated
    async def post(self, taskid: str) -> None:
        seen = self.application.events.state.tasks.get(taskid)
        if not isinstance(self.capp.tasks.get(seen.name) if seen else None, AbortableTask):
            raise HTTPError(
                400,
                "expected a task of Celery's AbortableTask, got one that would not hear of it: Terminate stops one "
                "that runs, and so does `fleet cancel TASK --running`",
            )
        await super().post(taskid)


class GuardedMetrics(Metrics):
    """Flower's /metrics behind the login: Flower itself serves worker and task names to anyone."""

    def prepare(self) -> None:
        asked = self.application.options
        if (asked.basic_auth or asked.auth) and not self.current_user:  # a wrong password answers 401 by itself
            raise HTTPError(401, "expected a login, got none")


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
    broker.RedisSocket = SocketPage
    urls.handlers[:] = [_guarded(handler) for handler in urls.handlers]
    source = Source(settings)
    urls.settings[FEED] = feed = Feed(source.view)
    urls.handlers[-1:-1] = handlers.routes(source, feed)  # before Flower's catch-all
    urls.settings[operators.SETTING] = settings
    urls.settings["template_loader"] = templates(badge(settings) if settings.simulated else None)


def badge(settings: Settings) -> str:
    """Return what every page says about who answers: the simulator for all pools, or for those named."""
    simulated = [name for name in settings.pools if settings.is_simulated(name)]
    where = "" if len(simulated) == len(settings.pools) else f" in {', '.join(simulated)}"
    return f"answers: simulator{where}"


def _open_by_choice() -> bool:
    return os.environ.get(OPEN_API_VARIABLE, "").lower() in ("y", "yes", "t", "true", "on", "1")


def _taken(error: OSError) -> str:
    where = options.unix_socket or f"{options.address or 'all addresses'}, port {options.port}"
    return (
        f"Flower: expected to listen on {where}, got: {error.strerror or error}; set flower.port in fleet.toml or "
        "--port=N (0: any free one), or end what listens there"
    )


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
    """Return the same route, but with our handlers in the place of some of Flower's, and for operators only."""
    ours: dict[Any, Any] = {
        Metrics: GuardedMetrics, Healthcheck: RedisHealthcheck,
        TaskApply: WordedApply, TaskAsyncApply: WordedAsyncApply, TaskSend: WordedSend,
        TaskAbort: WordedAbort,
    }  # fmt: skip
    if isinstance(handler, tuple):
        mine = ours[handler[1]] if handler[1] in ours else handler[1]
        return (handler[0], operators.guarded(mine), *handler[2:])
    kind: type[RequestHandler] = handler.handler_class
    return url(handler.regex.pattern, operators.guarded(kind), handler.kwargs, handler.name)


def templates(mark: str | None) -> DictLoader:
    """Return Flower's own templates and ours, with a Fleet tab in the navigation bar and, if any, a badge beside it.

    Args:
        mark: The badge's text.
    """
    folders = [Path(urls.settings["template_path"]), HERE / "templates"]
    pages = {page.name: page.read_text(encoding="utf-8") for folder in folders for page in folder.glob("*.html")}
    bar = pages["navbar.html"].replace('<ul class="app-nav navbar-nav">', f'<ul class="app-nav navbar-nav">{TAB}', 1)
    if mark:
        mark = f'</a>\n<span class="badge text-bg-warning me-3" title="No real provider answered">{mark}</span>'
        bar = bar.replace("</a>", mark, 1)
    pages["navbar.html"] = bar
    return DictLoader(pages)
