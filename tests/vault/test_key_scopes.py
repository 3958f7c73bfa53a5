"""What becomes of a call outside a scope: never served, not served now, or not by this rung."""

from __future__ import annotations

import pytest
import redis

from fleet import config
from fleet.config import Settings
from fleet.config.scope_checks import host_asked
from fleet.config.scopes import ScopeAsk, ScopeSettings
from fleet.errors import ConfigurationError, NotSoon, OutOfScope
from fleet.store import vault_keys
from fleet.store.client import connect
from fleet.vault.key_scopes import KeyScopes, read_scopes, reset_scope, set_scope

LIMIT = "own/simulated-1/default"


def settings(**scope: object) -> Settings:
    return config.load(
        providers={"own": {"kind": "simulator", "scope": scope}, "spare": {"kind": "simulator"}},
        pools={
            "a": {"bots": 3, "provider": "own"},
            "b": {"bots": 3, "provider": "spare", "fallback": [{"provider": "own"}]},
        },
    )


def test_what_fleet_toml_never_serves_ends_and_a_task_that_only_falls_back_on_the_key_waits() -> None:
    scopes = KeyScopes(settings(tenants=["acme"]), now_s=lambda: 100.0)
    scopes.check(LIMIT, ScopeAsk("a", tenant="acme"), "t")
    scopes.check("spare/simulated-1/default", ScopeAsk("b"), "t")
    with pytest.raises(OutOfScope, match=r"outside the scope of \[providers\.own\]"):
        scopes.check(LIMIT, ScopeAsk("a", tenant="jane"), "t")
    with pytest.raises(NotSoon, match="its pool's own key") as raised:
        scopes.check(LIMIT, ScopeAsk("b", tenant="jane"), "t")
    assert raised.value.wait().is_everyones is False and "jane" not in str(raised.value)


def test_a_delegations_scope_holds_for_its_own_task_alone() -> None:
    own = ScopeSettings(models=("large",), tools=("add",))
    scopes = KeyScopes(settings(), lambda task: own if task == "signed" else None)
    assert scopes.concerns("signed")
    scopes.check(LIMIT, ScopeAsk("a"), "other")
    with pytest.raises(OutOfScope, match="the delegation that it was signed by"):
        scopes.check(LIMIT, ScopeAsk("a"), "signed")
    with pytest.raises(OutOfScope, match="tools: expected of those that the key serves"):
        scopes.check("tools/shop/default", ScopeAsk("a"), "signed")
    assert not KeyScopes(config.load()).concerns("any")


def test_a_host_that_only_an_sdk_knows_is_none_that_a_scope_names() -> None:
    own = config.load(providers={"mistral": {"kind": "pydantic-ai"}})
    provider = own.provider_named("mistral")
    assert not host_asked(provider)
    scopes = KeyScopes(own, lambda task: ScopeSettings(hosts=("api.openai.com",)) if task == "signed" else None)
    scopes.check("mistral/m/default", ScopeAsk("a"), "other")
    with pytest.raises(OutOfScope, match="one that its SDK chooses"):
        scopes.check("mistral/m/default", ScopeAsk("a"), "signed")


def test_bots_that_a_key_does_not_serve_are_left_out() -> None:
    scopes = KeyScopes(settings(bots=["a-00*", "b-001"]))
    assert scopes.bots_out("a") == ()
    assert KeyScopes(settings(bots=["a-002", "b-*"])).bots_out("a") == ("a-001", "a-003")


def test_a_scope_is_set_no_wider_than_fleet_toml_has_it(redis_url: str) -> None:
    configured = ScopeSettings(pools=("a*",), usd_per_day=5)
    with connect(redis_url, timeout_s=5) as client:
        with pytest.raises(ConfigurationError, match=r"pools, usd_per_day: expected no more than fleet\.toml allows"):
            set_scope(client, "own", ScopeSettings(pools=("b",), usd_per_day=6), configured)
        set_scope(client, "own", ScopeSettings(pools=("ab",)), configured)
        assert read_scopes(client) == {"own": ScopeSettings(pools=("ab",))}
        _spoil(client)
        assert read_scopes(client)["own"] == ScopeSettings(pools=()), "what cannot be read serves nobody"
        client.hset(vault_keys.scopes(), "own", "[" * 100_000)
        assert read_scopes(client)["own"] == ScopeSettings(pools=()), "nor what is nested beyond reading"
        assert reset_scope(client, "own") and not reset_scope(client, "own")


def _spoil(client: redis.Redis) -> None:
    client.hset(vault_keys.scopes(), "own", "{")
