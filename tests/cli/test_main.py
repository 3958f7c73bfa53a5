"""The `fleet` command as a shell sees it: help that is light, errors that are one line, documented exit codes."""

from __future__ import annotations

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fleet import config, errors
from fleet.cli import main as cli
from fleet.cli.finite import FiniteRange
from fleet.store.private.embedded import ensure_redis, stop_redis

HEAVY = ("rich", "redis", "celery", "kombu", "pydantic", "aiohttp", "asyncio", "flower", "tornado")


def fleet(*args: str) -> Result:
    return CliRunner().invoke(cli.main, args, prog_name="fleet")


def a_command_that(raises: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise raises

    monkeypatch.setattr(cli, "COMMANDS", {"failing": ("tests.cli.test_main", "failing", "")})
    monkeypatch.setattr("tests.cli.test_main.failing", failing, raising=False)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\nfrom fleet.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr))
    assert loaded.isdisjoint(HEAVY)
    assert len(loaded) < 300
    assert "Commands:" in done.stdout


def test_help_lists_every_command_with_one_line() -> None:
    text = " ".join(fleet("--help").stdout.split())
    for name, (_, _, line) in cli.COMMANDS.items():
        assert f"{name} {line}" in text


@pytest.mark.parametrize("args", [(), ("dead",)])
def test_a_group_without_arguments_shows_its_whole_help(args: tuple[str, ...]) -> None:
    done = fleet(*args)
    assert done.exit_code in (0, 2)  # click before 8.2: 0
    assert done.output.strip() == fleet(*args, "--help").stdout.strip()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_exists_and_says_of_itself_what_the_table_says(name: str) -> None:
    module, attribute, line = cli.COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    assert command.name == name
    assert " ".join(command.help.split("\n\n")[0].split()) == line


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("run", "-", "--dry-run", "--max-usd", "nan"), "--max-usd: expected a finite number, got 'nan'"),
        (("run", "-", "-o", "x", "--max-usd", "inf"), "--max-usd: expected a number x with"),
        (("submit", "x", "--max-usd", "inf"), "--max-usd: expected a finite number, got 'inf'"),
        (("submit", "x", "--timeout", "NaN"), "--timeout: expected a finite number, got 'NaN'"),
        (("submit", "x", "--expires", "nan"), "--expires: expected an ISO 8601 time or Unix seconds, got 'nan'"),
        (("budgets", "set", "fleet", "--usd-per-day", "nan"), "--usd-per-day: expected a finite number, got 'nan'"),
    ],
)
def test_nan_and_infinity_are_no_numbers(args: tuple[str, ...], told: str) -> None:
    done = fleet(*args)
    assert done.exit_code == 2, done.output
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", sorted(cli.COMMANDS.keys() - {"simulator"}))  # whose settings refuse them
def test_no_option_takes_numbers_that_are_none(name: str) -> None:
    module, attribute, _ = cli.COMMANDS[name]
    commands: list[click.Command] = [getattr(importlib.import_module(module), attribute)]
    for command in commands:
        commands += command.commands.values() if isinstance(command, click.Group) else ()
        types = {parameter.name: parameter.type for parameter in command.params}
        floats = (click.FloatRange, click.types.FloatParamType)
        loose = [name for name, type in types.items() if isinstance(type, floats) and not isinstance(type, FiniteRange)]
        assert loose == [], f"{command.name}: expected FiniteRange"


def test_an_unknown_command_names_the_nearest_known_one() -> None:
    result = fleet("dmeo")
    assert result.exit_code == 2
    assert "the nearest known one is `demo`" in result.stderr


def test_a_configuration_error_is_one_line_and_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    a_command_that(errors.ConfigurationError("redis.url: expected a URL, got 'x'"), monkeypatch)
    result = fleet("failing")
    assert result.exit_code == 2
    assert result.stderr == "fleet: redis.url: expected a URL, got 'x'\n"


def test_a_failure_is_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    a_command_that(errors.StoreUnavailable("Redis did not answer"), monkeypatch)
    result = fleet("failing")
    assert (result.exit_code, result.stderr) == (1, "fleet: Redis did not answer\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_exit_code_130(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    a_command_that(error, monkeypatch)
    result = fleet("failing")
    assert (result.exit_code, result.stderr) == (130, "fleet: interrupted\n")


def test_after_an_interrupt_it_is_said_once_that_a_private_redis_runs_on(
    fleet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_redis(fleet_home, config.load().redis.server)
    a_command_that(KeyboardInterrupt(), monkeypatch)
    told = "fleet: a private Redis runs on; `fleet down` ends it\n"
    assert fleet("failing").stderr == f"{told}fleet: interrupted\n"
    assert fleet("failing").stderr == "fleet: interrupted\n"
    ensure_redis(fleet_home, config.load().redis.server)
    a_command_that(click.exceptions.Exit(130), monkeypatch)
    assert fleet("failing").stderr == told
    ensure_redis(fleet_home, config.load().redis.server)
    stop_redis(fleet_home)
    assert fleet("failing").stderr == ""


def test_a_disk_or_a_right_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    a_command_that(OSError(errno.ENOSPC, "No space left on device", "out.jsonl"), monkeypatch)
    result = fleet("failing")
    assert result.exit_code == 1
    assert result.stderr == "fleet: expected to read and write out.jsonl, got: No space left on device\n"


def test_an_unexpected_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    a_command_that(ZeroDivisionError(), monkeypatch)
    assert isinstance(fleet("failing").exception, ZeroDivisionError)


def test_home_and_config_reach_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_CONFIG", "")  # put back afterwards
    seen: dict[str, object] = {}

    @click.command()
    def looking() -> None:
        from fleet.config import config_path, home_path

        seen.update(home=home_path(), config=config_path())

    monkeypatch.setattr(cli, "COMMANDS", {"looking": ("tests.cli.test_main", "looking", "")})
    monkeypatch.setattr("tests.cli.test_main.looking", looking, raising=False)
    file = tmp_path / "other.toml"
    file.touch()
    result = fleet("--home", str(tmp_path / "state"), "--config", str(file), "looking")
    assert result.exit_code == 0, result.stderr
    assert seen == {"home": tmp_path / "state", "config": file}


def test_a_config_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    result = fleet("--config", str(tmp_path / "none.toml"), "doctor")
    assert result.exit_code == 2
    assert "none.toml" in result.stderr
