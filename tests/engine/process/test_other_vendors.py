"""A task through a worker whose pool's model comes by pydantic-ai's road."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from fleet import config
from fleet.config import load
from fleet.errors import ConfigurationError
from fleet.models import BotResult
from fleet.workers.providers.models import INSTALL, make_models
from tests import worker_process
from tests.engine.conftest import StartWorker
from tests.workers.simulator.running import running, total

WAIT_S = 120
#: Pools, each with the wire of its model.
MODELS = {
    "research": "openai-chat:simulated-1", "responses": "openai-responses:simulated-1", "gemini": "google:simulated-1",
}  # fmt: skip
SUBMIT = f"""
from fleet import submit_task
for handle in [submit_task.delay("What is 2+2?", pool=pool) for pool in {list(MODELS)} for _ in range(4)]:
    print(handle.get(timeout={WAIT_S}).model_dump_json())
"""


def write(tmp_path: Path, url: str, models: Mapping[str, str]) -> None:
    told = [f"""
[providers.other]
kind = "pydantic-ai"
base_url = "{url}"
api_key_env = "OTHER_KEY"
"""]  # fmt: skip
    for pool, model in models.items():
        told.append(f"""
[pools.{pool}]
bots = 2
provider = "other"
model = "{model}"
persona.models = ["{model}", "{model}-b"]
""")
        for name in (model, f"{model}-b"):
            told.append(f"""
[prices."other/{name}"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 1.0

[limits."other/{name}"]
rpm = 6000
""")
    (tmp_path / "fleet.toml").write_text("".join(told))
    config.current.cache_clear()


def test_tasks_on_three_wires_and_two_models_each_are_answered_counted_limited_and_priced(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "test-key")
    monkeypatch.setattr(worker_process, "READY_S", 300)  # it loads two SDKs before it is ready
    with running() as url:
        write(tmp_path, url, MODELS)
        worker = start_worker()
        told = subprocess.run([sys.executable, "-c", SUBMIT], capture_output=True, text=True, timeout=2 * WAIT_S)
        results = [BotResult.model_validate_json(line) for line in told.stdout.splitlines()]
        assert [(one.status, one.answer, one.error) for one in results] == [("ok", "4", None)] * 12
        for number, (pool, model) in enumerate(MODELS.items()):
            own = {(one.bot, one.model) for one in results[4 * number : 4 * number + 4]}
            assert own == {(f"{pool}-001", model), (f"{pool}-002", f"{model}-b")}  # each bot has its persona's
        billed = total(url)
        assert billed["calls"] == 12
        assert sum(one.usage.input_tokens for one in results) == billed["input_tokens"]
        assert sum(one.usage.output_tokens for one in results) == billed["output_tokens"]
        assert [one.cost_usd_micros for one in results] == [one.usage.total_tokens for one in results]
        assert "simulated pools" not in worker.log


def test_a_model_without_a_vendor_is_refused_with_an_example(tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:9", {"research": "simulated-1"})
    with pytest.raises(ConfigurationError, match=r'pools.research.model: expected "vendor:model".*simulated-1'):
        load()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    for name in [name for name in sys.modules if name.startswith(("pydantic_ai.", "fleet.workers.providers.models."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError) as told:
        make_models(None, timeout_s=1)
    assert INSTALL in str(told.value) and "\n" not in str(told.value)
