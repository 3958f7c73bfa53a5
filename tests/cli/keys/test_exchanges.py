"""`fleet keys` and `fleet doctor` where there is no key: what they tell of tokens, and of keys that shadow them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from tests.vault.token_server import TokenServer, token_server

IDENTITY = "header.canary-identity.signature"


@pytest.fixture
def served(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """A vendor that exchanges tokens, and a provider that has them."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    (tmp_path / "token").write_text(IDENTITY)
    with token_server(IDENTITY) as server:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{server.url}/v1"\n'
            f'[providers.acme.exchange]\ngrant = "openai"\nurl = "{server.url}/oauth/token"\n'
            f'token_file = "{tmp_path / "token"}"\nidentity_provider_id = "idp_1"\nservice_account_id = "sa_1"\n'
            '[pools.research]\nprovider = "acme"\nmodel = "m"\n'
        )
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        config.current.cache_clear()
        yield server
    config.current.cache_clear()


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")


def test_an_exchange_is_shown_checked_and_revoked_by_its_identity(
    served: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = (json.loads(fleet("keys", "show", "acme", "--json").output)["keys"][0] for _ in range(2))
    assert first["state"] == "current" and first["fingerprint"] == again["fingerprint"]
    assert first["source"].startswith("exchange openai at 127.0.0.1, for ") and 3590 < first["expires_in_s"] <= 3600
    told = fleet("keys", "show", "acme").output
    assert "exchanged now, by this command" in told and "canary" not in told and "shadow" not in told
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-static")
    shown = fleet("keys", "list").output
    assert "OPENAI_API_KEY set: Fleet does not use it" in shown and "canary" not in shown
    assert json.loads(fleet("keys", "--json").output)["keys"][0]["shadowed_by"] == ["OPENAI_API_KEY"]
    assert fleet("keys", "check").output == "acme: ok: taken\n"
    refused = fleet("keys", "rotate", "acme")
    assert refused.exit_code != 0 and "whose key comes from `exchange`" in refused.output
    served.fault = 400, {"error": "invalid_grant"}
    broken = json.loads(fleet("keys", "show", "acme", "--json").output)["keys"][0]
    assert broken["state"] == "missing" and "400 invalid_grant; look at identity_provider_id idp_1" in broken["trouble"]
    before = len(served.exchanges)
    said = fleet("keys", "revoke", "acme").output
    assert f"identity {first['fingerprint']} is revoked" in said and len(served.exchanges) == before
    served.fault = None
    assert json.loads(fleet("keys", "show", "acme", "--json").output)["keys"][0]["state"] == "revoked"


def test_doctor_tells_of_shadows_and_of_what_is_better_than_what_is_used(
    served: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(check: str) -> dict[str, str]:
        checks = json.loads(fleet("doctor", "--json").output)
        return next(one for one in checks if one["name"] == check)

    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-static")
    shadow = found("provider acme: shadow")
    assert shadow["level"] == "warn" and "OPENAI_API_KEY set beside [providers.acme.exchange]" in shadow["found"]
    key = found("provider acme: key")
    assert key["level"] == "ok" and "better" not in key["found"]
    served.fault = 401, {"error": "invalid_client"}
    key = found("provider acme: key")
    assert key["level"] == "fail" and "401 invalid_client" in json.dumps(key)


def test_what_is_better_is_named_from_the_environment_up_to_no_key_at_all() -> None:
    from fleet.cli.setup.pool_checks import better_than
    from fleet.config import ProviderSettings

    openai, groq = ProviderSettings(kind="openai"), ProviderSettings(kind="openai", base_url="https://api.groq.com/v1")
    assert better_than(openai, "api_key_env", "openai") == (
        "; better: `fleet keys add openai`, or a vault, or no key at all ([providers.NAME.exchange])"
    )
    assert better_than(openai, "api_key_vault", "openai") == "; better: no key at all ([providers.NAME.exchange])"
    assert better_than(openai, "", "openai").startswith("; better: a vault, for several hosts, or no key")
    assert better_than(groq, "api_key_env", "groq") == "; better: `fleet keys add groq`, or a vault"
    assert better_than(groq, "api_key_vault", "groq") == better_than(openai, "exchange", "openai") == ""
