"""How messages count, and what they suggest after an unknown word."""

from __future__ import annotations

import pytest

from fleet import config
from fleet.cli.main import main
from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import BotTask
from fleet.quoting import counted, nearest


def test_one_is_singular_and_the_others_are_not() -> None:
    assert [counted(number, "failure") for number in (0, 1, 2, 1200)] == [
        "0 failures", "1 failure", "2 failures", "1,200 failures",
    ]  # fmt: skip
    assert (counted(1, "process", "processes"), counted(2, "process", "processes")) == ("1 process", "2 processes")


def test_only_what_is_near_is_suggested_and_else_all_are_named() -> None:
    assert nearest("botz", ["bots", "model"]) == "the nearest known one is `bots`"
    assert nearest("xyzzy", ["bots", "model"]) == "expected one of bots, model"
    assert nearest("FLEET_HOEM", ["FLEET_HOME"], prefix="FLEET_") == "the nearest known one is `FLEET_HOME`"
    assert nearest("FLEET_QQQQ", ["FLEET_HOME"], prefix="FLEET_") == "expected one of FLEET_HOME"


def test_a_word_that_is_like_no_other_is_answered_with_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["xyzzy"], prog_name="fleet")
    assert ended.value.code == 2
    assert "no command 'xyzzy', expected one of acl, alerts, bill, bots, breakers, " in capsys.readouterr().err
    with pytest.raises(InvalidTask, match="xyzzy: unknown field, expected one of answer_schema, "):
        BotTask.parse("x", xyzzy=1)
    with pytest.raises(ConfigurationError, match=r"worker\.xyzzy: unknown key, expected one of "):
        config.load(worker={"xyzzy": 1})
    monkeypatch.setenv("FLEET_XYZZY", "1")
    with pytest.raises(ConfigurationError, match="FLEET_XYZZY: unknown variable, expected one of FLEET_ALERTS, "):
        config.load()
