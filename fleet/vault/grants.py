"""What is sent to get a token: the grants of RFC 7523 and RFC 8693, and what each vendor makes of them.

By the RFCs: `grant_type`, `assertion`; `subject_token`, `subject_token_type`, `audience`, `scope`; a form as the body;
`access_token`, `expires_in`, `error`. By a vendor: the ids, JSON as the body, headers, a second step (Google).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleet.config.exchange import ExchangeSettings
from fleet.errors import ExchangeFailed
from fleet.quoting import Hidden, quote
from fleet.vault.token_endpoint import TokenAnswer, TokenRequest, life_of

#: Names of the grants, and of what is shown or wanted.
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT, ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:access_token"
#: OpenAI's name for a certificate shown in the TLS handshake, as its SDK sends it.
X509 = "urn:openai:params:oauth:token-type:x509"
#: Where each vendor exchanges.
URLS: Mapping[str, str] = {
    "anthropic": "https://api.anthropic.com/v1/oauth/token",
    "openai": "https://auth.openai.com/oauth/token",
    "openai-x509": "https://mtls.auth.openai.com/oauth/token",
    "google": "https://sts.googleapis.com/v1/token",
}
#: What Anthropic's SDK sends with this grant; API calls carry the first of the two (`workers/providers/anthropic.py`).
_ANTHROPIC_BETA = "oauth-2025-04-20,oidc-federation-2026-04-01"
#: What Google's tokens are for: what Vertex takes.
_CLOUD = "https://www.googleapis.com/auth/cloud-platform"
_IMPERSONATION = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{}:generateAccessToken"
#: Seconds for which a service account's token is asked: Google's own default.
_IMPERSONATED_S = 3600


def first_request(settings: ExchangeSettings, identity: str) -> TokenRequest:
    """Return what asks for a token; the client certificate is put in by whoever sends it.

    Args:
        settings: The table.
        identity: What the token file holds; empty for a certificate.
    """
    grant = settings.grant
    url = settings.url or URLS[grant]
    if grant == "anthropic":
        ids = _given(settings, "federation_rule_id", "organization_id", "service_account_id", "workspace_id")
        fields = {"grant_type": JWT_BEARER, "assertion": identity, **ids}
        return TokenRequest(url, fields, is_json=True, headers={"anthropic-beta": _ANTHROPIC_BETA})
    if grant == "jwt-bearer":
        return TokenRequest(
            url, {"grant_type": JWT_BEARER, "assertion": identity, **_given(settings, "scope", "client_id")}
        )
    shown = {"subject_token_type": settings.subject_token_type or JWT, "subject_token": identity}
    if grant in ("openai", "openai-x509"):
        shown = {"subject_token_type": X509} if grant == "openai-x509" else shown
        ids = _given(settings, "identity_provider_id", "service_account_id")
        return TokenRequest(url, {"grant_type": TOKEN_EXCHANGE, **shown, **ids}, is_json=True)
    fields = {"grant_type": TOKEN_EXCHANGE, **shown, **_given(settings, "audience", "scope", "client_id")}
    if grant == "google":
        fields = {**fields, "scope": settings.scope or _CLOUD, "requested_token_type": ACCESS_TOKEN}
        if settings.impersonate:
            fields["scope"] = _CLOUD  # what may ask for the service account's token
    return TokenRequest(url, fields)


def second_request(settings: ExchangeSettings, token: str) -> TokenRequest | None:
    """Return what asks for the token of the service account to act as; None: the first token is the one."""
    if not settings.impersonate:
        return None
    fields = {"scope": [settings.scope or _CLOUD], "lifetime": f"{_IMPERSONATED_S}s"}
    headers = {"Authorization": Hidden(f"Bearer {token}")}
    return TokenRequest(_impersonation_url(settings), fields, is_json=True, headers=headers)


def _impersonation_url(settings: ExchangeSettings) -> str:
    from urllib.parse import quote as quoted
    from urllib.parse import urlsplit

    path = _IMPERSONATION.format(quoted(settings.impersonate or ""))
    if settings.url is None:
        return path
    parts = urlsplit(settings.url)  # one who stands in for Google's STS stands in for this, too
    return f"{parts.scheme}://{parts.netloc}{urlsplit(path).path}"


def read_token(answer: TokenAnswer, *, where: str) -> tuple[Hidden, float]:
    """Return an access token and the seconds that it lives.

    Raises:
        ExchangeFailed: The answer holds none that a call can carry.
    """
    told = answer.told
    kind = told.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", "n_a"):
        raise ExchangeFailed(f"expected a Bearer token of {where}, got one of type {quote(kind)}")
    if "accessToken" in told:
        return _word(told["accessToken"], where), _until(told.get("expireTime"), answer.clock_s, where)
    return _word(told.get("access_token"), where), life_of(told.get("expires_in"), where=where)


def _word(token: Any, where: str) -> Hidden:
    if isinstance(token, str) and token.isascii() and token.isprintable() and token and " " not in token:
        return Hidden(token)
    raise ExchangeFailed(
        f"expected `access_token` of {where}, got {'none' if token is None else 'something else than one word'}"
    )


def _until(text: Any, clock_s: float | None, where: str) -> float:
    """Return the seconds until a time that a server tells, by its own clock where it tells that, too."""
    if clock_s is None:
        return life_of(None, where=where)
    try:
        at_s = datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise ExchangeFailed(f"expected `expireTime` of {where}, got {quote(text)}") from None
    return life_of(at_s - clock_s, where=where)


def _given(settings: ExchangeSettings, *names: str) -> dict[str, str]:
    return {name: value for name in names if (value := getattr(settings, name))}
