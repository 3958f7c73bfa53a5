"""What one run of a file may spend: which models need a price for it, and what is left in Redis of one that stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.run.purse import RunBudget
from fleet.engine.operations.budgets import set_budget
from fleet.errors import ConfigurationError, InvalidTask
from fleet.store.client import connect

FILE = """
[providers.house]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
[pools.a]
[pools.b]
provider = "house"
model = "m"
kinds = ["odd"]
"""


@pytest.fixture
def settings(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    """Pool a has a price, pool b none."""
    (tmp_path / "fleet.toml").write_text(FILE)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    return config.current()


def test_only_models_that_a_run_may_call_need_a_price(
    settings: config.Settings, redis_url: str, tmp_path: Path
) -> None:
    purse = RunBudget(settings, "one", 5.0)
    purse.fill(["a"])
    purse.check(["a"])
    told = "--max-usd: expected a price of the model, got none for house/m"
    with pytest.raises(InvalidTask, match=told):  # a line that says so itself
        purse.check(["a", "b"])
    with pytest.raises(ConfigurationError, match=f"{told}.*name a --pool whose models have prices"):
        RunBudget(settings, "two", 5.0).fill(["a", "b"])
    with connect(redis_url) as client:
        raised = set_budget(client, "run:one", {"usd_in_all": 6}, settings=settings)
    assert raised is not None and raised.usd_in_all == 6
    asked, answers = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text(json.dumps({"prompt": "x", "pool": "b"}))
    command = ["run", str(asked), "-o", str(answers), "--max-usd", "5"]
    refused = CliRunner().invoke(main, [*command, "--pool", "b"])
    assert refused.exit_code == 2 and told in " ".join(refused.output.split()), refused.output
    done = CliRunner().invoke(main, command)  # pool b is not one of those that take any kind
    assert done.exit_code == 1, done.output
    assert told in json.loads(answers.read_text())["error"]["message"]
