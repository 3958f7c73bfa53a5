"""What a worker that signs nothing says where it should send on into a pool that takes signed tasks only."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet import config
from fleet.engine.app import app
from fleet.engine.messages.envelope import TASK_NAME
from fleet.errors import NotDelegated


def test_a_worker_of_celerys_own_pools_is_told_what_seals_and_a_producer_is_not(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fleet.toml").write_text("[pools.closed]\nbots = 1\ndelegated = true\n")
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.delenv("FLEET_DELEGATION", raising=False)
    config.current.cache_clear()
    from celery._state import _task_stack

    from fleet.engine.tasks import submit_task

    try:
        message = TASK_NAME, (), {"prompt": "x", "pool": "closed"}
        with pytest.raises(NotDelegated, match="FLEET_DELEGATION") as asked:
            app.amqp.as_task_v2("t", *message)
        assert "prefork" not in str(asked.value)
        submit_task.push_request(id="first", called_directly=False)

        _task_stack.push(submit_task)
        try:
            with pytest.raises(NotDelegated, match=r"Celery's own pools \(prefork, solo\) seals nothing.*leave out"):
                app.amqp.as_task_v2("t", *message)
        finally:
            _task_stack.pop()
            submit_task.pop_request()
    finally:
        config.current.cache_clear()
