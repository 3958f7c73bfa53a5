"""Asking an API for its models: every vendor's shape of a list, and what is wrong where there is none."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

import pytest

from fleet.config import ProviderSettings
from fleet.workers.providers.listing import ListedModel, Listing, list_models
from tests.workers.simulator.running import running

KEY = "sk-secret-0123456789"


@asynccontextmanager
async def paths(answers: Mapping[str, tuple[int, object]]) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve these statuses and bodies by path, 404 elsewhere; give the address and the heads of what came in."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            status, body = answers.get(heads[-1].split()[1].partition("?")[0], (404, {"detail": "Not Found"}))
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            head = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + raw)
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def listing(
    answers: Mapping[str, tuple[int, object]], *, kind: str = "openai", path: str = "/v1", model: str = "m"
) -> tuple[Listing, list[str], str]:
    """Ask a server for its list; return what came of it, what the server saw, and its address."""

    async def main() -> tuple[Listing, list[str], str]:
        async with paths(answers) as (url, heads):
            settings = ProviderSettings.model_validate({"kind": kind, "base_url": f"{url}{path}"})
            return await list_models(settings, model, key=KEY), heads, url

    return asyncio.run(main())


def names(found: Listing) -> list[str]:
    return [model.name for model in found.models or ()]


@pytest.mark.parametrize(
    ("kind", "model", "path", "body", "header"),
    [
        ("openai", "m", "/v1/models", {"object": "list", "data": [{"id": "a"}, {"id": "b"}]}, "Authorization: Bearer"),
        ("anthropic", "m", "/v1/models", {"data": [{"id": "a", "type": "model"}, {"id": "b"}]}, "x-api-key:"),
        ("pydantic-ai", "google:a", "/v1beta/models", {"models": [{"name": "models/a"}, {"name": "models/b"}]},
         "x-goog-api-key:"),
        ("pydantic-ai", "cohere:a", "/v1/models", {"models": [{"name": "a"}, {"name": "b"}]}, "Authorization: Bearer"),
        ("pydantic-ai", "groq:a", "/openai/v1/models", {"data": [{"id": "a"}, {"id": "b"}]}, "Authorization: Bearer"),
        ("pydantic-ai", "mistral:a", "/v1/models", [{"id": "a", "aliases": ["b"]}], "Authorization: Bearer"),
    ],
)  # fmt: skip
def test_every_vendors_list_is_read_where_it_is(kind: str, model: str, path: str, body: object, header: str) -> None:
    found, heads, url = listing({path: (200, body)}, kind=kind, path="", model=model)
    assert names(found) == ["a", "b"]
    assert found.url == f"{url}{path}"
    assert len(heads) == 1 and header in heads[0] and KEY in heads[0]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"deprecation": "2026-12-31T12:00:00Z", "deprecation_replacement_model": "n"},
            (date(2026, 12, 31), False, "n"),
        ),
        ({"expiration_date": "2027-01-15"}, (date(2027, 1, 15), False, None)),
        ({"shutdown_date": 1_798_761_600}, (date(2027, 1, 1), False, None)),
        ({"lifecycle": {"status": "deprecated", "retires_at": "2026-12-01"}}, (date(2026, 12, 1), True, None)),
        ({"active": False}, (None, True, None)),
        ({"is_deprecated": True}, (None, True, None)),
        ({"deprecation": None, "deprecated": False, "active": True, "eol": "soon"}, (None, False, None)),
    ],
)
def test_a_models_last_day_is_read_in_each_vendors_spelling(entry: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found, _, _ = listing({"/v1/models": (200, {"data": [{"id": "m", **entry}]})})
    assert found.models == (ListedModel("m", *expected),)


@pytest.mark.parametrize(
    ("configured", "served", "right"),
    [
        ("/openai", "/openai/v1", "/openai/v1"),
        ("/v1/chat/completions", "/v1", "/v1"),
        ("/api", "/v1", "/v1"),
        ("/v1", "/api/v1", "/api/v1"),
    ],
)
def test_an_api_that_is_elsewhere_on_its_server_is_found(configured: str, served: str, right: str) -> None:
    found, _, url = listing({f"{served}/models": (200, {"data": [{"id": "a"}]})}, path=configured)
    assert (found.status, found.models, found.base_url) == (404, None, f"{url}{right}")


def test_a_server_without_a_list_is_told_from_one_that_is_no_api() -> None:
    found, _, _ = listing({})
    assert (found.status, found.models, found.base_url, found.is_json) == (404, None, None, True)
    found, _, _ = listing({"/v1/models": (200, b"<html>Welcome</html>")})
    assert (found.status, found.models, found.is_json) == (200, None, False)


def test_a_refused_key_is_told_with_the_providers_words_but_never_shown() -> None:
    told = {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}
    found, _, _ = listing({"/v1/models": (401, told)})
    assert found.status == 401 and "invalid_api_key" in found.said and KEY not in found.said


def test_a_port_where_nothing_listens_and_one_that_speaks_something_else_are_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ProviderSettings(kind="openai", base_url=f"http://127.0.0.1:{port}/v1")
    assert asyncio.run(list_models(settings, "m", key=KEY)).trouble == f"nothing listens at 127.0.0.1:{port}"

    with running() as url:
        secure = ProviderSettings(kind="openai", base_url=f"{url.replace('http:', 'https:')}/v1")
        assert str(asyncio.run(list_models(secure, "m", key=KEY)).trouble).endswith("speaks no TLS")


def test_a_vendor_whose_list_no_key_opens_is_not_asked() -> None:
    settings = ProviderSettings(kind="pydantic-ai")
    assert asyncio.run(list_models(settings, "bedrock:amazon.nova-lite-v1:0", key="")) == Listing()
