"""The loop of `fleet run` with a stand-in for the workers: whoever submits writes the result at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli.run import flow
from fleet.cli.run.answers import AnswerFile
from fleet.cli.run.collector import Collector
from fleet.cli.run.entries import FileSource, FileTask, LineFormat, read_entries
from fleet.cli.run.flow import Flow
from fleet.cli.run.patience import Patience
from fleet.cli.run.summary import Summary
from fleet.engine.messages.producer import task_id_of
from fleet.engine.operations.waits import Crew, Standings
from fleet.errors import StoreUnavailable
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import connect, store_errors
from tests.redis_server import RedisServer


class Workers:
    """Finishes a task the moment it is submitted."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.batches: list[int] = []
        self.submitted: list[str] = []

    def submit(self, tasks: list[BotTask], idempotency_keys: list[str]) -> list[str]:
        self.batches.append(len(tasks))
        ids = [task_id_of(key) for key in idempotency_keys]
        with connect(self._url, timeout_s=5) as client, store_errors(self._url):
            for name in ids:
                client.set(keys.result(name), json.dumps({"status": "SUCCESS", "result": {"status": "ok"}}))
        self.submitted += ids
        return ids


class Watcher:
    """Keeps what a run says; may act on a warning."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.done = 0

    def update(self, *, done: int, failed: int) -> None:
        self.done = done

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def run_flow(url: str, out: Path, entries: Iterator[FileTask], *, workers: Workers, view: Watcher, window: int) -> bool:
    with AnswerFile(out) as answers, Collector(state_url=url, broker_url=url, timeout_s=5) as collector:
        return Flow(
            run_id="run",
            by_place=False,
            window=window,
            out=answers,
            submit=workers.submit,
            collector=collector,
            summary=Summary(),
            view=view,
            stopping=lambda: False,
            patience=Patience(lambda pools: Standings(Crew(0.0, ()), (), ()), lambda line, is_warning: None),
            diagnose=lambda: None,
        ).run(FileSource(entries))


def entries_of(count: int) -> Iterator[FileTask]:
    return read_entries((b'"prompt"' for _ in range(count)), LineFormat())


def test_no_more_than_the_window_is_ever_in_flight(redis_url: str, tmp_path: Path) -> None:
    workers, view = Workers(redis_url), Watcher()
    assert run_flow(redis_url, tmp_path / "out", entries_of(25), workers=workers, view=view, window=10)
    assert workers.batches == [10, 10, 5]
    assert view.done == 25


def test_an_id_that_utf_8_cannot_carry_stops_nothing(redis_url: str, tmp_path: Path) -> None:
    entries = read_entries(
        [rb'{"id": "\ud800", "prompt": "a"}', rb'{"id": {"deep": [1]}, "prompt": "b"}'], LineFormat()
    )
    assert run_flow(redis_url, tmp_path / "out", entries, workers=Workers(redis_url), view=Watcher(), window=5)
    ids = [json.loads(line)["id"] for line in (tmp_path / "out").read_text().splitlines()]
    assert ids == ["\ud800", {"deep": [1]}]


def test_an_outage_of_redis_is_ridden_out(own_redis: RedisServer, tmp_path: Path) -> None:
    class Repairer(Watcher):
        def warn(self, message: str) -> None:
            super().warn(message)
            own_redis.start()

    workers, view = Workers(own_redis.url), Repairer()
    source = (entry for number, entry in enumerate(entries_of(20)) if number != 10 or own_redis.kill() is None)
    assert run_flow(own_redis.url, tmp_path / "out", source, workers=workers, view=view, window=5)
    lines = [json.loads(line)["line"] for line in (tmp_path / "out").read_text().splitlines()]
    assert sorted(lines) == list(range(1, 21))
    assert len(view.warnings) == 1
    assert "trying again" in view.warnings[0]


def test_a_redis_that_stays_away_ends_the_run(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "OUTAGE_S", 0.2)
    own_redis.kill()
    with pytest.raises(StoreUnavailable):
        run_flow(
            own_redis.url, tmp_path / "out", entries_of(3), workers=Workers(own_redis.url), view=Watcher(), window=5
        )


def test_what_redis_lost_is_submitted_again_under_the_same_keys(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "STALL_S", 0.1)

    class Forgetful(Workers):
        def submit(self, tasks: list[BotTask], idempotency_keys: list[str]) -> list[str]:
            ids = super().submit(tasks, idempotency_keys)
            if len(self.batches) == 1:
                with connect(redis_url, timeout_s=5) as client:
                    client.flushall()
            return ids

    workers, view = Forgetful(redis_url), Watcher()
    assert run_flow(redis_url, tmp_path / "out", entries_of(4), workers=workers, view=view, window=10)
    assert workers.batches == [4, 4]
    assert workers.submitted[:4] == workers.submitted[4:]
    assert "4 tasks in flight" in view.warnings[0]


def test_an_input_is_read_no_faster_than_it_is_answered(redis_url: str, tmp_path: Path) -> None:
    read = [0]
    ahead: list[int] = []

    def counted() -> Iterator[FileTask]:
        for entry in entries_of(300):
            read[0] += 1
            yield entry

    class Comparer(Watcher):
        def update(self, *, done: int, failed: int) -> None:
            ahead.append(read[0] - done)

    workers = Workers(redis_url)
    assert run_flow(redis_url, tmp_path / "out", counted(), workers=workers, view=Comparer(), window=50)
    assert max(ahead) == 50
