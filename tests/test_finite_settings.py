"""No setting takes a number that is infinite, or none at all: `inf` seconds are no bound of a wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from fleet.config import Settings, load
from fleet.errors import ConfigurationError


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _tables(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    seen.add(model)
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                _tables(part, seen)
    return seen


FLOATS = sorted(
    ((table, name) for table in _tables(Settings, set()) for name, field in table.model_fields.items()
     if float in _parts(field.annotation)),
    key=lambda one: (one[0].__name__, one[1]),
)  # fmt: skip


def test_the_settings_of_all_tables_are_looked_at() -> None:
    assert len(FLOATS) >= 60
    tables = {table.__name__ for table, _ in FLOATS}
    assert {"WorkerSettings", "ScopeSettings", "KindSettings", "PersonaSettings", "PayoutSettings"} <= tables


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_no_setting_takes_a_number_without_end(number: str) -> None:
    taken = [
        f"{table.__name__}.{name} = {value}"
        for table, name in FLOATS
        for one in (float(number), number)  # as TOML has it, and as a variable has it
        for value in (one, [one], [one, one], {"a": one})
        if _takes(table, name, value)
    ]
    assert taken == []


def _takes(table: type[BaseModel], name: str, value: Any) -> bool:
    try:
        _alone(table, name).model_validate({table.model_fields[name].alias or name: value})
    except ValidationError:
        return False
    return True


@cache
def _alone(table: type[BaseModel], name: str) -> type[BaseModel]:
    """Return a table of this setting only: what the table checks besides says nothing of it."""
    field = table.model_fields[name]
    finite = ConfigDict(allow_inf_nan=table.model_config.get("allow_inf_nan", True))
    model: type[BaseModel] = create_model("Alone", __config__=finite, **{name: (field.annotation, field)})  # type: ignore[call-overload]
    return model


def test_it_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fleet.toml"
    file.write_text("[redis]\nsocket_timeout_s = inf\n")
    monkeypatch.setenv("FLEET_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match=re.escape("redis.socket_timeout_s: input should be a finite number")):
        load()
