"""Settings from `fleet.toml` and FLEET_* variables. `load()` is the only entry; the tables are `sections.py`."""

from fleet.config.alerts import AlertSettings
from fleet.config.budgets import PERIODS, BudgetSettings, Period, WhenFull
from fleet.config.dashboard import DashboardSettings, FlowerSettings
from fleet.config.hosts import is_local, is_loopback
from fleet.config.prices import BillSettings, PriceSettings, RateSettings, TierPriceSettings
from fleet.config.sections import (
    SIMULATOR,
    Archetype,
    DeadLetterSettings,
    DiversitySettings,
    HealthSettings,
    LimitSettings,
    PersonaSettings,
    PoolSettings,
    ProviderSettings,
    RedisSettings,
    ResultSettings,
    RungSettings,
    Section,
    SignalsSettings,
    SimulatorSettings,
    When,
    WorkerSettings,
    vendor_of,
)  # fmt: skip
from fleet.config.settings import (
    BROKER_VARIABLE,
    CONFIG_NAME,
    DEFAULT_POOLS,
    HOME_NAME,
    KEY_LABEL,
    PLACE_VARIABLES,
    RESULT_VARIABLE,
    SIMULATED_PRICE,
    Settings,
    config_path,
    current,
    home_path,
    load,
    nearest_home,
    on_load,
)  # fmt: skip

__all__ = [
    "BROKER_VARIABLE", "CONFIG_NAME", "DEFAULT_POOLS", "HOME_NAME", "KEY_LABEL", "PERIODS", "PLACE_VARIABLES",
    "RESULT_VARIABLE", "SIMULATED_PRICE", "SIMULATOR", "AlertSettings", "Archetype", "BillSettings",
    "BudgetSettings", "DashboardSettings", "DeadLetterSettings", "DiversitySettings", "FlowerSettings",
    "HealthSettings", "LimitSettings", "Period", "PersonaSettings", "PoolSettings", "PriceSettings",
    "ProviderSettings", "RateSettings", "RedisSettings", "ResultSettings", "RungSettings", "Section",
    "Settings", "SignalsSettings", "SimulatorSettings", "TierPriceSettings", "When", "WhenFull",
    "WorkerSettings", "config_path", "current", "home_path", "is_local", "is_loopback", "load", "nearest_home",
    "on_load", "vendor_of",
]  # fmt: skip
