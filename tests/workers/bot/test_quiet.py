"""Frameworks do not tell their vendors what bots do, unless the operator wants it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.workers.bot import quiet
from fleet.workers.bot.quiet import AGENTS_SDK, quieten, reporting
from tests.egress import Egress
from tests.house import ROOT

#: What bots do without a model: a run of each framework is a trace, and a trace is sent at the end.
_RUNS = {
    "agents": "from agents import trace\nwith trace('a run'): pass",
    "langchain": "from langchain_core.runnables import RunnableLambda\n"
    "from langchain_core.tracers.langchain import wait_for_all_tracers\n"
    "RunnableLambda(str).invoke(1)\nwait_for_all_tracers()",
}
_MODULE = "async def answer(task, bot): ...\n"


def run(folder: Path, framework: str, **variables: str) -> list[str]:
    """Return what a process tries to reach that loads a bot function as workers do, and then runs a framework."""
    (folder / "my_bots.py").write_text(_MODULE, encoding="utf-8")
    egress = Egress(folder / "egress")
    code = f"from fleet.workers.bot.function import load_bot\nload_bot('my_bots:answer')\n{_RUNS[framework]}\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **egress.environment(ROOT), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return egress.tried()


def test_the_agents_sdk_reports_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, "agents", OPENAI_API_KEY="sk-mine") == []


def test_the_agents_sdk_reports_where_the_operator_lets_it(tmp_path: Path) -> None:
    tried = run(tmp_path, "agents", OPENAI_API_KEY="sk-mine", **{AGENTS_SDK: "0"})
    assert set(tried) == {"socket.getaddrinfo api.openai.com"}


def test_langchain_reports_to_langsmith_only_where_the_operator_lets_it(tmp_path: Path) -> None:
    assert run(tmp_path, "langchain", LANGSMITH_API_KEY="mine") == []
    tried = run(tmp_path, "langchain", LANGSMITH_API_KEY="mine", LANGSMITH_TRACING="true")
    assert set(tried) == {"socket.getaddrinfo api.smith.langchain.com"}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, []),
        ({AGENTS_SDK: "1"}, []),
        ({AGENTS_SDK: "True"}, []),
        ({AGENTS_SDK: "0"}, [AGENTS_SDK]),
        ({"LANGSMITH_TRACING": "true"}, ["LANGSMITH_TRACING"]),
        ({"LANGCHAIN_TRACING_V2": "false", "LANGSMITH_TRACING": "true"}, []),
        ({AGENTS_SDK: "", "LANGCHAIN_TRACING_V2": "true"}, [AGENTS_SDK, "LANGCHAIN_TRACING_V2"]),
    ],
)
def test_what_an_operator_lets_report_is_known(variables: dict[str, str], found: list[str]) -> None:
    assert reporting(variables) == found


def test_that_something_reports_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(quiet, "_said", set())
    monkeypatch.setenv(AGENTS_SDK, "0")
    with caplog.at_level(logging.WARNING):
        quieten()
        quieten()
    assert [record.getMessage() for record in caplog.records] == [
        f"framework_reports variable={AGENTS_SDK} hint=prompts_and_answers_go_to_its_vendor"
    ]
