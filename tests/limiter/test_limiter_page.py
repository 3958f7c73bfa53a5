"""The programs in docs/limiter.md run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workers.simulator.running import running, total

REPO = Path(__file__).parents[2]
PROGRAMS = re.findall(r"```python\n(.*?)```", (REPO / "docs/limiter.md").read_text(encoding="utf-8"), re.DOTALL)


def run(program: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(REPO), **env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_a_program_of_the_page_runs(number: int, redis_url: str) -> None:
    program = PROGRAMS[number].replace("redis://localhost:6379/0", redis_url)
    assert redis_url in program
    with running() as url:
        said = run(program, OPENAI_BASE_URL=f"{url}/v1", OPENAI_API_KEY="k")
        assert total(url)["served"] == ("openai import" in program)
    assert said == ("4\n" if "openai import" in program else "")


def test_the_page_shows_asyncio_threads_and_an_sdk() -> None:
    assert [name in "".join(PROGRAMS) for name in ("open_limiter", "ThreadedLimiter", "AsyncOpenAI")] == [True] * 3
