"""OpenAI's chat completions, and the many servers that speak the same wire (vLLM, Ollama, gateways, the simulator)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from yarl import URL

from fleet.batches import BatchApi
from fleet.quoting import Hidden
from fleet.workers.calls import Call, Completion
from fleet.workers.ports import Lessons
from fleet.workers.providers.answers.parts import read_message
from fleet.workers.providers.answers.streams import AnswerStream, OpenAIStream
from fleet.workers.providers.base import HttpProvider, bad_wire
from fleet.workers.providers.batches.background import LaterApi
from fleet.workers.providers.batches.http import BatchHttp
from fleet.workers.providers.finish_reasons import finish_reason
from fleet.workers.providers.usage import read_usage
from fleet.workers.providers.wire_schema import unwrapped
from fleet.workers.providers.written.openai_body import ABSENT, add_wishes, read_tool_calls, write_message
from fleet.workers.providers.written.wishes import MARK, has_marks, lacking

#: Hosts that know `max_completion_tokens` and whose newer models refuse `max_tokens`; elsewhere it is the reverse.
_OFFICIAL = ("api.openai.com", ".api.openai.com", ".openai.azure.com")


#: Field by whose value calls whose prompts begin alike go to one machine, which has them in its cache. OpenAI and Azure
#: have it; others do without, or refuse it.
CACHE_KEY = "prompt_cache_key"


class OpenAICompatible(HttpProvider):
    """Adapter for `POST {base_url}/chat/completions`."""

    _STREAM: ClassVar[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}

    _WIRES = frozenset({"openai"})

    def __init__(self, base_url: URL, *, name: str = "", lessons: Lessons | None = None) -> None:
        super().__init__(base_url, "/chat/completions", name=name, lessons=lessons)
        is_official = self.host == _OFFICIAL[0] or self.host.endswith(_OFFICIAL[1:])
        self._names_prefixes = is_official
        self._limit_field = "max_completion_tokens" if is_official else "max_tokens"

    def batches(self, key: Callable[[], str]) -> BatchApi:
        """Return the batches and background responses of this API under a key."""
        return LaterApi(BatchHttp(self, key))

    def _stream(self) -> AnswerStream:
        return OpenAIStream()

    def _headers(self, api_key: str) -> Mapping[str, str]:
        own = {"Authorization": Hidden(f"Bearer {api_key}")} if api_key else {}
        return {**own, "Content-Type": "application/json"}

    def _body(self, call: Call) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": call.model,
            "messages": [write_message(message) for message in call.messages],
            self._limit_field: call.max_output_tokens,
        }
        if call.temperature is not None:
            body["temperature"] = call.temperature
        add_wishes(body, call.wishes)
        if call.wishes.prefix and self._names_prefixes:
            body.setdefault(CACHE_KEY, call.wishes.prefix)
        return body

    def _completion(self, call: Call, answer: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise bad_wire(self.host, "a completion with `choices[0].message`", choice if choice else choices)
        (text, reasoning), reason = read_message(message), choice.get("finish_reason")
        refusal = message.get("refusal")
        if not text and isinstance(refusal, str) and refusal:
            text, reason = refusal, "content_filter"
        if call.wishes.schema is not None:
            text = unwrapped(call.wishes.schema.text, text)
        tier = answer.get("service_tier")
        return Completion(
            text=text,
            finish_reason=finish_reason(reason) if isinstance(reason, str) and reason else "stop",
            usage=read_usage(answer.get("usage"), call, reasoning + text),
            headers=headers,
            tool_calls=read_tool_calls(message),
            tier=tier if isinstance(tier, str) else None,
            left_out=(*lacking(call.wishes, ABSENT), *((MARK,) if has_marks(call) else ())),
            others=_others(choices) if call.wishes.n > 1 else (),
            reasoning=reasoning,
        )


def _others(choices: object) -> tuple[str, ...]:
    """Return the texts of all choices but the first."""
    told = (
        (choice.get("message") for choice in choices[1:] if isinstance(choice, dict))
        if isinstance(choices, list)
        else ()
    )
    return tuple(read_message(message).text for message in told if isinstance(message, dict))


class Simulated(OpenAICompatible):
    """The simulator, which speaks both wires at one address."""

    _WIRES = frozenset({"openai", "anthropic"})
