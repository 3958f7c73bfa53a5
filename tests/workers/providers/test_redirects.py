"""A redirect carries no key to another host, whatever asks: calls, streams, lists of models, tools, the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleet.config import ProviderSettings, ToolSettings
from fleet.errors import FleetError
from fleet.vault.token_endpoint import TokenRequest, ask
from fleet.workers.frameworks.tool_wire import ToolRequest, ToolWire
from fleet.workers.providers import make_provider
from fleet.workers.providers.listing import list_models
from tests.workers.providers.raw_server import KEY, call, raw_server, response

STATUSES = (302, 307)


async def complete(kind: str, url: str) -> None:
    if kind == "pydantic-ai":
        pytest.importorskip("pydantic_ai")
    made = make_provider(ProviderSettings.model_validate({"kind": kind, "base_url": url}))
    try:
        await made.complete(call(model="openai-chat:m" if kind == "pydantic-ai" else "m"), api_key=KEY)
    finally:
        await made.close()


async def lists(kind: str, url: str) -> None:
    await list_models(ProviderSettings.model_validate({"kind": kind, "base_url": url}), "m", key=KEY)


async def tool(header: str, url: str) -> None:
    settings = ToolSettings(base_url=url, api_key_env="KEY", key_header=header or None)
    wire = ToolWire("t", settings, KEY)
    try:
        answer = await wire.send(ToolRequest("POST", f"{url}/x", (), b"{}"))
        assert answer.status in STATUSES, "its function sees where it was sent"
    finally:
        await wire.close()


async def exchanges(_: str, url: str) -> None:
    await asyncio.to_thread(ask, TokenRequest(f"{url}/token", {"assertion": KEY}, True), secrets=(KEY,))


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    ("asks", "how"),
    [
        (complete, "openai"), (complete, "anthropic"), (complete, "pydantic-ai"),
        (lists, "openai"), (lists, "anthropic"),
        (tool, ""), (tool, "X-Api-Key"), (exchanges, ""),
    ],
)  # fmt: skip
def test_a_redirect_is_not_followed_to_another_host(
    asks: Callable[[str, str], Awaitable[None]], how: str, status: int
) -> None:
    async def run() -> None:
        async with raw_server(response({"object": "list", "data": []})) as other:
            elsewhere = f"{other.url.replace('127.0.0.1', 'localhost')}/stolen"
            async with raw_server(response({}, status=status, headers={"Location": elsewhere})) as first:
                try:
                    await asks(how, first.url)
                except FleetError as error:
                    assert KEY not in f"{error} {error.__cause__!r}"
                assert any(KEY in head for head in first.heads) or KEY in str(first.bodies), "it was sent there"
                assert other.heads == []

    asyncio.run(run())
