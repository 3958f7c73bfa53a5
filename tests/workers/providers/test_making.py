"""Adapters as they are made from their settings: addresses, proxies, and who needs no key."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.cli.setup.pool_checks import provider_key
from fleet.config import ProviderSettings, Settings
from fleet.errors import ConfigurationError
from fleet.vault import read_key
from fleet.workers.providers import make_provider
from fleet.workers.providers.base import HttpProvider
from tests.cli.setup.test_commands import GOOD_HOST


@pytest.mark.parametrize(
    ("kind", "base_url", "expected"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://[::1]:8000/v1/", "http://[::1]:8000/v1/chat/completions"),
        ("openai", "https://example.org/openai/", "https://example.org/openai/chat/completions"),
        ("anthropic", None, "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "https://example.org/claude", "https://example.org/claude/v1/messages"),
        ("simulator", "http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/chat/completions"),
    ],
)
def test_the_endpoint_follows_from_the_base_url(kind: str, base_url: str | None, expected: str) -> None:
    made = make_provider(ProviderSettings.model_validate({"kind": kind, "base_url": base_url}))
    assert isinstance(made, HttpProvider)
    assert str(made._url) == expected


def test_an_address_from_outside_goes_before_the_configured_one() -> None:
    settings = ProviderSettings(kind="simulator", base_url="http://127.0.0.1:1")
    made = make_provider(settings, base_url="http://127.0.0.1:2")
    assert isinstance(made, HttpProvider)
    assert made._url.port == 2


def test_a_simulator_without_an_address_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="expected the address where it listens"):
        make_provider(ProviderSettings(kind="simulator"))


def test_the_proxy_of_the_environment_is_used_but_never_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy.example.org:3128")
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "internal.example.org")

    def proxy(url: str) -> str | None:
        made = make_provider(ProviderSettings(kind="openai"), base_url=url)
        assert isinstance(made, HttpProvider)
        return made._proxy

    assert proxy("https://api.openai.com/v1") == "http://proxy.example.org:3128"
    assert proxy("http://127.0.0.1:8080") is None
    assert proxy("http://localhost:8080") is None
    assert proxy("https://internal.example.org") is None
    monkeypatch.setenv("https_proxy", "socks5://proxy.example.org")
    with pytest.raises(ConfigurationError, match="expected an http proxy"):
        proxy("https://api.openai.com/v1")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1", "http://127.0.0.1:11434", "http://[::1]:8000", "http://192.168.1.7:8000/v1",
        "http://10.0.0.1", "http://gpu-box:8000", "http://vllm.models.svc:8000", "http://host.docker.internal:11434",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_server_on_this_host_or_network_needs_no_key_and_is_sent_none(kind: Any, url: str) -> None:
    settings = ProviderSettings(kind=kind, base_url=url)
    assert read_key("local", Settings(providers={"local": settings})) == ""
    adapter = make_provider(settings)
    assert isinstance(adapter, HttpProvider)
    assert not {"authorization", "x-api-key"} & {name.lower() for name in adapter._headers("")}
    assert provider_key("local", "default", Settings(providers={"local": settings}), GOOD_HOST, []).level == "ok"


@pytest.mark.parametrize("url", [None, "https://api.groq.com/openai/v1", "http://8.8.8.8:8000", "https://[2606::1]"])
def test_an_api_elsewhere_needs_a_key_for_the_worker_and_for_the_doctor_alike(url: str | None) -> None:
    settings = ProviderSettings(kind="openai", base_url=url)
    with pytest.raises(ConfigurationError, match="expected a key"):
        read_key("far", Settings(providers={"far": settings}))
    assert provider_key("far", "default", Settings(providers={"far": settings}), GOOD_HOST, []).level == "fail"
