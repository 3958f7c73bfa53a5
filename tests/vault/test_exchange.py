"""Tokens that are exchanged: what is asked, as vendors' SDKs ask it; what is read; and what a refusal says."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.config import ProviderSettings
from fleet.config.exchange import GRANTS, ExchangeSettings
from fleet.errors import ExchangeFailed
from fleet.vault.exchange import ExchangeKey, shadows_of
from fleet.vault.token_endpoint import MOST_S, UNTOLD_S
from fleet.workers.calls import Call
from fleet.workers.providers import make_provider
from tests.tls import make_certificates, make_client_certificate
from tests.vault.token_server import TokenServer, token_server


def jwt(**claims: Any) -> str:
    """A token of a workload, as Kubernetes mounts them; its signature is nobody's."""
    told = {"iss": "https://cluster.test", "aud": "acme", "exp": time.time() + 86_400, **claims}
    parts = ({"alg": "RS256", "kid": "1"}, told)
    head = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.canary-signature"


IDENTITY = jwt()
Make = Callable[..., ExchangeKey]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def served() -> Iterator[TokenServer]:
    with token_server(IDENTITY) as server:
        yield server


def settings_of(server: TokenServer, folder: Path, grant: str, **options: Any) -> ExchangeSettings:
    file = folder / "token"
    if not file.exists():
        file.write_text(IDENTITY)
    paths = {
        "anthropic": "/v1/oauth/token", "openai": "/oauth/token", "google": "/v1/token", "jwt-bearer": "/rfc/7523",
        "token-exchange": "/rfc/8693",
    }  # fmt: skip
    given = {name: f"{name}-1" for name in GRANTS[grant].needed if name not in ("token_file", "url")}
    return ExchangeSettings.model_validate(
        {"grant": grant, "token_file": file, "url": f"{server.url}{paths[grant]}", **given, **options}
    )


@pytest.fixture
def make(served: TokenServer, tmp_path: Path) -> Make:
    return lambda grant, **options: ExchangeKey("acme", settings_of(served, tmp_path, grant, **options))


@pytest.mark.parametrize("grant", ["anthropic", "openai", "google", "jwt-bearer", "token-exchange"])
def test_each_grant_gets_a_token_that_lives_as_long_as_it_says(grant: str, make: Make, served: TokenServer) -> None:
    source = make(grant)
    secret = source.current()
    assert secret.value in served.dies and secret.lives_s is not None and 3590 < secret.lives_s <= 3600
    assert secret.made_at is not None and secret.known_by == source.identity
    assert source.current().known_by == secret.known_by != source.current().value, "two tokens of one identity"
    assert secret.value not in f"{secret!r} {source.where}" and IDENTITY not in source.identity


def test_the_same_fields_are_sent_as_the_sdks_of_the_vendors_send(
    make: Make, served: TokenServer, tmp_path: Path
) -> None:
    anthropic = pytest.importorskip("anthropic.lib.credentials._workload")
    make("anthropic", workspace_id="default").current()
    theirs = anthropic.WorkloadIdentityCredentials(
        identity_token_provider=lambda: IDENTITY, federation_rule_id="federation_rule_id-1",
        organization_id="organization_id-1", service_account_id="service_account_id-1", workspace_id="default",
    )  # fmt: skip
    theirs.bind_base_url(served.url)
    with theirs:
        theirs()
    (_, our_headers, our_fields), (_, their_headers, their_fields) = served.exchanges
    assert our_fields == their_fields
    assert our_headers["anthropic-beta"] == their_headers["anthropic-beta"]
    x509 = pytest.importorskip("openai.auth._x509")
    assert x509._X509_SUBJECT_TOKEN_TYPE == "urn:openai:params:oauth:token-type:x509"
    sts = pytest.importorskip("google.oauth2.sts")
    urllib3 = pytest.importorskip("google.auth.transport.requests")
    make("google").current()
    sts.Client(f"{served.url}/v1/token").exchange_token(
        urllib3.Request(), "urn:ietf:params:oauth:grant-type:token-exchange", IDENTITY,
        "urn:ietf:params:oauth:token-type:jwt", audience="audience-1",
        scopes=["https://www.googleapis.com/auth/cloud-platform"],
        requested_token_type="urn:ietf:params:oauth:token-type:access_token",
    )  # fmt: skip
    assert served.exchanges[2][2] == served.exchanges[3][2]


def test_the_token_file_is_read_again_at_each_exchange(make: Make, served: TokenServer, tmp_path: Path) -> None:
    source = make("openai")
    source.current()
    served.identities = {another := jwt(sub="another")}
    with pytest.raises(ExchangeFailed, match="invalid_grant"):
        source.current()
    (tmp_path / "token").write_text(f"{another}\n")
    assert source.current().value in served.dies


def test_google_acts_as_a_service_account_by_its_own_clock(make: Make, served: TokenServer) -> None:
    served.clock_off_s, served.lives_s = -7200.0, 1800.0
    secret = make("google", impersonate="bots@acme.iam.gserviceaccount.com").current()
    path, headers, fields = served.exchanges[-1]
    assert path == "/v1/projects/-/serviceAccounts/bots%40acme.iam.gserviceaccount.com:generateAccessToken"
    assert headers["authorization"].startswith("Bearer ") and fields["lifetime"] == "3600s"
    assert secret.value in served.dies and secret.lives_s is not None and 1790 < secret.lives_s < 1802


@pytest.mark.parametrize(
    ("told", "lives_s"), [(None, UNTOLD_S), ("1800", 1800), (1e12, MOST_S), (-1, None), (0, None), (True, None),
                          ("soon", None), ("nan", None), ([], None), (10**400, None)],
)  # fmt: skip
def test_an_expiry_is_read_only_where_it_can_be_one(
    told: Any, lives_s: float | None, served: TokenServer, make: Make
) -> None:
    served.fault = 200, {"access_token": "x", **({} if told is None else {"expires_in": told})}
    if lives_s is None:
        with pytest.raises(ExchangeFailed, match="expires_in"):
            make("openai").current()
    else:
        found = make("openai").current().lives_s
        assert found is not None and lives_s - 5 < found <= lives_s


@pytest.mark.parametrize(
    ("status", "body", "words", "is_ours"),
    [
        (400, {"error": "invalid_grant", "error_description": "no match"}, "400 invalid_grant (no match)", True),
        (401, {"error": {"type": "authentication_error", "message": "no"}}, "401 authentication_error (no)", True),
        (403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}, "403 PERMISSION_DENIED", True),
        (404, b"<html>", "got 404", True),
        (302, {}, "got 302", True),
        (429, {}, "got 429", False),
        (500, b"oops", "got 500", False),
        (503, {"error": "temporarily_unavailable"}, "503 temporarily_unavailable", False),
        (200, b"<html>", "expected a JSON object", False),
        (200, {"token_type": "mac", "access_token": "x"}, "expected a Bearer token", False),
        (200, {"expires_in": 5}, "expected `access_token`", False),
        (200, {"access_token": "two words"}, "something else than one word", False),
        (200, b"{" + b"x" * 100_000, "got ValueError", False),
    ],
)  # fmt: skip
def test_what_is_no_token_says_what_came(
    status: int, body: Any, words: str, is_ours: bool, served: TokenServer, make: Make
) -> None:
    served.fault, served.headers = (status, body), {"Location": f"{served.url}/oauth/token", "Retry-After": "7"}
    with pytest.raises(ExchangeFailed) as raised:
        make("openai").current()
    error = raised.value
    assert words in str(error) and error.is_ours == is_ours and len(served.exchanges) == 1
    assert error.after_s == (7 if status >= 429 else None)
    assert ("look at identity_provider_id identity_provider_id-1" in str(error)) == is_ours
    assert "canary" not in f"{error!r} {error.__cause__!r}" and IDENTITY not in str(error)


def test_a_refusal_never_repeats_what_was_shown(served: TokenServer, make: Make) -> None:
    served.identities = set()
    with pytest.raises(ExchangeFailed) as raised:
        make("anthropic").current()
    assert IDENTITY not in str(raised.value) and "canary" not in str(raised.value)
    assert "no rule matches ***" in str(raised.value)
    assert "federation_rule_id federation_rule_id-1" in str(raised.value)
    assert "issuer https://cluster.test and audience acme" in str(raised.value)


def test_a_missing_file_an_old_token_and_a_wrong_clock_are_named(
    served: TokenServer, make: Make, tmp_path: Path
) -> None:
    def said() -> str:
        with pytest.raises(ExchangeFailed) as raised:
            make("openai").current()
        assert raised.value.is_ours
        return str(raised.value)

    served.identities = set()
    (tmp_path / "token").write_text(jwt(exp=time.time() - 300))
    assert "expired 5 min ago by this clock" in said()
    (tmp_path / "token").write_text(jwt(iat=time.time() + 3600))
    assert "ahead of this clock: set the clock" in said()
    served.clock_off_s = -600.0
    assert "this machine's clock is 10 min ahead of that server's: set it" in said()
    (tmp_path / "token").write_bytes(b"x" * 20_000)
    assert "expected 16384 bytes at most, got 20000" in said()
    (tmp_path / "token").unlink()
    source = ExchangeKey("acme", settings_of(served, tmp_path, "openai", token_file=tmp_path / "nowhere"))
    with pytest.raises(ExchangeFailed, match=r"exchange\.token_file: expected a readable file.*nowhere"):
        source.current()


def test_an_endpoint_that_is_away_or_slow_may_come_back(
    served: TokenServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.vault.token_endpoint.TIMEOUT_S", 0.2)
    served.delay_s = 1.0
    with pytest.raises(ExchangeFailed, match=r"none within 0\.2 s") as raised:
        make("openai").current()
    assert not raised.value.is_ours
    with pytest.raises(ExchangeFailed, match="got ConnectionRefusedError"):
        make("openai", url="http://127.0.0.1:9/token").current()


def test_settings_say_what_is_missing_and_what_would_be_ignored(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "grant": "openai", "token_file": "/t", "identity_provider_id": "i", "service_account_id": "s",
    }  # fmt: skip
    for wrong, words in (
        ({"identity_provider_id": None}, "expected `identity_provider_id`, got none"),
        ({"federation_rule_id": "f"}, "got `federation_rule_id`, which it does not use"),
        ({"url": "http://example.com/token"}, "expected https://"),
        ({"url": "https://u:p@example.com/token"}, "without a user"),
    ):
        with pytest.raises(ValidationError, match=words):
            ExchangeSettings.model_validate({**whole, **wrong})
    exchange = ExchangeSettings.model_validate(whole)
    for provider, words in (
        ({"kind": "simulator"}, "which takes keys only"),
        ({"kind": "anthropic"}, "expected a grant whose tokens kind 'anthropic' takes, got 'openai'"),
        ({"kind": "openai", "api_key_env": "X"}, "expected one source of the key, got `api_key_env` and `exchange`"),
    ):
        with pytest.raises(ValidationError, match=words):
            ProviderSettings.model_validate({**provider, "exchange": whole})
    google = {"grant": "google", "token_file": "/t", "audience": "a"}
    with pytest.raises(ValidationError, match="expected a `base_url` with grant 'google'"):
        ProviderSettings.model_validate({"kind": "openai", "exchange": google})
    assert shadows_of(exchange, {"OPENAI_API_KEY": "sk", "ANTHROPIC_API_KEY": "sk"}) == ["OPENAI_API_KEY"]
    assert shadows_of(exchange, {"OPENAI_API_KEY": " "}) == []


@pytest.mark.parametrize("theirs", [{}, {"Anthropic-Beta": "context-1m"}])
def test_a_call_carries_an_exchanged_token_as_the_vendor_takes_it_beside_its_own_betas(
    theirs: dict[str, str], served: TokenServer, make: Make, tmp_path: Path
) -> None:
    exchange = settings_of(served, tmp_path, "anthropic")
    api = make_provider(ProviderSettings(kind="anthropic", base_url=served.url, exchange=exchange))
    token = ExchangeKey("acme", exchange).current().value
    assert api._joined(theirs, api._headers(token)) == {  # type: ignore[attr-defined]
        "Authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", "Content-Type": "application/json",
        **({"Anthropic-Beta": "context-1m,oauth-2025-04-20"} if theirs else {"anthropic-beta": "oauth-2025-04-20"}),
    }  # fmt: skip


def _call() -> Call:
    from fleet.conversation import Message

    return Call("m", (Message(role="user", content="2+2?"),), None, 16, 5.0)


def test_a_certificate_is_exchanged_and_shown_with_each_call_and_replaced_while_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificates(tmp_path)
    make_client_certificate(tmp_path, "one")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    tls.load_verify_locations(tmp_path / "ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))

    async def answers(provider: ProviderSettings, token: str) -> str:
        api = make_provider(provider)
        try:
            return (await api.complete(_call(), api_key=token)).text
        finally:
            await api.close()

    with token_server(tls=tls) as served:
        exchange = ExchangeSettings(
            grant="openai-x509", url=f"{served.url}/x509/oauth/token", identity_provider_id="i", service_account_id="s",
            certificate_file=tmp_path / "one.pem", certificate_key_file=tmp_path / "one.key",
        )  # fmt: skip
        provider = ProviderSettings(kind="openai", base_url=f"{served.url}/v1", exchange=exchange)
        source = ExchangeKey("acme", exchange)
        token = source.current().value
        assert "subject_token" not in served.exchanges[0][2]
        assert asyncio.run(answers(provider, token)) == "four"
        make_client_certificate(tmp_path, "one", signed_by="other")
        with pytest.raises(ExchangeFailed):
            source.current()
        make_client_certificate(tmp_path, "one")
        assert source.current().value in served.dies
        (tmp_path / "one.key").chmod(0o644)
        with pytest.raises(ExchangeFailed, match="readable by its owner only"):
            ExchangeKey("acme", exchange).current()
        (tmp_path / "one.key").unlink()
        with pytest.raises(ExchangeFailed, match="No such file"):
            source.current()
