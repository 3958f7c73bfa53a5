"""One Redis connection on asyncio: where it goes (`Address`), and bytes in, replies out (`Connection`).

Replies arrive in the order of the commands, so a deque is all the bookkeeping. No reconnect here: see `client.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from fleet.errors import ConfigurationError, FleetError, StoreError, StoreUnavailable

#: Port of a URL that names none.
DEFAULT_PORT = 6379
#: Schemes of a unix socket: redis-py's and kombu's spelling.
SOCKET_SCHEMES = ("unix", "redis+socket")
#: Server states that pass: first word of the error, or inside the text of a script's error before Redis 7.
_PASSING = re.compile(r"(?:^|-)(LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM)\b")
#: Errors that only the URL or the server's ACL can cure.
_REFUSED = re.compile(r"^(NOAUTH|WRONGPASS|NOPERM)\b|AUTH <password>|DB index is out of range|invalid DB index")
_CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
#: What `Reader.gets` returns when the bytes so far end inside a reply.
_INCOMPLETE = object()


def masked(url: str) -> str:
    """Return `url` without its password, fit for messages and logs."""
    url = re.sub(r"(?s)://(?:([^:/@]*):)?.*@", r"://\1:***@", url)
    return re.sub(r"(?i)(password=)[^&#]*", r"\1***", url)


def refused(text: str, url: str) -> ConfigurationError:
    """Return the error of a server that does not let us in."""
    return ConfigurationError(
        f"{masked(url)}: expected Redis to let us in, got {text!r}; "
        "correct the user, the password and the database number in redis.url"
    )


def translate(text: str, url: str) -> FleetError:
    """Turn the text of an error reply into the error that tells the caller what to do."""
    if _REFUSED.search(text):
        return refused(text, url)
    if _PASSING.search(text):
        return StoreUnavailable(f"{masked(url)}: Redis is not ready: {text}")
    return StoreError(f"{masked(url)}: Redis refused a command: {text}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is and how to be let in. Parsed from redis://, rediss://, unix:// and redis+socket:// URLs."""

    url: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, str] | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a Redis URL.

        Raises:
            ConfigurationError: When it is none; the message names it without its password.
        """
        try:
            return cls._parse(url)
        except ValueError as error:
            raise ConfigurationError(
                f"expected redis://[user:password@]host:port/db, rediss://... or unix:///path?db=0, "
                f"got {masked(url)!r}; percent-encode / @ : ? # inside a password"
            ) from error

    @classmethod
    def _parse(cls, url: str) -> Address:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        common = {
            "url": url,
            "username": unquote(parts.username) if parts.username else query.get("username"),
            "password": unquote(parts.password) if parts.password else query.get("password"),
        }
        number = query.get("db") or query.get("virtual_host", "").strip("/")
        if parts.scheme in SOCKET_SCHEMES and parts.path:
            return cls(**cast(Any, common), path=unquote(parts.path), db=int(number or 0))
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("scheme or host")
        tls = {name: query[name] for name in query if name.startswith("ssl_")} if parts.scheme == "rediss" else None
        db = int(parts.path.strip("/") or number or 0)
        return cls(**cast(Any, common), host=parts.hostname, port=parts.port or DEFAULT_PORT, db=db, tls=tls)

    def handshake(self, name: str) -> list[tuple[Any, ...]]:
        """Return the commands that open a connection; PING is last, it is refused while Redis loads its data."""
        auth: tuple[Any, ...] = ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)
        commands: list[tuple[Any, ...]] = [auth] if self.password else []
        if self.db:
            commands.append(("SELECT", self.db))
        return [*commands, ("CLIENT", "SETNAME", name), ("PING",)]

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of a rediss:// URL, None for the others. Understands redis-py's ssl_* options."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.get("ssl_ca_certs"))
        wanted = self.tls.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
        context.check_hostname = wanted != "none" and self.tls.get("ssl_check_hostname", "true").lower() != "false"
        context.verify_mode = _CERT_REQS.get(wanted, ssl.CERT_REQUIRED)
        if "ssl_certfile" in self.tls:
            context.load_cert_chain(self.tls["ssl_certfile"], self.tls.get("ssl_keyfile"))
        return context


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua file: its text and the SHA-1 under which Redis caches it."""

    name: str
    text: str = field(repr=False)
    sha: str

    @classmethod
    def beside(cls, module_file: str, name: str) -> Script:
        """Read the script `name` that lies beside the calling module: `Script.beside(__file__, "acquire.lua")`."""
        text = (Path(module_file).parent / name).read_text(encoding="utf-8")
        return cls.of(name, text)

    @classmethod
    def of(cls, name: str, text: str) -> Script:
        """Return a script with the given text."""
        return cls(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    def using(self, other: Script) -> Script:
        """Return this script with `other` as a local function, for one atomic step out of two scripts.

        The function has the name of the other's file and takes its KEYS and ARGV as two tables.
        """
        function = other.name.removesuffix(".lua")
        return self.of(self.name, f"local function {function}(KEYS, ARGV)\n{other.text}\nend\n{self.text}")


class Call:
    """One command on its way: its bytes, and whom its reply is for.

    Args:
        parts: The whole command; for a script what follows its sha: number of keys, keys, arguments.
        due: Loop time after which nobody waits for the reply any more.
        future: Who waits; None for fire and forget.
        script: The script that is run, or None for a plain command.
    """

    __slots__ = ("due", "future", "packed", "parts", "script")

    def __init__(
        self, parts: tuple[Any, ...], due: float, future: asyncio.Future[Any] | None, script: Script | None = None
    ) -> None:
        self.parts = parts
        self.due = due
        self.future = future
        self.script = script
        # Packed here, in the caller's hands: an argument of a wrong type must not spoil a whole batch.
        self.packed: bytes = hiredis.pack_command(parts if script is None else ("EVALSHA", script.sha, *parts))

    def send_text(self) -> None:
        """Send the script's text instead of its sha."""
        if self.script is not None:
            self.packed = hiredis.pack_command(("EVAL", self.script.text, *self.parts))


class Connection(asyncio.Protocol):
    """A connected socket: packs of commands go out, replies come back in order.

    Args:
        on_reply: Called with each call and its reply; error replies are `hiredis.ReplyError` instances.
        on_lost: Called once with the reason and the calls that will get no reply.
    """

    def __init__(
        self,
        on_reply: Callable[[Call, Any], None],
        on_lost: Callable[[Connection, str, Iterable[Call]], None],
    ) -> None:
        self.pending: deque[Call] = deque()
        #: Scripts this server knows: EVAL is sent once for each, EVALSHA from then on.
        self._known: set[str] = set()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def write(self, calls: list[Call]) -> None:
        """Send all `calls` at once."""
        assert self._transport is not None
        for call in calls:
            if call.script is not None and call.script.sha not in self._known:
                self._known.add(call.script.sha)
                call.send_text()
        self.pending.extend(calls)
        self._transport.write(b"".join([call.packed for call in calls]))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._on_reply(self.pending.popleft(), reply)
        except (hiredis.ProtocolError, IndexError):
            self.drop("the server does not speak the Redis protocol")

    def connection_lost(self, exc: Exception | None) -> None:
        self.drop(f"connection lost: {exc}" if exc else "the server closed the connection")

    def drop(self, reason: str) -> None:
        """Cut the connection; the calls that have no reply yet are handed to `on_lost`."""
        if self._transport is None:
            return
        self._transport.abort()
        self._transport = None
        lost, self.pending = self.pending, deque()
        self._on_lost(self, reason, lost)
