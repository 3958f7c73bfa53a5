"""A task through a worker whose pool's model comes by pydantic-ai's road."""

from __future__ import annotations

import subprocess
import sys
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
SUBMIT = f"""
from fleet import submit_task
print(submit_task.delay("What is 2+2?", pool="research").get(timeout={WAIT_S}).model_dump_json())
"""


def write(tmp_path: Path, url: str, model: str = "openai-chat:simulated-1") -> None:
    (tmp_path / "fleet.toml").write_text(f"""
[providers.other]
kind = "pydantic-ai"
base_url = "{url}"
api_key_env = "OTHER_KEY"

[pools.research]
bots = 2
provider = "other"
model = "{model}"

[prices."other/openai-chat:simulated-1"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 1.0

[limits."other/openai-chat:simulated-1"]
rpm = 6000
""")
    config.current.cache_clear()


def test_a_task_is_answered_counted_limited_and_priced(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "test-key")
    monkeypatch.setattr(worker_process, "READY_S", 300)  # it loads an SDK before it is ready
    with running() as url:
        write(tmp_path, url)
        worker = start_worker()
        told = subprocess.run([sys.executable, "-c", SUBMIT], capture_output=True, text=True, timeout=2 * WAIT_S)
        result = BotResult.model_validate_json(told.stdout)
        assert (result.status, result.answer, result.error) == ("ok", "4", None)
        assert (result.provider, result.model) == ("other", "openai-chat:simulated-1")
        billed = total(url)
        assert billed["calls"] == 1
        assert (result.usage.input_tokens, result.usage.output_tokens) == (
            billed["input_tokens"],
            billed["output_tokens"],
        )
        assert result.cost_usd_micros == result.usage.total_tokens
        assert "simulated pools" not in worker.log


def test_a_model_without_a_vendor_is_refused_with_an_example(tmp_path: Path) -> None:
    write(tmp_path, "http://127.0.0.1:9", model="simulated-1")
    with pytest.raises(ConfigurationError, match=r'pools.research.model: expected "vendor:model".*simulated-1'):
        load()


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic_ai", None)
    for name in [name for name in sys.modules if name.startswith(("pydantic_ai.", "fleet.workers.providers.models."))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError) as told:
        make_models(None, timeout_s=1)
    assert INSTALL in str(told.value) and "\n" not in str(told.value)
