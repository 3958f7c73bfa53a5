"""Token endpoints of three vendors and an API that takes their tokens, in a thread of the test process; with faults.

It takes what the vendors' documents and SDKs say that theirs take, and refuses everything else.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from typing import Any

from tests.http_server import Handler, serving

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
#: Fields that each endpoint wants, beside the grant.
WANTED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "/v1/oauth/token": (JWT_BEARER, ("assertion", "federation_rule_id", "organization_id", "service_account_id")),
    "/oauth/token": (EXCHANGE, ("subject_token", "subject_token_type", "identity_provider_id", "service_account_id")),
    "/x509/oauth/token": (EXCHANGE, ("subject_token_type", "identity_provider_id", "service_account_id")),
    "/v1/token": (EXCHANGE, ("subject_token", "subject_token_type", "audience", "scope", "requested_token_type")),
    "/rfc/7523": (JWT_BEARER, ("assertion",)),
    "/rfc/8693": (EXCHANGE, ("subject_token", "subject_token_type")),
}  # fmt: skip


class TokenServer:
    """What is exchanged, and what came.

    Attributes:
        identities: Identity tokens that are taken.
        lives_s: How long a token is taken.
        told: What `expires_in` says; None: `lives_s`.
        fault: Status and body of every answer of a token endpoint; None: none.
        delay_s: Until an answer of a token endpoint.
        api_delay_s: Until an answer of the API.
        headers: Of every answer of a token endpoint.
        exchanges: Path, headers and fields of each exchange.
        calls: Unix time, token and status of each call of the API.
        clock_off_s: Of its clock, in the header `Date`.
    """

    def __init__(self, *identities: str) -> None:
        self.identities = set(identities)
        self.lives_s = 3600.0
        self.told: Any = None
        self.fault: tuple[int, Any] | None = None
        self.headers: dict[str, str] = {}
        self.delay_s = self.api_delay_s = self.clock_off_s = 0.0
        self.exchanges: list[tuple[str, Mapping[str, str], dict[str, Any]]] = []
        self.calls: list[tuple[float, str, int]] = []
        self.under_way, self.most_under_way = 0, 0
        self.dies: dict[str, float] = {}
        self.url = ""
        self._numbers, self._lock = count(1), threading.Lock()

    def issue(self) -> str:
        """Return a new token, which is taken for `lives_s`."""
        token = f"sk-ant-oat01-canary-{next(self._numbers)}"
        self.dies[token] = time.monotonic() + self.lives_s
        return token

    def exchange(self, path: str, headers: Mapping[str, str], raw: bytes) -> tuple[int, Any]:
        with self._lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            time.sleep(self.delay_s)
            return self._exchange(path, headers, raw)
        finally:
            with self._lock:
                self.under_way -= 1

    def _exchange(self, path: str, headers: Mapping[str, str], raw: bytes) -> tuple[int, Any]:
        if headers.get("Content-Type") == "application/json":
            fields = json.loads(raw)
        else:
            fields = dict(urllib.parse.parse_qsl(raw.decode()))
        self.exchanges.append((path, {name.lower(): value for name, value in headers.items()}, fields))
        if self.fault is not None:
            return self.fault
        if path.endswith(":generateAccessToken"):
            if self.dies.get(headers["Authorization"].removeprefix("Bearer "), 0) < time.monotonic():
                return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no"}}
            ends = datetime.fromtimestamp(time.time() + self.clock_off_s + self.lives_s, UTC)
            return 200, {"accessToken": self.issue(), "expireTime": ends.isoformat().replace("+00:00", "Z")}
        grant, wanted = WANTED[path]
        missing = [name for name in wanted if not fields.get(name)]
        if fields.get("grant_type") != grant:
            return 400, {"error": "unsupported_grant_type"}
        if missing or (path == "/v1/oauth/token" and "oidc-federation" not in headers.get("anthropic-beta", "")):
            return 400, {"error": "invalid_request", "error_description": f"missing {missing}"}
        shown = fields.get("assertion", fields.get("subject_token"))
        if shown is not None and shown not in self.identities:
            return 400, {"error": "invalid_grant", "error_description": f"no rule matches {shown}"}
        told = self.lives_s if self.told is None else self.told
        return 200, {"access_token": self.issue(), "token_type": "Bearer", "expires_in": told}

    def call(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Return the API's answer: Anthropic's wire or OpenAI's, by the path."""
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        is_taken = self.dies.get(token, 0.0) > time.monotonic()  # as the request comes in
        if path == "/v1/messages":
            is_taken = is_taken and "oauth-2025-04-20" in headers.get("anthropic-beta", "")
        self.calls.append((time.time(), token, 200 if is_taken else 401))
        time.sleep(self.api_delay_s)
        if not is_taken:
            return 401, {"error": {"message": "expired", "type": "authentication_error", "code": "invalid_api_key"}}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": "m", "object": "model"}]}
        if path == "/v1/messages":
            return 200, {
                "id": "c", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
                "content": [{"type": "text", "text": "four"}], "usage": {"input_tokens": 10, "output_tokens": 1},
            }  # fmt: skip
        choice = {"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return 200, {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


@contextmanager
def token_server(*identities: str, tls: ssl.SSLContext | None = None) -> Iterator[TokenServer]:
    """Run such a server on a free port.

    Args:
        identities: Tokens of workloads that it knows.
        tls: Its certificate, and whose client certificates it takes; None: it speaks plain HTTP.
    """
    served = TokenServer(*identities)

    class Tokens(Handler):
        def do_POST(self) -> None:
            raw = self.body()
            is_exchange = self.path in WANTED or self.path.endswith(":generateAccessToken")
            if is_exchange:
                headers = {"Content-Type": "application/json", **served.headers}
                self.send(*served.exchange(self.path, self.headers, raw), headers)
            else:
                self.send(*served.call(self.path, self.headers))

        def do_GET(self) -> None:
            self.send(*served.call(self.path.partition("?")[0], self.headers))

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + served.clock_off_s, usegmt=True)

    with serving(Tokens, tls=tls) as served.url:
        yield served
