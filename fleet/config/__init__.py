"""Settings from `fleet.toml` and FLEET_* variables. `load()` is the only entry; the tables are `sections.py`."""

from fleet.config.alerts import AlertSettings
from fleet.config.budgets import PERIODS, BudgetSettings, Period, WhenFull
from fleet.config.dashboard import DashboardSettings, FlowerSettings
from fleet.config.hosts import is_local, is_loopback
from fleet.config.places import CONFIG_NAME, HOME_NAME, PLACE_VARIABLES, config_path, home_path, nearest_home
from fleet.config.prices import BillSettings, PriceSettings, RateSettings, TierPriceSettings
from fleet.config.providers import KEY_LABEL, KeySettings, ProviderSettings, vendor_of
from fleet.config.results import DeadLetterSettings, ResultSettings
from fleet.config.schedules import ScheduleSettings
from fleet.config.sections import (
    SIMULATOR,
    Archetype,
    DiversitySettings,
    HealthSettings,
    LimitSettings,
    PersonaSettings,
    PoolSettings,
    RedisSettings,
    RungSettings,
    ScalingSettings,
    Section,
    SignalsSettings,
    SimulatorSettings,
    When,
    WorkerSettings,
)  # fmt: skip
from fleet.config.settings import (
    BROKER_VARIABLE,
    DEFAULT_POOLS,
    RESULT_VARIABLE,
    SIMULATED_PRICE,
    Settings,
    current,
    load,
    on_load,
)  # fmt: skip
from fleet.config.tools import TOOLS, ToolSettings, models_among, tool_of
from fleet.config.vault import VaultSettings

__all__ = [
    "BROKER_VARIABLE",
    "CONFIG_NAME",
    "DEFAULT_POOLS",
    "HOME_NAME",
    "KEY_LABEL",
    "PERIODS",
    "PLACE_VARIABLES",
    "RESULT_VARIABLE",
    "SIMULATED_PRICE",
    "SIMULATOR",
    "TOOLS",
    "AlertSettings",
    "Archetype",
    "BillSettings",
    "BudgetSettings",
    "DashboardSettings",
    "DeadLetterSettings",
    "DiversitySettings",
    "FlowerSettings",
    "HealthSettings",
    "KeySettings",
    "LimitSettings",
    "Period",
    "PersonaSettings",
    "PoolSettings",
    "PriceSettings",
    "ProviderSettings",
    "RateSettings",
    "RedisSettings",
    "ResultSettings",
    "RungSettings",
    "ScalingSettings",
    "ScheduleSettings",
    "Section",
    "Settings",
    "SignalsSettings",
    "SimulatorSettings",
    "TierPriceSettings",
    "ToolSettings",
    "VaultSettings",
    "When",
    "WhenFull",
    "WorkerSettings",
    "config_path",
    "current",
    "home_path",
    "is_local",
    "is_loopback",
    "load",
    "models_among",
    "nearest_home",
    "on_load",
    "tool_of",
    "vendor_of",
]  # fmt: skip
