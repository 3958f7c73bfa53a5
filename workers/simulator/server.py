"""The simulator's HTTP server: takes calls, limits them, decides their fate, answers, and keeps the ledger.

The handler sits right on aiohttp's low-level server, without routing and middlewares: it has to be the cheapest part
of a benchmark. Formats live in the wires, decisions in limits, chance and answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from fleet.errors import ConfigurationError
from fleet.workers.simulator.admission import why_not
from fleet.workers.simulator.answers import Answers
from fleet.workers.simulator.anthropic_wire import AnthropicWire
from fleet.workers.simulator.bad_bots import BadBots, BadMode
from fleet.workers.simulator.chance import Chance, fate_of, latency_s
from fleet.workers.simulator.collapse import Collapse, Mode
from fleet.workers.simulator.ledger import Account, Ledger
from fleet.workers.simulator.limits import Limits
from fleet.workers.simulator.openai_wire import OpenAIWire
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.recordings import read_recordings
from fleet.workers.simulator.voices import Voices, read_query
from fleet.workers.simulator.wire import CompletionRequest, Wire, WireError, encode_json, read_object

#: Largest request body, in bytes: the longest prompt that Fleet takes, in 8-byte escapes.
MAX_BODY_BYTES = 32 * 1024 * 1024
#: Connections that may wait to be accepted: a fleet opens hundreds at once.
BACKLOG = 2048
#: Seconds that calls in flight get when the simulator stops; hung ones never end by themselves.
SHUTDOWN_S = 0.5
#: Model that `GET /v1/models` names. Any other name works as well.
MODEL = "simulated-1"
#: On every answer, so that nobody takes it for a real provider's.
MARK = {"x-fleet-simulator": "true", "Content-Type": "application/json"}

_OPENAI, _ANTHROPIC = OpenAIWire(), AnthropicWire()
_WIRES: Mapping[str, Wire] = {"/v1/chat/completions": _OPENAI, "/v1/messages": _ANTHROPIC}


class Simulator:
    """One simulated provider. Use it from one event loop.

    Args:
        options: Limits, failures, answers and prices.

    Raises:
        ConfigurationError: When the file of recorded answers is not usable.
    """

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.ledger = Ledger(
            input_usd_per_mtok=options.input_usd_per_mtok, output_usd_per_mtok=options.output_usd_per_mtok
        )
        self.recorded = self.duplicates = 0
        self._limits = Limits(
            rpm=options.rpm, tpm=options.tpm, burst=options.burst, minute_s=options.minute_s, mode=options.mode
        )
        self._chance = Chance(options.seed)
        self._casts = self._load_answers()
        self._voices = Voices()
        self._collapse, self._bad_bots = Collapse(self._voices), BadBots(self._voices)
        self._runner: web.ServerRunner | None = None
        self._pages: Mapping[tuple[str, str], Callable[[web.BaseRequest], web.Response]] = {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/v1/models"): self._models,
        }
        self._admin_pages: Mapping[tuple[str, str], Callable[[web.BaseRequest], web.Response]] = {
            ("GET", "/ledger"): self._ledger,
            ("POST", "/ledger/reset"): self._reset,
            ("GET", "/collapse"): self._collapsed,
            ("POST", "/collapse"): self._switch_collapse,
            ("GET", "/bad"): self._bad,
            ("POST", "/bad"): self._switch_bad,
            ("POST", "/failures"): self._switch_failures,
        }

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the address as `http://HOST:PORT`.

        Args:
            host: Address of an own interface.
            port: 0 takes a free one.

        Raises:
            ConfigurationError: When it cannot listen there.
        """
        server = web.Server(self._handle, handler_cancellation=True, request_factory=_request, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=BACKLOG).start()
        except OSError as error:
            await self.stop()
            raise ConfigurationError(
                f"expected to listen on {host}:{port}, got {error.strerror or error}: choose another port, or 0"
            ) from error
        listens = self._runner.addresses[0]
        return f"http://{f'[{host}]' if ':' in host else host}:{listens[1]}"

    async def stop(self) -> None:
        """Stop listening and close all connections; calls in flight get half a second."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        wire = _WIRES.get(path)
        if wire is not None and request.method == "POST":
            return await self._complete(request, wire)
        page = self._pages.get((request.method, path))
        if page is not None:
            return page(request)
        admin_page = self._admin_pages.get((request.method, path))
        if admin_page is not None:
            refusal = why_not(request, self.options.admin_token)
            return admin_page(request) if refusal is None else _error(_OPENAI, 403, refusal, code="not_allowed")
        if wire is not None or any(known == path for _, known in (*self._pages, *self._admin_pages)):
            return _error(wire or _OPENAI, 405, f"{request.method} is not allowed here", code="method_not_allowed")
        return _error(_OPENAI, 404, "unknown path: expected /v1/chat/completions or /v1/messages", code="unknown_url")

    async def _complete(self, request: web.BaseRequest, wire: Wire) -> web.StreamResponse:
        headers = request.headers
        key = _key(headers)
        if not key:
            self.ledger.unauthorized_401 += 1
            return _error(
                wire, 401, "expected a key in `Authorization: Bearer` or `x-api-key`, got none", code="invalid_api_key"
            )
        try:
            content = request.content
            raw = content.read_nowait() if content.is_eof() else await request.read()  # most bodies came in one piece
        except web.HTTPRequestEntityTooLarge:
            self.ledger.account(key).reject()
            return _error(wire, 413, f"expected a body of at most {MAX_BODY_BYTES} bytes")
        account = self.ledger.account(key)
        try:
            asked = wire.read(read_object(raw), headers)
        except WireError as error:
            account.reject()
            return _error(wire, 400, str(error), param=error.param)
        account.calls += 1
        return await self._admitted(request, wire, asked, raw, key, account)

    async def _admitted(
        self, request: web.BaseRequest, wire: Wire, asked: CompletionRequest, raw: bytes, key: str, account: Account
    ) -> web.StreamResponse:
        """Charge the limits, then let the call meet its fate.

        A 5xx is charged one request and no tokens: it fails before the model runs. All else is charged in full, also
        what hangs or is cut.
        """
        options = self.options
        draw = self._chance.draw(key, raw)
        fate = fate_of(draw, error_rate=options.error_rate, hang_rate=options.hang_rate, cut_rate=options.cut_rate)
        voice = (asked.system, asked.temperature)
        cast = self._casts[self._voices.hear(voice) % len(self._casts)]
        conduct = self._bad_bots.conduct(voice)
        spoilt = self._bad_bots.answer(conduct, draw, max_tokens=asked.max_tokens) if conduct else None
        answer = (
            spoilt
            or self._collapse.answer(voice, draw, max_tokens=asked.max_tokens)
            or cast.answer(asked.question, draw, max_tokens=asked.max_tokens)
        )
        tokens = 0 if fate == "error" else asked.input_tokens + answer.tokens
        now_s = time.monotonic()
        allowance = self._limits.allowance(key, asked.model, now_s)
        refusal = allowance.admit(tokens, now_s)
        unix_s = time.time()
        headers = {**MARK, **allowance.headers(unix_s)}
        if refusal is not None:
            account.refused_429 += 1
            message = f"rate limit of {refusal.what} reached for this key and model"
            body = wire.error(429, message, code="rate_limit_exceeded")
            return web.Response(status=429, body=body, headers={**headers, **refusal.headers()})
        self._chance.use(draw)
        pace = 1.0
        if conduct is not None:
            conduct.count(draw, spoilt=spoilt is not None)
            pace = self._bad_bots.pace(conduct)
        if options.latency_ms:
            await self._wait(latency_s(draw, median_ms=options.latency_ms) * pace, account)
        if fate == "hang":
            account.hung += 1
            await asyncio.Event().wait()  # ends when the client leaves: the server cancels this handler
        if fate == "error":
            account.errors_5xx += 1
            status = wire.failure_status(draw.words)
            return web.Response(status=status, body=wire.error(status, "simulated failure"), headers=headers)
        body = wire.answer(asked, answer, draw.id, int(unix_s))
        if fate == "cut":
            account.cut_off(asked.input_tokens, answer.tokens, matched=answer.matched)
            return await _cut(request, body, headers)
        account.serve(asked.input_tokens, answer.tokens, matched=answer.matched)
        return web.Response(body=body, headers=headers)

    async def _wait(self, seconds: float, account: Account) -> None:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            account.abandoned += 1
            raise

    def _load_answers(self) -> tuple[Answers, ...]:
        options = self.options
        if options.answers is None:
            return (Answers(),)
        read = partial(read_recordings, options.answers, question_field=options.question_field)
        recorded = [read(answer_field=field) for field in options.answer_field.split(",")]
        self.recorded, self.duplicates = len(recorded[0].answers), recorded[0].duplicates
        return tuple(Answers(one.answers) for one in recorded)

    def _healthz(self, request: web.BaseRequest) -> web.Response:
        return _json({"status": "ok", "simulator": True})

    def _ledger(self, request: web.BaseRequest) -> web.Response:
        answers = {"recorded": self.recorded, "duplicates": self.duplicates}
        return _json({**self.ledger.report(), "answers": answers})

    def _reset(self, request: web.BaseRequest) -> web.Response:
        self.ledger.reset()
        return self._ledger(request)

    def _collapsed(self, request: web.BaseRequest) -> web.Response:
        return _json(self._collapse.report())

    def _switch_collapse(self, request: web.BaseRequest) -> web.Response:
        """Let voices collapse, or end it: /collapse?share=0.1&noise=0.05&until=persona&seed=7."""
        try:
            self._collapse.switch(Mode.read(request.query))
        except ValueError as error:
            return _error(_OPENAI, 400, str(error))
        return self._collapsed(request)

    def _bad(self, request: web.BaseRequest) -> web.Response:
        return _json(self._bad_bots.report())

    def _switch_bad(self, request: web.BaseRequest) -> web.Response:
        """Let voices go bad, or end it: /bad?errors=7&avoidance=7&slow=0.06&error_share=0.5&pace=4&seed=7."""
        try:
            self._bad_bots.switch(BadMode.read(request.query))
        except ValueError as error:
            return _error(_OPENAI, 400, str(error))
        return self._bad(request)

    def _switch_failures(self, request: web.BaseRequest) -> web.Response:
        """Let the provider itself fail, or end it: /failures?error_rate=1&hang_rate=0&cut_rate=0."""
        try:
            rates = read_query(request.query, dict.fromkeys(("error_rate", "hang_rate", "cut_rate"), float))
            self.options = replace(self.options, **rates)
        except (ValueError, ConfigurationError) as error:
            return _error(_OPENAI, 400, str(error))
        return _json({name: getattr(self.options, name) for name in ("error_rate", "hang_rate", "cut_rate")})

    def _models(self, request: web.BaseRequest) -> web.Response:
        if not _key(request.headers):
            return _error(_OPENAI, 401, "expected a key, got none", code="invalid_api_key")
        return _json(_MODELS)


async def _cut(request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Send half of the body, then close the connection."""
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """As aiohttp makes a request, but for larger bodies."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


def _key(headers: Mapping[str, str]) -> str:
    """Return the key of either vendor's header, or nothing."""
    bearer = headers.get("Authorization", "")
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return headers.get("x-api-key", "").strip()


def _error(wire: Wire, status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    return web.Response(status=status, body=wire.error(status, message, param=param, code=code), headers=MARK)


def _json(value: Mapping[str, Any]) -> web.Response:
    return web.Response(body=encode_json(value).encode("ascii"), headers=MARK)


#: The one list of models in both vendors' shape: each SDK reads its own fields.
_MODELS = {
    "object": "list",
    "data": [
        {
            "id": MODEL,
            "object": "model",
            "created": 0,
            "owned_by": "fleet-simulator",
            "type": "model",
            "display_name": "Fleet simulator",
            "created_at": "1970-01-01T00:00:00Z",
        }
    ],
    "has_more": False,
    "first_id": MODEL,
    "last_id": MODEL,
}
