"""The simulator's HTTP server: takes calls, limits them, decides their fate, answers, and keeps the ledger.

The handler sits right on aiohttp's low-level server, without routing and middlewares: it has to be the cheapest part
of a benchmark. Formats live in the wires, decisions in limits, chance and answers, switches in `pages.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.workers.simulator.admission import TakenKeys, why_not
from fleet.workers.simulator.answers import SimulatedAnswer
from fleet.workers.simulator.batch.anthropic_batches import MESSAGE_BATCHES, MessageBatches
from fleet.workers.simulator.batch.background import PREFIX as BACKGROUND
from fleet.workers.simulator.batch.background import BackgroundDesk
from fleet.workers.simulator.batch.book import JobBook
from fleet.workers.simulator.batch.clock import Clock
from fleet.workers.simulator.batch.desk import BATCHES, FILES, BatchDesk, lost
from fleet.workers.simulator.batch.faults import BatchFaults
from fleet.workers.simulator.chance import Draw, fate_of, happens, latency_s
from fleet.workers.simulator.ledger import Account, Ledger, Served
from fleet.workers.simulator.limits import Limits
from fleet.workers.simulator.odd.answers import readable
from fleet.workers.simulator.odd.catalogue import HEADER, ODD, PREFIX, Odd, OddMode, wished
from fleet.workers.simulator.odd.refusals import OddCall, Refused, flex_refusal, parallel_refusal
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.pages import Pages
from fleet.workers.simulator.rich.model import SimulatedModel
from fleet.workers.simulator.rich.spoken import Spoken
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.anthropic_wire import AnthropicWire
from fleet.workers.simulator.wires.gemini_wire import GeminiWire
from fleet.workers.simulator.wires.gemini_wire import is_asked as is_gemini
from fleet.workers.simulator.wires.kept_responses import PATH as KEPT
from fleet.workers.simulator.wires.kept_responses import KeptResponses
from fleet.workers.simulator.wires.openai_wire import OpenAIWire
from fleet.workers.simulator.wires.responses_wire import ResponsesWire
from fleet.workers.simulator.wires.sending import MARK, Sending, respond
from fleet.workers.simulator.wires.wire import CompletionRequest, Wire, encode_json, read_object

#: Largest request body, in bytes: the longest prompt that Fleet takes, in 8-byte escapes.
MAX_BODY_BYTES = 32 * 1024 * 1024
#: Connections that may wait to be accepted: a fleet opens hundreds at once.
BACKLOG = 2048
#: Seconds that calls in flight get when the simulator stops; hung ones never end by themselves.
SHUTDOWN_S = 0.5

_OPENAI, _ANTHROPIC, _GEMINI, _RESPONSES = OpenAIWire(), AnthropicWire(), GeminiWire(), ResponsesWire()
_WIRES: Mapping[str, Wire] = {
    "/v1/chat/completions": _OPENAI, "/v1/messages": _ANTHROPIC, "/v1/responses": _RESPONSES,
}  # fmt: skip
#: What OpenAI's batches may ask for.
_BATCHED: Mapping[str, Wire] = {"/v1/chat/completions": _OPENAI, "/v1/responses": _RESPONSES}


class Simulator:
    """One simulated provider. Use it from one event loop.

    Args:
        options: Limits, failures, answers and prices.

    Raises:
        ConfigurationError: When the file of recorded answers is not usable.
    """

    def __init__(self, options: SimulatorOptions) -> None:
        self.options = options
        self.ledger = Ledger(options)
        self.odd_mode, self.taken_keys = OddMode(), TakenKeys()
        self._limits = Limits(
            rpm=options.rpm,
            tpm=options.tpm,
            burst=options.burst,
            minute_s=options.minute_s,
            mode=options.mode,
            rpd=options.rpd,
            family=options.headers,
        )
        self.model = SimulatedModel(options)
        self.collapse, self.bad_bots = self.model.collapse, self.model.bad_bots
        self._chance = self.model.chance
        self.kept = KeptResponses()
        self.clock, self.batch_faults = Clock(options.clock_speed), BatchFaults()
        self.jobs = JobBook(self, self.clock)
        self._desk = BatchDesk(self, self.jobs, self.clock, self.batch_faults, _BATCHED)
        self._background = BackgroundDesk(self, self.jobs, self.clock, self.batch_faults, _RESPONSES)
        self._batches = MessageBatches(self, self.jobs, self.clock, self.batch_faults, _ANTHROPIC)
        self._pages = Pages(self)
        self._runner: web.ServerRunner | None = None

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
        wire = _WIRES.get(path) or (_GEMINI if is_gemini(path) else None)
        if wire is not None and request.method == "POST":
            return await self._complete(request, wire)
        if path.startswith(KEPT) and request.method in ("GET", "DELETE", "POST"):
            return await self._kept_response(request, path.removeprefix(KEPT))
        if path.startswith((FILES, BATCHES)):
            key = key_of(request.headers)
            return await self._desk.answer(request, key) if self._takes(key) else _unauthorized(_OPENAI)
        if path.startswith(MESSAGE_BATCHES):
            key = key_of(request.headers)
            return await self._batches.answer(request, key) if self._takes(key) else _unauthorized(_ANTHROPIC)
        if path == "/ledger":
            await self.jobs.catch_up()
        page, is_admin = self._pages.find(request.method, path)
        if page is not None:
            refusal = why_not(request, self.options.admin_token) if is_admin else None
            return page(request) if refusal is None else _error(_OPENAI, 403, refusal, code="not_allowed")
        if wire is not None or self._pages.knows(path):
            return _error(wire or _OPENAI, 405, f"{request.method} is not allowed here", code="method_not_allowed")
        return _error(_OPENAI, 404, f"unknown path: expected one of {', '.join(_WIRES)}", code="unknown_url")

    def _takes(self, key: str) -> bool:
        if not key:
            self.ledger.unauthorized_401 += 1
        return bool(key) and self.taken_keys.takes(key)

    async def _kept_response(self, request: web.BaseRequest, response_id: str) -> web.Response:
        """Return, cancel or forget a response of the key's own."""
        key = key_of(request.headers)
        if not self._takes(key):
            return _unauthorized(_OPENAI)
        if response_id.startswith(BACKGROUND):
            found = await self._background.page(key, request.method, response_id)
        else:
            found = None if request.method == "POST" else self.kept.page(key, request.method, response_id)
        if found is None:
            return _error(_OPENAI, 404, f"Response with id {quote(response_id)} not found.")
        return respond(200, encode_json(found).encode("ascii"), MARK)

    async def _complete(self, request: web.BaseRequest, wire: Wire) -> web.StreamResponse:
        headers = request.headers
        key = key_of(headers)
        if not key:
            self.ledger.unauthorized_401 += 1
            return _unauthorized(wire)
        try:
            content = request.content
            raw = content.read_nowait() if content.is_eof() else await request.read()  # most bodies came in one piece
        except web.HTTPRequestEntityTooLarge:
            self.ledger.account(key).reject()
            return _error(wire, 413, f"expected a body of at most {MAX_BODY_BYTES} bytes")
        account = self.ledger.account(key)
        account.calls += 1
        account.last_call_at_s = time.time()
        if not self.taken_keys.takes(key):
            account.rejected_401 += 1
            return _error(wire, 401, "expected a key that is taken, got another one", code="invalid_api_key")
        try:
            whole = body = read_object(raw)
            if wire is _RESPONSES:
                body = self.kept.unfolded(key, body)
            if wire.is_translated:
                body = wire.understood(body, request.path, request.query)
            asked = wire.read(body, headers)
            draw = self._chance.draw(key, raw)
            if whole.get("background") is True and wire is _RESPONSES:
                return self._in_background(request, key, whole, asked, draw)
            odd = None
            if self.odd_mode.name or asked.model.startswith(PREFIX) or HEADER in headers:
                odd = wished(asked.model, headers.get(HEADER)) or self._switched(draw)
            if odd is not None or asked.wanted is not None or self.options.in_flight is not None:
                refused = self._refused(OddCall(wire, body, asked), odd, draw, account)
                if refused is not None:
                    account.refuse(refused.means or refused.status)
                    self._chance.use(draw)
                    return respond(refused.status, refused.raw, {**MARK, **refused.headers})
            return await self._admitted(request, wire, asked, draw, key, account, odd)
        except WireError as error:
            account.bad_requests += 1
            return _error(wire, 400, str(error), param=error.param, code=error.code)

    def _in_background(
        self, request: web.BaseRequest, key: str, body: dict[str, Any], asked: CompletionRequest, draw: Draw
    ) -> web.Response:
        """Take a call that is answered later, and counted then; its input counts for the limits now.

        Raises:
            WireError: It cannot run in the background as it is.
        """
        account, now_s = self.ledger.account(key), time.monotonic()
        refusal = self._limits.allowance(key, asked.model, now_s).admit(asked.input_tokens, now_s)
        if refusal is not None:
            account.refused_429 += 1
            message = f"rate limit of {refusal.what} reached for this key and model"
            told = _RESPONSES.error(429, message, code="rate_limit_exceeded", retry_after_s=refusal.retry_after_s)
            return respond(429, told, {**MARK, **refusal.headers()})
        made = self._background.create(key, body, asked, draw)
        account.calls -= 1
        self._chance.use(draw)
        return lost(request) if made is None else respond(200, encode_json(made).encode("ascii"), MARK)

    def _switched(self, draw: Draw) -> Odd | None:
        """Return the behaviour that is switched on, for its share of the calls."""
        mode = self.odd_mode
        return ODD[mode.name] if mode.name and happens(draw.fate, mode.share) else None

    def _refused(self, seen: OddCall, odd: Odd | None, draw: Draw, account: Account) -> Refused | None:
        """Return why a call is refused before any limit is asked; None for most."""
        options = self.options
        if odd is not None and odd.refuse is not None:
            refused = odd.refuse(seen)
            if refused is not None:
                return refused
        wanted = seen.asked.wanted
        if wanted is not None and wanted.tier == "flex" and happens(draw.fate, options.flex_busy_rate):
            return flex_refusal(seen)
        if options.in_flight is not None and account.in_flight > options.in_flight:
            return parallel_refusal(options.in_flight)
        return None

    async def _admitted(
        self,
        request: web.BaseRequest,
        wire: Wire,
        asked: CompletionRequest,
        draw: Draw,
        key: str,
        account: Account,
        odd: Odd | None,
    ) -> web.StreamResponse:
        """Charge the limits, then let the call meet its fate.

        A 5xx is charged one request and no tokens: it fails before the model runs. All else is charged in full, also
        what hangs or is cut.
        """
        options = self.options
        fate = fate_of(draw, error_rate=options.error_rate, hang_rate=options.hang_rate, cut_rate=options.cut_rate)
        conduct = self.model.hear(asked)
        spoilt = self.bad_bots.answer(conduct, draw, max_tokens=asked.max_tokens) if conduct else None
        now_s, cache_s = time.monotonic(), self.clock.now_s()
        spoken: Spoken | None = None
        if asked.wanted is None:
            answer = spoilt or self.model.say(asked, draw, asked.max_tokens)
            tokens = asked.input_tokens + answer.tokens
        else:
            spoken = self.model.speak(asked, asked.wanted, draw, spoilt, f"{key}/{asked.model}", cache_s)
            answer = SimulatedAnswer("", spoken.tokens, matched=spoken.choices[0].matched)
            read = 0 if wire.limits_count_cached else spoken.cached.read
            tokens = asked.input_tokens + spoken.tokens - read
        allowance = self._limits.allowance(key, asked.model, now_s)
        refusal = allowance.admit(0 if fate == "error" else tokens, now_s)
        unix_s = time.time()
        family = odd.family if odd is not None else None
        headers = {**MARK, **allowance.headers(unix_s, family)} if wire.tells_limits or family else MARK
        if refusal is not None:
            account.refused_429 += 1
            message = f"rate limit of {refusal.what} reached for this key and model"
            after_s = refusal.retry_after_s
            body = wire.error(429, message, code="rate_limit_exceeded", retry_after_s=after_s)
            return respond(429, body, {**headers, **refusal.headers()} if wire.tells_limits else headers)
        self._chance.use(draw)
        pace = 1.0
        if conduct is not None:
            conduct.count(draw, spoilt=spoilt is not None)
            pace = self.bad_bots.pace(conduct)
        delay_s = latency_s(draw, median_ms=options.latency_ms) * pace if options.latency_ms else 0.0
        is_streamed = asked.wanted is not None and asked.wanted.is_streamed
        if delay_s:
            await _wait(delay_s / 2 if is_streamed else delay_s, account)
        if fate == "hang":
            account.hung += 1
            await asyncio.Event().wait()  # ends when the client leaves: the server cancels this handler
        if fate == "error":
            account.errors_5xx += 1
            status = wire.failure_status(draw.words)
            return web.Response(status=status, body=wire.error(status, "simulated failure"), headers=headers)
        spent = Served(asked.model, asked.input_tokens, answer.tokens, matched=answer.matched)
        if spoken is None and odd is None:
            body = wire.answer(asked, answer, draw.id, int(unix_s))
            if fate == "served":
                self.ledger.serve(account, spent)
                return web.Response(body=body, headers=headers)
            self.ledger.cut_off(account, spent)
            return await Sending(request, headers).cut(body)
        values = (
            readable(wire.answer(asked, answer, draw.id, int(unix_s)))
            if spoken is None
            else wire.rich_answer(asked, spoken, draw.id, int(unix_s))
        )
        if odd is not None and odd.spoil is not None:
            odd.spoil(values)
        values = wire.told(values)
        if asked.wanted is not None and asked.wanted.responding is not None:
            self.kept.keep(key, asked.wanted.responding, values)
        if spoken is not None:
            spent = spent._replace(classes=self.model.used(asked, spoken, wire, cache_s))
        sending = Sending(request, headers)
        try:
            if is_streamed and asked.wanted is not None:
                events = wire.events(values, asked.wanted)
                broken = odd.breaks_stream if odd is not None else None
                await sending.stream(events, over_s=delay_s / 2, is_cut=fate == "cut", broken=broken)
            else:
                await sending.whole(values, is_cut=fate == "cut")
        finally:  # also when the client leaves in the middle of a stream
            if sending.is_whole:
                self.ledger.serve(account, spent)
            else:
                self.ledger.cut_off(account, spent._replace(output_tokens=round(answer.tokens * sending.share)))
        return sending.response


async def _wait(seconds: float, account: Account) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        account.abandoned += 1
        raise


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """As aiohttp makes a request, but for larger bodies."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


def key_of(headers: Mapping[str, str]) -> str:
    """Return the key of any vendor's header, or nothing."""
    bearer = headers.get("Authorization", "")
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return (headers.get("x-api-key") or headers.get("x-goog-api-key", "")).strip()


def _error(wire: Wire, status: int, message: str, *, param: str | None = None, code: str | None = None) -> web.Response:
    return respond(status, wire.error(status, message, param=param, code=code), MARK)


def _unauthorized(wire: Wire) -> web.Response:
    message = "expected a key that is taken, in `Authorization: Bearer` or `x-api-key`, got none"
    return _error(wire, 401, message, code="invalid_api_key")
