"""Tasks that have begun and wait in their slots, with a real worker and a provider that fails in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.http_server import Handler, serving
from tests.waiting import wait_until

WAIT_S = 60.0
SLOTS = 8
FUNCTION = """
async def two_calls(task, bot):
    await bot.chat("first " + task.prompt)
    with open("begun", "a") as file:
        file.write(task.prompt + "\\n")
    return await bot.chat("second " + task.prompt)
"""
MODELS = {"two": "failing-1", "other": "well-1"}


class Api(Handler):
    """Answers all calls, but not the second ones while it is down, and none of the other pool while it holds those."""

    is_down, holds_none = threading.Event(), threading.Event()
    counting = threading.Lock()
    now = peak = 0

    @classmethod
    def count(cls, step: int) -> None:
        with cls.counting:
            cls.now += step
            cls.peak = max(cls.peak, cls.now)

    def do_POST(self) -> None:
        self.count(1)
        self.answer()

    def answer(self) -> None:
        asked = json.loads(self.body())
        is_second = asked["messages"][-1]["content"].startswith("second")
        if asked["model"] == MODELS["other"]:
            self.holds_none.wait(WAIT_S)
        elif is_second and not self.is_down.is_set():
            time.sleep(0.2)  # so that those that go on together are seen together
        self.count(-1)
        choice = {"message": {"role": "assistant", "content": "It is forty-two."}, "finish_reason": "stop"}
        told = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}
        self.send(503 if is_second and self.is_down.is_set() else 200, told)


@pytest.fixture
def api_url() -> Iterator[str]:
    Api.is_down.set()
    Api.holds_none.set()
    Api.now = Api.peak = 0
    with serving(Api) as url:
        yield f"{url}/v1"
        Api.is_down.clear()
        Api.holds_none.set()


def test_a_pool_whose_tasks_all_wait_in_their_slots_keeps_no_other_pool_from_working_and_goes_on_within_its_slots(
    start_worker: StartWorker, api_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "calls.py").write_text(FUNCTION)
    pools = {name: {"bots": 20, "provider": "api", "model": model} for name, model in MODELS.items()}
    pools["two"]["function"] = "calls:two_calls"
    for name, value in {
        "PROVIDERS": json.dumps({"api": {"kind": "openai", "base_url": api_url}}),
        "POOLS": json.dumps(pools),
        "HEALTH": '{"watch": false}',
        "DIVERSITY": '{"watch": false}',
        "WORKER__SLOTS": str(SLOTS),
    }.items():
        monkeypatch.setenv(f"FLEET_{name}", value)
    config.current.cache_clear()
    worker = start_worker()

    def begun() -> list[str]:
        path = tmp_path / "begun"
        return path.read_text().split() if path.exists() else []

    tasks = [submit_task.delay(str(n), pool="two") for n in range(SLOTS)]
    wait_until(lambda: len(begun()) == SLOTS, WAIT_S, lambda: f"all have begun; log:\n{worker.log}")
    tasks += [submit_task.delay(str(n), pool="two") for n in range(SLOTS, SLOTS + 4)]
    others = [submit_task.delay("x", pool="other") for _ in range(2 * SLOTS)]
    results = [other.get(timeout=WAIT_S) for other in others]
    assert every(result.status == "ok" for result in results), worker.log
    assert not [task.id for task in tasks if task.ready()]
    assert len(begun()) == SLOTS  # no more of those have begun
    Api.holds_none.clear()
    lent = SLOTS - SLOTS // 4
    others = [submit_task.delay("x", pool="other") for _ in range(lent)]
    wait_until(lambda: Api.now == lent, WAIT_S, "all slots that are lent are in use")
    Api.peak = 0
    Api.is_down.clear()
    results = [task.get(timeout=WAIT_S) for task in tasks]
    assert Api.peak == SLOTS  # those that waited went on in the slots that were free, and were given no others
    Api.holds_none.set()
    results += [other.get(timeout=WAIT_S) for other in others]
    assert every(result.status == "ok" for result in results), worker.log
    assert sorted(begun(), key=int) == [str(n) for n in range(SLOTS + 4)]  # and none of them twice
