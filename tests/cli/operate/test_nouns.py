"""Every noun of the CLI lists and shows, and everything that is wrong with a command line is told in one way."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from fleet.cli.main import COMMANDS, main

#: Nouns, and what `show` is asked of each; None: there is nothing to show in a fleet that has done nothing.
NOUNS: dict[str, list[str] | None] = {
    "bots": ["research-001"],
    "pools": ["research"],
    "limits": ["simulator/simulated-1"],
    "breakers": ["simulator/simulated-1"],
    "keys": ["simulator"],
    "budgets": ["simulator/simulated-1"],
    "lessons": ["simulator/simulated-1"],
    "alerts": ["provider_down"],
    "tasks": None,
    "dead": None,
    "diversity": None,
    "context": None,
    "cache": None,
    "schedules": None,
    "job": None,
    "asks": None,
    "rollout": None,
}


#: What the list of a noun is of, where that is not the noun.
LISTED = {"dead": "letters", "diversity": "classes", "context": "contexts", "cache": "kinds", "job": "jobs",
          "rollout": "rollouts"}  # fmt: skip
#: What is said of a task that nobody knows.
UNKNOWN = "nobody: unknown"
#: What says in a list that there is nothing, in the words of each noun; the others are never empty.
EMPTY: dict[str, tuple[str, ...]] = {
    "bots": ("bots", "--find", "zzz"), "lessons": ("lessons",), "alerts": ("alerts",), "tasks": ("tasks",),
    "dead": ("dead", "list"), "diversity": ("diversity",), "events": ("events",),
    "context": ("context",), "cache": ("cache",), "schedules": ("schedules",),
    "job": ("job",), "asks": ("asks",), "rollout": ("rollout",),
}  # fmt: skip


def rows_of(noun: str, told: Any) -> list[Any]:
    """Return the rows of a list as programs read it: under the name of what is listed."""
    rows = told[LISTED.get(noun, noun)]
    assert isinstance(rows, list)
    return rows


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")


@pytest.fixture(autouse=True)
def redis_of_the_test(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)


def commands_of(command: click.Command, *words: str) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(words), command
    for name, one in command.commands.items() if isinstance(command, click.Group) else ():
        yield from commands_of(one, *words, name)


def test_all_json_is_one_object() -> None:
    groups = {name: getattr(importlib.import_module(module), attr) for name, (module, attr, _) in COMMANDS.items()}
    found = {
        line: option.help or ""
        for name, group in groups.items()
        for line, command in commands_of(group, name)
        for option in command.params
        if "--json" in option.opts and isinstance(option, click.Option)
    }
    assert len(found) > 40
    assert {line: text for line, text in found.items() if not re.search("JSON object|as JSON", text)} == {}
    # Those that need nothing are run, too: groups alone, lists, and what lists no noun.
    plain = [line for line in found if line in groups or line.rpartition(" ")[2] in ("list", "unknown", "reasons")]
    told = {
        line: json.loads(fleet(*line.split(), "--json").stdout)
        for line in plain
        if line not in ("why", "cancel", "forget", "submit", "ask", "run", "simulate", "grade", "backup", "restore")
    }
    assert {line for line, one in told.items() if not isinstance(one, dict)} == {"doctor"}  # as scripts know it
    assert isinstance(told["doctor"], list)
    lists = {"events": "events", "bill unknown": "calls", "dead reasons": "groups"}
    assert {line for line, name in lists.items() if not isinstance(told[line].get(name), list)} == set()


def test_no_group_of_commands_is_forgotten_here() -> None:
    """The bill is one document, and the ACL a few lines; payouts are listed whole."""
    commands = {name: getattr(importlib.import_module(module), attr) for name, (module, attr, _) in COMMANDS.items()}
    assert {name for name, one in commands.items() if isinstance(one, click.Group)} == {
        *NOUNS,
        "bill",
        "acl",
        "payouts",
    }


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_list_and_show(noun: str) -> None:
    asked = NOUNS[noun]
    listed = fleet(noun, "list", "--json")
    assert listed.exit_code == 0, listed.stderr
    rows = json.loads(listed.stdout)
    if noun != "dead":  # the list of dead letters never had a short spelling
        assert json.loads(fleet(noun, "--json").stdout) == rows or noun in ("limits", "bots", "breakers")
    shown = fleet(noun, "show", *(asked or ["nobody", "nothing"][: 1 + (noun == "diversity")]))
    assert shown.exit_code == (0 if asked else shown.exit_code)
    assert (
        asked or shown.stderr.startswith("fleet: ") or (noun, shown.stdout.partition("\n")[0]) == ("tasks", UNKNOWN)
    ), shown.stderr
    if asked:
        text = fleet(noun, "show", *asked, "--json").stdout
        assert "review" not in text and json.loads(text) is not None


@pytest.mark.parametrize("noun", NOUNS)
def test_a_list_for_programs_has_its_rows_in_one_place_and_a_row_that_is_shown_is_one_of_them(noun: str) -> None:
    rows, asked = rows_of(noun, json.loads(fleet(noun, "list", "--json").stdout)), NOUNS[noun]
    if asked is None or noun in ("lessons", "alerts"):
        assert rows == []
        return
    shown = json.loads(fleet(noun, "show", *asked, "--json").stdout)
    one = shown if noun == "bots" else rows_of(noun, shown)[0]  # a bot is opened: there is more of it than in its row
    name = next(iter(rows[0]))
    assert one[name] in [row[name] for row in rows]
    assert noun == "bots" or set(one) == set(rows[0])


@pytest.mark.parametrize("noun", EMPTY)
def test_an_empty_list_says_so_and_ends_well(noun: str) -> None:
    result = fleet(*EMPTY[noun])
    assert result.exit_code == 0
    assert (result.stdout + result.stderr).strip(), "nothing is said"
    assert (result.stdout + result.stderr).count("\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        "bots --pool resarch", "tasks --pool resarch", "dead list --pool resarch", "dead reasons --pool resarch",
        "dead replay --pool resarch --yes", "dead purge --pool resarch --yes", "cancel --pool resarch --yes",
        "pools pause resarch", "pools resume resarch", "submit hello --pool resarch",
    ],
)  # fmt: skip
def test_a_pool_that_is_not_there_is_answered_with_those_that_are(line: str) -> None:
    result = fleet(*line.split())
    assert result.exit_code == 2 and result.stdout == ""
    assert re.fullmatch(
        r"fleet: (--)?pool: expected one of research, writing, review.*, got 'resarch'.*\n", result.stderr
    )


@pytest.mark.parametrize("noun", ["pools", "limits", "breakers", "budgets", "lessons", "bots", "alerts"])
def test_what_is_not_there_is_answered_with_what_is(noun: str) -> None:
    result = fleet(noun, "show", "nobody")
    assert result.exit_code == 2
    assert result.stderr.startswith("fleet: ") and "expected" in result.stderr and "got 'nobody'" in result.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pools pasue research", "expected one of list, pause, resume, show, got 'pasue'; `fleet pools --help`"),
        ("stats --windwo 15m", "expected a known option, got '--windwo', the nearest known one is --window; `fleet"),
        ("stats --window 2h", "--window: expected one of 15m, 1h, 24h, got '2h'; `fleet stats --help` tells more"),
        ("bots --limit 0", "--limit: expected a number x with 1<=x<=10000, got '0'; `fleet bots --help`"),
        ("bots --limit many", "--limit: expected a whole number, got 'many'"),
        ("simulate --used much", "--used: expected a number, got 'much'"),
        ("run /nowhere.jsonl", "IN: expected a file that exists, got '/nowhere.jsonl'; `fleet run --help` tells more"),
        ("pools show", "expected POOL, got nothing; `fleet pools show --help` tells more"),
        ("stats now", "expected no more arguments, got 'now'; `fleet stats --help` tells more"),
        ("stats --bots", "expected --json together with --bots; `fleet stats --help` tells more"),
        ("stats --window", "expected a value after --window, got none; `fleet --help` tells more"),
        ("pools pause research --for soon", "--for: expected a time like 90s, 10m, 2h or 1d, at most 30d, got 'soon'"),
        ("--bogus stats", "expected a known option, got '--bogus'"),
    ],
)  # fmt: skip
def test_a_command_line_that_is_wrong_is_one_line_of_one_style(line: str, told: str) -> None:
    result = fleet(*line.split())
    assert result.exit_code == 2
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"fleet: {told}"), result.stderr
