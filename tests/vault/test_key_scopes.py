"""What becomes of a call outside a scope: never served, not served now, or not by this rung."""

from __future__ import annotations

import asyncio

import pytest
import redis

from fleet import config
from fleet.config import Settings
from fleet.config.scope_checks import host_asked
from fleet.config.scopes import ScopeAsk, ScopeSettings
from fleet.errors import ConfigurationError, NotSoon, OutOfScope
from fleet.store import vault_keys
from fleet.store.client import Store, connect
from fleet.vault.key_scopes import KeyScopes, read_scopes, reset_scope, set_scope

LIMIT = "own/simulated-1/default"


def settings(**scope: object) -> Settings:
    return config.load(
        providers={"own": {"kind": "simulator", "scope": scope}, "spare": {"kind": "simulator"}},
        pools={
            "a": {"bots": 3, "provider": "own"},
            "b": {"bots": 3, "provider": "spare", "fallback": [{"provider": "own"}]},
        },
        tools={"shop": {"base_url": "https://shop.example.com"}},
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


def several(**scopes: dict[str, object]) -> Settings:
    return config.load(
        providers={"own": {"kind": "simulator", "keys": {label: {"scope": scope} for label, scope in scopes.items()}}},
        pools={"a": {"bots": 3, "provider": "own"}, "b": {"bots": 3, "provider": "own"}},
    )


def among(scopes: KeyScopes, ask: ScopeAsk) -> set[str]:
    limits = [f"own/simulated-1/{label}" for label in ("x", "y", "z")]
    scopes.check(limits[0], ask, "t")
    return {limit[-1] for limit in scopes.among(limits, ask, "t")}


def test_a_call_may_use_those_of_several_keys_whose_own_scopes_allow_it() -> None:
    scopes = KeyScopes(
        several(x={"tenants": ["acme"]}, y={"pools": ["a"], "tools": ["add"]}, z={"pools": ["b"], "bots": ["b-00*"]})
    )
    assert scopes.tells_apart("own") and scopes.concerns("t")
    assert among(scopes, ScopeAsk("a", "a-001", "acme")) == {"x"}, "its own, and no other"
    assert among(scopes, ScopeAsk("a", "a-001", "acme", tools=("shell",))) == {"x"}
    assert among(scopes, ScopeAsk("a", "a-001")) == {"y"}
    assert among(scopes, ScopeAsk("b", "b-001")) == {"z"}
    with pytest.raises(OutOfScope, match=r"tools: expected of those that the key serves \(add\).*outside each key of"):
        among(scopes, ScopeAsk("a", "a-001", tools=("shell",)))
    assert KeyScopes(several(x={}, y={}, z={})).bots_out("a") == ()
    assert KeyScopes(several(x={"bots": ["a-001"]}, y={"pools": ["b"]}, z={"bots": ["a-002"]})).bots_out("a") == (
        "a-003",
    )
    assert not KeyScopes(settings()).tells_apart("own")


def test_what_is_set_for_one_of_several_keys_makes_wait_and_ends_nothing(redis_url: str) -> None:
    scopes = KeyScopes(several(x={"pools": ["a"]}, y={"pools": ["b"]}, z={"tenants": ["acme"], "pools": ["a"]}))

    def hear(**told: str) -> None:
        async def load() -> None:
            store = Store(redis_url)
            await scopes.load(store)
            await store.close()

        with connect(redis_url, timeout_s=5) as client:
            client.delete(vault_keys.scopes())
            for name, text in told.items():
                client.hset(vault_keys.scopes(), name.replace("_", "/"), text)
        asyncio.run(load())

    hear(own_x='{"models": ["other"]}', own_unknown="{", a_b_c="{")
    with pytest.raises(NotSoon, match="takes back what narrows the keys that serve such calls") as raised:
        among(scopes, ScopeAsk("a"))
    assert not raised.value.wait().is_everyones, "acme's tasks of that pool have a key"
    assert among(scopes, ScopeAsk("a", tenant="acme")) == {"z"}
    assert among(scopes, ScopeAsk("b")) == {"y"}
    hear(own_z="{}")
    assert among(scopes, ScopeAsk("a")) == {"x"}


def test_a_tools_key_has_a_scope_too() -> None:
    own = config.load(
        tools={"shop": {"base_url": "https://shop.example.com", "scope": {"pools": ["a"], "tenants": ["acme"]}}},
        pools={"a": {"bots": 1}, "b": {"bots": 1}},
    )
    scopes = KeyScopes(own)
    scopes.check("tools/shop/default", ScopeAsk("a", tenant="acme"), "t")
    for ask in (ScopeAsk("b", tenant="acme"), ScopeAsk("a")):
        with pytest.raises(OutOfScope, match=r"the scope of \[tools\.shop\]"):
            scopes.check("tools/shop/default", ask, "t")


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        ({"models": ["x"]}, "ask no model"),
        ({"hosts": ["other"]}, r"'shop\.example\.com' among them"),
        ({"usd_per_day": 1}, "usd_per_call"),
    ],
)
def test_what_a_tools_scope_cannot_mean_is_refused(scope: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config.load(tools={"shop": {"base_url": "https://shop.example.com", "scope": scope}})


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"x": {"scope": {"pools": ["a"]}}}, r"keys\.x\.scope\.pools: expected 'b' among them, which pool b uses"),
        ({"x": {"scope": {"pools": ["a"]}}, "y": {"scope": {"pools": ["c"]}}}, r"keys\.\*\.scope\.pools: expected 'b'"),
        ({"x": {}, "y": {"scope": {"hosts": ["api.example.com"]}}}, r"keys\.y\.scope\.hosts: expected '127"),
    ],
)
def test_scopes_of_keys_by_which_a_pool_could_never_work_are_refused(keys: dict[str, object], told: str) -> None:
    pools = {name: {"bots": 1, "provider": "own"} for name in ("a", "b")}
    with pytest.raises(ConfigurationError, match=told):
        config.load(providers={"own": {"kind": "simulator", "keys": keys}}, pools=pools)
    both = {"x": {"scope": {"pools": ["a"]}}, "y": {"scope": {"pools": ["b"]}}}
    found = config.load(providers={"own": {"kind": "simulator", "keys": both}}, pools=pools)
    assert found.limit_names("own", "simulated-1", "a") == ("own/simulated-1/x",)
    assert len(found.limit_names("own", "simulated-1")) == 2


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
