"""`bot.model()`: which model of pydantic-ai speaks to a route, over the bot's own clients.

An extra, `celery-fleet[agents]`: nothing here is imported before somebody asks for such a model, and no vendor's SDK
before a route wants it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from pydantic_ai.models import Model

from fleet.errors import ConfigurationError
from fleet.workers.frameworks.bot_model import BotModel, ModelsBot
from fleet.workers.frameworks.clients import async_client
from fleet.workers.frameworks.raw import RawAnswer, RawProvider, RawRequest
from fleet.workers.frameworks.sdks import anthropic_client, openai_client
from fleet.workers.rungs import Route

#: Sends a request of an SDK as a call of the bot, from any loop.
Send = Callable[[RawRequest], Awaitable[RawAnswer]]


def model_of(bot: ModelsBot, send: Send, *, has_persona: bool) -> BotModel:
    """Return a bot as a model of pydantic-ai.

    Args:
        bot: Whose it is.
        send: Its road.
        has_persona: The persona's system prompt comes before all that an agent says.

    Raises:
        ConfigurationError: As `open_model`.
    """
    return BotModel(bot, partial(open_model, send), has_persona=has_persona)


def open_model(send: Send, route: Route) -> Model:
    """Return the model of a route.

    Raises:
        ConfigurationError: Its SDK is not installed, or nobody here writes its wire.
    """
    provider = route.provider
    if isinstance(provider, RawProvider) and provider.speaks("openai"):
        return _chat_model(send, route.model)
    if isinstance(provider, RawProvider) and provider.speaks("anthropic"):
        return _messages_model(send, route.model)
    raise ConfigurationError(
        f"bot.model(): expected a provider of kind openai, anthropic or simulator, got {route.provider_name}"
    )


def _chat_model(send: Send, name: str) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = openai_client("AsyncOpenAI", partial(async_client, send), {})
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


def _messages_model(send: Send, name: str) -> Model:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = anthropic_client("AsyncAnthropic", partial(async_client, send), {})
    return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client))
