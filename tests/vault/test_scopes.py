"""Scopes: they meet and never widen, and keys are chosen by them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from fleet.config.scopes import EVERYTHING, ScopeAsk, ScopeSettings
from fleet.vault.scopes import ScopeRefusal, allowed, is_within, narrowed, widening
from tests.keys.scopes import random_scope, widened


@dataclass(frozen=True)
class Key:
    label: str
    scope: ScopeSettings | None = None


def test_random_chains_of_delegations_widen_nothing() -> None:
    assert widened(1_000) == 0  # 10,000 of them: `python -m tests.keys`


def test_what_two_scopes_allow_is_within_both_and_the_same_whichever_comes_first() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        one, other = random_scope(rng), random_scope(rng)
        met = narrowed(one, other)
        assert is_within(met, one) and is_within(met, other)
        back = narrowed(other, one)
        assert is_within(met, back) and is_within(back, met)
        assert narrowed(met, one) == met and is_within(one, EVERYTHING)


def test_two_beginnings_meet_in_the_longer_one_and_names_without_a_common_one_in_none() -> None:
    met = narrowed(ScopeSettings(pools=("re*", "writing")), ScopeSettings(pools=("research-*", "w", "writ*")))
    assert met.pools == ("research-*", "writing") or set(met.pools or ()) == {"research-*", "writing"}
    assert narrowed(ScopeSettings(pools=("a",)), ScopeSettings(pools=("b",))).pools == ()


def test_what_is_wider_is_named() -> None:
    wide = ScopeSettings(pools=("a",), requests_per_day=10)
    assert widening(ScopeSettings(pools=("a", "b"), requests_per_day=5), wide) == ("pools",)
    assert widening(ScopeSettings(pools=("a",)), wide) == ("requests_per_day",)
    assert widening(ScopeSettings(pools=("a",), requests_per_day=10, models=("m",)), wide) == ()


@pytest.mark.parametrize(
    ("ask", "labels"),
    [
        (ScopeAsk(pool="research"), ["wide", "research"]),
        (ScopeAsk(pool="writing"), ["wide"]),
        (ScopeAsk(pool="research", tenant="acme"), ["acme"]),
        (ScopeAsk(pool="research", tenant="other"), ["wide", "research"]),
    ],
)
def test_a_call_may_use_keys_that_serve_it_and_a_bound_tenant_only_its_own(ask: ScopeAsk, labels: list[str]) -> None:
    keys = [
        Key("wide"),
        Key("research", ScopeSettings(pools=("research",))),
        Key("acme", ScopeSettings(tenants=("acme",))),
    ]
    found = allowed(keys, ask)
    assert not isinstance(found, ScopeRefusal) and [key.label for key in found] == labels


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (ScopeAsk(pool="b"), "pools"),
        (ScopeAsk(pool="a", bot="a-002"), "bots"),
        (ScopeAsk(pool="a", model="large"), "models"),
        (ScopeAsk(pool="a", host="elsewhere"), "hosts"),
        (ScopeAsk(pool="a", tools=("add", "shell")), "tools"),
    ],
)
def test_a_call_that_no_key_serves_is_told_why(ask: ScopeAsk, what: str) -> None:
    scope = ScopeSettings(pools=("a",), bots=("a-001",), models=("small*",), hosts=("api",), tools=("add",))
    found = allowed([Key("only", scope)], ask)
    assert isinstance(found, ScopeRefusal) and found.what == what and "expected" in found.told


def test_a_tenant_is_not_named_where_no_key_is_bound_to_it() -> None:
    found = allowed([Key("acme", ScopeSettings(tenants=("acme",)))], ScopeAsk(pool="a", tenant="jane-doe"))
    assert isinstance(found, ScopeRefusal) and found.what == "tenants"
    assert "jane-doe" not in found.told and "acme" not in found.told
