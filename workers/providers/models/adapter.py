"""The adapter: one call through a model of pydantic-ai, as one HTTP request, with its answer or a typed error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from yarl import URL

from fleet.config import is_loopback
from fleet.errors import (
    BadRequest,
    ContextTooLong,
    FleetError,
    KeyRejected,
    ProviderUnavailable,
    RateLimited,
    Relearnt,
)
from fleet.lessons import Notebook
from fleet.quoting import quote
from fleet.workers.calls import Call, Completion, Delta, Wishes
from fleet.workers.load import sent_tokens
from fleet.workers.ports import Lessons
from fleet.workers.providers.addresses import parse_base_url
from fleet.workers.providers.bodies import carries_error
from fleet.workers.providers.models.answered import completion_of, says_nothing
from fleet.workers.providers.models.asked import (
    messages_of,
    names_without,
    parameters_of,
    refusable,
    refuse_left_out,
    settings_of,
)
from fleet.workers.providers.models.exchange import Clients, Exchange, exchanging
from fleet.workers.providers.models.failed import (
    broken_off,
    by_status,
    error_in,
    hidden,
    problem_of,
    refused_schema,
    unanswered,
    unreadable,
)
from fleet.workers.providers.models.streamed import deltas_of, in_a_task, is_whole
from fleet.workers.providers.models.vendors import make_model
from fleet.workers.providers.taught.overflow import overflow_in
from fleet.workers.providers.taught.refusals import read_words, refused_in
from fleet.workers.providers.taught.student import MOST_BYTES, REFUSING
from fleet.workers.providers.usage import read_usage

#: What a server that answers in one piece is known to refuse.
STREAM = "stream"


class Models:
    """Adapter for every model that pydantic-ai knows, see `fleet.workers.ports.Provider`.

    Give it to one event loop only. Clients are made by the first call, one model by its first call. Weakness: what an
    SDK does with a request is slower than the native adapters by about ten times (`python -m benchmarks.roads`).

    Args:
        base_url: Root of the API; None: the vendor's own.
        timeout_s: Seconds that the longest call may take; each call has a timeout of its own besides.
        name: Its name under [providers]: what a model refuses is known by it.
        lessons: What models refuse; None: this adapter's own, which nobody shares.

    Raises:
        ConfigurationError: When `base_url` is no address.
    """

    def __init__(
        self, base_url: str | None = None, *, timeout_s: float = 120.0, name: str = "", lessons: Lessons | None = None
    ) -> None:
        self._name = name
        self._lessons = Notebook() if lessons is None else lessons
        self._base_url = None if base_url is None else str(parse_base_url(base_url))
        self._clients = Clients(direct=is_loopback(base_url) if base_url else False)
        self._timeout_s = timeout_s
        self._models: dict[tuple[str, str], Model] = {}

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        """Send one call, see `fleet.workers.ports.Provider`.

        Also raises `ConfigurationError` when `call.model` names no vendor whose SDK is installed.
        """
        asked = self._asked(call, api_key)
        with exchanging(_extra_headers(call, asked.model), partial(refuse_left_out, call)) as exchange:
            try:
                async with asyncio.timeout(call.timeout_s):
                    response = await asked.model.request(asked.messages, asked.settings, asked.parameters)
            except Exception as error:  # SDKs raise anything at all on a body that they don't expect
                raise self._error(asked, call, api_key, error, exchange) from error
        return self._passed(asked, call, api_key, response, exchange)

    async def stream(self, call: Call, *, api_key: str) -> AsyncGenerator[Delta | Completion]:
        """Send one call and tell its answer as it comes, see `fleet.workers.ports.StreamingProvider`.

        A model whose SDK does not stream, or whose server was found not to, answers in one piece. So do several answers
        to one call (`n`): in a stream their pieces come mixed, and pydantic-ai takes them all for one.
        """
        asked = self._asked(call, api_key)
        is_whole = STREAM in asked.refused or call.wishes.n > 1
        if is_whole or type(asked.model).request_stream is Model.request_stream:
            yield await self.complete(call, api_key=api_key)
            return
        async with aclosing(in_a_task(self._streamed(asked, call, api_key))) as pieces:
            async for piece in pieces:
                yield piece

    async def _streamed(self, asked: _Asked, call: Call, api_key: str) -> AsyncGenerator[Delta | Completion]:
        """Yield the pieces of one answer, and the whole. In a task of its own: it sets context variables."""
        answer: StreamedResponse | None = None
        extra, check = _extra_headers(call, asked.model), partial(refuse_left_out, call)
        with exchanging(extra, check, is_streamed=True) as exchange:
            try:
                async with (
                    asyncio.timeout(call.timeout_s),
                    asked.model.request_stream(asked.messages, asked.settings, asked.parameters) as answer,
                ):
                    async for piece in deltas_of(answer, call):
                        yield piece
            except Exception as error:
                self._check_streams(asked, call, exchange, error)
                if answer is None or not is_whole(answer, exchange) or hidden(asked.host, call, api_key, exchange):
                    raise self._error(asked, call, api_key, error, exchange) from error
            self._check_streams(asked, call, exchange, None)
        whole = self._passed(asked, call, api_key, answer.get(), exchange)
        if not is_whole(answer, exchange):
            raise ProviderUnavailable(f"{asked.host}: expected a whole answer, got a stream that broke off")
        yield whole

    def _check_streams(self, asked: _Asked, call: Call, exchange: Exchange, cause: Exception | None) -> None:
        """Learn that a server answers in one piece what was asked for in many: each such answer is paid for nothing."""
        if exchange.status is None or not 200 <= exchange.status < 300 or not exchange.is_json:
            return
        try:
            answer = json.loads(exchange.raw)
        except (ValueError, RecursionError):
            return
        if not isinstance(answer, dict) or carries_error(answer) or not _is_answer(answer):
            return
        self._lessons.learn(asked.api, STREAM)
        told = Relearnt(f"{asked.host}: expected an answer in pieces, got one: later calls ask for it whole")
        told.usage = read_usage(answer.get("usage") or answer.get("usageMetadata"), call, "")
        raise told from cause

    def _asked(self, call: Call, api_key: str) -> _Asked:
        """Return a call in pydantic-ai's words: without what its model refuses, but for what is to be tried again."""
        model, api = self._model(call.model, api_key), f"{self._name}/{call.model}"
        messages, parameters = messages_of(call), parameters_of(call.wishes, model)
        refused, probed = self._lessons.refused(api), frozenset[str]()
        if refused:
            whole = settings_of(call, without=model.unsupported_settings)
            carried = (what for what in refused if what == STREAM or _carries(whole, what, call.wishes))
            probed = frozenset(what for what in carried if self._lessons.may_probe(api, what))
        gone = refusable(refused - probed, call.wishes)
        return _Asked(
            model, api, _host(model, call.model), model.prepare_messages(messages, parameters),
            settings_of(call, without=gone | model.unsupported_settings), parameters, refused - probed, probed,
        )  # fmt: skip

    def _passed(
        self, asked: _Asked, call: Call, api_key: str, response: ModelResponse, exchange: Exchange
    ) -> Completion:
        """Return the answer, or raise the error that came in its place; what was tried again and taken is forgotten."""
        try:
            instead = hidden(asked.host, call, api_key, exchange)
            completion = completion_of(response, call, exchange)
        except Exception as error:
            raise self._error(asked, call, api_key, error, exchange) from error
        if instead is not None:
            raise self._taught(instead, asked, call, exchange)
        if says_nothing(response):
            raise unreadable(asked.host, call, api_key, exchange)
        for what in asked.probed & (exchange.asked_fields().keys() | ({STREAM} if exchange.is_streamed else set())):
            self._lessons.forget(asked.api, what)
        return completion

    async def close(self) -> None:
        """Close the HTTP connections. A later call opens new ones."""
        self._models.clear()
        await self._clients.close()

    def check(self, model: str, *, api_key: str) -> None:
        """Look whether a model could be called; opens no connection.

        Raises:
            ConfigurationError: As `complete`.
        """
        self._model(model, api_key)

    def _model(self, name: str, api_key: str) -> Model:
        model = self._models.get((name, api_key))
        if model is None:
            for other in [known for known in self._models if known[0] == name]:
                del self._models[other]  # of a key that was replaced
            model = make_model(
                name, key=api_key, base_url=self._base_url, clients=self._clients, timeout_s=self._timeout_s
            )
            self._models[name, api_key] = model
        return model

    def _error(self, asked: _Asked, call: Call, api_key: str, error: Exception, exchange: Exchange) -> FleetError:
        """Return the error for a call without an answer; remember what the model refuses."""
        host = asked.host
        if isinstance(error, FleetError):
            return error
        if isinstance(error, TimeoutError):
            told = f"{host}: expected an answer within {call.timeout_s:g} s, got none"
            return ProviderUnavailable(told, sent=bool(exchange.requests), timed_out=True)
        if exchange.status is None:
            return unanswered(host, call, api_key, error, exchange)
        if 200 <= exchange.status < 300:
            instead = hidden(host, call, api_key, exchange)
            if instead is not None:
                return self._taught(instead, asked, call, exchange)
            if exchange.is_streamed and not exchange.is_json:
                return broken_off(host, call, api_key, error, exchange)
            return unreadable(host, call, api_key, exchange)
        problem = problem_of(call, api_key, exchange)
        told_by_it = by_status(host, call, problem, exchange)
        if (schema := refused_schema(call, problem, told_by_it, exchange)) is not None:
            return schema
        return self._taught(told_by_it, asked, call, exchange) if exchange.status in REFUSING else told_by_it

    def _taught(self, told: FleetError, asked: _Asked, call: Call, exchange: Exchange) -> FleetError:
        """Return what a refusal comes to, with what its answer has used."""
        taught = self._read(told, asked, call, exchange)
        taught.usage = told.usage
        return taught

    def _read(self, told: FleetError, asked: _Asked, call: Call, exchange: Exchange) -> FleetError:
        """Return what a refusal comes to: as `taught.student.Student` does for the native wires."""
        if isinstance(told, KeyRejected | RateLimited) or len(exchange.raw) > MOST_BYTES:
            return told
        hides = error_in(exchange) if 200 <= (exchange.status or 0) < 300 else None
        words = read_words(exchange.raw if hides is None else json.dumps(hides).encode())
        if (overflow := overflow_in(words)) is not None:
            true = overflow.true_input(sent_tokens(call.messages, call.wishes), call.max_output_tokens)
            return ContextTooLong(str(told), window_tokens=overflow.window_tokens, true_input_tokens=true)
        named = refused_in(words, dict.fromkeys(exchange.asked_fields()))
        known = [what for what in named if _carries(asked.settings, what, call.wishes)]
        for what in known:
            self._lessons.learn(asked.api, what)
        if own := [what for what in known if not refusable({what}, call.wishes)]:
            names = ", ".join(map(quote, own))
            return BadRequest(f"{told}: the model refuses {names}: leave it out, or set `drop_params`", blame="prompt")
        return Relearnt(f"{told}: later calls leave out {', '.join(map(quote, known))}") if known else told


class _Asked(NamedTuple):
    """One call in pydantic-ai's words.

    Args:
        model: What it goes through.
        api: `provider/model`.
        host: Who is asked, for people.
        messages: The conversation.
        settings: What is asked.
        parameters: Tools and the form of the answer.
        refused: What its model refuses, and it goes without.
        probed: What its model was known to refuse, and is tried once more.
    """

    model: Model
    api: str
    host: str
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    refused: frozenset[str]
    probed: frozenset[str]


def _carries(settings: ModelSettings, field: str, wishes: Wishes) -> bool:
    """True when a call has what goes out as this field."""
    return any(name in settings or name in wishes.extra_body for name in names_without(field, wishes))


def _is_answer(body: Mapping[str, Any]) -> bool:
    """True for the body of an answer in one piece, of any wire."""
    return any(isinstance(body.get(name), list | dict) for name in ("choices", "content", "candidates", "output"))


def _extra_headers(call: Call, model: Model) -> Mapping[str, str]:
    """Return the headers that an SDK has no way for: they are added to its request."""
    return call.wishes.extra_headers if "extra_headers" in model.unsupported_settings else {}


def _host(model: Model, name: str) -> str:
    """Return who is asked, for people: the host, or the vendor where there is none to see."""
    return URL(model.base_url or "").host or name.partition(":")[0]
