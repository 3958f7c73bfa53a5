"""Every command has `--json`, the levers too: a script reads what it has done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.roster import Roster
from fleet.store.client import Store

#: Commands that run until they are ended, are looked at, or write a file: nothing of theirs is a row.
WITHOUT = {"demo", "up", "down", "top", "alerts watch", "simulator", "init"}


def commands(command: click.Command, path: tuple[str, ...], context: click.Context) -> Iterator[tuple[str, set[str]]]:
    """Yield each command with its options."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*path, name), context)
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(path), {option for one in command.params for option in one.opts}


def test_every_command_prints_json_but_those_that_run_or_draw() -> None:
    found = dict(commands(main, (), click.Context(main)))
    assert {name for name, options in found.items() if name and "--json" not in options} == WITHOUT


def done(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*words, "--json"], prog_name="fleet", catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


async def seeded(url: str) -> None:
    """Let the bots be known, as a worker does."""
    store = Store(url)
    try:
        await Roster(store, config.current()).seed()
    finally:
        await store.close()


def test_levers_of_schedules_tell_as_json_what_they_have_done(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text('[schedules.nightly]\ncron = "0 3 * * *"\ntask = { prompt = "x" }\n')
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    (task_id,) = done("schedules", "run", "nightly")["task_ids"]
    assert len(task_id) == 36
    assert done("schedules", "pause", "nightly") == {"schedule": "nightly", "paused_until": None}
    assert done("schedules", "resume", "nightly") == {"schedule": "nightly", "was_paused": True}
    config.current.cache_clear()


def test_levers_tell_as_json_what_they_have_done(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    asyncio.run(seeded(redis_url))
    limit = "simulator/simulated-1/default"
    assert done("pools", "pause", "research", "--for", "10m") == {
        "pools": [{"pool": "research", "gate": "closed, for 10 min", "lowest": -1, "left_s": 600.0}]
    }
    assert done("pools", "resume", "research", "review")["pools"] == [
        {"pool": "research", "was_paused": True}, {"pool": "review", "was_paused": False},
    ]  # fmt: skip
    assert done("bots", "quarantine", "research-001") == {"bots": [{"bot": "research-001", "is_new": True}]}
    assert done("bots", "release", "research-001", "research-002")["bots"] == [
        {"bot": "research-001", "was_quarantined": True}, {"bot": "research-002", "was_quarantined": False},
    ]  # fmt: skip
    done("bots", "quarantine", "research-003")
    assert done("bots", "release", "--pool", "research") == {"bots": [{"bot": "research-003", "was_quarantined": True}]}
    assert done("limits", "set", limit, "--rpm", "80") == {"limit": limit, "is_reset": False, "set": {"rpm": 80}}
    assert done("limits", "release", limit) == {"limit": limit, "is_held": False}
    assert done("limits", "set", limit, "--reset") == {"limit": limit, "is_reset": True}
    assert done("lessons", "forget", "simulator/simulated-1") == {"api": "simulator/simulated-1", "forgot": []}
