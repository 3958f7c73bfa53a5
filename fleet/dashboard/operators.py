"""Who may act from Flower, and read what tasks ask and answer: asked by the Fleet tab and by all of Flower's handlers.

What was done is told as an event. Who may look is Flower's own question (basic authentication, OAuth).
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any

from flower.api.control import ControlHandler
from flower.api.tasks import TaskAbort, TaskResult
from flower.views import BaseHandler, auth, error
from flower.views.tasks import TasksDataTable
from tornado.web import HTTPError, RequestHandler

from fleet.config import Settings
from fleet.dashboard.actions import tell
from fleet.errors import FleetError
from fleet.quoting import quote
from fleet.signals import catalogue

logger = logging.getLogger("fleet.dashboard")

#: Where the settings of Flower's application hold ours.
SETTING = "fleet_settings"
#: Methods that change nothing.
LOOKS = ("GET", "HEAD", "OPTIONS")
#: Arguments of Flower's controls that an event tells.
_TOLD = ("n", "min", "max", "queue", "workername", "soft", "hard", "ratelimit", "terminate", "signal")
_threads = ThreadPoolExecutor(1, thread_name_prefix="fleet-audit")


def user_of(handler: BaseHandler) -> str | None:
    """Return who has logged in: by OAuth, else by basic authentication; None: nobody had to."""
    user = handler.current_user
    if isinstance(user, str):
        return user or None
    if not user or not handler.application.options.basic_auth:
        return None
    try:
        _, credentials = handler.request.headers.get("Authorization", "").split()  # as Flower's own login reads it
        return base64.b64decode(credentials).decode().partition(":")[0] or None
    except ValueError:  # no such header, or no base64 of UTF-8
        return None


def is_operator(user: str | None, operators: Collection[str] | None) -> bool:
    """True when a user may act. `operators` None: whoever has logged in."""
    if user is None:
        return False
    return operators is None or any(fnmatchcase(user, pattern) for pattern in operators)


def why_not(handler: BaseHandler, *, is_ours: bool) -> str | None:
    """Return why who asks may not act; None: they may.

    Args:
        handler: Of the request.
        is_ours: The Fleet tab's: it needs a login even in a Flower that was opened to anybody on purpose.
    """
    settings: Settings = handler.settings[SETTING]
    operators = settings.dashboard.operators
    if handler.application.options.read_only:
        return "expected a Flower for operators, got a read-only one: start it without --read-only to act here"
    user = user_of(handler)
    if user is None:
        if is_ours or operators is not None:
            return "expected a login, got none: this Flower lets anybody look, so nobody may act"
        return None
    if not is_operator(user, operators):
        return (
            f"expected an operator ([dashboard] operators in fleet.toml), got user {quote(user)}, who may look: ask "
            "one of them, or use the `fleet` command"
        )
    return None


def why_no_texts(handler: BaseHandler) -> str | None:
    """Return why who asks may read no task's prompt or answer; None: they may, as far as the settings show them.

    They are for who may act. Where nobody is named as an operator, that is whoever has logged in.
    """
    settings: Settings = handler.settings[SETTING]
    operators = settings.dashboard.operators
    user = user_of(handler)
    if user is None:
        return "expected a login, got none: prompts and answers are shown to who has logged in"
    if not is_operator(user, operators):
        return (
            f"expected an operator ([dashboard] operators in fleet.toml), got user {quote(user)}: prompts and answers "
            "are shown to those only"
        )
    return None


class Guarded(BaseHandler):
    """Laid over each of Flower's handlers: what changes something, and answers, are for operators; deeds are told."""

    @property
    def _acts(self) -> bool:
        return self.request.method not in LOOKS and not isinstance(self, TasksDataTable)

    def prepare(self) -> None:
        """Refuse an action, or a look at an answer, of who is no operator."""
        super().prepare()
        if self._acts and (self.current_user or not _asks_for_login(self)):
            refusal = why_not(self, is_ours=False)
            if refusal is not None:
                raise HTTPError(403, refusal)
        if isinstance(self, TaskResult) and self.settings[SETTING].dashboard.operators is not None:
            refusal = why_no_texts(self)
            if refusal is not None and (self.current_user or not _asks_for_login(self)):
                raise HTTPError(403, refusal)

    def render(self, *args: Any, **kwargs: Any) -> None:
        """Leave the buttons out for who may not press them."""
        if "read_only" in kwargs:
            kwargs["read_only"] = kwargs["read_only"] or why_not(self, is_ours=False) is not None
        super().render(*args, **kwargs)

    def on_finish(self) -> None:
        """Tell of a control that was carried out."""
        super().on_finish()
        if self._acts and isinstance(self, ControlHandler | TaskAbort) and self.get_status() < 400:
            said = {name: text for name in _TOLD if (text := self.get_argument(name, None))}
            what = self.request.path.partition("/api/")[2]
            _threads.submit(_note, self.settings[SETTING], what, said, user_of(self) or "nobody who logged in")


def guarded(handler: type[RequestHandler]) -> type[RequestHandler]:
    """Return one of Flower's handlers with what it changes for operators only; logging in and out is everybody's."""
    if not issubclass(handler, BaseHandler) or handler.__module__ in (auth.__name__, error.__name__):
        return handler
    return type(handler.__name__, (Guarded, handler), {})


def _asks_for_login(handler: BaseHandler) -> bool:
    options = handler.application.options
    return bool(options.basic_auth or options.auth)


def _note(settings: Settings, what: str, said: dict[str, str], by: str) -> None:
    try:
        tell(settings, catalogue.FLOWER_CONTROL, by, what=what, **said)
    except FleetError as failure:
        logger.warning("not told as an event what=%s by=%s error=%s", what, quote(by), failure)
