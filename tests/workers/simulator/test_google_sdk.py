"""The google-genai SDK of today against the simulator, in an environment of its own: pydantic-ai holds ours below it.

Not in the usual run, because it asks the package index: `FLEET_TEST_GOOGLE_SDK=1 pytest THIS_FILE`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.workers.simulator.running import running, total

#: What is asked of the package index.
SDK = "google-genai>=3,<4"
#: Seconds for an installation, and for the program.
INSTALL_S, RUN_S = 600, 120


@pytest.mark.skipif(not os.environ.get("FLEET_TEST_GOOGLE_SDK"), reason="asks the package index")
def test_the_google_sdk_of_today_reads_answers_streams_tools_thoughts_and_errors(tmp_path: Path) -> None:
    home = tmp_path / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", SDK]
    subprocess.run(command, check=True, timeout=INSTALL_S)
    program = Path(__file__).with_name("google_program.py")
    with running(seed=3) as url, running(rpm=1) as busy:
        done = subprocess.run([python, program, url, busy], capture_output=True, text=True, timeout=RUN_S)
        assert done.returncode == 0, done.stderr
        told, billed = json.loads(done.stdout), total(url)
    assert told["version"].startswith("3.") and told["models"] == ["models/simulated-1"]
    assert (told["plain"], told["called"], told["thoughts"]) == ("4", ["get_weather"], [True, False])
    assert isinstance(json.loads(told["formed"])["n"], int) and told["told"]
    assert len(told["pieces"]) > 3
    assert sum(given for given, _ in told["tokens"]) == billed["input_tokens"]
    assert sum(made for _, made in told["tokens"]) == billed["output_tokens"]
    refused = told["refused"]
    assert (refused["code"], refused["status"]) == (429, "RESOURCE_EXHAUSTED")
    (info,) = refused["details"]["error"]["details"]
    assert info["@type"].endswith("RetryInfo") and 30 < float(info["retryDelay"].removesuffix("s")) <= 61
