"""What `fleet doctor` says of workers that stood still."""

from __future__ import annotations

import pytest

from fleet.cli.setup.stalls import recent_stalls, stall_checks
from fleet.config import load
from fleet.signals import catalogue
from fleet.signals.events import record_event_now
from fleet.store import keys
from fleet.store.client import connect


def test_functions_that_blocked_and_workers_that_ended_themselves_are_named_with_what_to_do(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    client = connect(redis_url)
    assert [check.level for check in stall_checks(recent_stalls(load()))] == ["ok"]
    client.xadd(keys.events(), {"event": "function_blocked", "function": "old:f", "at": "old.py:1", "s": "3"}, id="1-1")
    for seconds in (2.5, 13.1):
        record_event_now(client, catalogue.FUNCTION_BLOCKED, function="my_bots:solve", at="my_bots.py:12", s=seconds)
    record_event_now(client, catalogue.WORKER_STALLED, worker="w1@host", why="its event loop has stood still for 61 s")
    record_event_now(client, catalogue.WORKER_STARTED, worker="w1@host", pid=1)

    found = {check.name: check for check in stall_checks(recent_stalls(load()))}
    assert [check.level for check in found.values()] == ["warn", "warn"]
    blocked = found["function my_bots:solve: loop"]
    assert "for 13 s at my_bots.py:12; 2 times in the last day" in blocked.found and "drop `async`" in blocked.advice
    assert "stood still for 61 s; 1 time" in found["worker w1@host: stalls"].found
