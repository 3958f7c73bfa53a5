"""One HTTP request to an LLM API, and what its status means as an error of `fleet.errors`.

What differs between vendors (path, headers, JSON) lives in the adapters beside this file. No retries anywhere here:
the gateway decides about a second request, because each needs a grant of its own.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import aiohttp
import pydantic_core
from yarl import URL

from fleet.config.certificates import ClientCertificate
from fleet.errors import (
    FleetError,
    MachineExhausted,
    ProviderUnavailable,
)
from fleet.lessons import Notebook
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion, Delta
from fleet.workers.frameworks.raw import OnHead, RawAnswer, RawRequest
from fleet.workers.ports import Lessons
from fleet.workers.providers.addresses import proxy_for
from fleet.workers.providers.answers.sse import ServerEvent, SseParser, TooLong
from fleet.workers.providers.answers.streams import AnswerStream
from fleet.workers.providers.bodies import carries_error, read_events
from fleet.workers.providers.problem import Problem, read_problem, texts_of
from fleet.workers.providers.raw_http import send_raw
from fleet.workers.providers.taught.student import Student
from fleet.workers.providers.usage import read_usage
from fleet.workers.providers.verdict import error_of, meant_status, of_tier
from fleet.workers.providers.wire_schema import refused_schema

#: Seconds until a TCP (and TLS) connection that does not come about is given up; part of the call's own timeout.
CONNECT_TIMEOUT_S = 10.0
#: Seconds that an idle connection is kept. Short enough that a server rarely closes it just as it is used again.
KEEPALIVE_S = 15.0
#: Largest answer that is read, in bytes: far above any model's longest answer, far below a worker's memory.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
#: What a machine lacks when it cannot connect: files (of a process, of all), memory, buffers, ports.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL})

#: The event behind the last one, on the wire of OpenAI.
LAST_EVENT = "[DONE]"

#: Headers of a request that SDKs write themselves: their version of the wire, the form of their body.
_THEIRS = frozenset({"Content-Type", "anthropic-version"})

#: Writes JSON without spaces. ASCII only, so that a lone surrogate in a prompt cannot break the encoding.
_write = json.JSONEncoder(separators=(",", ":")).encode


class HttpProvider(ABC):
    """Base of the adapters: one session, one request per `complete`, statuses turned into errors.

    Give it to one event loop only. The session is opened by the first call.

    Args:
        base_url: Root of the API, without a slash at the end.
        path: Path of the one endpoint used, below the root.
        name: Its name under [providers]: what a model refuses is known by it.
        lessons: What models refuse; None: this adapter's own, which nobody shares.
    """

    def __init__(self, base_url: URL, path: str, *, name: str = "", lessons: Lessons | None = None) -> None:
        self.host = base_url.host or ""
        self._root = base_url
        self._name = name
        self._lessons = Notebook() if lessons is None else lessons
        self._url = URL(f"{base_url}{path}", encoded=True)
        self._proxy = proxy_for(base_url)
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        """Send one call, see `fleet.workers.ports.Provider`.

        An error that hides in a 2xx is raised as if it had come with its own status, with the usage that the answer
        reports. A model that refuses a parameter raises `Relearnt`, and gets it no more (`Student`). Cancelling closes
        the connection; the provider may bill the call nevertheless.
        """
        student = Student(self._lessons, f"{self._name}/{call.model}", call)
        sent = student.prepared(self._body(call))
        body = encode_json(sent)
        try:
            async with self._post(call, api_key, body) as response:
                status, headers = response.status, response.headers
                raw = await _read(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._failure(call.timeout_s, error) from error
        try:
            if not 200 <= status < 300:
                raise self._error(call, status, headers, self._problem(call, api_key, raw))
            completion = self._answer(call, api_key, status, headers, raw)
        except FleetError as error:
            if (taught := student.taught(error, status, raw)) is error:
                raise
            raise taught from error
        return student.passed(completion, raw)

    async def stream(self, call: Call, *, api_key: str) -> AsyncGenerator[Delta | Completion]:
        """Send one call and tell its answer as it comes, see `fleet.workers.ports.StreamingProvider`.

        A server that does not stream is believed too: its answer comes in one piece.
        """
        student = Student(self._lessons, f"{self._name}/{call.model}", call)
        body = encode_json(student.prepared({**self._body(call), **self._STREAM}))
        answer, status, raw = self._stream(), 0, b""
        try:
            async with self._post(call, api_key, body) as response:
                status, headers = response.status, response.headers
                if not 200 <= status < 300 or response.content_type == "application/json":
                    raw = await _read(response)
                if not 200 <= status < 300:
                    raise self._error(call, status, headers, self._problem(call, api_key, raw))
                if raw:
                    yield student.passed(self._answer(call, api_key, status, headers, raw), raw)
                    return
                async for event in _events(response):
                    raw = event.data.encode("utf-8", "replace")
                    if event.data == LAST_EVENT:
                        answer.is_over = True
                    elif (told := self._checked(call, api_key, answer, event, headers)) is not None:
                        yield self._delta(call, answer, told)
                    if answer.is_over:
                        break
        except (TimeoutError, aiohttp.ClientError, OSError, TooLong) as error:
            if not answer.is_whole:  # else only the usage is missing
                raise self._failure(call.timeout_s, error) from error
        except FleetError as error:
            if (taught := student.taught(error, status, raw)) is error:
                raise
            raise taught from error
        if not (answer.is_whole or answer.is_over):
            raise ProviderUnavailable(f"{self.host}: expected a whole answer, got a stream that broke off")
        whole = answer.answer()
        yield student.passed(self._completion(call, whole, headers), encode_json(whole))

    def later_body(self, call: Call) -> bytes:
        """Return the request of a call as JSON, for a batch: see `fleet.workers.ports.BatchingProvider`."""
        return encode_json(Student(self._lessons, f"{self._name}/{call.model}", call).prepared(self._body(call)))

    def later_answer(self, call: Call, raw: bytes) -> Completion:
        """Read an answer that came in a batch; it was asked for in other words than today's, if lessons were learnt."""
        return self._answer(call, "", 200, {}, raw)

    def speaks(self, wire: str) -> bool:
        """True when the API understands what SDKs of this wire write: `openai` or `anthropic`."""
        return wire in self._WIRES

    async def exchange(self, request: RawRequest, *, api_key: str, timeout_s: float, on_head: OnHead) -> RawAnswer:
        """Send a request of an SDK, see `fleet.workers.frameworks.raw.RawProvider`."""
        own = {name: value for name, value in self._headers(api_key).items() if name not in _THEIRS}
        own = dict(self._joined(request.headers, own))
        timeout = _timeout(timeout_s)
        url = URL(f"{self._root}{self._RAW_PATH}{request.path}", encoded=True)
        try:
            return await send_raw(
                self._open(), url, request, own=own, timeout=timeout, on_head=on_head, most_bytes=MAX_ANSWER_BYTES
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._failure(timeout_s, error) from error

    async def close(self) -> None:
        """Close the HTTP connections. A later call opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _post(self, call: Call, api_key: str, body: bytes) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        theirs = call.wishes.extra_headers
        return self._open().post(
            self._url,
            data=body,
            headers={**theirs, **self._joined(theirs, self._headers(api_key))},
            timeout=_timeout(call.timeout_s),
            allow_redirects=False,
        )

    def _failure(self, timeout_s: float, error: Exception) -> FleetError:
        """Return what it means that there was no answer, or half of one. Without the text of the foreign error: some
        quote the address or the headers."""
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            told = f"{self.host}: expected a connection within {CONNECT_TIMEOUT_S:g} s"
            return ProviderUnavailable(told, sent=False)
        if isinstance(error, TimeoutError):
            told = f"{self.host}: expected an answer within {timeout_s:g} s, got none"
            return ProviderUnavailable(told, timed_out=True)
        if (lack := lack_of(error)) is not None:
            return MachineExhausted(
                f"expected a connection to {self.host}, got: {lack}; raise the limit of this machine, or lower "
                "worker.slots"
            )
        told = f"{self.host}: connection failed ({type(error).__name__})"
        return ProviderUnavailable(told, sent=not isinstance(error, aiohttp.ClientConnectorError))

    def _delta(self, call: Call, answer: AnswerStream, event: dict[str, Any]) -> Delta:
        told = dict(answer.usage)
        delta = answer.take(event)
        return delta if answer.usage == told else replace(delta, usage=read_usage(answer.usage, call, ""))

    def _checked(
        self, call: Call, api_key: str, answer: AnswerStream, event: ServerEvent, headers: Mapping[str, str]
    ) -> dict[str, Any] | None:
        """Return the JSON of an event, None when it says nothing, or raise the error that it is."""
        raw = event.data.encode("utf-8", "replace")
        told = _object(raw)
        is_error = event.name == "error" or (told is not None and carries_error(told))
        if told is None and not is_error:
            raise ProviderUnavailable(f"{self.host}: expected events of JSON, got {len(raw)} bytes of something else")
        if told is not None and not is_error and answer.knows(told):
            return told
        problem = self._problem(call, api_key, raw)
        if not is_error and not problem.said.tells:
            return None
        error = self._error(call, 200, headers, problem)
        error.usage = Usage()
        raise error

    #: Wires that it understands, and what stands between its root and the paths of those.
    _WIRES: ClassVar[frozenset[str]]
    _RAW_PATH: ClassVar[str] = ""
    #: What asks for an answer in pieces, in a request's body.
    _STREAM: ClassVar[Mapping[str, Any]]
    #: What is shown of this client; None: nothing. Put here before the first call.
    certificate: ClientCertificate | None = None

    @abstractmethod
    def _stream(self) -> AnswerStream:
        """Return what reads one such answer."""

    @abstractmethod
    def _headers(self, api_key: str) -> Mapping[str, str]:
        """Return the request's headers."""

    def _joined(self, theirs: Mapping[str, str], own: Mapping[str, str]) -> Mapping[str, str]:
        """Return our headers, with what a call says in those that both of us write."""
        return own

    @abstractmethod
    def _body(self, call: Call) -> dict[str, Any]:
        """Return the request's body as JSON values."""

    @abstractmethod
    def _completion(self, call: Call, answer: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        """Read a 2xx answer. Raises `ProviderUnavailable` when it is not what the wire says."""

    def _open(self) -> aiohttp.ClientSession:
        tls = True if self.certificate is None else self.certificate.context()
        if self._session is None:
            # How many calls may be in flight is the limiter's business, hence no limit in the connector.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=300, ssl=tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
            )
            # Else aiohttp repeats a GET whose connection broke by itself: a request that nobody has asked for.
            self._session._retry_connection = False
        return self._session

    def _answer(self, call: Call, api_key: str, status: int, headers: Mapping[str, str], raw: bytes) -> Completion:
        """Read a 2xx: the answer, or the error that it carries in its place."""
        answer = _object(raw)
        if answer is None:
            event = read_events(raw)
            answer = event if event is not None and carries_error(event) else self._put_together(raw) or event
        wrong: ProviderUnavailable | None = None
        if answer is not None and not carries_error(answer):
            try:
                return self._completion(call, answer, headers)
            except ProviderUnavailable as not_the_wire:
                wrong = not_the_wire
        problem = self._problem(call, api_key, raw)
        if not (problem.said.tells or (answer is not None and carries_error(answer))):
            raise wrong or ProviderUnavailable(f"{self.host}: expected JSON, got {len(raw)} bytes of something else")
        error = self._error(call, status, headers, problem)
        told = None if answer is None else answer.get("usage")
        error.usage = read_usage(told, call, "") if isinstance(told, dict) and told else Usage()
        raise error

    def _put_together(self, raw: bytes) -> dict[str, Any] | None:
        """Return the answer that events make up which nobody asked for, as of servers that always stream; else None.

        One that ends before the provider has said why the model stopped is none.
        """
        parser, answer = SseParser(), self._stream()
        try:
            events = [*parser.feed(raw), *parser.close()] if b"data:" in raw else []
        except TooLong:
            return None
        for event in events:
            told = None if event.data == LAST_EVENT else _object(event.data.encode("utf-8", "replace"))
            if told is not None and answer.knows(told):
                answer.take(told)
        return answer.answer() if answer.is_whole else None

    def _problem(self, call: Call, api_key: str, raw: bytes) -> Problem:
        return read_problem(raw, secrets=(api_key,), texts=texts_of(call.messages))

    def _error(self, call: Call, status: int, headers: Mapping[str, str], problem: Problem) -> FleetError:
        error = error_of(self.host, status, problem, headers, now_s=time.time())
        error = of_tier(error, problem, call.wishes.tier)
        if call.wishes.schema is not None:
            meant = meant_status(status, problem)
            if (refused := refused_schema(error, meant, problem.said.param, problem.text)) is not None:
                return refused
        return error


@lru_cache(maxsize=100)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    """Return the timeouts of a request; routes have few of them."""
    return aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S)


def bad_wire(host: str, expected: str, got: object) -> ProviderUnavailable:
    """Return the error for a 2xx answer that is not what the wire says. Quotes only the kind of what came."""
    return ProviderUnavailable(f"{host}: expected {expected}, got {type(got).__name__}")


def lack_of(error: BaseException) -> str | None:
    """Say what this machine lacks, if that is why there was no connection; the provider had no part in it."""
    cause = getattr(error, "os_error", None) or error  # aiohttp's own: what the socket or the resolver said
    if isinstance(cause, socket.gaierror):
        return "the resolver has failed by an error of the system" if cause.errno == socket.EAI_SYSTEM else None
    if isinstance(cause, OSError) and cause.errno in EXHAUSTED:
        return os.strerror(cause.errno)
    return None if error.__cause__ is None else lack_of(error.__cause__)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[ServerEvent]:
    """Yield the events of an answer, at most `MAX_ANSWER_BYTES` of them; JSON that is no stream as one."""
    parser, size, pieces = SseParser(), 0, list[bytes]()
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"expected at most {MAX_ANSWER_BYTES} bytes")
        if pieces or (size == len(chunk) and chunk.lstrip().startswith(b"{")):
            pieces.append(chunk)
            continue
        for event in parser.feed(chunk):
            yield event
    if pieces:
        yield ServerEvent("", b"".join(pieces).decode("utf-8", "replace"))
    for event in parser.close():
        yield event


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a whole body, at most `MAX_ANSWER_BYTES`."""
    raw = await response.content.readany()
    if response.content.at_eof():
        return raw
    parts, size = [raw], len(raw)
    while part := await response.content.readany():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"expected at most {MAX_ANSWER_BYTES} bytes")
    return b"".join(parts)


def encode_json(value: Any) -> bytes:
    """Return a request's body."""
    try:
        return pydantic_core.to_json(value)
    except ValueError:  # half a surrogate pair: only as an escape
        return _write(value).encode("ascii")


def _object(raw: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is, or None."""
    try:
        answer = pydantic_core.from_json(raw)
    except ValueError:  # no JSON, half a surrogate pair, another encoding than UTF-8: the slower reader knows
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return answer if isinstance(answer, dict) else None
