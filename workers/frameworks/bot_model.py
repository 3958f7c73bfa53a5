"""A bot as a model of pydantic-ai: each request goes through the gateway, to whichever rung of the ladder takes it.

What a request says on the wire is pydantic-ai's business; key, address and model are the route's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol, cast

from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, SystemPromptPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext

from fleet.config import PoolSettings
from fleet.models import Persona
from fleet.workers.bot.footing import Moved
from fleet.workers.frameworks.agent_asks import laid_under
from fleet.workers.rungs import Route

#: Settings of pydantic-ai, and the names by which results tell them.
TOLD_AS: Mapping[str, str] = {
    "temperature": "temperature", "max_tokens": "max_output_tokens", "thinking": "effort", "top_p": "top_p",
    "seed": "seed", "stop_sequences": "stop", "openai_text_verbosity": "verbosity", "service_tier": "tier",
}  # fmt: skip
#: Settings that only the road has: how often a request is sent, and how long a call takes that may have to wait.
_THE_ROADS = ("max_retries", "timeout", "request_timeout", "first_event_timeout")
#: Those of them that persona and pool set, and a model may refuse by their name.
_LAID_UNDER = frozenset({"temperature", "top_p", "seed"})
#: What models were found to refuse in this process, by `provider/model`.
_REFUSED: dict[str, set[str]] = {}
#: Exceptions behind an exception that are looked at (count).
MOST_CAUSES = 20


class ModelsBot(Protocol):
    """What a model needs of its bot, `fleet.workers.bot.context.BotContext`; read and written from any thread."""

    sent: dict[str, Any]

    @property
    def persona(self) -> Persona: ...

    @property
    def options(self) -> PoolSettings: ...

    @property
    def route(self) -> Route: ...


class BotModel(WrapperModel):
    """A pydantic-ai model that is this bot, for one task. Any loop may await its requests.

    Its settings are those of persona and pool; an agent's own and a run's come before them.

    Args:
        bot: Whose requests they are.
        open_model: Makes the model of a route: one whose requests go by the bot's road.
        has_persona: The persona's system prompt comes first.

    Attributes:
        asked: What the task itself asks for: that it is sent is nothing to tell.
    """

    def __init__(self, bot: ModelsBot, open_model: Callable[[Route], Model], *, has_persona: bool = True) -> None:
        self._bot = bot
        self._open = open_model
        self._has_persona = has_persona
        self._models: dict[str, Model] = {}
        self.asked: ModelSettings = {}
        super().__init__(self._of(bot.route))

    @property
    def settings(self) -> ModelSettings:
        """What persona and pool say."""
        return laid_under(self._bot.options, self._bot.persona, self.name)

    @property
    def name(self) -> str:
        """`vendor:model` of the rung that took the last request, or takes the next."""
        return f"{self.wrapped.system}:{self.wrapped.model_name}"

    def _start_request_deadline(self, model_settings: ModelSettings | None, *, stream: bool) -> None:
        """Set none: a request may wait behind a gate, and `deadline_s` counts no waits."""

    def prepare_messages(
        self, messages: list[ModelMessage], model_request_parameters: ModelRequestParameters | None = None
    ) -> list[ModelMessage]:
        """Leave them as they are: which model takes them is known only when they are sent."""
        return messages

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Send one request, to the rung that takes it.

        Raises:
            FleetError: As `BotContext.exchange`, mostly as the cause of an SDK's own error.
        """
        while True:
            model, prepared = self._ready(messages, model_request_parameters)
            try:
                return await model.request(prepared, self._told(model_settings), model_request_parameters)
            except Exception as error:
                if _has_moved(error) or self._learns(error, model_settings):
                    continue
                raise

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Send one request whose answer is read as it comes. Raises as `request`."""
        async with AsyncExitStack() as stack:
            while True:
                model, prepared = self._ready(messages, model_request_parameters)
                settings = self._told(model_settings)
                opened = model.request_stream(prepared, settings, model_request_parameters, run_context)
                try:
                    response = await stack.enter_async_context(opened)
                except Exception as error:
                    if not _has_moved(error):
                        raise
                else:
                    break
            yield response

    def _ready(
        self, messages: list[ModelMessage], parameters: ModelRequestParameters
    ) -> tuple[Model, list[ModelMessage]]:
        """Return the model of the rung that takes the next request, and the conversation as that takes it."""
        self.wrapped = model = self._of(self._bot.route)
        return model, model.prepare_messages(self._introduced(messages), parameters)

    def _learns(self, error: Exception, settings: ModelSettings | None) -> bool:
        """Learn which settings of persona and pool a model refuses; True when there is one to be left out."""
        if not isinstance(error, ModelHTTPError) or error.status_code not in (400, 422):
            return False
        body, ours, api = str(error.body), cast(dict[str, Any], self.settings), self._bot.route.priced_as
        known = _REFUSED.setdefault(api, set())
        refused = {
            theirs for theirs in _LAID_UNDER - known
            if theirs in body and theirs in ours and (settings or {}).get(theirs) == ours[theirs]
        }  # fmt: skip
        known |= refused
        return bool(refused)

    def _of(self, route: Route) -> Model:
        if route.priced_as not in self._models:
            self._models[route.priced_as] = self._open(route)
        return self._models[route.priced_as]

    def _introduced(self, messages: list[ModelMessage]) -> list[ModelMessage]:
        """Return the conversation with the persona's system prompt before all else."""
        who = self._bot.persona.system_prompt if self._has_persona else ""
        if not who or not messages:
            return messages
        first, *others = messages
        if not isinstance(first, ModelRequest):
            return [ModelRequest(parts=[SystemPromptPart(who)]), *messages]
        return [replace(first, parts=[SystemPromptPart(who), *first.parts]), *others]

    def _told(self, settings: ModelSettings | None) -> ModelSettings:
        """Return the settings to send, and tell what is otherwise than persona and pool say."""
        ours, found = {**self.settings, **self.asked}, dict(cast(dict[str, Any], settings or {}))
        for refused in _REFUSED.get(self._bot.route.priced_as, ()):
            if found.get(refused) == ours.get(refused):
                found.pop(refused, None)
        left = dict.fromkeys(name for name in _THE_ROADS if found.pop(name, None) is not None)
        told = {name: found.get(theirs) for theirs, name in TOLD_AS.items() if found.get(theirs) != ours.get(theirs)}
        if left or told:
            self._bot.sent |= left | told
        return cast(ModelSettings, found)


def _has_moved(error: BaseException) -> bool:
    """True when a request was not sent, as the rung that is to take it speaks another wire."""
    seen: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if seen is None or isinstance(seen, Moved):
            return seen is not None
        seen = seen.__cause__ or seen.__context__
    return False
