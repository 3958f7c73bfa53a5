"""What Celery's events, and so Flower, are told of a task that went back to wait."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fleet.waits import SENTENCES, Wait


def test_a_task_that_went_back_is_told_with_its_reason_and_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.engine.process.request import CeleryRequest, GoneBack, Request

    sent: list[tuple[str, dict[str, Any]]] = []
    request = Request.__new__(Request)
    monkeypatch.setattr(Request, "send_event", lambda _, name, **fields: sent.append((name, fields)))
    monkeypatch.setattr(CeleryRequest, "on_failure", lambda *_: None)
    for wait in (Wait("outage", 86_400.0, "openai/gpt-5/default", "503"), Wait("key")):
        request.on_failure(SimpleNamespace(exception=GoneBack(wait)))
    assert [name for name, _ in sent] == ["task-retried"] * 2
    assert [fields["exception"] for _, fields in sent] == [
        "waits: openai/gpt-5/default: the provider fails or does not answer, so calls wait (503), "
        "until 1970-01-02 00:00:00 UTC",
        f"waits: {SENTENCES['key']}",
    ]
