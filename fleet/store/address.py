"""`Address`: where a Redis is and how to be let in, read from a URL. No I/O.

`sentinel://` URLs have Celery's form, joined by `;`, plus `?master_name=`, which Celery takes as an option.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fleet.errors import ConfigurationError

#: Ports of a URL that names none.
DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
#: Schemes of a unix socket: redis-py's and kombu's spelling.
SOCKET_SCHEMES = ("unix", "redis+socket")
SENTINEL = "sentinel"
_FORMS = (
    "redis://[user:password@]host:port/db, rediss://..., unix:///path?db=0 "
    "or sentinel://host:port;sentinel://host:port/db?master_name=mymaster"
)
#: Names of this host that mean one address.
_LOOPBACK = "127.0.0.1"
_LOOPBACKS = ("localhost", _LOOPBACK, "::1")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def masked(url: str) -> str:
    """Return `url` without its passwords, fit for messages and logs."""
    if url.startswith(f"{SENTINEL}://"):
        return ";".join(_masked(part) for part in re.split(rf";(?={SENTINEL}://)", url))
    return _masked(url)


def _masked(url: str) -> str:
    url = re.sub(r"(?s)://(?:([^:/@]*):)?.*@", r"://\1:***@", url)
    return re.sub(r"(?i)(password=)[^&#]*", r"\1***", url)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is and how to be let in. Parsed from redis://, rediss://, unix:// and sentinel:// URLs.

    With `sentinels`, host and port are those of the first one: who the master is, only they know (`sentinel.py`).
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: dict[str, str] | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read a Redis URL.

        Raises:
            ConfigurationError: When it is none; the message names it without its password.
        """
        try:
            return cls._of_sentinels(url) if url.startswith(f"{SENTINEL}://") else cls._of_one(url)
        except ValueError as error:
            what = f" ({error})" if url.startswith(f"{SENTINEL}://") else ""
            if "+cluster://" in url:
                what = " (a Redis Cluster holds no queues or state of a fleet; one server does, or one by Sentinel)"
            raise ConfigurationError(
                f"expected {_FORMS}, got {masked(url)!r}{what}; percent-encode / @ : ; ? # inside a password"
            ) from error

    @classmethod
    def _of_one(cls, url: str) -> Address:
        parts, query = urlsplit(url), _query(url)
        username = unquote(parts.username) if parts.username else query.get("username")
        password = unquote(parts.password) if parts.password else query.get("password")
        number = query.get("db") or query.get("virtual_host", "").strip("/")
        if parts.scheme in SOCKET_SCHEMES and parts.path:
            return cls(path=unquote(parts.path), db=int(number or 0), username=username, password=password)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("scheme or host")
        tls = _tls_options(query) if parts.scheme == "rediss" else None
        db = int(parts.path.strip("/") or number or 0)
        port = parts.port or DEFAULT_PORT
        return cls(host=parts.hostname, port=port, db=db, username=username, password=password, tls=tls)

    @classmethod
    def _of_sentinels(cls, url: str) -> Address:
        """Read `sentinel://` URLs joined by `;`: what only one of them says holds for all."""
        urls = url.split(";")
        if any(not part.startswith(f"{SENTINEL}://") for part in urls):
            raise ValueError("each part must begin with sentinel://")
        parts = [urlsplit(part) for part in urls]
        query = {name: value for part in urls for name, value in _query(part).items()}
        places = tuple((part.hostname or "", part.port or SENTINEL_PORT) for part in parts)
        if not all(host for host, _ in places):
            raise ValueError("a part without a host")
        return cls(
            host=places[0][0],
            port=places[0][1],
            db=int(next((part.path.strip("/") for part in parts if part.path.strip("/")), 0)),
            username=next((unquote(part.username) for part in parts if part.username), None),
            password=next((unquote(part.password) for part in parts if part.password), None),
            tls=_tls_options(query) or None,
            sentinels=places,
            master_name=query.get("master_name", ""),
            sentinel_password=query.get("sentinel_password"),
        )

    def at(self, host: str, port: int) -> Address:
        """Return the same server behind another host and port: a master that a Sentinel named."""
        return replace(self, host=host, port=port, sentinels=())

    def is_same_place(self, other: Address) -> bool:
        """True when both lead to one database of one server, whoever logs in and however it is spelled."""
        return self._place == other._place

    @property
    def _place(self) -> tuple[object, ...]:
        if self.path is not None:
            return self.path, self.db
        hosts = self.sentinels or ((self.host, self.port),)
        named = frozenset((_LOOPBACK if host in _LOOPBACKS else host.lower(), port) for host, port in hosts)
        return named, self.db, bool(self.sentinels)

    @property
    def celery_url(self) -> str:
        """The URL as Celery and kombu understand it, without what they take as options elsewhere."""
        user, password = quote(self.username or "", safe=""), quote(self.password or "", safe="")
        login = f"{user}:{password}@" if user or password else ""
        if self.path is not None:
            return f"redis+socket://{login}{quote(self.path)}?virtual_host={self.db}"
        if self.sentinels:  # the login once: Celery reads it there only, and would mask no second one
            places = [f"{_bracketed(host)}:{port}/{self.db}" for host, port in self.sentinels]
            return f"{SENTINEL}://{login}" + f";{SENTINEL}://".join(places)
        scheme = "redis" if self.tls is None else "rediss"
        return f"{scheme}://{login}{_bracketed(self.host)}:{self.port}/{self.db}"

    def handshake(self, name: str) -> list[tuple[Any, ...]]:
        """Return the commands that open a connection; PING is last, it is refused while Redis loads its data."""
        auth: tuple[Any, ...] = ("AUTH", self.username, self.password) if self.username else ("AUTH", self.password)
        commands: list[tuple[Any, ...]] = [auth] if self.password else []
        if self.db:
            commands.append(("SELECT", self.db))
        return [*commands, ("CLIENT", "SETNAME", name), ("PING",)]

    def tls_options(self) -> dict[str, Any] | None:
        """Return the TLS options as redis-py takes them in Python, None without TLS.

        Certificates are checked unless the URL says otherwise, as in `ssl_context`.
        """
        if self.tls is None:
            return None
        wanted = self.tls.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
        options: dict[str, Any] = {**self.tls, "ssl_cert_reqs": _CERT_REQS.get(wanted, ssl.CERT_REQUIRED)}
        if "ssl_check_hostname" in options:
            options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() != "false"
        return options

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context of a rediss:// URL, None for the others. Understands redis-py's ssl_* options.

        Raises:
            ConfigurationError: When a certificate file cannot be read.
        """
        if self.tls is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls.get("ssl_ca_certs"))
            if "ssl_certfile" in self.tls:
                context.load_cert_chain(self.tls["ssl_certfile"], self.tls.get("ssl_keyfile"))
        except OSError as error:  # ssl.SSLError is one
            named = [f"{name}={value!r}" for name, value in self.tls.items() if name in _FILES]
            raise ConfigurationError(f"expected PEM files in {', '.join(named)}, got: {error}; correct them") from error
        wanted = self.tls.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
        context.check_hostname = wanted != "none" and self.tls.get("ssl_check_hostname", "true").lower() != "false"
        context.verify_mode = _CERT_REQS.get(wanted, ssl.CERT_REQUIRED)
        return context


def _query(url: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}


def _tls_options(query: dict[str, str]) -> dict[str, str]:
    return {name: query[name] for name in query if name.startswith("ssl_")}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
