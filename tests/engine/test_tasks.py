"""`submit_task` without a worker: called, applied, eager. What comes back is what a worker's result would be."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fleet.economy.bill.reader import read_bill
from fleet.store import bill_keys
from fleet.store.client import connect
from tests.engine.process.test_worker import python

#: Prints, for each road, the type of what came back and its status; errbacks that were called; what a chain gave.
ROADS = """
import json
from celery import chain, group
from fleet.engine.tasks import app, submit_task
told = []
@app.task(name="own.told")
def told_(request, error, traceback): told.append(type(error).__name__)
app.conf.task_eager_propagates = False
found = {
    "called": submit_task("What is 2+2?"),
    "applied": submit_task.apply(("What is 2+2?",)).get(),
    "failed": submit_task.apply((5,)).get(),
    "failed in a canvas": submit_task.apply((5,), link_error=app.signature("own.told")).get(),
}
app.conf.task_always_eager = True
found |= {
    "eager": submit_task.delay("What is 2+2?").get(),
    "result": submit_task.delay("What is 2+2?").result,
    "keyed": submit_task.delay("What is 2+2?", idempotency_key="k").get(),
    "chain": chain(submit_task.s("What is 2+2?"), submit_task.s("Is this right?")).apply_async().get(),
}
for position, value in enumerate(group(submit_task.s(f"What is 2+{n}?") for n in range(2)).apply_async().get()):
    found[f"group {position}"] = value
import os, sys
print(json.dumps([{name: [type(value).__name__, value.status] for name, value in found.items()}, told]))
sys.stdout.flush()
os._exit(0)  # as a process of Celery's own pools ends: nothing is tidied up
"""


def test_called_applied_and_eager_give_the_typed_result_too_and_are_in_the_bill_when_they_return(
    fleet_env: None, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_BUDGETS", json.dumps({"fleet": {"usd_per_month": 100}}))
    found, told = json.loads(python(ROADS, tmp_path).splitlines()[-1])
    failed = {"failed", "failed in a canvas"}
    assert found == {name: ["BotResult", "failed" if name in failed else "ok"] for name in found}
    assert len(found) == 10 and told == ["InvalidTask"]
    with connect(redis_url) as client:
        bill = read_bill(client, since_s=time.time() - 3600, until_s=time.time() + 60, by=["pool"]).total
        assert (bill.calls, bill.unknown_calls) == (9, 0) and bill.usage.total_tokens > 0
        assert client.keys("*:open") == [] and client.hlen(bill_keys.reservations()) == 0
