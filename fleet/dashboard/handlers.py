"""The Fleet tab's routes inside Flower: the page, its figures, a bot, actions, metrics and the static files.

Who may look is Flower's own question (basic authentication, OAuth), who may act is `operators.py`'s: a Flower that was
opened on purpose, or made read-only, shows the page and refuses every action.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated, url

from fleet.dashboard import actions, operators
from fleet.dashboard.feed import PATIENCE_S, Feed
from fleet.dashboard.source import Source
from fleet.errors import ConfigurationError, FleetError

logger = logging.getLogger("fleet.dashboard")

HERE = Path(__file__).parent
#: Only our own files, no inline script or style; data: is what Flower's style sheet draws its icons with.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
#: Bytes below which compressing an answer is not worth it.
COMPRESS_FROM = 1400
#: Milliseconds between two questions of a page.
EVERY_MS = 1000
#: The page's scripts. All are named to the browser at once: each import found on the way would be a round trip.
MODULES = sorted(file.name for file in (HERE / "static").glob("*.js"))
#: Searches of whole queues wait for each other, and nobody's action waits for them.
_searches = ThreadPoolExecutor(1, thread_name_prefix="fleet-search")


class FleetHandler(BaseHandler):
    """Base of all: what they share, and headers that keep other sites out."""

    def initialize(self, source: Source, feed: Feed, threads: ThreadPoolExecutor) -> None:
        self.source, self.feed, self.threads = source, feed, threads

    def set_default_headers(self) -> None:
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", CONTENT_POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")

    @property
    def why_not(self) -> str | None:
        """Why who asks may not act; None: they may."""
        return operators.why_not(self, is_ours=True)

    async def in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.threads, lambda: work(*args))

    def answer(self, text: str | bytes) -> None:
        """Send JSON, compressed when it is long and the browser takes it."""
        body = text.encode() if isinstance(text, str) else text
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.set_header("Vary", "Accept-Encoding")
        if len(body) >= COMPRESS_FROM and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            body = gzip.compress(body, 1)
        self.finish(body)

    def refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.answer(json.dumps({"error": message}))


class FleetPage(FleetHandler):
    """The page itself: everything on it comes by `State`, which it asks as soon as its scripts are there."""

    @authenticated
    def get(self) -> None:
        self.feed.begin()  # with 10,000 bots a reading takes as long as loading the scripts: both at once
        self.render("fleet.html", may_act=self.why_not is None, token=self.xsrf_token.decode(), modules=MODULES)


class State(FleetHandler):
    """The figures, whole or what changed since `since`; and what else is asked for along with them (`also`).

    A page that asks for two panels more by themselves asks more than once a second.
    """

    @authenticated
    async def get(self) -> None:
        frame = await self.feed.latest()
        also = {} if self.feed.trouble else await self._also(self.get_arguments("also"))
        about = {
            "every_ms": EVERY_MS,
            "trouble": self.feed.trouble,
            "may_act": self.why_not is None,
            "why_not": self.why_not,
            "also": also,
        }
        if frame is None:
            self.answer(json.dumps({**about, "age_s": None}))
            return
        head = json.dumps({**about, "age_s": round(self.feed.age_s, 3)})[:-1]
        body = self.feed.body(self.get_argument("since", ""))
        self.answer(f"{head}}}" if body is None else f'{head},"view":{body}}}')

    async def _also(self, names: list[str]) -> dict[str, Any]:
        """Return what the names stand for, without what cannot be read in time: figures do not wait for it."""
        readers = {"asks": self.source.asks, "schedules": self.source.schedules}
        reading = {name: asyncio.create_task(self._read(readers[name])) for name in readers if name in names}
        if reading:
            await asyncio.wait(reading.values(), timeout=PATIENCE_S)
        return {name: task.result() for name, task in reading.items() if task.done() and task.result()}

    async def _read(self, reader: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return await self.in_thread(reader)
        except FleetError:
            return None  # the figures are about to say why
        except Exception:  # one panel's trouble is none of the others'
            logger.exception("what a page asks for along with the figures cannot be read")
            return None


class OneBot(FleetHandler):
    """One bot, opened."""

    @authenticated
    async def get(self, name: str) -> None:
        try:
            detail = await self.in_thread(self.source.bot, name)
        except ConfigurationError as error:
            self.refuse(404, str(error))
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.answer(detail.model_dump_json())


class OneTask(FleetHandler):
    """One task, opened; its texts only if the settings allow it, and only to operators who have logged in."""

    @property
    def why_hidden(self) -> str:
        """Why its texts are not shown to who asks; empty: they are."""
        if not self.source.settings.dashboard.show_texts:
            return "Prompt and answer are not shown: dashboard.show_texts is off."
        return operators.why_no_texts(self) or ""

    @authenticated
    async def get(self, task_id: str) -> None:
        is_thorough = self.get_argument("thorough", "") == "1"
        if is_thorough:
            self.threads = _searches
        hidden = self.why_hidden
        try:
            page = await self.in_thread(
                lambda: self.source.task(task_id, is_thorough=is_thorough, with_texts=not hidden)
            )
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.answer(page.model_copy(update={"hidden": hidden}).model_dump_json())


class FoundTasks(FleetHandler):
    """The tasks that a question means, such as `pool=research job=nightly`; never their texts."""

    @authenticated
    async def get(self) -> None:
        self.threads = _searches
        try:
            found = await self.in_thread(self.source.tasks, self.get_argument("q", ""))
        except ConfigurationError as error:
            self.refuse(400, str(error))
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.answer(found.model_dump_json())


class DeadLetters(FleetHandler):
    """The newest dead letters of a pool and reason; never their messages."""

    @authenticated
    async def get(self) -> None:
        pool, reason = self.get_argument("pool", None), self.get_argument("reason", None)
        try:
            letters = await self.in_thread(self.source.dead, pool, reason)
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            rows = [{**filed.letter.model_dump(mode="json"), "died_at": filed.died_at} for filed in letters]
            self.answer(json.dumps({"letters": rows}))


class OneJob(FleetHandler):
    """The first members of a job that failed, or have not ended."""

    @authenticated
    async def get(self, job_id: str) -> None:
        try:
            found = await self.in_thread(self.source.job_members, job_id)
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.answer(json.dumps(found))


class Act(FleetHandler):
    """Pause, resume, quarantine, release: only for who has logged in, only from our own page."""

    def check_xsrf_cookie(self) -> None:
        """Ask for the token of our page and, where the browser tells, for our own origin, however one logs in."""
        origin, site = self.request.headers.get("Origin"), self.request.headers.get("Sec-Fetch-Site")
        if (site and site != "same-origin") or (origin and urlparse(origin).netloc != self.request.host):
            raise HTTPError(403, "expected a request from the Fleet page itself")
        RequestHandler.check_xsrf_cookie(self)

    @authenticated
    async def post(self) -> None:
        if self.why_not is not None:
            self.refuse(403, self.why_not)
            return
        try:
            action = actions.parse(self.request.body)
            done = await self.in_thread(
                lambda: actions.carry_out(action, self.source.settings, by=operators.user_of(self) or "operator")
            )
        except ConfigurationError as error:
            self.refuse(400, str(error))
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.feed.expire()
            self.answer(done.json())


class Metrics(FleetHandler):
    """The fleet in Prometheus' text format; 503 when Redis does not answer, never yesterday's figures."""

    @authenticated
    async def get(self) -> None:
        try:
            text = await self.in_thread(self.source.metrics)
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.finish(text)


class Scaling(FleetHandler):
    """How many workers are wanted, for KEDA's metrics-api scaler; 503 while Redis does not answer."""

    @authenticated
    async def get(self) -> None:
        try:
            wanted = await self.in_thread(self.source.wanted)
        except FleetError as error:
            self.refuse(503, str(error))
        else:
            self.answer(wanted.model_dump_json())


class Static(StaticFileHandler):
    """Our style sheet and scripts; asked for anew each time, answered by 304 while they are the same."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


def routes(source: Source, feed: Feed) -> list[url]:
    """Return the tab's routes, all below /fleet."""
    threads = ThreadPoolExecutor(4, thread_name_prefix="fleet-page")
    parts = {"source": source, "feed": feed, "threads": threads}
    return [
        url(r"/fleet", FleetPage, parts, name="fleet"),
        url(r"/fleet/state", State, parts, name="fleet-state"),
        url(r"/fleet/bot/([A-Za-z0-9_-]{1,80})", OneBot, parts, name="fleet-bot"),
        url(r"/fleet/task/(.{1,1536})", OneTask, parts, name="fleet-task"),
        url(r"/fleet/tasks", FoundTasks, parts, name="fleet-tasks"),
        url(r"/fleet/dead", DeadLetters, parts, name="fleet-dead"),
        url(r"/fleet/job/([0-9a-f]{15})", OneJob, parts, name="fleet-job"),
        url(r"/fleet/act", Act, parts, name="fleet-act"),
        url(r"/fleet/metrics", Metrics, parts, name="fleet-metrics"),
        url(r"/fleet/scaling", Scaling, parts, name="fleet-scaling"),
        url(r"/fleet/static/(.*)", Static, {"path": str(HERE / "static")}, name="fleet-static"),
    ]
