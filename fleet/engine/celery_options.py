"""What the `celery` command was told on its command line, and what of it Fleet cannot obey.

`-b` and `--result-backend` hold for one process, and a fleet needs one Redis in all of them: they may repeat what
Fleet's settings say, and are refused when they say something else. `fleet.toml` and FLEET_* variables hold for all.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import NoReturn

import psutil

from fleet.config import BROKER_VARIABLE, RESULT_VARIABLE, Settings, home_path
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import quote
from fleet.store.address import Address, masked
from fleet.store.private.embedded import broker_url, redis_lives, state_url

#: Options of `celery` itself, before its subcommand, whose value is a word of its own.
VALUED = frozenset(("-A", "--app", "-b", "--broker", "--result-backend", "--loader", "--config", "--workdir"))


@dataclass(frozen=True, slots=True)
class Option:
    """An address that `celery` takes as an option, or by a variable of its own, and hands on by another one."""

    names: tuple[str, ...]
    variables: tuple[str, ...]
    handed_on_by: str
    setting: str


BROKER = Option(("-b", "--broker"), ("BROKER_URL", "CELERY_BROKER"), BROKER_VARIABLE, "redis.url (FLEET_REDIS__URL)")
RESULTS = Option(
    ("--result-backend",), ("RESULT_BACKEND",), RESULT_VARIABLE, "redis.state_url (FLEET_REDIS__STATE_URL)"
)
#: How `celery` hands on a configuration that Fleet would not read: option -> variable.
_CONFIGURATIONS = {"--config": "CELERY_CONFIG_MODULE", "--loader": "CELERY_LOADER"}

#: Addresses that this command was given: option or variable -> URL.
_given: dict[Option, tuple[str, str]] = {}


def celery_command() -> str | None:
    """Return what follows `celery` or `python -m celery` on this process's command line: `worker`, `flower`, ...

    Empty without a subcommand, None for any other program.
    """
    words = _words()
    if words is None:
        return None
    given = iter(words)
    for word in given:
        if word in VALUED:
            next(given, None)
        elif not word.startswith("-"):
            return word
    return ""


def take_options() -> None:
    """Note the addresses among this `celery` command's options, and take them out of the environment again.

    Celery puts them there before it loads an app. Left there they would pass for everybody's.
    """
    if celery_command() is None:
        return
    try:
        refuse_foreign_config()
    except ConfigurationError as error:
        give_up(error)
    for option in (BROKER, RESULTS):
        if named := option_value(*option.names) or _variable(*option.variables):
            _given[option] = named
            _restore(option.handed_on_by)


def refuse_other_addresses(settings: Settings) -> None:
    """Refuse an option that names another Redis than all of Fleet has.

    Raises:
        ConfigurationError: Naming the option and the setting to use in its place.
    """
    for option, (name, url) in _given.items():
        ours = _ours(option, settings)
        if ours is None or not _is_same(url, ours):
            found = "a private Redis of its own" if ours is None else repr(masked(ours))
            raise ConfigurationError(
                f"{name}: expected the Redis that all of Fleet has, {found}, got {masked(url)!r}; an option reaches no "
                f"producer: set {option.setting} instead, for workers and producers alike"
            )


def refuse_foreign_config() -> None:
    """Refuse a configuration module or a loader of Celery's: Fleet would read neither.

    Raises:
        ConfigurationError: Naming the option.
    """
    for option, variable in _CONFIGURATIONS.items():
        if given := option_value(option) or _variable(variable):
            raise ConfigurationError(
                f"{given[0]}: expected no Celery configuration beside Fleet's own, got {quote(given[1])}; put what it "
                "says into fleet.toml, and Celery settings of your own tasks into their module (-I MODULE)"
            )


def give_up(error: FleetError) -> NoReturn:
    """End a `celery` command as `fleet` commands end: one line, exit code 2."""
    print(f"fleet: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def option_value(*names: str) -> tuple[str, str] | None:
    """Return the last of these options before the subcommand, as it was spelled, and its value."""
    found, given = None, iter(_words() or [])
    for word in given:
        name, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if name in VALUED:
            value = value or next(given, "")
            found = (name, value) if name in names else found
        elif not word.startswith("-"):
            break
    return found


def _words() -> list[str] | None:
    """Return this process's command line behind `celery`; None for any other program."""
    program, *words = sys.argv
    return words if f"/{program}".endswith(("/celery", "/celery/__main__.py")) else None


def _variable(*names: str) -> tuple[str, str] | None:
    """Return the first of these variables that is set, and its value."""
    return next(((name, os.environ[name]) for name in names if os.environ.get(name)), None)


def _restore(variable: str) -> None:
    """Give a variable back the value that this process was started with."""
    try:
        before = psutil.Process().environ().get(variable)
    except psutil.Error:
        before = None
    os.environ.pop(variable, None)
    if before:
        os.environ[variable] = before


def _ours(option: Option, settings: Settings) -> str | None:
    """Return the URL in force without starting anything; None: a private Redis that does not run yet."""
    if settings.redis.url is None and not redis_lives(home_path()):
        state = settings.redis.state_url
        return state.get_secret_value() if option is RESULTS and state else None
    return broker_url(settings) if option is BROKER else state_url(settings)


def _is_same(given: str, ours: str) -> bool:
    try:
        return Address.parse(given).is_same_place(Address.parse(ours))
    except ConfigurationError:
        return False
