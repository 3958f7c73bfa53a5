"""Bot functions with vendors' SDKs in a real worker: bill, budget, traces and results as for `chat()`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from tests.engine.conftest import StartWorker
from tests.engine.process.test_stalls import results_of
from tests.engine.telemetry.test_taps import spans
from tests.waiting import wait_until

BOTS = """\
async def asks(task, bot):
    told = [{"role": "user", "content": task.prompt}]
    whole = await bot.openai().chat.completions.create(model="gpt-9", messages=told)
    stream = await bot.openai().chat.completions.create(model="gpt-9", messages=told, stream=True)
    return "".join([piece.choices[0].delta.content or "" async for piece in stream]) + whole.choices[0].message.content

def messages(task, bot):
    told = [{"role": "user", "content": task.prompt}]
    return bot.anthropic().messages.create(model="claude-9", max_tokens=50, messages=told).content[0].text
"""
CONFIG = """\
[pools.asks]
bots = 2
kinds = ["asks"]
function = "sdk_bots:asks"
[pools.messages]
bots = 2
kinds = ["messages"]
function = "sdk_bots:messages"
[budgets."pool:asks"]
usd_per_day = 5.0
"""
TASKS = 6


def test_requests_of_sdks_are_billed_budgeted_and_traced_as_chats_are(
    start_worker: StartWorker, redis_url: str, fleet_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk", reason='pip install "celery-fleet[otel]"')
    (tmp_path / "fleet.toml").write_text(CONFIG)
    (tmp_path / "sdk_bots.py").write_text(BOTS)
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("FLEET_SIGNALS__TRACES", "file")
    config.current.cache_clear()
    worker = start_worker()
    asked = [{"prompt": "What is 2+2?", "kind": kind} for kind in ("asks", "messages") for _ in range(TASKS)]
    ids = list(submit_many(asked))
    wait_until(lambda: len(results_of(redis_url, ids)) == len(ids), 60, lambda: worker.log)
    results = results_of(redis_url, ids)
    assert [(one.status, one.answer, one.attempts) for one in results] == [
        *[("ok", "44", 2)] * TASKS, *[("ok", "4", 1)] * TASKS
    ], worker.log  # fmt: skip
    used = sum(one.usage.total_tokens for one in results)

    def billed() -> dict[str, Any]:
        told = json.loads(CliRunner().invoke(main, ["bill", "--by", "pool", "--json"]).stdout)
        return {row["pool"]: row for row in told["lines"]}

    wait_until(lambda: sum(row["calls"] for row in billed().values()) == 3 * TASKS, 20, lambda: str(billed()))
    assert {pool: row["calls"] for pool, row in billed().items()} == {"asks": 2 * TASKS, "messages": TASKS}
    assert sum(row["usage"]["input_tokens"] + row["usage"]["output_tokens"] for row in billed().values()) == used

    def paths() -> set[str]:
        told = (span["attributes"] for span in spans(fleet_home / "traces.jsonl") if span["name"] == "provider_call")
        return {str(attributes.get("fleet.path")) for attributes in told}

    wait_until(lambda: paths() == {"/chat/completions", "/messages"}, 20, lambda: str(paths()))
    assert "2+2" not in worker.log
