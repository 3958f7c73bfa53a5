"""One request to an OAuth token endpoint, and what its answer means. Nothing here knows a vendor: that is `grants.py`.

No redirects are followed, for they would carry an identity elsewhere, and nothing is tried again.
"""

from __future__ import annotations

import json
import math
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from fleet.config.hosts import host_of, is_loopback
from fleet.errors import ExchangeFailed
from fleet.quoting import Hidden, brief, duration, quote

#: Seconds for one exchange: while it goes on, calls have the token before.
TIMEOUT_S = 10.0
#: Most of an answer that is read, in bytes; what is more is no token.
MOST_BYTES = 65_536
#: Seconds that a token is taken to live whose answer does not say; and the most that is believed.
UNTOLD_S, MOST_S = 300.0, 86_400.0
#: Seconds that the clocks of two machines may differ before that is told.
SKEW_S = 30.0
#: Most of what a server says that is shown, in bytes.
_MOST_SAID = 300
#: The codes of RFC 6749 (5.2) and RFC 8693 (2.2.2), and anything that is one word like them.
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: What looks like a JWT or another token in what a server says back.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?|[A-Za-z0-9_+/=-]{40,}")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is asked of a token endpoint.

    Args:
        url: Where.
        fields: Of the body; what is secret in them is in no repr.
        is_json: True: the body is JSON, as some vendors want it; False: a form, as RFC 6749 says.
        headers: Beside the body's type.
        tls: What is shown of this client; None: nothing.
    """

    url: str
    fields: Mapping[str, Any] = field(repr=False)
    is_json: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token endpoint said with a 2xx.

    Args:
        told: The JSON object.
        clock_s: Unix time in seconds of its clock, where it tells it.
    """

    told: Mapping[str, Any] = field(repr=False)
    clock_s: float | None = None


class _NoDetour(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(request: TokenRequest, *, secrets: Sequence[str]) -> TokenAnswer:
    """Send one request. Blocks for `TIMEOUT_S` at most, and a little more where a server dribbles its headers.

    Args:
        request: What to ask.
        secrets: What is shown of nothing that the server says.

    Raises:
        ExchangeFailed: There was no answer, a refusal, or something else than a token.
    """
    body = json.dumps(dict(request.fields)) if request.is_json else urllib.parse.urlencode(dict(request.fields))
    kind = "application/json" if request.is_json else "application/x-www-form-urlencoded"
    headers = {"Content-Type": kind, "Accept": "application/json", "User-Agent": "celery-fleet", **request.headers}
    made = urllib.request.Request(request.url, Hidden(body).encode(), headers, method="POST")
    where, started = host_of(request.url), time.monotonic()
    try:
        with _opener(request).open(made, timeout=TIMEOUT_S) as answer:
            raw, status, came = _read(answer, started), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        with error:
            raw, status, came = _read(error, started), error.code, error.headers
    except (OSError, ValueError) as error:  # ValueError: an address or an answer that is no HTTP
        raise ExchangeFailed(
            f"expected an answer of the token endpoint {where}, got {_trouble(error)}: see that it can be reached"
        ) from _plain(error)
    told, clock_s = _object(raw), _date(came.get("Date"))
    if not 200 <= status < 300:
        _refuse(where, status, told, came.get("Retry-After"), clock_s, secrets)
    if told is None:
        raise ExchangeFailed(f"expected a JSON object from the token endpoint {where}, got {len(raw)} other bytes")
    return TokenAnswer(told, clock_s)


def life_of(told: Any, *, where: str) -> float:
    """Return the seconds that a token lives, as `expires_in` says it.

    Raises:
        ExchangeFailed: It says nonsense.
    """
    if told is None:
        return UNTOLD_S
    try:
        seconds = math.nan if isinstance(told, bool) else float(told)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise ExchangeFailed(f"expected `expires_in` of {where} in seconds, more than 0, got {quote(told)}")
    return min(seconds, MOST_S)


def _opener(request: TokenRequest) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoDetour()]
    if is_loopback(request.url):
        handlers.append(urllib.request.ProxyHandler({}))
    if request.tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=request.tls))
    return urllib.request.build_opener(*handlers)


def _read(answer: Any, started: float) -> bytes:
    raw = b""
    while chunk := answer.read1(MOST_BYTES):
        raw += chunk
        if len(raw) > MOST_BYTES:
            raise ValueError("too long")
        if time.monotonic() - started > TIMEOUT_S:
            raise TimeoutError
    return raw


def _refuse(
    where: str, status: int, told: Mapping[str, Any] | None, retry_after: str | None, clock_s: float | None,
    secrets: Sequence[str],
) -> NoReturn:  # fmt: skip
    code, said = _said(told or {}, secrets)
    heard = f"{status}{f' {code}' if code else ''}{f' ({said})' if said else ''}"
    is_passing = status in (408, 409, 425, 429) or status >= 500
    raise ExchangeFailed(
        f"expected a token of {where}, got {heard}{_skew(clock_s)}",
        code=code,
        is_ours=not is_passing,
        after_s=_seconds(retry_after) if is_passing else None,
    )


def _said(told: Mapping[str, Any], secrets: Sequence[str]) -> tuple[str, str]:
    """Return the error's code and its words, in OAuth's form or in that of the vendors' other endpoints."""
    error, words = told.get("error"), told.get("error_description")
    if isinstance(error, Mapping):
        words = error.get("message")
        error = next((error[name] for name in ("type", "status", "code") if isinstance(error.get(name), str)), "")
    code = error if isinstance(error, str) and _CODE.fullmatch(error) else ""
    if not isinstance(words, str):
        return code, ""
    for secret in filter(None, secrets):
        words = words.replace(secret, "***")
    return code, brief(" ".join(_TOKEN.sub("***", words).split()), _MOST_SAID)


def _skew(clock_s: float | None) -> str:
    """Say that this machine's clock is off, where it is: identity tokens are refused for it."""
    if clock_s is None or abs(off_s := time.time() - clock_s) <= SKEW_S:
        return ""
    where = "ahead of" if off_s > 0 else "behind"
    return f"; this machine's clock is {duration(abs(off_s))} {where} that server's: set it"


def _seconds(text: str | None) -> float | None:
    """Return a Retry-After; None: there is none that can be read."""
    try:
        seconds = float(text or "")
    except ValueError:
        at_s = _date(text)
        seconds = -1.0 if at_s is None else at_s - time.time()
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _object(raw: bytes) -> Mapping[str, Any] | None:
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _trouble(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"none within {TIMEOUT_S:g} s"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return "a certificate that is not trusted here"
    if isinstance(cause, ssl.SSLError):
        return f"a broken TLS connection ({cause.reason or 'unknown'}): it may not take the client certificate"
    return type(cause).__name__ if isinstance(cause, Exception) else type(error).__name__


def _plain(error: Exception) -> Exception:
    """Return an error without what it carries: the request, with all that is in it."""
    return RuntimeError(type(error).__name__).with_traceback(None)
