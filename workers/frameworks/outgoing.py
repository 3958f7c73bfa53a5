"""One request of an SDK under its grant: sent once, its answer read for what it used and whether it is one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleet.errors import (
    BadRequest,
    ContextTooLong,
    FleetError,
    GiveUp,
    NotServed,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
)
from fleet.usage import Usage
from fleet.workers.context import count_tokens
from fleet.workers.frameworks.asked import ASKING, RawAsk
from fleet.workers.frameworks.passing import Passing, put_together
from fleet.workers.frameworks.pieces import in_pieces
from fleet.workers.frameworks.raw import RawAnswer, RawProvider, Take
from fleet.workers.frameworks.readable import NoAnswer, readable
from fleet.workers.limited.asks import read_object, texts_in
from fleet.workers.limited.streams import usage_of
from fleet.workers.load import MOST_PART_TOKENS, UNSEEN_TOKENS
from fleet.workers.ports import Lessons
from fleet.workers.providers.answers.sse import TooLong
from fleet.workers.providers.bodies import carries_error, read_said
from fleet.workers.providers.problem import read_problem
from fleet.workers.providers.taught.overflow import overflow_in
from fleet.workers.providers.taught.refusals import read_words, refused_in
from fleet.workers.providers.taught.student import MOST_BYTES, REFUSING
from fleet.workers.providers.usage import read_told_usage
from fleet.workers.providers.verdict import error_of, of_tier
from fleet.workers.rungs import Route

#: What a server is known to refuse that does not take Fleet's own wish for the usage of a stream.
STREAM_OPTIONS = "stream_options"
#: Endpoints by which an API is known to be there: that another one is not is the function's business.
USUAL = frozenset({"chat/completions", "messages"})


class Outgoing:
    """One request, and what comes of it.

    Args:
        provider: Where to.
        route: Of the call.
        ask: What is asked.
        lessons: What models refuse.
        bound: The most output tokens that the pool or the task allows; None: neither says.
        passing: Hands on an answer in pieces; None: it is wanted whole.

    Attributes:
        refusal: What the SDK gets when the provider refuses this very request; None: it did not.
        is_cut: True when an answer broke off in its middle.
        tier: Service tier that has answered, if the provider says it.
    """

    def __init__(
        self, provider: RawProvider, route: Route, ask: RawAsk, *, lessons: Lessons, bound: int | None,
        passing: Passing | None,
    ) -> None:  # fmt: skip
        self._provider, self._route, self._ask, self._lessons, self._passing = provider, route, ask, lessons, passing
        self._adds_usage = ask.is_streamed and not ask.tells_usage and not _is_refused(lessons, route.priced_as)
        self._request = ask.written(route.model, bound=bound, with_usage=self._adds_usage)
        self._is_streaming = False
        self._headers: Mapping[str, str] = {}
        self.refusal: RawAnswer | None = None
        self.is_cut = False
        self.tier: str | None = None

    async def send(self, route: Route) -> RawAnswer:
        """Send it with the key of a route; return its answer.

        Raises:
            FleetError: There was none; one that comes of a refusal is told as `refusal` as well.
        """
        self._route = route
        answer = await self._sent()
        if self._is_streaming:
            return self._check_stream(answer)
        if 200 <= answer.status < 300:
            return self._check_whole(answer)
        self._refuse(answer)
        return answer

    async def _sent(self) -> RawAnswer:
        try:
            return await self._provider.exchange(
                self._request, api_key=self._route.api_key, timeout_s=self._route.timeout_s, on_head=self._on_head
            )
        except (TooLong, NoAnswer) as error:
            if not self._has_ended:
                raise self._broken(self._unreadable(error)) from error
        except FleetError as error:
            if not self._has_ended:
                self._broken(error)
                raise
        return RawAnswer(200, self._headers)  # only the usage is missing

    @property
    def _has_ended(self) -> bool:
        return self._is_streaming and self._passing is not None and self._passing.has_ended

    def _unreadable(self, error: ValueError) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self._provider.host}: {error}")

    def for_client(self, answer: RawAnswer) -> RawAnswer:
        """Return an answer as its client waits for it: in the form of a stream where it came in one piece instead."""
        if self._is_streaming or not self._ask.is_streamed or not 200 <= answer.status < 300:
            return answer
        whole = read_object(answer.body)
        pieces = whole and in_pieces(self._ask.endpoint, whole, tells_usage=self._ask.tells_usage)
        if not pieces:
            return answer
        return replace(answer, headers={**answer.headers, "content-type": "text/event-stream"}, body=pieces)

    def used(self, answer: RawAnswer) -> Usage:
        """Return what it has used, as the answer tells it; an estimate where it doesn't."""
        told = self._passing.used() if self._is_streaming and self._passing else self._told(answer)
        if told is None:
            given = 0 if self._ask.asked is None else self._ask.asked.input_tokens
            found = read_object(answer.body)
            came = 0 if found is None else sum(map(count_tokens, texts_in(found)))
            return Usage(input_tokens=given, output_tokens=came, estimated_calls=1)
        return self.believed(told, answer.body)

    def cut(self) -> tuple[Usage, bool]:
        """Return what it has used when it is cancelled, and whether something of the answer had come."""
        if self._is_streaming and self._passing is not None and self._passing.has_begun:
            told = self._passing.used()
            if told is not None:
                return self.believed(told), True
        given = 0 if self._ask.asked is None else self._ask.asked.input_tokens
        return Usage(input_tokens=given, estimated_calls=1), False

    def believed(self, usage: Usage, came: bytes = b"") -> Usage:
        """Return no more usage than it can have had: no token is shorter than a byte, but for what is not seen here.

        Files, earlier turns that the provider keeps, and searches of its own are not; so a million tokens more may be.
        """
        most_out = (self._ask.limit or MOST_PART_TOKENS) * self._ask.n + len(came) + UNSEEN_TOKENS
        most_in = len(self._request.body) + MOST_PART_TOKENS
        if usage.input_tokens <= most_in and usage.output_tokens <= most_out:
            return usage
        return usage.within(input_tokens=most_in, output_tokens=most_out)

    def answer_of(self, answer: RawAnswer) -> Mapping[str, Any]:
        """Return what the model has said, put together where it came in pieces."""
        if self._is_streaming and self._passing is not None:
            return self._passing.answer()
        return read_object(answer.body) or {}

    def _on_head(self, status: int, headers: Mapping[str, str]) -> Take | None:
        content_type = headers.get("content-type", "")
        if (
            self._passing is None
            or not 200 <= status < 300
            or content_type.startswith(("application/json", "text/html"))
        ):
            return None
        self._is_streaming, self._headers = True, headers
        self._passing.begin(status, headers, hides_usage=self._adds_usage)
        return self._passing.feed

    def _told(self, answer: RawAnswer) -> Usage | None:
        given = 0 if self._ask.asked is None else self._ask.asked.input_tokens
        return usage_of(answer.body, answer.headers.get("content-type", ""), given)

    def _check_stream(self, answer: RawAnswer) -> RawAnswer:
        assert self._passing is not None
        try:
            self._passing.close()
        except (TooLong, NoAnswer) as error:
            raise self._broken(self._unreadable(error)) from error
        if (raw := self._passing.error) is not None:
            raise self._broken(self._error(200, raw, answer.headers), free=True)
        if not self._passing.is_whole:
            if raw := self._passing.unread:
                self._is_streaming = False
                return self._check_whole(replace(answer, body=raw))
            told = f"{self._provider.host}: expected a whole answer, got a stream that broke off"
            raise self._broken(ProviderUnavailable(told))
        self.tier = self._passing.tier
        return answer

    def _broken(self, error: FleetError, *, free: bool = False) -> FleetError:
        """Return the error with what was used until then.

        Args:
            error: How it ended.
            free: What has said nothing yet has used nothing.
        """
        if self._is_streaming and self._passing is not None and self._passing.has_begun:
            error.usage, self.is_cut = self.cut()[0], True
        elif free:
            error.usage = Usage()
        return error

    def _check_whole(self, answer: RawAnswer) -> RawAnswer:
        """Return an answer that its SDK can read; raise the error that hides in a 2xx, or what is no answer at all."""
        sent, raw = read_object(answer.body), answer.body
        found = sent
        if found is None:
            if self._ask.endpoint not in ASKING and not read_said(raw).is_page:
                return answer  # sound, a picture, plain text
            found, hidden = put_together(self._ask, raw)
            if hidden is not None:
                found, raw = read_object(hidden) or {"error": True}, hidden
        if found is not None and not carries_error(found):
            try:
                read = readable(self._ask.endpoint, found, self._ask.body)
            except NoAnswer as wrong:
                raise self._no_answer(wrong, raw, found, answer) from wrong
            tier = found.get("service_tier")
            self.tier = tier if isinstance(tier, str) else None
            return answer if read is sent else _rewritten(answer, read)
        error = self._error(answer.status, raw, answer.headers)
        if found is None:
            told = f"{self._provider.host}: expected a JSON answer, got {len(answer.body)} bytes of something else"
            raise error if read_problem(raw, secrets=(), texts=()).said.tells else ProviderUnavailable(told)
        error.usage = self._told(answer) or Usage()
        raise error

    def _no_answer(self, wrong: NoAnswer, raw: bytes, found: Mapping[str, Any], answer: RawAnswer) -> FleetError:
        """Return what a 2xx is that is not its wire's: the error that it tells, or its provider's failure."""
        if not wrong.is_half and read_problem(raw, secrets=(), texts=()).said.tells:
            error = self._error(answer.status, raw, answer.headers)
            error.usage = Usage()
            return error
        failed = self._unreadable(wrong)
        told = read_told_usage(found.get("usage"))
        failed.usage = told if told is not None and told.total_tokens else None
        return failed

    def _refuse(self, answer: RawAnswer) -> None:
        """Raise what a status of 300 and above means."""
        error = self._error(answer.status, answer.body, answer.headers)
        is_elsewhere = isinstance(error, NotServed) and self._ask.endpoint not in USUAL
        if not (isinstance(error, GiveUp) or is_elsewhere):
            raise error
        if isinstance(error, RateLimited):
            raise error
        if is_elsewhere:
            error = BadRequest(str(error), blame="prompt")
        elif isinstance(error, BadRequest):
            error = self._read(error, answer)
        if not isinstance(error, Relearnt):
            self.refusal = RawAnswer(answer.status, answer.headers, answer.body, refusal=error)
        raise error

    def _read(self, error: BadRequest, answer: RawAnswer) -> FleetError:
        """Return what a refusal comes to: of a prompt that is too long, of what Fleet itself has put in."""
        error.blame = "prompt"  # the function has written all of it
        if answer.status not in REFUSING or len(answer.body) > MOST_BYTES:
            return error
        words, asked = read_words(answer.body), self._ask.asked
        if (overflow := overflow_in(words)) is not None:
            given = 0 if asked is None else asked.input_tokens
            true = overflow.true_input(given, self._ask.limit or 0)
            return ContextTooLong(str(error), window_tokens=overflow.window_tokens, true_input_tokens=true)
        sent = read_object(self._request.body) or {}
        if self._adds_usage and any(what.split(".")[0] == STREAM_OPTIONS for what in refused_in(words, sent)):
            self._lessons.learn(self._route.priced_as, STREAM_OPTIONS)
            return Relearnt(f"{error}: later streams are not asked for their usage")
        return error

    def _error(self, status: int, raw: bytes, headers: Mapping[str, str]) -> FleetError:
        texts = tuple(texts_in(self._ask.body or {}))
        problem = read_problem(raw, secrets=(self._route.api_key,), texts=texts)
        error = error_of(self._provider.host, status, problem, headers, now_s=time.time())
        return of_tier(error, problem, self._ask.tier)


def _rewritten(answer: RawAnswer, body: Mapping[str, Any]) -> RawAnswer:
    told = json.dumps(body).encode("ascii")
    return replace(answer, headers={**answer.headers, "content-type": "application/json"}, body=told)


def _is_refused(lessons: Lessons, api: str) -> bool:
    return any(what.split(".")[0] == STREAM_OPTIONS for what in lessons.refused(api))
