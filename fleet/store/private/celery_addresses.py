"""Celery's own variables that say where Redis is, held against Fleet's settings.

`fleet.config` adopts them where Fleet's own say nothing, so that all of Fleet obeys them. Those that contradict are
refused here: a worker on one Redis and its results on another would be paid for and thrown away (celery/celery#4284).
"""

from __future__ import annotations

import os

from pydantic import SecretStr

from fleet.config import BROKER_VARIABLE, RESULT_VARIABLE, Settings
from fleet.errors import ConfigurationError
from fleet.store.address import Address, masked

#: Celery's variables for the broker: the first is adopted, the others split reading from writing.
_BROKER_VARIABLES = (BROKER_VARIABLE, "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")


def origin_of(variable: str, settings: Settings) -> str:
    """Return the name under which an address was given: Celery's variable if it was adopted, else Fleet's setting."""
    setting, url = _setting_of(variable, settings)
    adopted = url is not None and os.environ.get(variable) == url.get_secret_value()
    return variable if adopted else setting


def check_broker_variables(settings: Settings) -> None:
    """Refuse a variable of Celery's that names another broker than Fleet has.

    Raises:
        ConfigurationError: Naming the variable, without passwords.
    """
    for variable in _BROKER_VARIABLES:
        _check(variable, settings)


def check_result_variable(settings: Settings) -> None:
    """Refuse a `CELERY_RESULT_BACKEND` that names another Redis than Fleet's state has; raises like the other."""
    _check(RESULT_VARIABLE, settings)


def is_one_place(settings: Settings) -> bool:
    """True when `redis.state_url` names the broker's database once more, perhaps in another spelling."""
    url, state_url = settings.redis.url, settings.redis.state_url
    return url is not None and state_url is not None and _is_same(url, state_url.get_secret_value())


def _check(variable: str, settings: Settings) -> None:
    given = os.environ.get(variable)
    if not given:
        return
    setting, url = _setting_of(variable, settings)
    if url is None:
        raise ConfigurationError(
            f"{variable}: expected {BROKER_VARIABLE} or redis.url beside it, got {masked(given)!r} alone; "
            "set redis.url, or FLEET_REDIS__URL, which all of Fleet obeys"
        )
    if not _is_same(url, given):
        name = origin_of(BROKER_VARIABLE, settings) if setting == "redis.url" else setting
        raise ConfigurationError(
            f"{variable}: expected the Redis of {name}, {masked(url.get_secret_value())!r}, got {masked(given)!r}; "
            f"unset {variable}, or name one Redis in both"
        )


def _is_same(url: SecretStr, given: str) -> bool:
    if given == url.get_secret_value():
        return True
    try:
        return Address.parse(given).is_same_place(Address.parse(url.get_secret_value()))
    except ConfigurationError:  # RabbitMQ, a data base: certainly another place
        return False


def _setting_of(variable: str, settings: Settings) -> tuple[str, SecretStr | None]:
    if variable == RESULT_VARIABLE and settings.redis.state_url is not None:
        return "redis.state_url", settings.redis.state_url
    return "redis.url", settings.redis.url
