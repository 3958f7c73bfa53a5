"""`fleet schedules`: what is submitted by the clock, told, paused, and run by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.schedules import ScheduleBook
from fleet.store import keys
from fleet.store.client import connect
from tests.every import every

TOML = '[schedules.news]\ncron = "0 7 * * *"\ntimezone = "Europe/Berlin"\ntask = { prompt = "secret words" }\n'


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")


@pytest.fixture(autouse=True)
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    (tmp_path / "fleet.toml").write_text(TOML)
    config.current.cache_clear()
    with connect(redis_url, timeout_s=5) as one:
        yield one


def deeds(client: redis.Redis) -> list[dict[str, str]]:
    """Return the events, the first one first."""
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(keys.events())]


def test_schedules_are_listed_and_shown_with_their_next_times_and_that_no_beat_looks(client: redis.Redis) -> None:
    told = json.loads(fleet("schedules", "list", "--json").stdout)
    (row,) = told["schedules"]
    assert (row["name"], row["rule"], row["state"]) == ("news", "0 7 * * * (Europe/Berlin)", "not seen by a beat yet")
    assert len(row["next"]) == 5 and told["trouble"].startswith("no beat submits the tasks of 1 schedule")
    assert "no beat submits" in fleet("schedules").stderr
    assert "missed times: once" in fleet("schedules", "show", "news").stdout
    unknown = fleet("schedules", "show", "new")
    assert unknown.exit_code == 2 and "the nearest known one is `news`" in unknown.stderr


def test_a_pause_a_resumption_and_a_run_by_hand_are_done_and_told(client: redis.Redis) -> None:
    assert fleet("schedules", "pause", "news").exit_code == 0
    told = json.loads(fleet("schedules", "show", "news", "--json").stdout)
    assert (told["paused_until"], told["next"]) == ("resumed", []) and "paused by" in told["state"]
    assert fleet("schedules", "resume", "news").exit_code == 0
    assert fleet("schedules", "resume", "news").exit_code == 0
    assert not ScheduleBook(client).resume("news")
    assert len(fleet("schedules", "run", "news").stdout.split()) == 1
    found = deeds(client)
    assert [one["event"] for one in found] == ["schedule_paused", "schedule_resumed", "schedule_run"]
    assert every(one["schedule"] == "news" and one["by"] and one["host"] for one in found)
    assert "secret" not in str(found)
