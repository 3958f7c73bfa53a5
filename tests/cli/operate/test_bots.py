"""`fleet bots` as a shell sees it: lists, opens, quarantines and releases."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.cli.operator import operator_name
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.models import BotResult, TaskError
from fleet.roster import Roster, row_of
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.usage import Usage


def fleet(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="fleet")


async def _work(url: str) -> None:
    store = Store(url)
    try:
        settings = config.current()
        roster, completion = Roster(store, settings), Finisher(store, settings)
        await roster.seed()
        for number in range(3):
            checkout = await roster.check_out("research", task_id=f"t{number}", token=f"k{number}")
            assert checkout
            error = TaskError(type="BadAnswer", message="no", blame="bot") if number == 2 else None
            result = BotResult(
                task_id=f"t{number}", status="failed" if error else "ok", error=error, bot=checkout.bot,
                pool="research", provider="simulator", model="simulated-1", served_by="call", attempts=1,
                usage=Usage(input_tokens=10, output_tokens=5), cost_usd_micros=7, ran_ms=1500, finished_at=time.time(),
            )  # fmt: skip
            await completion.finish(Finish(result, checkout=checkout))
    finally:
        await store.close()


@pytest.fixture(autouse=True)
def worked(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bots of the default pools have done a task each, the third one badly."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    asyncio.run(_work(redis_url))


def test_bots_are_listed_sorted_and_filtered() -> None:
    lines = fleet("bots", "--pool", "research", "--sort", "failed", "--limit", "2").stdout.splitlines()
    assert lines[0].split() == [
        "BOT",
        "STATE",
        "IN",
        "HAND",
        "LAST",
        "HOUR",
        "DONE",
        "FAILED",
        "FAILED",
        "CALLS",
        "MEAN",
        "COST",
    ]
    assert lines[1].split()[:2] == ["research-003", "idle"]
    assert lines[1].endswith("1.5 s  $0.0000")
    assert lines[-1] == "and 28 more: --limit"
    found = json.loads(fleet("bots", "--find", "ing-00", "--json").stdout)
    assert (found["total"], found["bots"][0]["name"]) == (9, "writing-001")


def test_a_bot_is_opened() -> None:
    text = fleet("bots", "show", "research-003").stdout
    assert text.startswith("research-003: idle, pool research, simulator/simulated-1\npersona: conservative, ")
    assert "done: 1, 1 of them failed; 1 in the last hour; 0 in hand" in text
    assert "error: BadAnswer on simulator/simulated-1: 1 task, 0 calls" in text
    assert "task: t2 failed at " in text
    assert json.loads(fleet("bots", "show", "research-003", "--json").stdout)["tokens"] == 15


def test_what_the_health_tests_say_of_a_bot_is_told_in_lines(redis_url: str) -> None:
    client = connect(redis_url)
    client.setrange(keys.health("research"), row_of(4)[0], struct.pack("<3f4B2I", 4.5, 0, 0, 51, 0, 0, 2, 300, 0))
    client.zadd(keys.probation("research"), {"research-004": 12})
    text = fleet("bots", "show", "research-004").stdout
    assert "probation: 12 tasks to do well until it is fully back\n" in text
    assert "bad answers: 20% of its last tasks, evidence 4.5 of 4.6\n" in text
    assert "judged: 300 tasks; quarantined 2 times lately\n" in text
    (bot,) = json.loads(fleet("bots", "list", "--sort", "bad", "--limit", "1", "--json").stdout)["bots"]
    told = {
        name: bot[name] for name in ("name", "state", "evidence", "test", "bad_percent", "reason", "until", "alike")
    }
    assert told == {
        "name": "research-004", "state": "probation", "evidence": 4.5, "test": "bad answers", "bad_percent": 20,
        "reason": "bad answers: 20% of its last tasks", "until": None, "alike": False,
    }  # fmt: skip


def test_bots_are_quarantined_and_released() -> None:
    done = fleet("bots", "quarantine", "research-001", "research-002", "--reason", "odd", "--for", "10m")
    assert done.stderr == "fleet: research-001: quarantined\nfleet: research-002: quarantined\n"
    out = json.loads(fleet("bots", "--state", "quarantined", "--json").stdout)
    assert [(bot["name"], bot["reason"]) for bot in out["bots"]] == [("research-001", "odd"), ("research-002", "odd")]
    assert out["bots"][0]["until"] == pytest.approx(time.time() + 600, abs=60)
    listed = fleet("bots", "--sort", "evidence", "--limit", "2").stdout
    assert "AGAINST IT" in listed and re.search(r"research-001 +quarantined .* until [-\d: ]+ UTC, odd\n", listed)
    assert re.search(
        r"quarantined: since [-\d: ]+ UTC until [-\d: ]+ UTC, by \S+: odd\n",
        fleet("bots", "show", "research-001").stdout,
    )
    shown = json.loads(fleet("bots", "show", "research-001", "--json").stdout)["health"]
    assert shown["quarantine"]["until"] - shown["quarantine"]["since"] == pytest.approx(600, abs=1)
    assert "was quarantined" in fleet("bots", "quarantine", "research-001").stderr
    assert fleet("bots", "release", "research-001").stderr == "fleet: research-001: takes tasks again\n"
    assert fleet("bots", "release", "research-001").stderr == "fleet: research-001: was not quarantined\n"
    assert json.loads(fleet("bots", "--state", "quarantined", "--json").stdout)["total"] == 1
    assert fleet("bots", "release", "--pool", "research").stderr == "fleet: research: 1 bot takes tasks again\n"
    assert fleet("bots", "release", "--pool", "research").stderr == "fleet: research: no bot was quarantined\n"
    assert "expected BOT... or --pool POOL, got neither" in fleet("bots", "release").stderr
    assert "expected one of research" in fleet("bots", "release", "--pool", "reserch").stderr
    lines = fleet("events").stdout.splitlines()
    me = operator_name()
    by = f"by {me}, host {socket.gethostname()}"
    assert [line.partition("  ")[2] for line in lines] == [
        f"warning  bot_quarantined  bots research-001, research-002, pool research, reason odd, {by}",
        f"warning  bot_quarantined  bot research-001, pool research, reason no reason given, {by}",
        f"info     bot_released  bot research-001, pool research, {by}",
        f"info     bot_released  bot research-002, pool research, {by}",
    ]
    _, released = json.loads(fleet("events", "--by", me, "--name", "bot_released", "--json").stdout)["events"]
    assert (released["level"], released["fields"]["bot"]) == ("info", "research-001")
    assert fleet("events", "--by", "nobody").stdout == "no such event\n"
    assert "expected one of " in fleet("events", "--name", "bot_released!").stderr.replace("\n", " ")


def test_a_selection_with_one_wrong_name_takes_none_out() -> None:
    done = fleet("bots", "quarantine", "research-001", "research-999", "--reason", "odd")
    assert (done.exit_code, "'research-999'" in done.stderr) == (2, True)
    assert json.loads(fleet("bots", "--state", "quarantined", "--json").stdout)["total"] == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("bots", "show", "research-999"), "expected a bot of the configured pools"),
        (("bots", "quarantine", "nowhere-001"), "expected POOL-NUMBER with a pool of research, writing, review"),
        (("bots", "quarantine", "research-999"), "expected one that the workers of pool research know"),
        (("bots", "quarantine", "research-001", "--for", "soon"), "expected a time like 90s"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_code_2(args: tuple[str, ...], says: str) -> None:
    done = fleet(*args)
    assert done.exit_code == 2
    assert says in done.stderr
