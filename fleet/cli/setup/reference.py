"""The settings as text: the commented fleet.toml of `fleet init` and docs/configuration.md.

Both are walked out of the models in `fleet.config`, so they name every key there is. No I/O.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue, SecretStr
from pydantic.fields import FieldInfo

from fleet.config import CONFIG_NAME, DEFAULT_POOLS, PLACE_VARIABLES, Settings

#: What a table with free names is called in the examples. A `/` cannot stand in the name of a variable.
EXAMPLE_NAMES = {
    "providers": "openai",
    "limits": "openai/gpt-6-luna",
    "budgets": "fleet",
    "tenants": "acme",
    "prices": "openai/gpt-6-luna",
    "pools": "research",
    "tools": "search",
    "schedules": "morning",
    "kinds": "classify",
    "networks": "bsc-test",
    "payees": "alice",
}
#: Examples for keys without a default, and where the default would not show what the key is for.
EXAMPLES: Mapping[tuple[str, str], Any] = {
    ("redis", "url"): "redis://:password@redis.example.com:6379/0",
    ("redis", "state_url"): "redis://:password@redis.example.com:6379/1",
    ("providers", "kind"): "openai",
    ("providers", "base_url"): "https://api.openai.com/v1",
    ("providers", "api_key_env"): "OPENAI_API_KEY",
    ("limits", "rpm"): 500,
    ("budgets", "usd_per_day"): 20.0,
    ("limits", "tpm"): 200_000,
    ("prices", "input_usd_per_mtok"): 0.1,
    ("prices", "output_usd_per_mtok"): 0.5,
    ("pools", "bots"): 30,
    ("pools", "provider"): "openai",
    ("pools", "model"): "gpt-6-luna",
    ("tools", "base_url"): "https://api.example.com/v1",
    ("tools", "api_key_env"): "SEARCH_API_KEY",
    ("tools", "key_header"): "X-Api-Key",
    ("tools", "rpm"): 60,
    ("tools", "usd_per_call"): 0.005,
    ("schedules", "cron"): "0 7 * * mon-fri",
    ("schedules", "timezone"): "Europe/Berlin",
    ("schedules", "task"): {"prompt": "What happened overnight?", "pool": "research"},
    ("fallback", "model"): "gpt-4.1-mini",
    ("worker", "slots"): 60,
    ("payouts", "threshold"): "10",
    ("earn", "price"): "0.01",
    ("networks", "url"): "http://127.0.0.1:8545",
    ("networks", "token"): "0x" + "11" * 20,
    ("networks", "payer"): "0x" + "22" * 20,
    ("networks", "native_price"): "600",
    ("payees", "bots"): ("research-*",),
    ("payees", "network"): "bsc-test",
    ("payees", "address"): "0x" + "33" * 20,
}
PLACES = {
    "FLEET_CONFIG": f"Path of the {CONFIG_NAME} to use, instead of the nearest one in or above the working directory.",
    "FLEET_HOME": f"State folder (embedded Redis, generated passwords), instead of `.fleet` beside {CONFIG_NAME}.",
    "FLEET_DATA_DIR": "Folder of the data sets that tests and benchmarks read.",
    "FLEET_DELEGATION": "Delegation that tasks are signed by here, or the path of its file (docs/keys.md).",
}
DEFAULT_BOTS = sum(pool.bots for pool in DEFAULT_POOLS.values())
#: What the docstring of a table's model does not say.
NOTES = {
    "pools": "If you name no pool, there are these: "
    + ", ".join(f"{name} ({pool.bots} bots)" for name, pool in DEFAULT_POOLS.items())
    + ". Naming one replaces them all. Bots that run your agent: `agent` or `function` (docs/agents.md).",
}
HEAD = f"""\
# Settings of Fleet. Every key is listed with its default, commented out: to change a key, remove the `#` in front
# of it and in front of the [table] above it. A value that is only an example is marked as one.
# FLEET_* variables win over this file: FLEET_REDIS__URL sets `url` in [redis].
# `fleet doctor` checks what can lose tasks or money. An unknown key is an error that names a near one, or lists all.
# With nothing set, Fleet runs its own Redis and the local simulator answers: {DEFAULT_BOTS} bots, no keys, no costs.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table: how it is written, what it takes, what it is for."""

    name: str
    type: str
    default: str
    example: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table of fleet.toml. `path` ends in an example name where names are free; `repeated`: several may be."""

    path: tuple[str, ...]
    named: bool
    about: str
    keys: tuple[Key, ...]
    repeated: bool = False

    @property
    def header(self) -> str:
        """The table's header as TOML, with the example name."""
        return self._in_brackets(part if _BARE.fullmatch(part) else json.dumps(part) for part in self.path)

    def _in_brackets(self, path: Iterable[str]) -> str:
        return f"[[{'.'.join(path)}]]" if self.repeated else f"[{'.'.join(path)}]"

    @property
    def title(self) -> str:
        """The table's header as documentation: free names are NAME or "provider/model"."""
        if not self.named:
            return self.header
        free = '"provider/model"' if "/" in self.path[1] else "NAME"
        return self._in_brackets((self.path[0], free, *self.path[2:]))

    def variable(self, key: Key) -> str:
        """Name of the FLEET_* variable that sets `key`."""
        if self.named and "/" in self.path[1]:
            return f"FLEET_{self.path[0].upper()} (whole table, JSON)"
        path = (self.path[0], "NAME", *self.path[2:]) if self.named else self.path
        if self.repeated:
            return f"{'__'.join(('FLEET_' + path[0], *path[1:])).upper()} (whole list, JSON)"
        return "__".join(("FLEET_" + path[0], *path[1:], key.name)).upper()


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def tables() -> Iterator[Table]:
    """Yield every table of the settings, in the order of the model."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _tables_of(field.annotation, (name,), named=False)
        else:
            model = typing.get_args(field.annotation)[1]
            yield from _tables_of(model, (name, EXAMPLE_NAMES.get(name, "NAME")), named=True)


def _tables_of(
    model: type[BaseModel], path: tuple[str, ...], *, named: bool, repeated: bool = False
) -> Iterator[Table]:
    nested = {n: found for n, f in model.model_fields.items() if (found := _model_in(f.annotation)) is not None}
    lists = {n: typing.get_args(f.annotation)[0] for n, f in model.model_fields.items() if _is_list(f.annotation)}
    group = path[-1] if repeated else path[0]
    keys = tuple(_key(group, n, f) for n, f in model.model_fields.items() if n not in nested | lists)
    note = NOTES.get(path[0]) if len(path) <= 2 else None
    if keys:  # of some only those within it have any
        yield Table(path, named, "\n".join(filter(None, (inspect.getdoc(model), note))), keys, repeated)
    for name, inner in (nested | lists).items():
        yield from _tables_of(typing.cast(type[BaseModel], inner), (*path, name), named=named, repeated=name in lists)


def _is_list(annotation: object) -> bool:
    """True for a list of tables."""
    return typing.get_origin(annotation) is tuple and _is_model(typing.get_args(annotation)[0])


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model_in(annotation: object) -> object | None:
    """Return the model of a table, also of one that may be absent; None: it is none."""
    args = typing.get_args(annotation) if typing.get_origin(annotation) in (types.UnionType, typing.Union) else ()
    one, *others = [arg for arg in args if arg is not type(None)] or [annotation]
    return one if _is_model(one) and not others else None


def _key(group: str, name: str, field: FieldInfo) -> Key:
    default = field.get_default(call_default_factory=True)
    example = EXAMPLES.get((group, name))
    return Key(
        name=name,
        type=type_text(field.annotation),
        default="required" if field.is_required() else "" if default is None else toml(default),
        example=None if example is None else toml(example),
        description=field.description or "",
    )


def type_text(annotation: object) -> str:
    """Return a type as a reader of TOML would say it: `integer`, `list of number`, `"a" or "b"`."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_text(arg) for arg in args if arg is not type(None))
    if origin is typing.Annotated:
        return type_text(args[0])
    if origin is typing.Literal:
        return ", ".join(toml(arg) for arg in args)
    if origin in (tuple, list):
        return f"list of {type_text(args[0])}"
    if origin is dict:
        return f"table of {type_text(args[1])}"
    if annotation is JsonValue:
        return "any value"
    if _is_model(annotation):
        return "such tables"
    names = {str: "string", Path: "string", SecretStr: "string", int: "integer", float: "number", bool: "true, false"}
    return names[typing.cast(type, annotation)]


def toml(value: object) -> str:
    """Return a default as a TOML value."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{k} = {toml(v)}' for k, v in value.items())} }}" if value else "{}"
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value), ensure_ascii=False)


def config_text() -> str:
    """Return a fleet.toml in which every key stands, commented out.

    Lines of prose begin with `# `, lines that can be switched on with `#` alone.
    """
    return HEAD + "".join(_config_table(table) for table in tables())


def _config_table(table: Table) -> str:
    lines = ["", f"# ---- {table.title} {'-' * max(3, 100 - len(table.title))}", *_prose(table.about)]
    is_instead = any(key.default == "required" and key.example is None for key in table.keys)
    lines.append(
        f"# {table.header}" if is_instead else f"#{table.header}"
    )  # of other keys: not switched on beside them
    for key in table.keys:
        lines += _config_key(key)
    return "\n".join(lines) + "\n"


def _config_key(key: Key) -> list[str]:
    about = f"{key.description} ({key.type})" if "," in key.type else key.description
    if key.example is None and key.default in ("", "required"):
        return [*_prose(about), f"# {key.name} = ({key.default or 'not set'})"]
    if key.example is None:
        return [*_prose(about), f"#{key.name} = {key.default}"]
    note = {"required": "Required; an example:", "": "Not set; an example:"}.get(
        key.default, f"Default {key.default}; an example:"
    )
    return [*_prose(f"{about} {note}"), f"#{key.name} = {key.example}"]


def _prose(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in text.splitlines()]


def reference_text() -> str:
    """Return docs/configuration.md."""
    places = "\n".join(f"| `{name}` | {PLACES[name]} |" for name in PLACE_VARIABLES)
    return f"""\
# Configuration

Generated by `python docs/generate.py` from the settings in `fleet/config/`; do not edit.

Settings come from `{CONFIG_NAME}` in the working directory or the nearest folder above it, and from `FLEET_*`
variables, which win. `fleet init` writes a commented `{CONFIG_NAME}`, `fleet doctor` says what is unsafe. An unknown
key is an error that names a near one, or lists all. A variable that holds a list or a table is JSON. `NAME` in a
variable is the name in upper or lower case; names with capitals can only be set in the file.

| variable | what it sets |
| --- | --- |
{places}
{"".join(_reference_table(table) for table in tables())}"""


def _reference_table(table: Table) -> str:
    rows = "".join(
        f"| `{key.name}` | {_cell(key.type)} | {_default_cell(key)} | {_cell(key.description)} "
        f"| `{table.variable(key)}` |\n"
        for key in table.keys
    )
    return f"""
## `{table.title}`

{table.about}

| key | type | default | what it is | variable |
| --- | --- | --- | --- | --- |
{rows}"""


def _default_cell(key: Key) -> str:
    if key.default in ("", "required"):
        return key.default or "not set"
    return f"`{_cell(key.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
