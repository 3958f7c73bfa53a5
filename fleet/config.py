"""Settings from `fleet.toml` and FLEET_* variables, validated; unknown keys name the nearest known one.

`load()` is the only entry. No Redis, no Celery; nothing here starts or connects to anything.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from fleet.errors import ConfigurationError, quote

#: Name of the configuration file, looked for in the working directory and its parents.
CONFIG_NAME = "fleet.toml"
#: Name of the state folder (embedded Redis, generated passwords) beside the configuration file.
HOME_NAME = ".fleet"
#: FLEET_* variables that are not settings: where things lie.
PLACE_VARIABLES = ("FLEET_CONFIG", "FLEET_HOME", "FLEET_DATA_DIR")
#: Name of the provider that exists without any configuration.
SIMULATOR = "simulator"
#: Label of the one key that a provider has until keys come from the vault; limits are named `provider/model/key`.
KEY_LABEL = "default"

Archetype = Literal["analytical", "creative", "conservative", "exploratory"]


class Section(BaseModel):
    """Base of all tables in fleet.toml: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RedisSettings(Section):
    """Where Redis is. Without a `url`, Fleet finds or starts its own under `.fleet/`."""

    url: SecretStr | None = Field(
        None, description="Broker: redis://, rediss://, unix:// or sentinel://. Empty: embedded Redis."
    )
    state_url: SecretStr | None = Field(None, description="Results, bots and limits. Empty: the same as `url`.")
    socket_timeout_s: float = Field(5.0, gt=0, description="Seconds until a Redis that does not answer is an error.")
    master_name: str | None = Field(None, description="With sentinel://: the master's name, unless the URL says it.")
    sentinel_password: SecretStr | None = Field(None, description="With sentinel://: password of the Sentinels.")
    replicas: int = Field(
        0, ge=0, le=10, description="Replicas that must confirm a task with an idempotency key before it is accepted."
    )


class ProviderSettings(Section):
    """An LLM API. Limits belong to `provider/model`."""

    kind: Literal["openai", "anthropic", "simulator"] = Field(description="Wire protocol of the API.")
    base_url: str | None = Field(None, description="Root of the API. Empty: the vendor's own, or the local simulator.")
    api_key_env: str | None = Field(None, description="Environment variable that holds the key.")
    api_key_file: Path | None = Field(None, description="File that holds the key; must be readable by its owner only.")
    timeout_s: float = Field(120.0, gt=0, description="Seconds until one HTTP call is given up.")

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("expected `api_key_env` or `api_key_file`, got both")
        return self


class LimitSettings(Section):
    """What a provider allows for one model on one key. An empty rate is not limited."""

    rpm: int | None = Field(None, ge=1, description="Requests per minute.")
    tpm: int | None = Field(None, ge=1, description="Tokens per minute, input and output together.")
    input_tpm: int | None = Field(None, ge=1, description="Input tokens per minute, where they are counted apart.")
    output_tpm: int | None = Field(None, ge=1, description="Output tokens per minute, where they are counted apart.")
    in_flight: int | None = Field(None, ge=1, description="Calls at the same time.")
    requests_per_day: int | None = Field(None, ge=1, description="Requests per day (UTC).")
    usd_per_day: float | None = Field(None, gt=0, description="US dollars per day (UTC); needs a price.")
    burst: float = Field(
        0.02, gt=0, le=1, description="Share of a minute that may go at once; keep it below the provider's own."
    )
    counting: Literal["bucket", "window"] = Field(
        "window",
        description="How the provider counts: a refilled bucket, or a sliding or fixed minute (safe for both).",
    )
    window_s: float = Field(60.0, gt=0, le=86_400, description="Seconds over which a provider with a window counts.")
    charge: Literal["call", "token"] = Field("call", description="What bots get equal shares of: calls or tokens.")


class PriceSettings(Section):
    """What a model costs. A model without a price has results without a cost."""

    input_usd_per_mtok: float = Field(ge=0, description="US dollars per million input tokens.")
    output_usd_per_mtok: float = Field(ge=0, description="US dollars per million output tokens.")


class PersonaSettings(Section):
    """From what the personas of a pool's bots are drawn, each list in turn."""

    archetypes: tuple[Archetype, ...] = Field(
        ("analytical", "creative", "conservative", "exploratory"), min_length=1, description="Archetypes, in turn."
    )
    temperatures: tuple[Annotated[float, Field(ge=0, le=2)], ...] = Field(
        (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), min_length=1, description="Sampling temperatures, in turn."
    )
    context_windows_tokens: tuple[Annotated[int, Field(ge=64)], ...] = Field(
        (2048, 4096, 8192), min_length=1, description="Context windows in tokens, in turn."
    )
    system_prompts: dict[Archetype, str] = Field(
        default_factory=dict, description="System prompt by archetype, instead of the built-in one."
    )


class PoolSettings(Section):
    """A named group of bots that share a provider, a model, limits and a queue."""

    bots: int = Field(10, ge=1, le=10_000, description="Number of bots.")
    provider: str = Field(SIMULATOR, description="Name of a table under [providers].")
    model: str = Field("simulated-1", description="Model name, as the provider spells it.")
    kinds: tuple[str, ...] = Field((), description="Task kinds taken when a task names no pool. Empty: all kinds.")
    function: str | None = Field(None, description="Your own bot: `package.module:function`. Empty: one chat call.")
    max_output_tokens: int = Field(512, ge=1, description="Longest answer in tokens, unless the task says.")
    deadline_s: float = Field(300.0, gt=0, description="Seconds of work allowed per task, unless the task says.")
    max_attempts: int = Field(4, ge=1, le=20, description="Provider failures until a task fails (429s do not count).")
    persona: PersonaSettings = Field(PersonaSettings(), description="Personas of this pool's bots.")


class WorkerSettings(Section):
    """Size of the data plane on this host."""

    processes: int = Field(2, ge=1, le=256, description="Worker processes that `fleet up` starts.")
    head_room: float = Field(0.2, ge=0, le=10, description="Slots beyond the number of bots: 0.2 = 20%.")
    slots: int | None = Field(None, ge=1, le=2000, description="Slots per process. Empty: bots, head-room, processes.")
    grace_s: float = Field(30.0, ge=0, description="Seconds that running tasks get to end when a worker is stopped.")
    lowest_first_every: int = Field(
        32, ge=0, description="One task in so many is the least urgent that waits, so none starves. 0: strict order."
    )
    hang_s: float = Field(20.0, ge=5, description="Seconds of silence after which `fleet up` replaces a worker.")
    inbox: str = Field("celery", description="Queue on which plain Celery clients submit.")
    log_format: Literal["text", "json"] = Field("text", description="Log lines of workers: text, or one JSON object.")


class ResultSettings(Section):
    """How long results stay."""

    expires_s: int = Field(86_400, ge=60, description="Seconds until a result is deleted.")


class DeadLetterSettings(Section):
    """Tasks that failed for good, kept to be looked at and queued again: `fleet dead`."""

    max_letters: int = Field(10_000, ge=1, description="Dead letters kept; the oldest make room.")
    max_mb: int = Field(256, ge=1, description="MiB of Redis memory for them; the oldest make room.")
    expires_s: int = Field(604_800, ge=60, description="Seconds until a dead letter is deleted.")


class DiversitySettings(Section):
    """Watching for bots that fall into one answer: `fleet diversity`."""

    watch: bool = Field(True, description="Keep fingerprints of answers and compare them.")
    treat: bool = Field(True, description="Treat bots that answer alike. False: only say so.")
    window: int = Field(400, ge=200, le=2000, description="Answers compared at a time; large pools take 2 per bot.")
    every_s: float = Field(2.0, ge=0.1, le=60, description="Seconds between two looks, and until a remedy is known.")


class FlowerSettings(Section):
    """The dashboard. Its password is generated into `.fleet/flower.password`."""

    address: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(5555, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    user: str = Field("fleet", description="User name of the basic authentication.")


class SignalsSettings(Section):
    """What is told to monitoring systems. The Fleet tab, `fleet top` and `fleet stats` need none of it."""

    metrics_port: int = Field(
        0, ge=0, le=65535, description="First port of the workers' Prometheus endpoints; each takes a free one. 0: off."
    )
    metrics_address: str = Field("127.0.0.1", description="Address that they listen on.")
    traces: Literal["off", "otlp", "file"] = Field(
        "off", description="OpenTelemetry traces: over OTLP, as OTEL_* variables say, or into `.fleet/traces.jsonl`."
    )


class SimulatorSettings(Section):
    """The local simulator that answers when no provider is configured."""

    rpm: int = Field(6000, ge=1, description="Requests per minute and key that the simulator enforces.")
    tpm: int = Field(3_000_000, ge=1, description="Tokens per minute and key that the simulator enforces.")
    latency_ms: float = Field(200.0, ge=0, description="Median time to an answer.")
    error_rate: float = Field(0.0, ge=0, le=1, description="Share of calls that the simulator answers with a 5xx.")
    seed: int = Field(0, description="Seed of latencies, errors and answers.")


#: What the simulator would bill by default: a small model's price, so that costs can be seen without being paid.
SIMULATED_PRICE = PriceSettings(input_usd_per_mtok=0.15, output_usd_per_mtok=0.60)
#: Pools that exist when fleet.toml names none: 100 bots.
DEFAULT_POOLS = {
    "research": PoolSettings(bots=30),
    "writing": PoolSettings(bots=40),
    "review": PoolSettings(bots=30),
}


class Settings(BaseSettings):
    """Everything that can be configured. Build it with `load()`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FLEET_", env_nested_delimiter="__", validate_default=True
    )

    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    results: ResultSettings = ResultSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    diversity: DiversitySettings = DiversitySettings()
    flower: FlowerSettings = FlowerSettings()
    signals: SignalsSettings = SignalsSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict, description="LLM APIs by name.")
    limits: dict[str, LimitSettings] = Field(default_factory=dict, description='Limits by "provider/model".')
    prices: dict[str, PriceSettings] = Field(default_factory=dict, description='Prices by "provider/model".')
    pools: dict[str, PoolSettings] = Field(default_factory=lambda: dict(DEFAULT_POOLS), description="Pools by name.")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        known = {*self.providers, SIMULATOR}
        if not self.pools:
            raise ValueError("pools: expected at least one [pools.NAME] table, got none")
        for name, pool in self.pools.items():
            if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
                raise ValueError(f"pools: expected a name of letters, digits, - and _, got {quote(name)}")
            if pool.provider not in known:
                raise ValueError(
                    f"pools.{name}.provider: expected one of {', '.join(sorted(known))}, got {quote(pool.provider)}"
                )
        return self

    @property
    def bots(self) -> int:
        """Number of bots in all pools."""
        return sum(pool.bots for pool in self.pools.values())

    @property
    def slots_per_process(self) -> int:
        """Slots of one worker process: as set, else bots plus head-room over the processes."""
        return self.worker.slots or math.ceil(self.bots * (1 + self.worker.head_room) / self.worker.processes)

    @property
    def simulated(self) -> bool:
        """True when at least one pool is answered by the simulator."""
        return any(self.is_simulated(name) for name in self.pools)

    def is_simulated(self, pool: str) -> bool:
        """True when this pool's answers come from the simulator and not from a real provider."""
        return self.provider_of(pool).kind == "simulator"

    def provider_of(self, pool: str) -> ProviderSettings:
        """Return the provider of a pool; `simulator` exists without being configured."""
        return self.providers.get(self.pools[pool].provider, ProviderSettings(kind="simulator"))

    @property
    def price_table(self) -> dict[str, PriceSettings]:
        """Prices by `provider/model`: as configured, and the simulator's own for what it answers."""
        simulated = {self.limit_of(name)[0]: SIMULATED_PRICE for name in self.pools if self.is_simulated(name)}
        return simulated | self.prices

    def limit_of(self, pool: str) -> tuple[str, LimitSettings]:
        """Return a pool's limit: its `provider/model` name and its rates (none when not configured).

        The limits in [simulator] hold for the provider of that name, here or elsewhere: it will enforce them.
        """
        settings = self.pools[pool]
        name = f"{settings.provider}/{settings.model}"
        fallback = LimitSettings()
        if settings.provider == SIMULATOR:
            fallback = LimitSettings(rpm=self.simulator.rpm, tpm=self.simulator.tpm, counting="bucket")
        return name, self.limits.get(name, fallback)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, config_path())
        return init_settings, env_settings, file


def home_path() -> Path:
    """Return the state folder: FLEET_HOME, else `.fleet` beside fleet.toml or beside an existing `.fleet`."""
    if os.environ.get("FLEET_HOME"):
        return Path(os.environ["FLEET_HOME"]).absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / CONFIG_NAME).is_file() or (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return here / HOME_NAME


def config_path() -> Path | None:
    """Return the fleet.toml in force: FLEET_CONFIG, else the nearest one upwards, else None."""
    if os.environ.get("FLEET_CONFIG"):
        path = Path(os.environ["FLEET_CONFIG"])
        if not path.is_file():
            raise ConfigurationError(f"FLEET_CONFIG: expected the path of a fleet.toml, got {quote(str(path))}")
        return path
    here = Path.cwd()
    return next((f / CONFIG_NAME for f in (here, *here.parents) if (f / CONFIG_NAME).is_file()), None)


def load(**overrides: Any) -> Settings:
    """Read the settings. `overrides` win over FLEET_* variables, which win over fleet.toml.

    Raises:
        ConfigurationError: With one line per wrong key, naming the nearest known one.
    """
    _check_variables()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(dict(item))}" for item in error.errors(include_url=False))
        raise ConfigurationError(f"{config_path() or 'FLEET_* variables'}:\n{lines}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{config_path()}: expected TOML in UTF-8, got {error}") from error


@lru_cache(maxsize=1)
def current() -> Settings:
    """Return the settings of this process, read once."""
    return load()


def _check_variables() -> None:
    known = {f"FLEET_{name.upper()}" for name in Settings.model_fields} | set(PLACE_VARIABLES)
    for name in os.environ:
        if name.startswith("FLEET_") and name.split("__")[0] not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"{name}: unknown variable, the nearest known one is {near}")


def _explain(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        known = _keys_at(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.0)
        return f"{where}: unknown key" + (f", the nearest known key is `{near[0]}`" if near else "")
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message if item["loc"] == () else f"{where}: {message}"
    return f"{where}: {message[0].lower()}{message[1:]}, got {quote(item.get('input'))}"


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the table at `loc`: the first part is a field of Settings, dict tables have a name after it."""
    sections: dict[str, type[BaseModel]] = {
        "redis": RedisSettings, "worker": WorkerSettings, "results": ResultSettings,
        "dead_letters": DeadLetterSettings, "diversity": DiversitySettings, "flower": FlowerSettings,
        "signals": SignalsSettings,
        "simulator": SimulatorSettings, "providers": ProviderSettings, "limits": LimitSettings,
        "prices": PriceSettings, "pools": PoolSettings,
    }  # fmt: skip
    if not loc:
        return list(Settings.model_fields)
    if loc[-1] == "persona":
        return list(PersonaSettings.model_fields)
    return list(sections[str(loc[0])].model_fields)
