"""How messages count, and what they suggest after an unknown word."""

from __future__ import annotations

import io
import json
import traceback

import pytest
from rich.console import Console
from rich.traceback import Traceback

from fleet import config
from fleet.cli.main import main
from fleet.errors import ConfigurationError, InvalidTask
from fleet.models import BotTask
from fleet.quoting import Hidden, clock, counted, nearest, quote, stamp
from fleet.signals.ahead import outlook
from tests.every import every


def test_one_is_singular_and_the_others_are_not() -> None:
    assert [counted(number, "failure") for number in (0, 1, 2, 1200)] == [
        "0 failures", "1 failure", "2 failures", "1,200 failures",
    ]  # fmt: skip
    assert (counted(1, "process", "processes"), counted(2, "process", "processes")) == ("1 process", "2 processes")


def test_only_what_is_near_is_suggested_and_else_all_are_named() -> None:
    assert nearest("botz", ["bots", "model"]) == "the nearest known one is `bots`"
    assert nearest("xyzzy", ["bots", "model"]) == "expected one of bots, model"
    assert nearest("xyzzy", [f"bot-{n:03d}" for n in range(70)]).endswith("bot-059 and 10 more")
    assert nearest("FLEET_HOEM", ["FLEET_HOME"], prefix="FLEET_") == "the nearest known one is `FLEET_HOME`"
    assert nearest("FLEET_QQQQ", ["FLEET_HOME"], prefix="FLEET_") == "expected one of FLEET_HOME"


def test_a_word_that_is_like_no_other_is_answered_with_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["xyzzy"], prog_name="fleet")
    assert ended.value.code == 2
    assert "no command 'xyzzy', expected one of acl, alerts, ask, asks, backup, bill, bots, " in capsys.readouterr().err
    with pytest.raises(InvalidTask, match="xyzzy: unknown field, expected one of answer_schema, "):
        BotTask.parse("x", xyzzy=1)
    with pytest.raises(ConfigurationError, match=r"worker\.xyzzy: unknown key, expected one of "):
        config.load(worker={"xyzzy": 1})
    monkeypatch.setenv("FLEET_XYZZY", "1")
    with pytest.raises(ConfigurationError, match="FLEET_XYZZY: unknown variable, expected one of FLEET_ALERTS, "):
        config.load()


def fail_with(key: str) -> None:
    own = {"Authorization": key, "beginning": key[:8]}
    raise ValueError(f"no {len(own)}")


def test_a_hidden_text_is_shown_by_no_traceback_and_is_a_text_all_the_same() -> None:
    key = Hidden("sk-canary-0123456789" * 8)
    shown = [repr(key), repr([key[:8]]), repr({"Authorization": key.strip()}), f"{(key,)}", quote(key), repr(key[-1])]
    assert every("canary" not in text and "9" not in text for text in shown)
    assert (str(key), f"Bearer {key}", json.dumps(key)) == (key, "Bearer " + key, f'"{key}"')
    with pytest.raises(ValueError, match="no 2") as raised:
        fail_with(key)
    trace = raised.tb.tb_next
    plain = traceback.TracebackException(ValueError, raised.value, trace, capture_locals=True)
    console = Console(file=io.StringIO(), width=200)
    console.print(Traceback.from_exception(ValueError, raised.value, trace, show_locals=True, locals_max_string=10))
    told = "".join(plain.format()) + console.file.getvalue()  # type: ignore[attr-defined]
    assert "own" in told and "sk-can" not in told


@pytest.mark.parametrize("at", [1e300, -1e300, float("inf"), float("-inf"), float("nan"), 253_402_300_800.0])
def test_a_time_that_no_calendar_has_is_told_all_the_same(at: float) -> None:
    """One of them would take down stats, doctor, the page and alerts at once."""
    for told in (clock(at, 0.0), clock(0.0, at), outlook.clock(at, 0.0), stamp(at)):
        assert told.endswith("UTC")
    assert clock(1e300, 0.0) == "9999-12-31 23:59 UTC"
