"""The clients of SDKs that a bot hands to its function: each request of theirs goes through the gateway.

Loaded lazily: no library of HTTP and no SDK is imported before a function asks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from fleet.errors import ConfigurationError
from fleet.workers.frameworks.raw import RawAnswer, RawRequest

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from openai import AsyncOpenAI, OpenAI

#: A library of HTTP; None: the one that is installed, httpx2 before httpx.
Kind = Literal["httpx", "httpx2"] | None


class _Lacking:
    """What both kinds share."""

    def lacks(self, error: ConfigurationError) -> None:
        """Note that this machine lacks what a function asks for: its task waits, and the function is not to blame."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ConfigurationError as error:
            self.lacks(error)
            raise


class AsyncClients(_Lacking):
    """Clients for an `async def` function. Each may be kept for the length of the task, and needs no closing."""

    async def exchange(self, request: RawRequest) -> RawAnswer:
        raise NotImplementedError

    def http_client(self, kind: Kind = None) -> Any:
        """Return an `AsyncClient` of httpx or httpx2 whose requests are calls of this bot.

        Give it to an SDK or a framework as its HTTP client; what that sends as its key, its address and its model is
        the pool's instead.

        Raises:
            ConfigurationError: The library is not installed; a task whose function lets it through waits.
            BotFunctionFailed: There is no such kind.
        """
        from fleet.workers.frameworks.clients import async_client

        with self._noting():
            return async_client(self.exchange, kind)

    def openai(self, **options: Any) -> AsyncOpenAI:
        """Return an `openai.AsyncOpenAI` whose requests are calls of this bot.

        Args:
            options: Of the class, beside key, address, retries and HTTP client.

        Raises:
            ConfigurationError: The SDK is not installed; a task whose function lets it through waits.
            BotFunctionFailed: An option is not for you to set.
        """
        from fleet.workers.frameworks.sdks import openai_client

        with self._noting():
            client: AsyncOpenAI = openai_client("AsyncOpenAI", self.http_client, options)
        return client

    def anthropic(self, **options: Any) -> AsyncAnthropic:
        """Return an `anthropic.AsyncAnthropic` whose requests are calls of this bot; as `openai()`."""
        from fleet.workers.frameworks.sdks import anthropic_client

        with self._noting():
            client: AsyncAnthropic = anthropic_client("AsyncAnthropic", self.http_client, options)
        return client


class BlockingClients(_Lacking):
    """The same for a plain function, in its thread."""

    def exchange(self, request: RawRequest) -> RawAnswer:
        raise NotImplementedError

    def http_client(self, kind: Kind = None) -> Any:
        """Return a blocking `Client` of httpx or httpx2 whose requests are calls of this bot."""
        from fleet.workers.frameworks.clients import blocking_client

        with self._noting():
            return blocking_client(self.exchange, kind)

    def openai(self, **options: Any) -> OpenAI:
        """Return an `openai.OpenAI` whose requests are calls of this bot."""
        from fleet.workers.frameworks.sdks import openai_client

        with self._noting():
            client: OpenAI = openai_client("OpenAI", self.http_client, options)
        return client

    def anthropic(self, **options: Any) -> Anthropic:
        """Return an `anthropic.Anthropic` whose requests are calls of this bot."""
        from fleet.workers.frameworks.sdks import anthropic_client

        with self._noting():
            client: Anthropic = anthropic_client("Anthropic", self.http_client, options)
        return client
