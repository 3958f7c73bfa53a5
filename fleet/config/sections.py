"""The tables of fleet.toml, one class each. A class's docstring and descriptions are its documentation."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from fleet.asking import (
    OWN_FIELDS,
    OWN_HEADERS,
    Effort,
    ExtraBody,
    ExtraHeaders,
    Seed,
    Stop,
    ThinkingTokens,
    Tier,
    TopP,
    Verbosity,
)
from fleet.config.caps import (
    MOST_TOOL_CALLS,
    MOST_TOOL_CALLS_PER_TURN,
    MOST_TURNS,
    ROUNDS,
    MaxCostUsd,
    MaxRounds,
    MaxToolCalls,
    MaxToolCallsPerTurn,
    MaxTurns,
)
from fleet.quoting import quote

#: Name of the provider that exists without any configuration.
SIMULATOR = "simulator"

#: What may stand before Redis keys: no braces (they would move keys to another hash slot), no wildcards of patterns.
PREFIX = r"[A-Za-z0-9._:/-]{0,64}"

Archetype = Literal["analytical", "creative", "conservative", "exploratory"]


class Section(BaseModel):
    """Base of all tables in fleet.toml: immutable, unknown keys refused, every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BrokerSettings(Section):
    """One more broker: the Redis that has the queues of some pools."""

    url: SecretStr = Field(description="As `redis.url`.")
    pools: tuple[str, ...] = Field(
        min_length=1, description="Pools whose tasks wait there, by name or pattern (`sales-*`)."
    )


class RedisSettings(Section):
    """Where Redis is. Without a `url`, Fleet finds or starts its own under `.fleet/`."""

    url: SecretStr | None = Field(
        None, description="Broker: redis://, rediss://, unix:// or sentinel://. Not set: embedded Redis."
    )
    server: Literal["auto", "bundled"] | Path = Field(
        "auto",
        union_mode="left_to_right",
        description="Server of the embedded Redis: the program's path, `bundled`, or `auto` (see docs/redis.md).",
    )
    state_url: SecretStr | None = Field(None, description="Results, bots and limits. Not set: the same as `url`.")
    prefix: str = Field(
        "", description="Put before every key and channel, so that fleets share a Redis: `a:` (see docs/redis.md)."
    )
    socket_timeout_s: float = Field(5.0, gt=0, description="Seconds until a Redis that does not answer is an error.")
    master_name: str | None = Field(None, description="With sentinel://: the master's name, unless the URL says it.")
    sentinel_password: SecretStr | None = Field(None, description="With sentinel://: password of the Sentinels.")
    replicas: int = Field(
        0, ge=0, le=10, description="Replicas that must confirm a task with an idempotency key before it is accepted."
    )

    brokers: dict[str, BrokerSettings] = Field(
        {},
        description="More brokers, by name. A pool is on the first that names it, else on `url` (docs/redis.md).",
    )

    @field_validator("prefix")
    @classmethod
    def _prefix_is_plain(cls, prefix: str) -> str:
        if re.fullmatch(PREFIX, prefix):
            return prefix
        raise ValueError(f"expected at most 64 letters, digits and . _ : / - (such as `a:`), got {quote(prefix)}")

    def broker_of(self, pool: str) -> str | None:
        """Return the name of a pool's broker; None: it is the main one."""
        found = (name for name, one in self.brokers.items() if any(fnmatchcase(pool, said) for said in one.pools))
        return next(found, None)


class LimitSettings(Section):
    """What a provider allows for one model on one key. A rate that isn't set is not limited."""

    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute, input and output together.")
    input_tpm: int | None = Field(None, ge=1, description="Input tokens per minute, where they are counted apart.")
    output_tpm: int | None = Field(None, ge=1, description="Output tokens per minute, where they are counted apart.")
    in_flight: int | None = Field(None, ge=1, description="Calls at the same time.")
    requests_per_day: int | None = Field(None, ge=1, description="Requests per day (UTC).")
    usd_per_day: float | None = Field(None, gt=0, description="US dollars per day (UTC); needs a price.")
    when_full: Literal["wait", "degrade", "stop bulk"] = Field(
        "wait",
        description="What a used-up day does: all wait, go down the pool's ladder, or low and bulk "
        "tasks wait from 80% on.",
    )
    burst: float = Field(
        0.02, gt=0, le=1, description="Share of a minute that may go at once; keep it below the provider's own."
    )
    counting: Literal["bucket", "window"] = Field(
        "window",
        description="How the provider counts: a refilled bucket, or a sliding or fixed minute (safe for both).",
    )
    window_s: float = Field(60.0, gt=0, le=86_400, description="Seconds over which a provider with a window counts.")
    count_cached: bool | None = Field(
        None,
        description="Whether input that the provider reads from its cache counts. Not set: as the vendor does.",
    )
    charge: Literal["call", "token"] = Field("call", description="What bots get equal shares of: calls or tokens.")


class PersonaSettings(Section):
    """The values that the personas of a pool's bots are drawn from, each list in turn."""

    archetypes: tuple[Archetype, ...] = Field(
        ("analytical", "creative", "conservative", "exploratory"), min_length=1, description="Archetypes, in turn."
    )
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        description="Sampling temperatures, in turn. Empty: the model has none; its bots differ by facets instead.",
    )
    efforts: tuple[Effort, ...] = Field(
        (), description="Efforts, in turn; they go before the pool's. Empty: the pool's."
    )
    verbosities: tuple[Verbosity, ...] = Field(
        (), description="Verbosities, in turn; they go before the pool's. Empty: the pool's."
    )
    models: tuple[str, ...] = Field(
        (), description="Models of the pool's provider, in turn; its `model` is one of them. Empty: that one alone."
    )
    context_windows_tokens: tuple[Annotated[int, Field(ge=64)], ...] = Field(
        (2048, 4096, 8192), min_length=1, description="Context windows in tokens, in turn."
    )
    system_prompts: dict[Archetype, str] = Field(
        default_factory=dict, description="System prompt by archetype, instead of the built-in one."
    )


#: What makes a pool go on to the next rung of its ladder.
When = Literal["outage", "key", "budget", "limit", "deadline"]


class RungSettings(Section):
    """A rung of a pool's fallback ladder, in order: where tasks go when those above are closed (docs/fallback.md)."""

    provider: str | None = Field(None, description="Name of a table under [providers]. Not set: the pool's.")
    model: str | None = Field(None, description="The model, spelt as that provider does. Not set: the pool's.")
    answer: str | None = Field(None, description="No call: this text is the answer, and the result is `degraded`.")
    when: tuple[When, ...] = Field(
        ("outage", "key", "budget"),
        min_length=1,
        description="Why it is taken: an open breaker, no key or credit, a used-up day, no room soon, too little time.",
    )

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        is_call = self.provider is not None or self.model is not None
        if is_call == (self.answer is not None):
            raise ValueError("fallback: expected `provider` or `model`, or else `answer`")
        return self


class PoolSettings(Section):
    """A named group of bots that share a provider, a model, limits and a queue."""

    bots: int = Field(10, ge=1, le=10_000, description="Number of bots.")
    provider: str = Field(SIMULATOR, description="Name of a table under [providers].")
    model: str = Field("simulated-1", description="The model's name, spelt as the provider does.")
    kinds: tuple[str, ...] = Field((), description="Task kinds taken when a task names no pool. Empty: all kinds.")
    function: str | None = Field(None, description="Your own bot: `package.module:function`. Not set: one chat call.")
    agent: str | None = Field(None, description="Your own pydantic-ai `Agent`, instead: `package.module:agent`.")
    deps: str | None = Field(
        None, description="What gives the agent its `deps`: `package.module:function`, called with (task, bot)."
    )
    validator: str | None = Field(
        None, description="Your own check of answers: `package.module:function`. Not set: Fleet's own rules only."
    )
    max_output_tokens: int = Field(512, ge=1, description="Longest answer in tokens, unless the task sets it.")
    thinking_room_tokens: int = Field(
        4096,
        ge=0,
        le=1_000_000,
        description="Output tokens beyond these, once, for a model that has spent all on thinking. 0: none.",
    )
    reasoning_chars: int = Field(
        2000, ge=0, le=1_000_000, description="Characters of a model's thinking kept in a result. 0: none."
    )
    deadline_s: float = Field(300.0, gt=0, description="Seconds at work allowed per task, unless the task sets it.")
    expires_s: float | None = Field(
        None, gt=0, description="Seconds from submission after which a task is dropped unpaid. Not set: never."
    )
    max_attempts: int = Field(
        4, ge=1, le=20, description="Failed calls until a task fails, counted while other tasks' calls do well."
    )
    max_cost_usd: MaxCostUsd | None = Field(
        None, description="The most that a task may cost, in US dollars, unless the task sets it; needs a price."
    )
    race: bool = Field(
        False, description="Ask once more on a faster lane what would be late, and let both run: both are paid."
    )
    max_turns: MaxTurns = MOST_TURNS
    max_tool_calls_per_turn: MaxToolCallsPerTurn = MOST_TOOL_CALLS_PER_TURN
    max_tool_calls: MaxToolCalls = MOST_TOOL_CALLS
    max_rounds: MaxRounds = ROUNDS
    fallback: tuple[RungSettings, ...] = Field((), description="Where tasks go when the provider fails: its ladder.")
    effort: Effort | None = Field(None, description="How long models think: none, minimal, low, medium, high, ...")
    thinking_tokens: ThinkingTokens | None = Field(
        None, description="Most tokens of thinking, for models that take a number; part of max_output_tokens."
    )
    verbosity: Verbosity | None = Field(None, description="How long answers are: low, medium or high.")
    seed: Seed | None = Field(None, description="For the same answer again, as far as a model can.")
    top_p: TopP | None = Field(None, description="Share of the likeliest tokens that are drawn from.")
    stop: Stop = Field((), description="Texts at which an answer ends.")
    tier: Tier | None = Field(None, description="Service tier: flex, priority, standard, or the provider's word.")
    drop_params: bool = Field(
        False,
        description="Leave out what a model refuses of what tasks ask, and list it in the result, instead of failing.",
    )
    extra_body: ExtraBody = Field(default_factory=dict, description="Further fields of every request.")
    extra_headers: ExtraHeaders = Field(default_factory=dict, description="Further headers of every request.")
    allow: tuple[str, ...] = Field((), description="Names that tasks may set in extra_body and extra_headers.")
    delegated: bool = Field(False, description="Takes signed tasks only: see delegation in docs/keys.md.")
    canaries: Path | None = Field(
        None, description='JSON lines {"prompt": ..., "expect": regular expression} to try suspected bots with.'
    )
    persona: PersonaSettings = Field(PersonaSettings(), description="Personas of this pool's bots.")
    candidates: tuple[str, ...] = Field(
        (), description="Further models of its provider, which its bots ask in a rollout alone (docs/rollout.md)."
    )

    @property
    def own_bot(self) -> str | None:
        """Whatever the user's own bot is, a function or an agent; None: one chat call."""
        return self.function or self.agent

    @model_validator(mode="after")
    def _one_bot_of_the_users(self) -> Self:
        if self.function and self.agent:
            raise ValueError(
                f"agent: expected `function` or `agent`, got both; keep one: a function may run the agent itself, with "
                f"model=bot.model() ({self.function}, {self.agent})"
            )
        if self.deps and not self.agent:
            raise ValueError("deps: expected an `agent` that gets them, got none; set `agent`, or take `deps` out")
        return self

    @model_validator(mode="after")
    def _models_hold_the_pools_own(self) -> Self:
        models, wanted = self.persona.models, "expected different ones, and the pool's `model` among them"
        if models and (self.model not in models or len(set(models)) < len(models)):
            raise ValueError(f"persona.models: {wanted} ({self.model}), got {', '.join(models)}")
        return self

    @property
    def models(self) -> tuple[str, ...]:
        """The models of its provider that its bots may ask, its own first, candidates last."""
        return tuple(dict.fromkeys((self.model, *self.persona.models, *self.candidates)))

    def place_of(self, number: int) -> str:
        """Return what one of its calls is called, as `Settings.calls_of` has them: empty for its own."""
        rungs = sum(rung.answer is None for rung in self.fallback)
        if number <= rungs:
            return f"fallback {number}" if number else ""
        return "candidates" if number > rungs + len({*self.persona.models} - {self.model}) else "persona.models"

    @model_validator(mode="after")
    def _candidates_are_new(self) -> Self:
        known = {self.model, *self.persona.models}
        if len({*self.candidates} - known) < len(self.candidates):
            raise ValueError(
                f"candidates: expected different models, none that its bots ask ({', '.join(sorted(known))}), got "
                f"{', '.join(self.candidates)}"
            )
        return self

    @model_validator(mode="after")
    def _allowed_can_be_set(self) -> Self:
        own = sorted(name for name in self.allow if name in OWN_FIELDS or name.lower() in OWN_HEADERS)
        if own:
            raise ValueError(f"allow: expected names that Fleet does not set, got {', '.join(own)}")
        if self.thinking_tokens is not None and self.thinking_tokens >= self.max_output_tokens:
            raise ValueError(
                f"thinking_tokens: expected fewer than max_output_tokens ({self.max_output_tokens}), of which they are "
                f"part, got {self.thinking_tokens}"
            )
        return self


class WorkerSettings(Section):
    """Size of the data plane on this host."""

    processes: int = Field(2, ge=1, le=256, description="Worker processes that `fleet up` starts.")
    head_room: float = Field(0.2, ge=0, le=10, description="Slots beyond the number of bots: 0.2 = 20%.")
    slots: int | None = Field(None, ge=1, le=2000, description="Slots per process. Not set: by bots and head-room.")
    usd_per_hour: float | None = Field(
        None, ge=0, description="US dollars that one worker process costs an hour, for the price of idle slots."
    )
    grace_s: float = Field(30.0, ge=0, description="Seconds that running tasks get to end when a worker is stopped.")
    lowest_first_every: int = Field(
        32, ge=0, description="One task in this many is the least urgent one waiting, so none starves. 0: strict order."
    )
    hang_s: float = Field(60.0, ge=5, description="Seconds for which a worker may stand still before it is replaced.")
    inbox: str = Field("celery", description="Queue on which plain Celery clients submit.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines of workers: text, or one JSON object.")


class ScalingSettings(Section):
    """How many slots and workers are wanted: `fleet up --autoscale`, `fleet scaling`, KEDA."""

    lead_s: float = Field(60.0, ge=1, le=3600, description="Seconds until a worker that is wanted works.")
    drain_s: float = Field(10.0, ge=1, le=86_400, description="Seconds in which what waits is to be gone.")
    buffer: float = Field(0.2, ge=0, le=10, description="Share of slots beyond the load, at least: 0.2 = 20%.")


class HealthSettings(Section):
    """Watching for bots whose answers are bad, short or late: `fleet bots`."""

    watch: bool = Field(True, description="Judge bots, and quarantine bad ones.")
    quarantine_s: float = Field(
        60.0, ge=0.1, le=86_400, description="Seconds of a bot's first quarantine; each further one is twice as long."
    )
    most_out: float = Field(0.35, ge=0, le=1, description="Share of a pool's bots out at most; then an alarm.")
    probation_tasks: int = Field(10, ge=1, le=1000, description="Good tasks that end a bot's probation.")
    opinions: int = Field(3, ge=1, le=5, description="Bots asked in all while answers are bad. 1: no second opinions.")
    specialists: float = Field(
        0.5, ge=0, le=0.9, description="Share of a kind's tasks for bots that are significantly better at it. 0: none."
    )
    canary_every_s: float = Field(
        10.0, ge=0.1, le=86_400, description="Least seconds between two canaries of a pool (`canaries` of the pool)."
    )
    running: Literal["finish", "retry"] = Field(
        "finish", description="Task of a bot that is quarantined: the bot finishes it, or another bot starts it anew."
    )


class DiversitySettings(Section):
    """Watching for bots that fall into one answer: `fleet diversity`."""

    watch: bool = Field(True, description="Keep fingerprints of answers and compare them.")
    treat: bool = Field(True, description="Treat bots that answer alike. False: only report them.")
    window: int = Field(400, ge=200, le=2000, description="Answers compared at a time; large pools take 2 per bot.")
    every_s: float = Field(
        2.0, ge=0.1, le=60, description="Seconds between comparisons, and until workers know a remedy."
    )


class SignalsSettings(Section):
    """Output for monitoring systems. The Fleet tab, `fleet top` and `fleet stats` need none of it."""

    metrics_port: int = Field(
        0, ge=0, le=65535, description="First port of the workers' Prometheus endpoints; each takes a free one. 0: off."
    )
    metrics_address: str = Field("127.0.0.1", description="Address that these endpoints listen on.")
    traces: Literal["off", "otlp", "file"] = Field(
        "off",
        description="OpenTelemetry traces: to OTLP, as OTEL_* variables say, or into `.fleet/traces.jsonl`.",
    )


class SimulatorSettings(Section):
    """The local simulator that answers when no provider is configured."""

    rpm: int = Field(6000, ge=1, description="Requests per minute and key that the simulator enforces.")
    tpm: int = Field(3_000_000, ge=1, description="Tokens per minute and key that the simulator enforces.")
    rpd: int | None = Field(None, ge=1, description="Requests per day and key that the simulator enforces.")
    in_flight: int | None = Field(None, ge=1, description="Calls of a key at the same time that the simulator takes.")
    latency_ms: float = Field(200.0, ge=0, description="Median time to an answer.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of calls that the simulator answers with a 5xx.")
    seed: int = Field(0, description="Seed of latencies, errors and answers.")
