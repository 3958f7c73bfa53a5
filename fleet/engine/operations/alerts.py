"""Tells a webhook what is wrong. Which findings are news: `fleet/signals/diagnosis/alerting.py`.

Who looks takes the turn in Redis, so that several processes tell everything once. A message is sent first and noted
then: who dies in between has it told once more, never not at all.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from pydantic import ValidationError

from fleet.config import Settings
from fleet.engine.operations.overview import open_overview
from fleet.errors import ConfigurationError, FleetError, StoreUnavailable
from fleet.quoting import clock, quote
from fleet.signals import catalogue
from fleet.signals.diagnosis.alerting import (
    AlertLog,
    Announcement,
    News,
    What,
    after_failure,
    held_until,
    lines_of,
    look_for_news,
    told_in_text,
)
from fleet.signals.events import record_event_now
from fleet.store import keys
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import broker_url, state_url

logger = logging.getLogger("fleet.alerts")

#: Seconds between two looks of the fleet, whoever takes them.
LOOK_EVERY_S = 10.0
#: Seconds that a look may take until another process takes the next one.
TURN_S = 60.0
#: Seconds that the webhook has for its answer.
TIMEOUT_S = 10.0
#: Seconds for which the same failure is not recorded again.
QUIET_S = 600.0
#: Seconds for which Redis must be away until that is told: it may be starting anew.
AWAY_S = 30.0
#: What has the turns, and what was told.
_TURN, _TOLD = "alerts", "alerts told"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the message into a question that anybody may answer with 200."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class _Failure(NamedTuple):
    """Why a message was not taken. One that was neither refused nor kept from leaving may have arrived all the same."""

    told: str
    may_have_arrived: bool
    retry_after_s: float = 0.0


class Alerter:
    """Looks for news and tells them. Blocks.

    Args:
        settings: Where Redis is, and whom to tell.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opener = urllib.request.build_opener(_NoRedirect)

    def look(self) -> Announcement | None:
        """Take the turn, tell what is new, and return it; None: somebody has the turn, and both Redis answer.

        Raises:
            FleetError: When a Redis does not answer, or the webhook does not take the message: it stays news.
        """
        url = state_url(self._settings)
        with store_errors(url), connect(url, timeout_s=self._settings.redis.socket_timeout_s) as state:
            if not state.set(keys.turn(_TURN), os.getpid(), nx=True, px=round(TURN_S * 1000)):
                broker_url(self._settings)  # asks the broker, which may be a Redis of its own
                return None
            began = time.monotonic()
            try:
                return self._look(state)
            finally:
                left_s = max(0.1, LOOK_EVERY_S - (time.monotonic() - began))
                state.pexpire(keys.turn(_TURN), round(left_s * 1000))

    def _look(self, state: redis.Redis) -> Announcement:
        with open_overview(self._settings) as overview:
            view = overview.read()
        rules = self._settings.alerts
        news = look_for_news(
            view.diagnoses, read_log(state), lowest=rules.lowest, repeat_s=rules.repeat_s,
            most_per_hour=rules.most_per_hour, now_s=view.at,
        )  # fmt: skip
        failure = self.try_to_post(_body(news, self._settings, view.at)) if news.news else None
        if failure is not None:
            _note(state, _after(news.if_not, failure, view.at))
            raise FleetError(failure.told)
        _note(state, news.if_told if news.news else news.if_not)
        return news

    def post(self, body: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ConfigurationError: When there is no address.
            FleetError: When it is not taken.
        """
        if (failure := self.try_to_post(body)) is not None:
            raise FleetError(failure.told)

    def try_to_post(self, body: dict[str, Any]) -> _Failure | None:
        """Send one message, and return why it was not taken; None: it was.

        Raises:
            ConfigurationError: When there is no address.
        """
        request = urllib.request.Request(
            webhook(self._settings), json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1)
        except urllib.error.HTTPError as error:
            with error:
                told = f"alerts: expected the webhook to answer 2xx, got {error.code}"
                asked_s = _retry_after_s(error.headers.get("Retry-After", ""), time.time())
                return _Failure(told, may_have_arrived=error.code >= 500, retry_after_s=asked_s)
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)  # only its type is told: its text may name the address, a secret
            told = f"alerts: expected the webhook to answer, got {type(reason).__name__}"
            # urllib wraps in URLError what kept it from connecting or sending; what comes after that is bare
            unsent = (urllib.error.URLError, http.client.InvalidURL, ValueError)
            return _Failure(told, may_have_arrived=not isinstance(error, unsent))
        return None


class AlertWatch:
    """A thread that looks for news, for ever, and keeps what goes wrong to itself but for a log line and an event.

    Args:
        settings: Where Redis is, and whom to tell.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alerter = Alerter(settings)
        self._failed = ""
        #: Unix times since which Redis is away, and when that was told last; 0: it is there, it was not.
        self._away_since = self._away_told_at = 0.0
        self._away_log = AlertLog()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Announcement from now on, beside the caller; not at all when no webhook is set."""
        if self._settings.alerts.webhook_env is not None:
            threading.Thread(target=self._run, name="fleet-alerts", daemon=True).start()

    def stop(self) -> None:
        """End soon; a message that is under way is not waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.step()
            self._stopped.wait(LOOK_EVERY_S / 2)

    def step(self) -> None:
        """Look once; a Redis that has been away for `AWAY_S` is told by each process by itself: none can ask others."""
        try:
            look = self._alerter.look()
        except FleetError as error:
            self._tell(error)
            if isinstance(error, StoreUnavailable) or isinstance(error.__cause__, StoreUnavailable):
                self._away_since = self._away_since or time.time()
                self._tell_away(time.time())
        except Exception as error:  # noqa: BLE001 - one look that fails must not end the others
            self._tell(FleetError(f"alerts: expected to read the fleet, got {type(error).__name__}: {quote(error)}"))
        else:
            if look is not None and look.next_at is None:  # where it could not send, the failure may last
                self._failed = ""
            self._tell_back(time.time())

    def _tell_away(self, now_s: float) -> None:
        is_due = now_s - self._away_told_at >= self._settings.alerts.repeat_s
        is_long = now_s - self._away_since >= AWAY_S
        if is_due and is_long and self._send("lasts" if self._away_told_at else "began", now_s):
            self._away_told_at = now_s

    def _tell_back(self, now_s: float) -> None:
        if not self._away_told_at or self._send("over", now_s):
            self._away_since = self._away_told_at = 0.0

    def _send(self, what: What, now_s: float) -> bool:
        """Tell of a Redis that is away; False: the webhook did not take it, or there may be no message now."""
        rules, log = self._settings.alerts, self._away_log
        if held_until(log, most_per_hour=rules.most_per_hour, now_s=now_s) is not None:
            return False
        news = News(
            what=what, kind="redis_away", about="", severity="critical", began_at=self._away_since,
            sentence=f"Redis does not answer since {clock(self._away_since, now_s)}: tasks wait, and nobody can look",
            command="fleet doctor",
        )  # fmt: skip
        body: dict[str, Any] = {"text": "\n".join([*lines_of(news, now_s), *([rules.link] if rules.link else [])])}
        if rules.body == "json":
            body["findings"] = [news.model_dump()]
        try:
            failure = self._alerter.try_to_post(body)
        except ConfigurationError as error:
            failure = _Failure(str(error), may_have_arrived=False)
        if failure is not None:
            logger.warning("not told error=%s", failure.told)
            self._away_log = _after(log, failure, now_s)
            return False
        self._away_log = AlertLog(posts=(*log.posts, now_s)[-rules.most_per_hour :])
        return True

    def _tell(self, error: FleetError) -> None:
        if str(error) != self._failed:
            logger.warning("not told error=%s", error)
        self._failed = str(error)
        try:
            url = state_url(self._settings)
            with store_errors(url), connect(url, timeout_s=self._settings.redis.socket_timeout_s) as state:
                if state.set(keys.turn("alerts failed"), "1", nx=True, ex=round(QUIET_S)):
                    record_event_now(state, catalogue.ALERT_FAILED, why=str(error))
        except FleetError as other:
            logger.debug("not recorded error=%s", other)


def webhook(settings: Settings) -> str:
    """Return the address to which messages go.

    Raises:
        ConfigurationError: When there is none. It is a secret, and not in the message.
    """
    name = settings.alerts.webhook_env
    if name is None:
        raise ConfigurationError(
            "alerts.webhook_env: expected the name of an environment variable that holds a webhook's address, got "
            "none; set it under [alerts] in fleet.toml"
        )
    address = os.environ.get(name, "").strip()
    if urlsplit(address).scheme not in ("https", "http") or not urlsplit(address).netloc:
        what = "something else" if address else "nothing"
        raise ConfigurationError(f"alerts: expected the variable {name} to hold an https:// address, got {what}")
    return address


def read_log(state: redis.Redis) -> AlertLog:
    """Return what has been told; nothing when that is of a release that wrote it otherwise."""
    raw = state.get(keys.turn(_TOLD))
    try:
        return AlertLog.model_validate_json(raw) if raw else AlertLog()
    except ValidationError as error:
        logger.warning("told anew error=%s", quote(error))
        return AlertLog()


def trial(settings: Settings) -> dict[str, Any]:
    """Return a message that says that messages arrive."""
    text = "A test: Fleet can reach this webhook. When something is wrong, it says so here."
    link = settings.alerts.link
    body: dict[str, Any] = {"text": f"{text}\n{link}" if link else text}
    return body if settings.alerts.body == "text" else {**body, "findings": []}


def _body(look: Announcement, settings: Settings, now_s: float) -> dict[str, Any]:
    rules = settings.alerts
    text = told_in_text(
        look, most_per_hour=rules.most_per_hour, link=rules.link, now_s=now_s, is_marked_up=rules.body == "text"
    )
    if rules.body == "text":
        return {"text": text}
    return {"text": text, "findings": [one.model_dump() for one in look.news]}


def _retry_after_s(text: str, now_s: float) -> float:
    """Return the seconds that a `Retry-After` asks for, a number or a date; 0: none that can be read."""
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def _after(log: AlertLog, failure: _Failure, now_s: float) -> AlertLog:
    return after_failure(
        log, may_have_arrived=failure.may_have_arrived, retry_after_s=failure.retry_after_s, now_s=now_s
    )


def _note(state: redis.Redis, log: AlertLog) -> None:
    state.set(keys.turn(_TOLD), log.model_dump_json(), ex=keys.STATE_TTL_S)
