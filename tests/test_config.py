"""Wrong settings are refused where they are read, with what was expected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fleet.config import config_path, home_path, load
from fleet.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleet.toml"
    path.write_bytes(b"")
    monkeypatch.setenv("FLEET_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\xff", "expected TOML in UTF-8, got 'utf-8' codec can't decode"),
        (b"[pools.a", "expected TOML in UTF-8, got Expected ']'"),
        (
            b"[pools.a.persona]\ntemperatures = [9.0]",
            "temperatures.0: input should be less than or equal to 2, got 9.0",
        ),
        (
            b"[pools.a.persona]\ncontext_windows_tokens = [1]",
            "context_windows_tokens.0: input should be greater than or equal to 64, got 1",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_words(file: Path, text: bytes, expected: str) -> None:
    file.write_bytes(text)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert expected in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "FLEET_REDIS_URL",
            "redis://x",
            "unknown variable, the nearest known one is `FLEET_REDIS__URL`",
        ),
        ("FLEET_WORKER_SLOT", "3", "the nearest known one is `FLEET_WORKER__SLOTS`"),
        ("FLEET_REDIS", "redis://x", "one key with two underscores before it, such as FLEET_REDIS__URL"),
    ],
)
def test_a_wrong_variable_leads_to_the_right_one(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert expected in str(caught.value)


def test_a_budget_for_a_model_without_a_price_is_refused(file: Path) -> None:
    pool = '[providers.o]\nkind = "openai"\n[pools.a]\nprovider = "o"\nmodel = "m"\n[limits."o/m"]\nusd_per_day = 1\n'
    file.write_text(pool)
    with pytest.raises(ConfigurationError, match=r'limits."o/m".usd_per_day: expected a price of the model, got none'):
        load()
    file.write_text(f'{pool}[prices."o/m"]\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 1\n')
    assert load().limit_of("a")[1].usd_per_day == 1


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory below a folder with a fleet.toml and a .fleet."""
    monkeypatch.delenv("FLEET_CONFIG", raising=False)
    monkeypatch.delenv("FLEET_HOME", raising=False)
    folder = tmp_path / "project"
    (folder / "below").mkdir(parents=True)
    (folder / ".fleet").mkdir()
    (folder / "fleet.toml").write_text("")
    monkeypatch.chdir(folder / "below")
    return folder


@pytest.mark.parametrize(
    ("name", "mode", "look", "variable"),
    [
        ("fleet.toml", 0o666, config_path, "FLEET_CONFIG"),
        (".", 0o777, config_path, "FLEET_CONFIG"),
        (".", 0o1777, config_path, "FLEET_CONFIG"),  # a module could be put beside it
        (".fleet", 0o777, home_path, "FLEET_HOME"),
        (".", 0o777, home_path, "FLEET_HOME"),
    ],
)
def test_what_is_found_where_everybody_may_write_is_refused_with_the_way_to_allow_it(
    found: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: int, look: Callable[[], Path], variable: str
) -> None:
    there = found / (".fleet" if look is home_path else "fleet.toml")
    assert look() == there
    (found / name).chmod(mode)
    with pytest.raises(ConfigurationError, match=f"which everybody may write to .* set {variable}={there}"):
        look()
    monkeypatch.setenv(variable, str(there))
    assert look() == there


@pytest.mark.parametrize("look", [config_path, home_path])
def test_what_somebody_else_has_put_there_is_refused_but_not_on_a_read_only_mount(
    found: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[[], Path]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 4321)  # so that everything is somebody else's
    if os.getuid() == 0:  # what is root's is trusted
        for path in (found, found / ".fleet", found / "fleet.toml"):
            os.chown(path, 4322, -1)
    with pytest.raises(ConfigurationError, match="which belongs to user"):
        look()
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert look()


@pytest.mark.parametrize(
    ("rungs", "expected"),
    [
        ('[[pools.a.fallback]]\nprovider = "b"', "pools.a.fallback 1: expected a provider of simulator, got 'b'"),
        (
            '[[pools.a.fallback]]\nmodle = "b"',
            "pools.a.fallback.0.modle: unknown key, the nearest known one is `model`",
        ),
        ('[[pools.a.fallback]]\nwhen = ["key"]', "expected `provider` or `model`, or else `answer`"),
        ('[[pools.a.fallback]]\nmodel = "b"\nanswer = "c"', "expected `provider` or `model`, or else `answer`"),
        ('[[pools.a.fallback]]\nmodel = "simulated-1"', "expected rungs of different providers or models"),
        (
            '[[pools.a.fallback]]\nanswer = "c"\n[[pools.a.fallback]]\nmodel = "b"',
            "pools.a.fallback 1: expected the `answer` as the last rung, got rungs below it",
        ),
        (
            '[providers.p]\nkind = "pydantic-ai"\n[[pools.a.fallback]]\nprovider = "p"\nmodel = "gpt"',
            'pools.a.fallback 1: expected "vendor:model" for a provider of kind "pydantic-ai"',
        ),
        (
            '[providers.p]\nkind = "openai"\n[limits."p/free"]\nusd_per_day = 1\n'
            '[[pools.a.fallback]]\nprovider = "p"\nmodel = "free"',
            'limits."p/free".usd_per_day: expected a price of the model, got none',
        ),
    ],
)
def test_a_wrong_rung_of_a_ladder_is_refused_in_words(file: Path, rungs: str, expected: str) -> None:
    file.write_text(f"[pools.a]\nbots = 1\n{rungs}\n")
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert expected in str(caught.value)


def test_a_ladder_s_rungs_have_limits_and_prices_of_their_own_and_what_is_not_said_is_the_pool_s(file: Path) -> None:
    file.write_text(
        '[providers.one]\nkind = "openai"\n[providers.two]\nkind = "openai"\napi_key_env = "OTHER"\n'
        '[limits."two/large"]\nrpm = 7\n[limits."one/small"]\nrpm = 9\n'
        '[pools.a]\nprovider = "one"\nmodel = "large"\n'
        '[[pools.a.fallback]]\nprovider = "two"\n[[pools.a.fallback]]\nmodel = "small"\nwhen = ["budget"]\n'
        '[[pools.a.fallback]]\nprovider = "simulator"\nmodel = "s"\n[[pools.a.fallback]]\nanswer = "later"\n'
        '[pools.b]\nprovider = "two"\nmodel = "large"\n'
    )
    settings = load()
    assert settings.calls_of("a") == (("one", "large"), ("two", "large"), ("one", "small"), ("simulator", "s"))
    assert {name: limit.rpm for name, limit in settings.limits_in_use.items()} == {
        "one/large": None, "two/large": 7, "one/small": 9, "simulator/s": settings.simulator.rpm,
    }  # fmt: skip
    assert list(settings.price_table) == ["simulator/s"]
    assert settings.simulated and not settings.is_simulated("a")


def test_the_models_of_a_pools_personas_have_limits_of_their_own_and_hold_the_pools_model(file: Path) -> None:
    pool = '[providers.one]\nkind = "openai"\n[limits."one/b"]\nrpm = 7\n[pools.a]\nprovider = "one"\nmodel = "a"\n'
    file.write_text(f'{pool}persona.models = ["b", "a", "c"]\n[[pools.a.fallback]]\nmodel = "d"\n')
    settings = load()
    assert settings.calls_of("a") == (("one", "a"), ("one", "d"), ("one", "b"), ("one", "c"))
    assert [settings.place_of("a", number) for number in range(4)] == ["", "fallback 1", *["persona.models"] * 2]
    assert settings.limit_of("a", "b")[1].rpm == 7 and len(settings.limits_in_use) == 4
    for models in ('["b"]', '["a", "b", "b"]'):
        file.write_text(f"{pool}persona.models = {models}\n")
        with pytest.raises(ConfigurationError, match=r"persona\.models: expected different ones"):
            load()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('[budgets."pools:a"]\nusd_per_day = 1', "got 'pools:a'; the nearest known one is `pool`"),
        ('[budgets."pool:b"]\nusd_per_day = 1', "expected a pool that there is, got 'b'"),
        ('[budgets."bot:b-001"]\nusd_per_day = 1', "expected a bot of a pool that there is (such as a-001)"),
        ('[budgets."run:x"]\nusd_per_day = 1', "expected a scope of fleet, pool:NAME, tenant:NAME, tenant:*, bot:NAME"),
        ('[budgets."pool:*"]\nusd_per_day = 1', "expected a scope of fleet"),
        ('[budgets."tenant:"]\nusd_per_day = 1', "expected a scope of fleet"),
        ("[budgets.fleet]\nusd_a_day = 1", "budgets.fleet.usd_a_day: unknown key, the nearest known one is"),
        ("[budgets.fleet]\nwhen_full = 'wait'", "expected at least one of usd_per_hour, usd_per_day, usd_per_month"),
        ("[budgets.fleet]\nusd_per_day = -1", "budgets.fleet.usd_per_day"),
        ("[budgets.fleet]\nusd_per_day = inf", "budgets.fleet.usd_per_day"),
        ("[budgets.fleet]\nusd_per_day = 1\nwhen_full = 'stop'", "budgets.fleet.when_full"),
    ],
)
def test_a_budget_that_is_none_is_refused_with_the_right_spelling(file: Path, table: str, told: str) -> None:
    file.write_text(f"[pools.a]\n{table}\n")
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        load()


def test_a_pool_whose_tasks_may_cost_so_much_wants_a_price_of_its_models(file: Path) -> None:
    file.write_text("[pools.a]\nmax_cost_usd = 0.5\n")
    assert load().pools["a"].max_cost_usd == 0.5
    file.write_text('[providers.o]\nkind = "openai"\n[pools.a]\nprovider = "o"\nmodel = "m"\nmax_cost_usd = 0.5\n')
    with pytest.raises(
        ConfigurationError, match=r"pools.a.max_cost_usd: expected a price of the model, got none for o/m"
    ):
        load()


@pytest.mark.parametrize(
    "line",
    ["max_rounds = 1", "max_turns = 0", "max_tool_calls = -1", "max_tool_calls_per_turn = 0.5", "max_cost_usd = inf"],
)
def test_a_cap_that_caps_nothing_or_all_is_refused(file: Path, line: str) -> None:
    file.write_text(f"[pools.a]\n{line}\n")
    with pytest.raises(ConfigurationError, match=f"pools.a.{line.split()[0]}"):
        load()


def test_a_budget_wants_a_price_of_every_model_that_it_counts(file: Path) -> None:
    pools = '[providers.o]\nkind = "openai"\n[pools.a]\nprovider = "o"\nmodel = "m"\n[pools.b]\n'
    file.write_text(f'{pools}[budgets."pool:b"]\nusd_per_day = 1\n')
    assert load().budgets["pool:b"].allowed == (None, 1.0, None, None)
    for scope in ("fleet", "pool:a", "tenant:*", "tenant:ann", "bot:*", "bot:a-001"):
        file.write_text(f'{pools}[budgets."{scope}"]\nusd_in_all = 1\n')
        with pytest.raises(ConfigurationError, match=re.escape(f'budgets."{scope}": expected a price of the model')):
            load()
