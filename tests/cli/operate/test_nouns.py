"""Every noun of the CLI lists and shows, and everything that is wrong with a command line is told in one way."""

from __future__ import annotations

import importlib
import json

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
    "budgets": ["simulator/simulated-1"],
    "lessons": ["simulator/simulated-1"],
    "dead": None,
    "diversity": None,
}


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")


@pytest.fixture(autouse=True)
def redis_of_the_test(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)


def test_no_group_of_commands_is_forgotten_here() -> None:
    """The bill is one document: it has no parts to list and show."""
    commands = {name: getattr(importlib.import_module(module), attr) for name, (module, attr, _) in COMMANDS.items()}
    assert {name for name, one in commands.items() if isinstance(one, click.Group)} == {*NOUNS, "bill"}


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
    assert asked or shown.stderr.startswith("fleet: "), shown.stderr
    if asked:
        text = fleet(noun, "show", *asked, "--json").stdout
        assert "review" not in text and json.loads(text) is not None


@pytest.mark.parametrize("noun", ["pools", "limits", "breakers", "budgets", "lessons", "bots"])
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
