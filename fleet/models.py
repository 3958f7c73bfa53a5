"""The words of Fleet as frozen pydantic models: task, result, bot, persona.

What lives here crosses a process boundary as JSON. No I/O, no Celery, no Redis.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import IntEnum
from operator import not_
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from fleet import bounds
from fleet.asking import Asks, Classed, Graded, Seated, asks, check_tool_choice
from fleet.conversation import Message, ToolCall, check_marks, texts_in_order
from fleet.errors import Blame, FleetError, InvalidTask
from fleet.errors.explaining import explain_validation
from fleet.frozen import Frozen, Lasting
from fleet.handover import take_handed, with_handed
from fleet.money import PICOS_PER_MICRO
from fleet.quoting import brief, listed, quote
from fleet.schema import as_schema, compiled
from fleet.spellings import read_messages
from fleet.usage import Usage

#: Longest deadline a task may ask for, in seconds (7 days).
MAX_DEADLINE_S = 7 * 24 * 3600
#: Longest time until an answer is needed, in seconds (30 days).
MAX_BY_S = 30 * 24 * 3600
#: Latest `expires_at`, in seconds of Unix time (the year 2200): more is mostly a time in milliseconds.
LATEST_EXPIRY_S = 7_258_118_400


class Priority(IntEnum):
    """Urgency of a task. The number is Celery's: 0 is the most urgent on Redis."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BULK = 4


def _priority(value: object) -> object:
    if isinstance(value, Priority):
        return value
    if isinstance(value, str) and value.upper() in Priority.__members__:
        return Priority[value.upper()]
    names = ", ".join(name.lower() for name in Priority.__members__)
    raise ValueError(f"expected one of {names}, got {quote(value)}")


def _checked(schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
    compiled(schema)
    return schema


def _bounded(metadata: object) -> object:
    bounds.check_json(metadata, bounds.METADATA)
    return metadata


#: A JSON schema, or a pydantic model class that has one.
AnswerSchema = Annotated[dict[str, JsonValue], BeforeValidator(as_schema), AfterValidator(_checked)]


def _listed(ids: object) -> object:
    return (ids,) if isinstance(ids, str) else ids


#: Id of a document that `fleet context add` has stored.
ContextId = Annotated[str, Field(pattern=r"^ctx-[0-9a-f]{24}$")]

PriorityName = Annotated[
    Priority,
    BeforeValidator(_priority),
    PlainSerializer(lambda p: p.name.lower(), return_type=str),
]


class BotTask(Asks, Seated, Graded):
    """What a producer submits: a prompt (or messages) plus options."""

    prompt: str | None = Field(None, min_length=1, description="The user's text. Give this or `messages`.")
    messages: Annotated[tuple[Message, ...] | None, BeforeValidator(read_messages)] = Field(
        None, min_length=1, description="A whole conversation."
    )
    kind: str = Field("default", pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Task class.")
    pool: str | None = Field(
        None, max_length=bounds.MAX_POOL_CHARS, description="Pool name; None lets Fleet take the least-loaded one."
    )
    priority: PriorityName = Field(Priority.NORMAL, description="critical, high, normal, low or bulk.")
    deadline_s: float | None = Field(
        None, gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False, description="Seconds at work allowed; None: the pool's."
    )
    expires_at: float | None = Field(
        None,
        gt=0,
        le=LATEST_EXPIRY_S,
        allow_inf_nan=False,
        description="Unix time in seconds after which nobody wants the answer: it is dropped unpaid. None: the pool's.",
    )
    by_s: float | None = Field(
        None,
        gt=0,
        le=MAX_BY_S,
        allow_inf_nan=False,
        description="Seconds from submission until its answer is needed: it goes by the cheapest lane that fits.",
    )
    max_cost_usd: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="The most that it may cost, in US dollars; needs a price. None: the pool's.",
    )
    max_output_tokens: int | None = Field(None, ge=1, le=1_000_000, description="None: the pool's.")
    answer_schema: AnswerSchema | None = Field(
        None, description="JSON schema, or pydantic model class, that the answer must fit."
    )
    context: Annotated[tuple[ContextId, ...], BeforeValidator(_listed)] = Field(
        (),
        max_length=bounds.MAX_DOCUMENTS,
        description="Ids of shared documents (`fleet context add`): they stand before everything else, and are never "
        "cut.",
    )
    reuse: bool | None = Field(
        None,
        description="Take an equal task's answer. True: whatever the kind and bot; False: ask anew; None: as the kind.",
    )
    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=bounds.MAX_KEY_CHARS,
        description="Submitting the same key again gives the same task.",
    )
    tenant: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
        description="Who the task is for; tenants share a limit evenly. Empty: bots do.",
    )
    run: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_.-]{0,64}$",
        description="Run of a file whose budget counts it: `fleet run --max-usd` sets it. Empty: none.",
    )
    metadata: Annotated[dict[str, JsonValue], BeforeValidator(_bounded)] = Field(
        default_factory=dict, description="Handed back in the result, unread; 64 kB of JSON at most."
    )

    @model_validator(mode="after")
    def _one_of_prompt_and_messages(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("expected either `prompt` or `messages`")
        if self.messages is not None or len(self.prompt or "") > bounds.SHORT_CHARS:
            bounds.check_prompt([self.prompt or "", *texts_in_order(self.messages or ())])
        if asks(self):
            check_tool_choice(self)
        if self.messages is not None or self.tools:
            check_marks(self.messages or (), self.tools)
        return self

    @property
    def prefix(self) -> str:
        """A name for how its calls begin, the same for all tasks whose prompts do; empty when it names no document.

        Tools and a schema stand before the documents in what a provider caches.
        """
        if not self.context:
            return ""
        before = [[tool.model_dump(mode="json") for tool in self.tools], self.answer_schema, self.context]
        return hashlib.sha256(json.dumps(before, sort_keys=True).encode()).hexdigest()[:24]

    def conversation(self) -> tuple[Message, ...]:
        """Return the task's messages, whichever way they were given."""
        return self.messages or (Message(role="user", content=self.prompt or ""),)

    @classmethod
    def parse(cls, *args: Any, **kwargs: Any) -> BotTask:
        """Build a task from a `BotTask`, a dict, or a prompt and keyword arguments.

        Results that come first are what a canvas hands over: their answers become the prompt (`handover.py`).

        Raises:
            InvalidTask: With one line per wrong field: expected, got, what to do.
        """
        handed, own = take_handed(args) if args else (None, args)
        if len(own) > 1:
            raise InvalidTask(f"expected at most one positional argument (prompt, dict or BotTask), got {len(own)}")
        first = own[0] if own else None
        if isinstance(first, cls) and not kwargs and handed is None:
            return first
        if isinstance(first, cls):
            data = {**first.model_dump(exclude_unset=True), **kwargs}
        elif isinstance(first, dict):
            check_names(first)
            data = {**first, **kwargs}
        elif first is None or isinstance(first, str):
            data = dict(kwargs) if first is None else {"prompt": first, **kwargs}
        else:
            raise InvalidTask(f"expected a prompt (str), a dict or a BotTask, got {quote(first)}")
        check_names(data)
        try:
            return cls.model_validate(data if handed is None else with_handed(data, handed))
        except ValidationError as error:
            raise InvalidTask(explain_validation(error, fields=TASK_FIELDS)) from error


#: Names of a task's fields.
TASK_FIELDS = tuple(BotTask.model_fields)


class Persona(Frozen):
    """What makes a bot differ from its neighbour."""

    archetype: str
    system_prompt: str
    temperature: float | None = Field(None, ge=0, le=2, description="None: its model has none.")
    effort: str | None = None
    verbosity: str | None = None
    model: str | None = Field(None, description="None: its pool's.")
    context_window_tokens: int = Field(ge=64)


class Remedy(Frozen):
    """What is changed about a bot that answers like others: everything up to its rung (`workers/bot/persona.py`)."""

    rung: int = Field(
        ge=1,
        le=3,
        description="1: context reshuffled; 2: persona drawn anew; 3: temperature, effort or verbosity raised.",
    )
    generation: int = Field(ge=1, lt=2**30, description="Decides all that is drawn.")

    @property
    def mark(self) -> int:
        """What the bot's answers are marked with: 32 bits, 0 stands for no remedy."""
        return self.generation * 4 + self.rung


class Bot(Frozen):
    """A named worker identity of a pool."""

    name: str
    pool: str
    persona: Persona
    remedy: Remedy | None = None


def bot_name(pool: str, index: int) -> str:
    """Return the name of a pool's bot; `index` counts from 1."""
    return f"{pool}-{index:03d}"


@dataclass(frozen=True, slots=True)
class Norms:
    """What is usual in a pool for one kind of task.

    Args:
        chars: Median characters of a good answer.
        ran_ms: Median time at work.
        tasks: How many tasks this was learnt from.
    """

    chars: float
    ran_ms: float
    tasks: int


class TaskError(Lasting):
    """Why a task failed, typed: `type` is the name of a class in `fleet.errors`."""

    type: str
    message: str
    blame: Blame = "fleet"
    passes: bool = Field(False, description="True when it passes by itself: the same task may do well later.")
    passes_at: float | None = Field(None, description="Unix time in seconds at which it does, when that was said.")

    @classmethod
    def of(cls, error: FleetError) -> TaskError:
        facts = {"blame": error.blame, "passes": error.passes, "passes_at": error.passes_at}
        return cls.model_validate({"type": type(error).__name__, "message": brief(str(error)), **facts})


#: How a result is served that has the answer of an equal task.
CACHE = "cache"


class BotResult(Classed):
    """What comes back, exactly one per task: an answer or a typed failure."""

    task_id: str
    status: Literal["ok", "degraded", "failed"]
    answer: str | None = None
    tool_calls: tuple[ToolCall, ...] = Field(
        (), exclude_if=not_, description="The tools that the model wants called; whoever asked runs them."
    )
    more_answers: tuple[str, ...] = Field((), exclude_if=not_, description="With `n` above 1: the others.")
    tier: str | None = Field(None, exclude_if=not_, description="Service tier that answered, if the provider says it.")
    sent: dict[str, Any] = Field(
        default_factory=dict,
        exclude_if=not_,
        description="What was sent otherwise than the persona, the pool or the task say; None: it was left out.",
    )
    reasoning: str | None = Field(
        None, exclude_if=not_, description="What the model thought, as far as its pool keeps it."
    )
    error: TaskError | None = None
    bot: str | None = None
    persona: str | None = Field(None, description="Archetype of the bot's persona.")
    pool: str | None = None
    provider: str | None = None
    model: str | None = None
    simulated: bool = Field(False, description="True when the simulator answered, not a real provider.")
    served_by: str = Field(
        "none",
        description="`call`, `batch`, `cache` (an equal task's), `fallback 1`, `fallback 2`, ... by the rung that "
        "answered; none.",
    )
    tenant: str = Field("", exclude_if=not_, description="For whom it was; by it `fleet forget` finds a result.")
    parked: int = Field(0, exclude_if=not_, description="Times that it was parked in between.")
    usage: Usage = Usage()
    cost_usd_micros: int | None = Field(None, description="Micro-dollars, rounded; None when the model has no price.")
    cost_usd_picos: int | None = Field(None, description="The same exactly, in 10^-12 US dollars.")
    attempts: int = 0
    queued_ms: int | None = None
    limited_ms: int = 0
    ran_ms: int = 0
    cut_tokens: int = Field(
        0, exclude_if=not_, description="Tokens cut from the prompt so that it fits; the most of several calls."
    )
    left_out: tuple[str, ...] = Field(
        (), exclude_if=not_, description="What the task asked of the model and was not sent: it refuses it."
    )
    finished_at: float = Field(description="Unix time in seconds.")
    metadata: dict[str, Any] = Field(default_factory=dict)

    @property
    def rung(self) -> int:
        """Number of the rung of its pool's fallback ladder that served it; 0: none did."""
        served, _, number = self.served_by.partition(" ")
        return int(number) if served == "fallback" and number.isdecimal() else 0

    @property
    def spent_usd_picos(self) -> int:
        """What it cost in 10^-12 dollars, as far as that is known; results of an earlier release say it rounded."""
        if self.cost_usd_picos is None:
            return (self.cost_usd_micros or 0) * PICOS_PER_MICRO
        return self.cost_usd_picos


def check_names(data: dict[str, Any]) -> None:
    """Refuse a task's dict that must have unknown names, before it is copied and each of them becomes an error.

    Raises:
        InvalidTask: Naming a few of them.
    """
    if len(data) > len(TASK_FIELDS):
        unknown = (name for name in data if name not in TASK_FIELDS)
        count = len(data) - sum(name in data for name in TASK_FIELDS)
        known = ", ".join(sorted(TASK_FIELDS))
        raise InvalidTask(f"{listed(unknown, count)}: unknown fields, expected some of {known}")
