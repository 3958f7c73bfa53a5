"""One HTTP request to a tool API: what is sent, what came back, and which of it is a failure of the API's own.

The key is put in here, and never leaves: it is taken out of whatever the API says back. No retries, no limits.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote_plus, urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fleet.config import ToolSettings
from fleet.errors import (
    BadRequest,
    FleetError,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    ProviderUnavailable,
    RateLimited,
    Waits,
)
from fleet.quoting import Hidden, bare
from fleet.workers.frameworks.unpacking import unpacking
from fleet.workers.providers.addresses import proxy_for
from fleet.workers.providers.answers.sse import TooLong
from fleet.workers.providers.base import CONNECT_TIMEOUT_S, KEEPALIVE_S, lack_of
from fleet.workers.providers.rates.retry_after import read_retry_after
from fleet.workers.providers.verdict import LASTING_5XX, TIMED_OUT

#: Methods that may be repeated whatever became of the first try (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: Header by which an API does what it is asked once, however often it is asked.
IDEMPOTENCY_KEY = "idempotency-key"
#: 4xx statuses that say "not now": a timeout, too early.
PASSING = frozenset({408, 425})
#: Headers of a request that the connection writes, and of an answer that hold no longer once it is read and unpacked.
_OF_THE_CONNECTION = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "accept-encoding", "proxy-authorization",
    "te", "trailer", "upgrade", "expect",
})  # fmt: skip
_UNPACKED = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"})
#: Shortest key (characters) that is taken out of answers: a shorter one may stand there by chance.
LEAST_HIDDEN = 8
#: Bytes that are unpacked at a time: at most a thousand times as much comes of them.
PIECE = 4096
#: What stands in its place.
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request of a bot's function.

    Args:
        method: In capitals.
        url: Whole, on the host of the tool.
        headers: Name and value, in order.
        body: Whole.
        timeout_s: As the function wants it; None: the tool's.
        once_key: `Idempotency-Key` that Fleet puts in; empty: none. It is no leave to repeat the request.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_s: float | None = None
    once_key: str = ""

    @property
    def has_key_of_its_own(self) -> bool:
        """True when its function sends an `Idempotency-Key`."""
        return any(name.lower() == IDEMPOTENCY_KEY for name, _ in self.headers)


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What the API answered, unpacked.

    Args:
        status: Of HTTP.
        headers: Name and value, in order.
        body: Whole.
        failed: What it is to the task if its function lets it through: a refusal of this very request, or (`Waits`) a
            failure of the API. None: nothing is wrong with it.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    failed: FleetError | None = None


class ToolWire:
    """The connections of a process to one tool API. Give it to one event loop only.

    Args:
        name: Under [tools].
        settings: Its table.
        key: Secret of the API; empty: none is sent.
    """

    def __init__(self, name: str, settings: ToolSettings, key: str) -> None:
        self.name = name
        self.settings = settings
        self._key, self._sent = key, {key}
        self._base = URL(settings.base_url)
        self._most_bytes = round(settings.max_answer_mb * 2**20)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    @property
    def key(self) -> str:
        """Secret of the API that requests carry now; empty: none is sent."""
        return self._key

    def take(self, key: str) -> None:
        """Use this key from the next request on."""
        self._key = key
        self._sent.add(key)

    def misses(self, url: str) -> str:
        """Return what is wrong with where a request goes: it must stay on the tool's own host. Empty: nothing."""
        parts, base = urlsplit(url), urlsplit(self.settings.base_url)
        if _origin(parts.scheme, parts.hostname, parts.port) == _origin(base.scheme, base.hostname, base.port):
            return ""
        return (
            f"tool {self.name}: expected a request to {base.scheme}://{base.netloc}, got one to another host "
            f"({parts.scheme}://{parts.hostname}): its key and limits are for that host alone; use a client of your own"
        )

    async def send(self, request: ToolRequest) -> ToolAnswer:
        """Send one request and read the whole answer, which may be a refusal.

        Raises:
            ProviderUnavailable: There was none.
            MachineExhausted: This machine has no room for a connection.
            BadRequest: The answer is larger than is read.
        """
        try:
            async with self._open(is_fresh=not is_repeatable(request, self.settings)).request(
                request.method,
                self._url(request.url),
                data=request.body or None,
                headers=self._headers(request),
                timeout=aiohttp.ClientTimeout(total=self.timeout_s(request), sock_connect=CONNECT_TIMEOUT_S),
                allow_redirects=False,
            ) as response:
                raw = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in response.raw_headers]
                answer = ToolAnswer(response.status, tuple(self._told(raw)), await self._body(response))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self._failure(request, error) from bare(error)  # its frames hold the address, with the key
        return replace(answer, failed=self._refused(request, answer, response.headers))

    def timeout_s(self, request: ToolRequest) -> float:
        """Return the seconds until a request is given up: the function may shorten the tool's."""
        own = self.settings.timeout_s
        return own if request.timeout_s is None else min(own, request.timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _open(self, *, is_fresh: bool) -> aiohttp.ClientSession:
        """Return the session that a request takes.

        Args:
            is_fresh: On a connection of its own: the server may close an idle one just as it is used again, and nobody
                would know whether it had read the request.
        """
        if is_fresh not in self._sessions:
            kept = {"force_close": True} if is_fresh else {"keepalive_timeout": KEEPALIVE_S}
            session = self._sessions[is_fresh] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, **kept),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy_for(self._base),
                auto_decompress=False,
            )
            # Else aiohttp repeats a GET whose connection broke by itself: a request that nobody has granted.
            session._retry_connection = False
        return self._sessions[is_fresh]

    def _url(self, url: str) -> URL:
        parameter = self.settings.key_query
        if self._key and parameter:
            head, _, query = url.partition("?")
            others = [part for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) != parameter]
            own = f"{parameter}={quote(self._key, safe='')}"
            url = f"{head}?{'&'.join([*others, own])}"
        return URL(url, encoded=True)

    def _headers(self, request: ToolRequest) -> CIMultiDict[str]:
        """Return what is sent: the function's headers without its own authorization, and with the key."""
        settings = self.settings
        own = {(settings.key_header or "authorization").lower(), "authorization"} if self._key else set()
        headers = CIMultiDict(
            (name, text) for name, text in request.headers if name.lower() not in _OF_THE_CONNECTION | own
        )
        headers["Accept-Encoding"] = "gzip, deflate"
        if request.once_key:
            headers["Idempotency-Key"] = request.once_key
        if self._key and settings.key_header:
            headers[settings.key_header] = Hidden(self._key)
        elif self._key and not settings.key_query:
            headers["Authorization"] = Hidden(f"{settings.key_scheme} {self._key}")
        return headers

    def _told(self, headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for name, text in headers:
            if name.lower() not in _UNPACKED:
                yield name, self._hidden(text.encode("latin-1")).decode("latin-1")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        unpack, parts, size = unpacking(response.headers.get("Content-Encoding", "")), list[bytes](), 0
        if unpack is None:
            raise BadRequest(f"tool {self.name}: expected an answer packed by gzip or deflate, got another encoding")
        try:
            async for chunk in response.content.iter_any():
                for at in range(0, len(chunk), PIECE):
                    parts.append(unpack(chunk[at : at + PIECE]))
                    size += len(parts[-1])
                    if size > self._most_bytes:
                        raise TooLong
        except TooLong:
            raise BadRequest(
                f"tool {self.name}: expected an answer of at most {self.settings.max_answer_mb:g} MiB, got more; ask "
                f"for less, or raise max_answer_mb in [tools.{self.name}]"
            ) from None
        except (ValueError, zlib.error) as error:
            raise aiohttp.ClientPayloadError("expected what Content-Encoding says") from error
        return self._hidden(b"".join(parts))

    def _hidden(self, told: bytes) -> bytes:
        """Return what an API says without the key: some say back what they were sent."""
        for key in self._sent:
            if len(key) >= LEAST_HIDDEN:
                for spelt in {key, quote(key, safe="")}:
                    told = told.replace(spelt.encode(), HIDDEN.encode())
        return told

    def _refused(self, request: ToolRequest, answer: ToolAnswer, headers: Mapping[str, str]) -> FleetError | None:
        """Return what is wrong with an answer; None: nothing."""
        status, host = answer.status, self._base.host
        if status < 400:
            return None
        told = f"tool {self.name}: {host} answered {status} to {request.method}"
        found = failure_of(told, status, headers, has_key=bool(self._key), now_s=time.time())
        return BadRequest(told) if found is None else found

    def _failure(self, request: ToolRequest, error: Exception) -> Waits:
        """Return what it means that there was no answer, or half of one."""
        told = f"tool {self.name}: {self._base.host}"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return ProviderUnavailable(
                f"{told}: expected a connection within {CONNECT_TIMEOUT_S:g} s, got none", sent=False
            )
        if isinstance(error, TimeoutError):
            seconds = self.timeout_s(request)
            return ProviderUnavailable(f"{told}: expected an answer within {seconds:g} s, got none", timed_out=True)
        if (lack := lack_of(error)) is not None:
            return MachineExhausted(f"{told}: expected a connection, got: {lack}; raise the limit of this machine")
        is_sent = not isinstance(error, aiohttp.ClientConnectorError)
        return ProviderUnavailable(f"{told}: connection failed ({type(error).__name__})", sent=is_sent)


def failure_of(told: str, status: int, headers: Mapping[str, str], *, has_key: bool, now_s: float) -> Waits | None:
    """Return what passes by itself, or with another key; None for an answer, if only a refusal of this request. Pure.

    Args:
        told: Who answered what.
        status: Of HTTP.
        headers: Of the answer; names in any case.
        has_key: A key of ours was sent; else what is said of keys is the function's own matter.
        now_s: Unix time in seconds.
    """
    asks_to_wait = status == 429 or (status == 403 and headers.get("retry-after") is not None)
    if asks_to_wait:
        return RateLimited(told, retry_after_s=read_retry_after(headers, now_s=now_s))
    if has_key and status == 401:
        return KeyRejected(f"{told}: check its key and its rights")
    if has_key and status == 402:
        return KeySpent(f"{told}: the account's money, credit or quota is used up; fill it, or use another key")
    if status in PASSING or (status >= 500 and status not in LASTING_5XX):
        after_s = read_retry_after(headers, now_s=now_s) if headers.get("retry-after") else None
        return ProviderUnavailable(told, retry_after_s=after_s, refused=True, timed_out=status in TIMED_OUT)
    return None


def may_repeat(request: ToolRequest, settings: ToolSettings, error: Waits) -> bool:
    """True when a request may be sent again: what it asked for was surely not done, or may be done twice.

    Args:
        request: The request.
        settings: Of the tool.
        error: What became of it.
    """
    return not isinstance(error, ProviderUnavailable) or not error.sent or is_repeatable(request, settings)


def is_repeatable(request: ToolRequest, settings: ToolSettings) -> bool:
    """True when a request may be sent again whatever became of it."""
    return request.method in IDEMPOTENT or settings.retry_unsafe or request.has_key_of_its_own


def _origin(scheme: str, host: str | None, port: int | None) -> tuple[str, str, int]:
    return scheme, (host or "").lower().rstrip("."), port or (443 if scheme == "https" else 80)
