"""`submit_task` without a worker: called, applied, eager. What comes back is what a worker's result would be."""

from __future__ import annotations

import json
from pathlib import Path

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
print(json.dumps([{name: [type(value).__name__, value.status] for name, value in found.items()}, told]))
"""


def test_called_applied_and_eager_give_the_typed_result_too(fleet_env: None, tmp_path: Path) -> None:
    found, told = json.loads(python(ROADS, tmp_path).splitlines()[-1])
    failed = {"failed", "failed in a canvas"}
    assert found == {name: ["BotResult", "failed" if name in failed else "ok"] for name in found}
    assert len(found) == 10 and told == ["InvalidTask"]
