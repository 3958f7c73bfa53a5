"""What tasks cost, seen from outside: a real worker, a provider that bills by class, and every face of the sum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from tests.engine.conftest import StartWorker
from tests.http_server import Handler, serving

#: What a model bills for one call.
BILLED: dict[str, dict[str, Any]] = {
    "tiny-1": {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    "house-1": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    "gpt-4.1-mini": {
        "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920},
    },
}  # fmt: skip


class Billing(Handler):
    """Answers every call by its model."""

    def do_POST(self) -> None:
        asked = json.loads(self.body())
        choice = {"message": {"role": "assistant", "content": "It is forty-two."}, "finish_reason": "stop"}
        self.send(200, {"choices": [choice], "usage": BILLED[asked["model"]]})


@pytest.fixture
def billing_url() -> Iterator[str]:
    with serving(Billing) as url:
        yield f"{url}/v1"


def fleet(*arguments: str) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_worker_prices_every_class_and_every_face_adds_it_up(
    start_worker: StartWorker, billing_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = {model: {"bots": 2, "provider": "proxy", "model": model} for model in BILLED}
    tables = {
        "PROVIDERS": {"proxy": {"kind": "openai", "base_url": billing_url}},
        "POOLS": {name.replace(".", "-"): pool for name, pool in pools.items()},
        "PRICES": {"proxy/tiny-1": {"input_usd_per_mtok": 0.02, "output_usd_per_mtok": 0.02}},
        "HEALTH": {"watch": False},
        "DIVERSITY": {"watch": False},
    }
    for name, table in tables.items():
        monkeypatch.setenv(f"FLEET_{name}", json.dumps(table))
    config.current.cache_clear()
    worker = start_worker()
    assert worker.log.count("unpriced model=") == 1
    assert (
        "unpriced model=proxy/house-1 tier=None: proxy/house-1 has no price: what it costs is not counted; "
        'set [prices."proxy/house-1"] in fleet.toml' in worker.log
    )

    lines = [{"prompt": f"How much is {n}?", "pool": "tiny-1"} for n in range(50)]
    lines += [{"prompt": "How much?", "pool": "gpt-4-1-mini"}, {"prompt": "How much?", "pool": "house-1"}]
    asked, answers = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text("\n".join(map(json.dumps, lines)))
    # 86 uncached at $0.40, 1,920 cached at $0.10 and 300 at $1.60 a million, by the list; 50 x 21 at $0.02.
    listed, tiny = 86 * 400_000 + 1920 * 100_000 + 300 * 1_600_000, 420_000
    sums = json.loads(fleet("run", str(asked), "-o", str(answers), "--json"))
    assert sums["ok"] == len(lines)
    assert sums["cost_usd_picos"] == listed + 50 * tiny
    assert (sums["cost_usd_micros"], sums["without_price"], sums["cached_tokens"]) == (727, 1, 1920)

    records = [json.loads(line) for line in answers.read_text().splitlines()]
    by_pool = {record["pool"]: record for record in records}
    assert (by_pool["tiny-1"]["cost_usd_picos"], by_pool["tiny-1"]["cost_usd_micros"]) == (tiny, 0)
    assert by_pool["tiny-1"]["usage"] == {"input_tokens": 20, "output_tokens": 1}
    assert by_pool["gpt-4-1-mini"]["usage"] == {"input_tokens": 2006, "output_tokens": 300, "cached_tokens": 1920}
    assert by_pool["house-1"]["cost_usd_micros"] is by_pool["house-1"]["cost_usd_picos"] is None

    used = json.loads(fleet("stats", "--json"))["resources"]
    assert (used["cost_usd_micros"], used["cached_tokens"]) == (727, 1920)
    task_id = json.loads(fleet("submit", "How much?", "--pool", "gpt-4-1-mini", "--json"))["task_id"]
    story = fleet("why", task_id)
    assert "2,006 + 300 tokens (1,920 cached), $0.000706" in " ".join(story.split())
