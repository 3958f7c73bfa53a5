"""FLEET_* variables: one that is no setting is refused, and told the nearest that is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from pydantic import BaseModel

from fleet.errors import ConfigurationError
from fleet.quoting import nearest


def check_variables(tables: Collection[str], sections: Mapping[str, type[BaseModel]], places: Collection[str]) -> None:
    """Refuse FLEET_* variables that are none.

    Args:
        tables: Names of all tables of fleet.toml.
        sections: Those of them that hold keys, and no tables with names of the user's.
        places: Variables that are not settings.

    Raises:
        ConfigurationError: Naming the nearest known one.
    """
    known = {f"FLEET_{name.upper()}" for name in tables} | set(places)
    for name in os.environ:
        if name.startswith("FLEET_") and name.split("__")[0] not in known:
            raise ConfigurationError(f"{name}: unknown variable, {_nearest_variable(name, known, sections)}")


def _nearest_variable(name: str, known: set[str], sections: Mapping[str, type[BaseModel]]) -> str:
    """Return what to say after an unknown variable; `FLEET_REDIS_URL` lacks an underscore before its key."""
    for section in sections:
        head = f"FLEET_{section.upper()}"
        if name.startswith(f"{head}_"):
            keys = {f"{head}__{key.upper()}" for key in sections[section].model_fields}
            return nearest(f"{head}__{name.removeprefix(head).lstrip('_')}", keys, prefix=f"{head}__")
    return nearest(name, known, prefix="FLEET_")
