"""Several keys of a provider in fleet.toml: their labels, and the limits of each."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.config import KEY_LABEL, ProviderSettings, Settings
from fleet.config.fingerprint import fingerprint
from fleet.config.providers import MOST_KEYS


def provider(**table: Any) -> ProviderSettings:
    return ProviderSettings.model_validate({"kind": "openai", **table})


@pytest.mark.parametrize(
    ("table", "labels"),
    [
        ({}, (KEY_LABEL,)),
        ({"api_key_env": "E"}, (KEY_LABEL,)),
        ({"keys": ["a", "b"]}, ("a", "b")),
        ({"keys": {"b": {"api_key_env": "B"}}}, ("b",)),
        ({"api_key_env": "E", "keys": {"b": {"api_key_env": "B"}}}, (KEY_LABEL, "b")),
    ],
)
def test_the_key_of_the_table_itself_is_one_more_beside_those_with_labels(
    table: dict[str, Any], labels: tuple[str, ...]
) -> None:
    assert provider(**table).labels == labels


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"keys": ["a", "a"]}, "each once"),
        ({"keys": ["a/b"]}, "labels of at most 32 letters"),
        ({"keys": ["default"], "api_key_env": "E"}, "another label than `default`"),
        ({"keys": {"a": {"api_key_env": "E", "api_key_file": "/f"}}}, "expected one source of the key"),
        ({"keys": {"a": {"api_key_vault": "no-field"}}}, "expected PATH#FIELD"),
        ({"keys": {"a": {"api_key": "sk"}}}, "Extra inputs"),
        ({"keys": [f"k{n}" for n in range(MOST_KEYS + 1)]}, f"at most {MOST_KEYS}"),
    ],
)
def test_wrong_keys_are_refused_and_told_what_is_wrong(table: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told.replace("#", r"\#")):
        provider(**table)


def test_limits_are_those_of_each_key_and_one_may_have_its_own() -> None:
    settings = Settings.model_validate(
        {
            "providers": {"acme": {"kind": "openai", "keys": ["a", "b"]}, "one": {"kind": "openai"}},
            "pools": {"p": {"provider": "acme", "model": "org/m"}, "q": {"provider": "one", "model": "m"}},
            "limits": {"acme/org/m": {"rpm": 5}, "acme/org/m/b": {"rpm": 9}},
            "tools": {"search": {"base_url": "https://api.example.com", "rpm": 3}},
        }
    )
    assert {name: limit.rpm for name, limit in settings.limits_by_key.items()} == {
        "acme/org/m/a": 5, "acme/org/m/b": 9, "one/m/default": None, "tools/search/default": 3,
    }  # fmt: skip
    with pytest.raises(ValidationError, match="expected a price of the model"):
        Settings.model_validate(
            {
                "providers": {"acme": {"kind": "openai", "keys": ["a"]}},
                "pools": {"p": {"provider": "acme", "model": "m"}},
                "limits": {"acme/m/a": {"usd_per_day": 1.0}},
            }
        )


def test_where_keys_come_from_may_differ_from_worker_to_worker_but_their_labels_may_not() -> None:
    def of(keys: dict[str, Any]) -> str:
        return fingerprint(Settings(providers={"acme": provider(keys=keys)}))["providers"]

    assert of({"a": {"api_key_env": "E"}}) == of({"a": {"api_key_file": "/f"}})
    assert of({"a": {}}) != of({"b": {}})
