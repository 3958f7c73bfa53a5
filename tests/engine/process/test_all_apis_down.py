"""All APIs fail at once: how many calls that takes until the fleet knows, by the ledgers, with real workers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest
import redis

from fleet.resilience import read_breakers_now
from tests.engine.conftest import StartWorker
from tests.engine.process.staged_api import Api, use
from tests.waiting import wait_until

WAIT_S = 60.0
#: Tasks a second for each API; and all of them in one pool, whose ladder has the others.
A_SECOND, IN_ONE = {"alpha": 4, "beta": 2, "gamma": 1}, {"alpha": 40, "beta": 0, "gamma": 0}
#: What issue 16 allows.
MOST_FAILED = 20


@pytest.fixture
def apis(request: pytest.FixtureRequest, fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Api]]:
    found = {name: Api(latency_ms=100) for name in A_SECOND}
    use(monkeypatch, found, has_ladders=request.param)
    yield found
    for api in found.values():
        api.stop()


@pytest.mark.parametrize(
    ("apis", "a_second"), [(False, A_SECOND), (True, A_SECOND), (True, IN_ONE)],
    ids=["each alone", "each with a ladder", "one ladder over all"], indirect=["apis"],
)  # fmt: skip
def test_twenty_failed_calls_are_enough_to_know_that_all_of_three_apis_are_down(
    apis: dict[str, Api], a_second: dict[str, int], start_worker: StartWorker, redis_url: str
) -> None:
    from fleet.engine.tasks import submit_task

    workers = [start_worker() for _ in range(2)]
    client = redis.Redis.from_url(redis_url)
    numbers = itertools.count()

    def feed(seconds: int, *, until_down: bool) -> None:
        """Submit tasks evenly, until that is over or all breakers are open."""
        began, pools = time.monotonic(), [pool for pool, count in a_second.items() for _ in range(count)]
        for number, pool in enumerate(pools * seconds):
            submit_task.delay(f"What is {next(numbers)}+1?", pool=pool)
            while time.monotonic() < began + (number + 1) / len(pools):
                if until_down and len(opened()) == len(apis):
                    return
                time.sleep(0.01)

    def opened() -> list[str]:
        views = read_breakers_now(client, [f"{name}/m-1/default" for name in apis])
        return [view.limit for view in views if not view.is_closed]

    def failed() -> dict[str, int]:
        return {name: api.calls["calls"] - api.calls["served"] - api.calls["in_flight"] for name, api in apis.items()}

    feed(5, until_down=False)
    asked = next(numbers)
    wait_until(
        lambda: sum(api.calls["served"] for api in apis.values()) == asked, WAIT_S,
        lambda: f"all is well; log:\n{workers[0].log}",
    )  # fmt: skip
    assert sum(failed().values()) == 0
    for api in apis.values():
        api.change(error_rate=1.0)
    feed(20, until_down=True)
    assert len(opened()) == len(apis), workers[0].log
    assert sum(failed().values()) <= MOST_FAILED, failed()
    client.close()
