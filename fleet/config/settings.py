"""Settings from `fleet.toml` and FLEET_* variables, validated; unknown keys name the nearest known one.

`load()` is the only entry. No Redis, no Celery; nothing here starts or connects to anything.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable
from functools import lru_cache
from itertools import starmap
from typing import Any, Self, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings.exceptions import SettingsError

from fleet.config.alerts import AlertSettings
from fleet.config.budgets import BudgetSettings, TenantName, TenantSettings, budgeted
from fleet.config.dashboard import DashboardSettings, FlowerSettings
from fleet.config.hosts import check_brokers, is_local
from fleet.config.payouts.tables import EarnSettings, NetworkSettings, PayeeSettings, PayoutSettings, check_payouts
from fleet.config.places import PLACE_VARIABLES, config_path
from fleet.config.prices import BillSettings, PriceSettings, TierPriceSettings
from fleet.config.providers import KeySettings, ProviderSettings, counts_cached, vendor_of
from fleet.config.results import DeadLetterSettings, ResultSettings
from fleet.config.safety import SafetySettings
from fleet.config.savings import KindName, KindSettings, LaneSettings
from fleet.config.schedules import Schedules
from fleet.config.scope_checks import check_scopes
from fleet.config.scopes import ScopeSettings
from fleet.config.sections import (
    SIMULATOR,
    DiversitySettings,
    HealthSettings,
    LimitSettings,
    PersonaSettings,
    PoolSettings,
    RedisSettings,
    RungSettings,
    ScalingSettings,
    SignalsSettings,
    SimulatorSettings,
    WorkerSettings,
)
from fleet.config.tools import TOOLS, ToolSettings, check_tools, tool_of
from fleet.config.variables import check_variables
from fleet.config.vault import KeysSettings, VaultSettings
from fleet.errors import ConfigurationError
from fleet.list_prices import Seller, listed_of
from fleet.quoting import nearest, quote

#: Celery's own variables for the broker and for results; each stands for what Fleet's own settings do not say.
BROKER_VARIABLE, RESULT_VARIABLE = "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"
#: What the simulator would bill by default: a small model's price, so that costs can be seen without being paid.
SIMULATED_PRICE = PriceSettings(
    input_usd_per_mtok=0.15,
    output_usd_per_mtok=0.60,
    tiers={
        "flex": TierPriceSettings(input_usd_per_mtok=0.075, output_usd_per_mtok=0.30),
        "batch": TierPriceSettings(input_usd_per_mtok=0.075, output_usd_per_mtok=0.30),
        "background-8h": TierPriceSettings(input_usd_per_mtok=0.09, output_usd_per_mtok=0.36),
        "background-2h": TierPriceSettings(input_usd_per_mtok=0.105, output_usd_per_mtok=0.42),
        "priority": TierPriceSettings(input_usd_per_mtok=0.30, output_usd_per_mtok=1.20),
    },
)
#: Pools that exist when fleet.toml names none: 100 bots.
DEFAULT_POOLS = {name: PoolSettings(bots=bots) for name, bots in (("research", 30), ("writing", 40), ("review", 30))}


class Settings(BaseSettings):
    """Everything that can be configured. Build it with `load()`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, env_prefix="FLEET_", env_nested_delimiter="__",
        validate_default=True,
    )  # fmt: skip

    redis: RedisSettings = RedisSettings()
    worker: WorkerSettings = WorkerSettings()
    scaling: ScalingSettings = ScalingSettings()
    results: ResultSettings = ResultSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    health: HealthSettings = HealthSettings()
    diversity: DiversitySettings = DiversitySettings()
    flower: FlowerSettings = FlowerSettings()
    dashboard: DashboardSettings = DashboardSettings()
    alerts: AlertSettings = AlertSettings()
    bill: BillSettings = BillSettings()
    vault: VaultSettings = VaultSettings()
    keys: KeysSettings = KeysSettings()
    signals: SignalsSettings = SignalsSettings()
    lanes: LaneSettings = LaneSettings()
    simulator: SimulatorSettings = SimulatorSettings()
    safety: SafetySettings = SafetySettings()
    providers: dict[str, ProviderSettings] = Field(default_factory=dict, description="LLM APIs by name.")
    limits: dict[str, LimitSettings] = Field(default_factory=dict, description='Limits by "provider/model".')
    prices: dict[str, PriceSettings] = Field(default_factory=dict, description='Prices by "provider/model".')
    budgets: dict[str, BudgetSettings] = Field(default_factory=dict, description="What may be spent, by scope.")
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict, description="Who tasks are for, by name.")
    tools: dict[str, ToolSettings] = Field(default_factory=dict, description="APIs that bot functions use, by name.")
    schedules: Schedules = Field(default_factory=dict, description="Tasks that are submitted by the clock, by name.")
    kinds: dict[KindName, KindSettings] = Field(default_factory=dict, description="What is known of task kinds.")
    payouts: PayoutSettings = PayoutSettings()
    networks: dict[str, NetworkSettings] = Field(default_factory=dict, description="Networks and their tokens.")
    payees: dict[str, PayeeSettings] = Field(default_factory=dict, description="Who is paid for what bots do.")
    pools: dict[str, PoolSettings] = Field(default_factory=lambda: dict(DEFAULT_POOLS), description="Pools by name.")

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        known = {*self.providers, SIMULATOR}
        check_tools(self.tools, self.providers, self.limits, self.prices)
        check_brokers(self.redis, self.pools)
        check_payouts(self.payouts, self.networks, self.payees, self.pools)
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

    @model_validator(mode="after")
    def _models_name_their_vendor(self) -> Self:
        for name in self.pools:
            for number, (provider, model) in enumerate(self.calls_of(name)):
                if self.provider_named(provider).kind == "pydantic-ai" and not vendor_of(model):
                    where = f"pools.{name}.{self.place_of(name, number) or 'model'}"
                    raise ValueError(
                        f'{where}: expected "vendor:model" for a provider of kind "pydantic-ai", such as '
                        f'"google:gemini-3-flash-preview" or "openai-chat:MODEL", got {quote(model)}'
                    )
        return self

    @model_validator(mode="after")
    def _ladders_lead_somewhere(self) -> Self:
        known = {*self.providers, SIMULATOR}
        for name, pool in self.pools.items():
            for number, rung in enumerate(pool.fallback, start=1):
                where = f"pools.{name}.fallback {number}"
                if rung.provider is not None and rung.provider not in known:
                    raise ValueError(
                        f"{where}: expected a provider of {', '.join(sorted(known))}, got {quote(rung.provider)}"
                    )
                if rung.answer is not None and number < len(pool.fallback):
                    raise ValueError(f"{where}: expected the `answer` as the last rung, got rungs below it")
            calls = self.calls_of(name)
            if len(set(calls)) < len(calls):
                raise ValueError(
                    f"pools.{name}.fallback: expected rungs of different providers or models, none of persona.models "
                    "or candidates, got one twice; for another key of the same API give it a [providers] table"
                )
        return self

    @model_validator(mode="after")
    def _budgets_can_be_kept(self) -> Self:
        check_scopes(self.providers, self.pools, self.calls_of, self.check_price)
        for name, where in budgeted(self.limits_in_use, self.budgets, self.pools, self.calls_of):
            self.check_price(name, where)
        for name, limit in self.limits_by_key.items():
            if limit.usd_per_day is not None:
                self.check_price(name.rpartition("/")[0], f'limits."{name}".usd_per_day')
        return self

    def check_price(self, name: str, where: str) -> None:
        """Refuse a budget for a model without a price: nothing that it spends would be counted.

        Args:
            name: `provider/model`.
            where: What gives it a budget.

        Raises:
            ValueError: When it has none.
        """
        provider, _, model = name.partition("/")
        if tool_of(name):
            self._check_tools_price(tool_of(name), where)
        elif name not in self.price_table and listed_of(self.seller_of(provider), model) is None:
            raise ValueError(
                f"{where}: expected a price of the model, got none for {name}, so that nothing would be counted; set "
                f'input_usd_per_mtok and output_usd_per_mtok in [prices."{name}"], or same_as'
            )

    def _check_tools_price(self, name: str, where: str) -> None:
        if not self.tools[name].usd_per_call:
            raise ValueError(f"{where}: expected usd_per_call in [tools.{name}], got none: nothing would be counted")

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
        """True when at least one pool is answered by the simulator, if only as a fallback."""
        return any(self.provider_named(n).kind == SIMULATOR for pool in self.pools for n, _ in self.calls_of(pool))

    def is_simulated(self, pool: str) -> bool:
        """True when this pool's answers come from the simulator and not from a real provider, fallbacks aside."""
        return self.provider_of(pool).kind == "simulator"

    def provider_of(self, pool: str) -> ProviderSettings:
        """Return the provider of a pool; `simulator` exists without being configured."""
        return self.provider_named(self.pools[pool].provider)

    def provider_named(self, name: str) -> ProviderSettings:
        """Return the provider of that name; `simulator` exists without being configured."""
        return self.providers.get(name, ProviderSettings(kind="simulator"))

    def calls_of(self, pool: str) -> tuple[tuple[str, str], ...]:
        """Return provider and model of each rung of a pool's ladder that makes calls.

        The pool's own come first, the other models of its personas and its candidates last.
        """
        settings = self.pools[pool]
        own = settings.provider, settings.model
        below = ((rung.provider or own[0], rung.model or own[1]) for rung in settings.fallback if rung.answer is None)
        others = ((own[0], model) for model in settings.models if model != own[1])
        return (own, *below, *others)

    def place_of(self, pool: str, number: int) -> str:
        """Return what one of `calls_of` is called in its pool: empty for the pool's own."""
        return self.pools[pool].place_of(number)

    @property
    def limits_in_use(self) -> dict[str, LimitSettings]:
        """The limits of all that pools may call, their own first: rates by `provider/model`; of tools last."""
        calls = list(map(self.calls_of, self.pools))
        every = [own[0] for own in calls] + [call for own in calls for call in own[1:]]
        tools = {f"{TOOLS}/{name}": tool.limit for name, tool in self.tools.items()}
        return dict(starmap(self.limit_at, dict.fromkeys(every))) | tools

    def limit_names(self, provider: str, model: str, pool: str = "") -> tuple[str, ...]:
        """Return the limits of a model by their full names, `provider/model/key`: one for each key.

        Args:
            provider: Its name.
            model: Which.
            pool: Only those of keys that may serve this pool; empty: all.
        """
        known = self.provider_named(provider)
        labels = known.labels_for(pool, model) if pool else known.labels
        return tuple(f"{provider}/{model}/{label}" for label in labels)

    @property
    def limits_by_key(self) -> dict[str, LimitSettings]:
        """The same limits as `limits_in_use`, by `provider/model/key`."""
        found = {}
        for api, rates in self.limits_in_use.items():
            provider, _, model = api.partition("/")
            for name in self.limit_names(provider, model):
                own = name in self.limits
                found[name] = self.limit_at(provider, model, name.rpartition("/")[2])[1] if own else rates
        return found

    def places_under(self, limit: str) -> int | None:
        """Return how many calls may be under way at once under `provider/model/key`; None: any number."""
        provider, _, rest = limit.partition("/")
        model, _, label = rest.rpartition("/")
        return self.limit_at(provider, model, label)[1].in_flight

    def seller_of(self, provider: str) -> Seller:
        """Return who sells the models of a provider, for their list prices."""
        known = self.provider_named(provider)
        return Seller(provider, known.kind, known.base_url, is_local(known.base_url))

    @property
    def price_table(self) -> dict[str, PriceSettings]:
        """Prices by `provider/model`: as configured, and the simulator's own for what it answers."""
        calls = {call for pool in self.pools for call in self.calls_of(pool)}
        simulated = [f"{name}/{model}" for name, model in calls if self.provider_named(name).kind == "simulator"]
        return dict.fromkeys(simulated, SIMULATED_PRICE) | self.prices

    def limit_of(self, pool: str, model: str | None = None) -> tuple[str, LimitSettings]:
        """Return the limit of a pool's own calls, or of a persona's model, as `limit_at`; its ladder has others."""
        return self.limit_at(self.pools[pool].provider, model or self.pools[pool].model)

    def limit_at(self, provider: str, model: str, label: str = "") -> tuple[str, LimitSettings]:
        """Return the limit of a model: its `provider/model` name and its rates (none when not configured).

        A key may have rates of its own, under its `label`. The limits in [simulator] hold for the provider of that
        name, here or elsewhere: it will enforce them. Where it is not set whether cached input counts, it is as the
        vendor does.
        """
        name = f"{provider}/{model}"
        limit = self.limits.get(f"{name}/{label}", self.limits.get(name))
        if limit is None and provider == SIMULATOR:
            limit = LimitSettings(rpm=self.simulator.rpm, tpm=self.simulator.tpm, counting="bucket")
        limit = limit or LimitSettings()
        if limit.count_cached is None and not counts_cached(self.providers.get(provider), model):
            limit = limit.model_copy(update={"count_cached": False})
        return name, limit

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


def load(**overrides: Any) -> Settings:
    """Read the settings. `overrides` win over FLEET_* variables, which win over fleet.toml.

    Where none of them says where Redis is, `CELERY_BROKER_URL` and `CELERY_RESULT_BACKEND` do, for all of Fleet.

    Raises:
        ConfigurationError: With one line per wrong key, naming the nearest known one.
    """
    check_variables(Settings.model_fields, SECTIONS, PLACE_VARIABLES)
    try:
        settings = _with_celery_addresses(Settings(**overrides))
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(dict(item))}" for item in error.errors(include_url=False))
        raise ConfigurationError(f"{config_path() or 'FLEET_* variables'}:\n{lines}") from error
    except SettingsError as error:
        raise ConfigurationError(
            f"FLEET_* variables: {error}; expected a whole table as JSON there, or one key with two underscores before "
            "it, such as FLEET_REDIS__URL"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigurationError(f"{config_path()}: expected TOML in UTF-8, got {error}") from error
    _loaded[:] = [settings]
    for listener in _listeners:
        listener(settings)
    return settings


#: The settings that were read last, and who wants to know of them.
_loaded: list[Settings] = []
_listeners: list[Callable[[Settings], None]] = []


def on_load(listener: Callable[[Settings], None]) -> None:
    """Call `listener` with the settings whenever they are read; at once if they were."""
    _listeners.append(listener)
    for settings in _loaded:
        listener(settings)


def _with_celery_addresses(settings: Settings) -> Settings:
    places = {"url": os.environ.get(BROKER_VARIABLE), "state_url": os.environ.get(RESULT_VARIABLE)}
    adopted = {key: SecretStr(url) for key, url in places.items() if url and getattr(settings.redis, key) is None}
    return settings.model_copy(update={"redis": settings.redis.model_copy(update=adopted)}) if adopted else settings


#: Tables of fleet.toml that hold keys, and no tables with names of the user's.
SECTIONS: dict[str, type[BaseModel]] = {
    "redis": RedisSettings, "worker": WorkerSettings, "scaling": ScalingSettings, "results": ResultSettings,
    "dead_letters": DeadLetterSettings, "health": HealthSettings, "diversity": DiversitySettings,
    "flower": FlowerSettings, "signals": SignalsSettings, "simulator": SimulatorSettings,
    "dashboard": DashboardSettings, "alerts": AlertSettings, "bill": BillSettings, "lanes": LaneSettings,
    "payouts": PayoutSettings,
}  # fmt: skip


@lru_cache(maxsize=1)
def current() -> Settings:
    """Return the settings of this process, read once."""
    return load()


def _explain(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        known = _keys_at(item["loc"][:-1])
        return f"{where}: unknown key, {nearest(str(item['loc'][-1]), known)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return message if item["loc"] == () else f"{where}: {message}"
    return f"{where}: {message[0].lower()}{message[1:]}, got {quote(item.get('input'))}"


def _keys_at(loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the table at `loc`: the first part is a field of Settings, dict tables have a name after it."""
    tables = {name: get_args(one.annotation)[-1:] for name, one in Settings.model_fields.items()}
    if not loc:
        return list(Settings.model_fields)
    if loc[0] == "providers" and "keys" in loc[2:]:
        return list(KeySettings.model_fields)
    inner: dict[str, type[BaseModel]] = {
        "persona": PersonaSettings, "scope": ScopeSettings, "fallback": RungSettings, "earn": EarnSettings,
    }  # fmt: skip
    models = [inner[str(part)] for part in reversed(loc[1:]) if part in inner]
    return list((*models, *tables[str(loc[0])], SECTIONS.get(str(loc[0]), BaseModel))[0].model_fields)
