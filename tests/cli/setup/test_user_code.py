"""`fleet doctor` over functions, validators and canaries of the user: whatever they do, it tells, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.cli.setup.pool_checks import pool_wire
from fleet.cli.setup.user_code import UserCode, load_all, trouble_with
from fleet.config import Settings, load
from tests.stack_processes import has_ended
from tests.waiting import wait_until

MODULE = """
async def checked(task, bot):
    return await bot.chat(task.prompt)
def good(task, answer):
    return None
def odd(task):
    return None
print("noise on stdout")
"""
TOML = """
[pools.careful]
bots = 3
function = "my_bots:checked"
validator = "my_bots:good"
canaries = "canaries.jsonl"

[pools.broken]
bots = 3
function = "no_such_module:checked"
validator = "my_bots:odd"
canaries = "bad.jsonl"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_bots.py").write_text(MODULE)
    (tmp_path / "fleet.toml").write_text(TOML)
    (tmp_path / "canaries.jsonl").write_text('{"prompt": "What is 1 + 1?", "expect": "2"}\n')
    (tmp_path / "bad.jsonl").write_text("{}\n")
    return tmp_path


def test_an_agent_is_loaded_as_a_worker_does_and_what_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "desk.py").write_text(
        "from pydantic_ai import Agent\nagent, other = Agent(), Agent(deps_type=int)\ndef deps(task, bot): return 1\n"
    )
    assert trouble_with(UserCode("agent", "desk:agent")) is None
    assert trouble_with(UserCode("agent", "desk:other", "desk:deps")) is None
    assert "its deps_type is int" in str(trouble_with(UserCode("agent", "desk:other")))
    assert "expected a pydantic_ai.Agent, got function" in str(trouble_with(UserCode("agent", "desk:deps")))


def test_an_agent_on_a_wire_that_nobody_sees_is_told_before_its_tasks_wait() -> None:
    def found(**pool: object) -> list[str]:
        named = {"provider": "gemini", "model": "google:flash", "function": None, **pool}
        settings = Settings.model_validate(
            {
                "providers": {"gemini": {"kind": "pydantic-ai"}, "openai": {"kind": "openai"}},
                "pools": {"desk": {name: value for name, value in named.items() if value is not None}},
            }
        )
        return [f"{check.level} {check.found}" for check in pool_wire("desk", settings)]

    told = "fail gemini: expected kind openai, anthropic or simulator for an agent's requests, got pydantic-ai"
    assert found(agent="desk:agent") == [told]
    below = [{"provider": "gemini", "model": "google:flash", "when": ["outage"]}]
    assert found(agent="desk:agent", provider="openai", model="m", fallback=below) == [told]
    assert found(function="desk:answer") == found() == found(agent="desk:agent", provider="openai", model="m") == []


def test_doctor_names_pool_path_and_exception_of_what_does_not_load(folder: Path, redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.cli.main", "doctor", "--json"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "FLEET_REDIS__URL": redis_url}, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert [checks[f"pool careful: {name}"]["level"] for name in ("function", "validator", "canaries")] == ["ok"] * 3
    function = checks["pool broken: function"]
    assert function["level"] == "fail"
    assert function["found"].startswith("no_such_module:checked: expected a module that can be imported")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in function["found"]
    assert "expected to be called with (task, answer)" in checks["pool broken: validator"]["found"]
    assert "bad.jsonl:1" in checks["pool broken: canaries"]["found"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise ValueError('odd')", "ValueError: odd"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(7)", "got a process that ended with exit code 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "got a process that was killed by SIGSEGV"),
        ("input()", "EOFError"),
        ("import time; time.sleep(60)", "got none within 2 s"),
    ],
)
def test_whatever_an_import_does_is_told_and_ends_nothing_else(tmp_path: Path, source: str, told: str) -> None:
    (tmp_path / "wild.py").write_text(source)
    began = time.monotonic()
    assert told in str(trouble_with(UserCode("function", "wild:f"), timeout_s=2 if "sleep" in source else 20))
    assert time.monotonic() - began < 20


def test_a_child_that_an_import_leaves_behind_is_ended(tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(
        "import subprocess\n"
        "child = subprocess.Popen(['/bin/sleep', '600'], close_fds=False)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "def f(task, bot): pass\n"
    )
    assert trouble_with(UserCode("function", "wild:f")) is None
    left = int((tmp_path / "pid").read_text())
    wait_until(lambda: has_ended(left), 5, "it is gone")


def test_what_several_pools_share_is_loaded_once(folder: Path) -> None:
    (folder / "my_bots.py").write_text("open('loads', 'a').write('x')\n" + MODULE)
    pools = "".join(f"[pools.p{n}]\nbots = 1\nfunction = 'my_bots:checked'\n" for n in range(5))
    (folder / "fleet.toml").write_text(pools)
    assert load_all(load()) == {UserCode("function", "my_bots:checked"): None}
    assert (folder / "loads").read_text() == "x"
