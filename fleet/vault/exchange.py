"""A source without a secret that lasts: what this workload can show of itself, exchanged for a token that soon expires.

The token file or certificate is read again at each exchange. When to exchange is the `Keyring`'s business.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
from collections.abc import Hashable, Mapping
from typing import Any

from fleet.config.certificates import ClientCertificate
from fleet.config.exchange import GRANTS, ExchangeSettings
from fleet.config.hosts import host_of
from fleet.config.secret_files import read_secret
from fleet.errors import ExchangeFailed, KeyMissing
from fleet.quoting import duration
from fleet.vault.grants import URLS, first_request, read_token, second_request
from fleet.vault.sources import Secret
from fleet.vault.token_endpoint import SKEW_S, TokenRequest, ask

#: Variables that vendors' SDKs and commands take before they exchange anything.
SHADOWS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "openai": ("OPENAI_API_KEY",),
    "openai-x509": ("OPENAI_API_KEY",),
    "google": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_API_KEY", "GEMINI_API_KEY"),
}
#: Settings that say what is shown, and where; the others say as whom tokens are had.
_SHOWN = frozenset({"token_file", "certificate_file", "certificate_key_file", "subject_token_type", "url"})


class ExchangeKey:
    """The source of one provider's tokens.

    Args:
        provider: Its name under [providers].
        settings: Its table `exchange`.
    """

    def __init__(self, provider: str, settings: ExchangeSettings) -> None:
        self._provider, self._settings = provider, settings
        self._certificate = None if settings.certificate is None else ClientCertificate(*settings.certificate)

    @property
    def where(self) -> str:
        """Which exchange, and for what."""
        grant, url = self._settings.grant, self._settings.url or URLS[self._settings.grant]
        shown = self._settings.token_file or self._settings.certificate_file
        return f"exchange {grant} at {host_of(url)}, for {shown}"

    @property
    def identity(self) -> str:
        """As whom tokens are had: the same for all processes and tokens. It is what can be revoked."""
        settings = self._settings.model_dump(mode="json", exclude=set(_SHOWN) - {"url"}, exclude_none=True)
        return json.dumps(settings, sort_keys=True)

    def current(self) -> Secret:
        """Exchange once, and return the token.

        Raises:
            ExchangeFailed: There was none, with what to do.
        """
        identity = self._shown()
        tls = None if self._certificate is None else self._certificate.context()
        request = first_request(self._settings, identity)
        try:
            token, lives_s = self._asked(request, identity, tls)
            if (second := second_request(self._settings, token)) is not None:
                token, lives_s = self._asked(second, token, tls)
        except ExchangeFailed as error:
            if not error.is_ours:
                raise
            told = f"{error}; {self._advice(error.code, identity)}"
            raise ExchangeFailed(told, code=error.code, is_ours=True) from None
        return Secret(token, made_at=time.time(), lives_s=lives_s, identity=self.identity)

    def mark(self) -> Hashable:
        """Only an exchange tells."""
        return None

    def _asked(self, request: TokenRequest, secret: str, tls: ssl.SSLContext | None) -> tuple[str, float]:
        """Return a token and the seconds that it lives from now: what the answer took is taken off."""
        asked_s = time.monotonic()
        sent = TokenRequest(request.url, request.fields, request.is_json, request.headers, tls)
        token, lives_s = read_token(ask(sent, secrets=(secret,)), where=host_of(request.url))
        return token, lives_s - (time.monotonic() - asked_s)

    def _shown(self) -> str:
        file = self._settings.token_file
        if file is None:
            return ""
        try:
            return read_secret(file, setting="exchange.token_file", is_private=False)
        except KeyMissing as error:
            raise ExchangeFailed(
                f"{error}; whoever issues identities (Kubernetes, SPIFFE, your CI) writes it", is_ours=True
            ) from None

    def _advice(self, code: str, identity: str) -> str:
        """Say what to look at after a refusal."""
        claims, settings = _claims(identity), self._settings
        now_s, expires_s, issued_s = time.time(), _number(claims, "exp"), _number(claims, "iat")
        if expires_s is not None and expires_s <= now_s:
            ago = f"{duration(now_s - expires_s)} ago"
            return (
                f"the token in {settings.token_file} expired {ago} by this clock: see what writes it, or set the clock"
            )
        if issued_s is not None and issued_s > now_s + SKEW_S:
            ahead = f"{duration(issued_s - now_s)} ahead of this clock"
            return f"the token in {settings.token_file} is from {ahead}: set the clock"
        ids = [f"{name} {value}" for name in _asked_of(settings.grant) if (value := getattr(settings, name))]
        looks = f"look at {', '.join(ids)} in [providers.{self._provider}.exchange]" if ids else "look at its settings"
        issuer = f", and at its issuer {claims['iss']} and audience {claims.get('aud')}" if "iss" in claims else ""
        what = "certificate" if settings.grant == "openai-x509" else "identity token"
        needed = f" ({', '.join(GRANTS[settings.grant].needed)})" if code == "invalid_request" else ""
        return f"{looks}{needed}, at what they allow this {what} at the vendor{issuer}"


def _asked_of(grant: str) -> list[str]:
    """Return the settings that say as whom, of one grant: a wrong one is the usual cause of a refusal."""
    taken = GRANTS[grant]
    return [name for name in (*taken.needed, *taken.optional) if name not in _SHOWN]


def shadows_of(settings: ExchangeSettings, variables: Mapping[str, str]) -> list[str]:
    """Return the variables that are set and would be used before the exchange by whatever else reads them."""
    return [name for name in SHADOWS.get(settings.grant, ()) if variables.get(name, "").strip()]


def _claims(token: str) -> Mapping[str, Any]:
    """Return what a JWT says of itself, unverified; empty where it is none. Shown: its issuer, audience and times."""
    try:
        payload = token.split(".")[1]
        told = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    found = claims.get(name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
