"""What a worker does with messages that came too late, or whose headers are meant for its log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from fleet.engine.process.consumer import check_headers
from fleet.errors import InvalidTask
from fleet.models import BotResult
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until

WAIT_S = 30


def result(redis_url: str, task_id: str) -> BotResult | None:
    row = connect(redis_url).get(keys.result(task_id))
    return BotResult.model_validate(json.loads(row)["result"]) if row else None  # type: ignore[arg-type]


def test_a_message_whose_expires_has_passed_is_a_typed_failure_and_a_dead_letter(
    start_worker: StartWorker, redis_url: str, plain: Celery
) -> None:
    from fleet.engine.tasks import submit_task

    options: dict[str, Any] = {"expires": datetime.now(UTC) - timedelta(seconds=5)}
    late = submit_task.apply_async(("What is 1+1?",), {"pool": "research"}, **options).id
    foreign = plain.send_task("fleet.submit_task", args=["What is 1+1?"], **options).id
    while_waiting = submit_task.apply_async(("What is 1+1?",), {"pool": "research"}, countdown=1, expires=0.5).id
    in_time = submit_task.apply_async(("What is 1+1?",), {"pool": "research"}, expires=600).id
    worker = start_worker()
    ids = [late, foreign, while_waiting]
    wait_until(lambda: every(result(redis_url, one) for one in [*ids, in_time]), WAIT_S, f"results; log:\n{worker.log}")
    for task_id in ids:
        failed = result(redis_url, task_id)
        assert failed is not None and failed.error is not None
        assert (failed.status, failed.error.type) == ("failed", "Expired")
        assert "expires: expected a worker before" in failed.error.message
    answered = result(redis_url, in_time)
    assert answered is not None and answered.answer == "2"
    dead = connect(redis_url).hkeys("{fleet}:dead:letters")
    assert sorted(key.decode() for key in dead) == sorted(ids)  # type: ignore[union-attr]
    wait_until(lambda: connect(redis_url).hlen("fleet:unacked") == 0, WAIT_S, "everything is acknowledged")


def test_no_line_of_a_task_id_or_name_is_forged_in_the_log(
    start_worker: StartWorker, redis_url: str, plain: Celery
) -> None:
    odd = "one\nERROR forged\x1b[31m"
    plain.send_task("fleet.submit_task", args=["x"], task_id=odd)
    shadowed = plain.send_task("fleet.submit_task", args=["x"], shadow=odd).id
    worker = start_worker()
    wait_until(lambda: result(redis_url, odd) and result(redis_url, shadowed), WAIT_S, f"results; log:\n{worker.log}")
    for task_id, header in ((odd, "id"), (shadowed, "shadow")):
        failed = result(redis_url, task_id)
        assert failed is not None and failed.error is not None
        assert (failed.error.type, failed.error.message.split(":")[0]) == ("InvalidTask", header)
    assert "\nERROR forged" not in worker.log
    assert "\x1b[31m" not in worker.log


@pytest.mark.parametrize(
    "headers",
    [{"id": 5}, {"id": "a\nb"}, {"id": "\ud800"}, {"id": "a", "shadow": "\r"}, {"id": "a", "eta": "10000-01-01"}],
)
def test_headers_that_celery_would_choke_on_are_named(headers: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=f"^{list(headers)[-1]}: expected"):
        check_headers(headers)
