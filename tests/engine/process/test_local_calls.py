"""A signature is not asked for where a program works for its own task; no message passes for that."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.engine.messages.delegated import LOCAL
from fleet.engine.messages.envelope import DELEGATION


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The signatures with which tasks come to be worked for."""
    from fleet.engine.process.wiring import PROCESS

    found: list[Any] = []
    monkeypatch.setattr(PROCESS, "run_here", lambda task_id, request: found.append(request[DELEGATION]))
    return found


def test_a_direct_call_and_apply_need_no_signature(worked: list[Any]) -> None:
    from fleet.engine.tasks import submit_task

    submit_task("x")
    submit_task.apply(("x",))
    assert worked == [LOCAL, LOCAL]


@pytest.mark.parametrize("name", ["celery.map", "celery.starmap"])
def test_what_celerys_own_tasks_call_is_not_taken_for_a_direct_call(worked: list[Any], name: str) -> None:
    from fleet.engine.app import app
    from fleet.engine.tasks import submit_task

    app.tasks[name](submit_task.s(), ["x"])
    assert worked == [None]


def test_a_message_that_says_it_is_eager_is_not_taken_for_one(worked: list[Any]) -> None:
    from fleet.engine.tasks import submit_task

    submit_task.push_request(id="t", is_eager=True, called_directly=False, delivery_info={"is_eager": True})
    try:
        submit_task.run("x")
    finally:
        submit_task.pop_request()
    assert worked == [None]
