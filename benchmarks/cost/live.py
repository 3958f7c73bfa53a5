"""The cell with real workers, Redis, Celery and HTTP: levers off, each alone, all on. The simulator's ledger bills it.

One call in fifty fails with a 5xx, with and without levers: it is tried again, and nobody bills it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import until
from benchmarks.bill_fleet import Fleet, Provider, running
from benchmarks.cost.cell import DOCUMENTS, KIND, Case, Levers, Run, document, record, task_of
from benchmarks.cost.tables import GPT_5
from benchmarks.cost.world import BOTS, POOL, PriceTable

KEY = "benchmark-key"
#: Share of calls that fail.
ERROR_RATE = 0.02
SETTINGS = f"""
[providers.api]
kind = "openai"
base_url = "{{url}}/v1"
api_key_env = "COST_KEY"
[limits."api/gpt-5"]
rpm = 1000000
[pools.{POOL}]
bots = {BOTS}
provider = "api"
model = "gpt-5"
max_output_tokens = 400
[pools.{POOL}.persona]
context_windows_tokens = [16000]
"""
#: Added where equal tasks are asked once.
ONCE = f"""
[kinds.{KIND}]
deterministic = true
by_persona = false
"""


def run(stream: Sequence[Case], levers: Levers) -> Run:
    """Let a fleet answer all tasks."""
    os.environ |= {"COST_KEY": KEY, "FLEET_WORKER__SLOTS": "60"}
    with tempfile.TemporaryDirectory(prefix="fleet-cost-") as folder:
        recorded = record(Path(folder) / "answers.jsonl", max(case.question for case in stream) + 1)
        provider = Provider(
            *_options(GPT_5), "--answers", str(recorded), "--error-rate", str(ERROR_RATE), "--latency-ms", "50"
        )
        try:
            with running(settings_of(GPT_5, levers), provider) as fleet:
                return _answered(fleet, stream, levers)
        finally:
            provider.stop()


def settings_of(table: PriceTable, levers: Levers) -> str:
    """Return fleet.toml."""
    return (
        SETTINGS
        + (ONCE if levers.answers else "")
        + "\n".join(_tables(f'[prices."api/{table.name}"', table.settings()))
        + "\n"
    )


def _tables(name: str, values: dict[str, object]) -> list[str]:
    """Return a table of fleet.toml with the tables in it."""
    plain = [f"{key} = {value}" for key, value in values.items() if not isinstance(value, dict)]
    inner = [
        line for key, value in values.items() if isinstance(value, dict) for line in _tables(f"{name}.{key}", value)
    ]
    return [*([f"{name}]"] if plain else []), *plain, *inner]


def _options(table: PriceTable) -> list[str]:
    prices = [
        part for name, usd in table.usd.items() for part in (f"--{name.replace('_', '-')}-usd-per-mtok", str(usd))
    ]
    return [*prices, "--flex-factor", str(table.flex or 1.0), "--batch-factor", str(table.batch)]


def _answered(fleet: Fleet, stream: Sequence[Case], levers: Levers) -> Run:
    from fleet.economy.contexts import documents
    from fleet.store import keys
    from fleet.workers.context import count_tokens

    names = {}
    for number in range(DOCUMENTS if levers.prefix else 0):
        text = document(number)
        names[number] = documents.add(fleet.redis, text, name=str(number), tokens=count_tokens(text))[0].id
    fleet.provider.reset()
    ids = fleet.submit({"pool": POOL, **task_of(case, levers, names)} for case in stream)
    stored = [keys.result(task_id) for task_id in ids]  # answers from the cache are not counted as bots' work
    until(lambda: fleet.redis.exists(*stored) == len(stored), "all results", every_s=0.2)
    fleet.provider.wait_quiet()
    answers = tuple(one["answer"] for one in fleet.results(ids))
    total = fleet.provider.ledger()["total"]
    return Run({GPT_5.name: total["billed_usd_picos"] / 1e12}, answers, total["served"])
