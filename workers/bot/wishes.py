"""What a task asks of its model: its own words before its persona's, and those before its pool's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from pydantic import ValidationError

from fleet.asking import ASKED, Asks, asks, check_tool_choice, not_allowed
from fleet.config import PoolSettings
from fleet.conversation import Tool
from fleet.errors import BotFunctionFailed, InvalidTask
from fleet.errors.explaining import explain_validation
from fleet.models import Persona
from fleet.quoting import listed
from fleet.schema import Schema, as_schema, compiled
from fleet.workers.calls import PLAIN, Wishes

#: What a pool says for all of its tasks, by the same names.
_POOL = ("effort", "thinking_tokens", "verbosity", "seed", "top_p", "stop", "tier")
#: What a task says for itself alone.
_TASK = ("tools", "tool_choice", "parallel_tool_calls", "n")
_POOL_ASKS = frozenset({*_POOL, "drop_params", "extra_body", "extra_headers"})


#: What `chat()` takes for the form of its answer: a JSON schema, or a pydantic model class that has one.
AnswerForm = Mapping[str, Any] | type


class ChatOptions(TypedDict, total=False):
    """What a `chat()` of a bot function may ask for itself."""

    tools: Sequence[Tool | Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool | None
    effort: str | None
    thinking_tokens: int | None
    verbosity: str | None
    seed: int | None
    top_p: float | None
    stop: str | Sequence[str]
    tier: str | None
    n: int
    drop_params: bool | None
    extra_body: Mapping[str, Any]
    extra_headers: Mapping[str, str]


def wishes_of(task: Asks, pool: PoolSettings, persona: Persona) -> Wishes:
    """Return what is asked; `PLAIN` when nothing is, which costs next to nothing."""
    plain = _POOL_ASKS.isdisjoint(pool.model_fields_set) and persona.effort is None and persona.verbosity is None
    if plain and not asks(task):
        return PLAIN
    own = {name: getattr(task, name) for name in task.model_fields_set & ASKED}
    asked = {name: value for name, value in own.items() if value not in (None, (), {})}
    given = {name: value for name in _POOL if (value := getattr(pool, name)) is not None}
    given |= {name: value for name in ("effort", "verbosity") if (value := getattr(persona, name)) is not None}
    given |= {name: value for name, value in asked.items() if name in _POOL or name in _TASK}
    return Wishes(
        **given,
        extra_body={**pool.extra_body, **(task.extra_body or {})},
        extra_headers={**_beside(pool.extra_headers, task.extra_headers or ()), **(task.extra_headers or {})},
        asked=frozenset(asked) - {"drop_params"},
        drop_params=pool.drop_params if task.drop_params is None else task.drop_params,
    )


def _beside(headers: Mapping[str, str], others: Iterable[str]) -> dict[str, str]:
    """Return the headers that are not among the others, whose names may be written otherwise."""
    taken = {name.lower() for name in others}
    return {name: value for name, value in headers.items() if name.lower() not in taken}


def asked_in_chat(task: Asks, options: Mapping[str, Any], pool: PoolSettings) -> Asks:
    """Return what one `chat()` of a bot function asks: its own keywords before its task's.

    Tools are a chat's own: those of the task are in the function's hands, which may offer them or not.

    Raises:
        BotFunctionFailed: When a keyword is unknown or its value is none, or the pool does not allow it.
    """
    if not options and not asks(task):
        return task
    beside = {name: getattr(task, name) for name in task.model_fields_set & ASKED if name not in _TASK}
    try:
        asked = Asks.model_validate({**beside, **options})
        check_tool_choice(asked)
    except ValidationError as error:
        raise BotFunctionFailed(f"chat(): {explain_validation(error, fields=tuple(ASKED))}") from None
    except ValueError as error:
        raise BotFunctionFailed(f"chat(): {error}") from None
    if wrong := not_allowed(asked, pool.allow):
        field, names = wrong[0]
        raise BotFunctionFailed(
            f"chat(): {field}: expected names that the pool allows, got {listed(names, len(names))}; "
            "add them to `allow`"
        )
    return asked


def schema_in_chat(told: AnswerForm) -> Schema:
    """Return the schema that one `chat()` of a bot function asks for.

    Raises:
        BotFunctionFailed: When it is none.
    """
    try:
        made = as_schema(told)
        if not isinstance(made, Mapping):
            raise ValueError(f"expected a JSON schema (dict) or a pydantic model class, got {type(made).__name__}")
        return compiled(dict(made))
    except ValueError as error:
        raise BotFunctionFailed(f"chat(): answer_schema: {error}") from None


def check_room(wishes: Wishes, max_output_tokens: int) -> None:
    """Check that thinking leaves room for an answer.

    Raises:
        InvalidTask: When it does not.
    """
    if wishes.thinking_tokens and wishes.thinking_tokens >= max_output_tokens:
        raise InvalidTask(
            f"thinking_tokens: expected fewer than max_output_tokens ({max_output_tokens}), of which they are part, "
            f"got {wishes.thinking_tokens}; raise max_output_tokens"
        )
