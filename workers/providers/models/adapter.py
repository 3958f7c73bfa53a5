"""The adapter: one call through a model of pydantic-ai, as one HTTP request, with its answer or a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from pydantic_ai.models import Model
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
from fleet.workers.load import sent_tokens
from fleet.workers.ports import Call, Completion, Lessons
from fleet.workers.providers.base import parse_base_url
from fleet.workers.providers.models.answered import completion_of, says_nothing
from fleet.workers.providers.models.asked import (
    SETTINGS,
    messages_of,
    parameters_of,
    refusable,
    refuse_left_out,
    settings_of,
)
from fleet.workers.providers.models.exchange import Clients, Exchange, exchanging
from fleet.workers.providers.models.failed import by_status, hidden, problem_of, refused_schema, unanswered, unreadable
from fleet.workers.providers.models.vendors import make_model
from fleet.workers.providers.taught.overflow import overflow_in
from fleet.workers.providers.taught.refusals import read_words, refused_in
from fleet.workers.providers.taught.student import REFUSING


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
        model = self._model(call.model, api_key)
        host = _host(model, call.model)
        messages, parameters = messages_of(call), parameters_of(call.wishes, model)
        refused = refusable(self._lessons.refused(f"{self._name}/{call.model}"), call.wishes)
        settings = settings_of(call, without=refused | model.unsupported_settings)
        with exchanging(_extra_headers(call, model), partial(refuse_left_out, call)) as exchange:
            try:
                async with asyncio.timeout(call.timeout_s):
                    response = await model.request(model.prepare_messages(messages, parameters), settings, parameters)
                instead = hidden(host, call, api_key, exchange)
                completion = completion_of(response, call, exchange)
            except TimeoutError as error:
                told = f"{host}: expected an answer within {call.timeout_s:g} s, got none"
                raise ProviderUnavailable(told, sent=bool(exchange.requests), timed_out=True) from error
            except Exception as error:  # SDKs raise anything at all on a body that they don't expect
                raise self._error(host, call, api_key, error, exchange) from error
        if instead is not None or says_nothing(response):
            raise instead or unreadable(host, call, api_key, exchange)
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
            model = make_model(
                name, key=api_key, base_url=self._base_url, clients=self._clients, timeout_s=self._timeout_s
            )
            self._models[name, api_key] = model
        return model

    def _error(self, host: str, call: Call, api_key: str, error: Exception, exchange: Exchange) -> FleetError:
        """Return the error for a call without an answer; remember what the model refuses."""
        if isinstance(error, FleetError):
            return error
        if exchange.status is None:
            return unanswered(host, call, api_key, error, exchange)
        if 200 <= exchange.status < 300:
            return hidden(host, call, api_key, exchange) or unreadable(host, call, api_key, exchange)
        problem = problem_of(call, api_key, exchange)
        told = by_status(host, problem, exchange)
        if (schema := refused_schema(call, problem, told, exchange)) is not None:
            return schema
        return self._taught(told, call, exchange) if exchange.status in REFUSING else told

    def _taught(self, told: FleetError, call: Call, exchange: Exchange) -> FleetError:
        """Return what a refusal comes to: as `taught.student.Student` does for the native wires."""
        if isinstance(told, KeyRejected | RateLimited):
            return told
        words = read_words(exchange.raw)
        if (overflow := overflow_in(words)) is not None:
            true = overflow.true_input(sent_tokens(call.messages, call.wishes), call.max_output_tokens)
            return ContextTooLong(str(told), window_tokens=overflow.window_tokens, true_input_tokens=true)
        named = refused_in(words, dict.fromkeys(exchange.asked_fields()))
        known = [what for what in named if what in SETTINGS]
        for what in known:
            self._lessons.learn(f"{self._name}/{call.model}", what)
        if asked := [what for what in known if not refusable({what}, call.wishes)]:
            names = ", ".join(map(quote, asked))
            return BadRequest(f"{told}: the model refuses {names}: leave it out, or set `drop_params`", blame="prompt")
        return Relearnt(f"{told}: later calls leave out {', '.join(map(quote, known))}") if known else told


def _extra_headers(call: Call, model: Model) -> Mapping[str, str]:
    """Return the headers that an SDK has no way for: they are added to its request."""
    return call.wishes.extra_headers if "extra_headers" in model.unsupported_settings else {}


def _host(model: Model, name: str) -> str:
    """Return who is asked, for people: the host, or the vendor where there is none to see."""
    return URL(model.base_url or "").host or name.partition(":")[0]
