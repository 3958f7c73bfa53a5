"""Each time of a schedule is submitted once: by two beats, by one that dies in between, after an outage."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.messages import queues
from fleet.engine.messages.producer import task_id_of
from fleet.engine.operations.schedules.firing import AGAIN_S, Clockwork
from fleet.engine.operations.schedules.view import SILENT_S, read_schedules
from fleet.schedules import ScheduleBook
from fleet.store import keys, schedule_keys
from fleet.store.client import connect
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until

NOW = 1_796_000_000.0
Write = Callable[[str], config.Settings]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, timeout_s=5) as one:
        yield one


@pytest.fixture
def write(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a fleet.toml with one pool and these schedules, and read it."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)

    def settings_of(schedules: str) -> config.Settings:
        (tmp_path / "fleet.toml").write_text(f"[pools.news]\nbots = 2\n{schedules}")
        config.current.cache_clear()
        return config.current()

    return settings_of


HOURLY = '[schedules.news]\nevery_s = 3600\nmissed = "{missed}"\ntask = {{ prompt = "secret words" }}\n'
FROM = NOW - NOW % 3600


def queued(client: redis.Redis) -> list[dict[str, object]]:
    """Return the messages that wait, the first one first."""
    lists = [queues.list_key(keys.queue("news"), priority) for priority in range(5)]
    return [json.loads(one) for name in lists for one in reversed(client.lrange(name, 0, -1))]


def test_a_schedule_begins_when_it_is_first_seen_and_then_each_time_is_submitted_once(
    client: redis.Redis, write: Write
) -> None:
    clockwork = Clockwork(client, write(HOURLY.format(missed="all")))
    clockwork.look(FROM + 1)
    assert not queued(client)
    for at in (FROM + 3599, FROM + 3600, FROM + 3601, FROM + 7200, FROM + 7300):
        clockwork.look(at)
    assert len(queued(client)) == 2
    entry = read_schedules(client, config.current(), FROM + 7300).schedules[0]
    assert (entry.sent_for, entry.tasks, entry.skipped, entry.state) == (FROM + 7200, 1, 0, "on time")
    assert entry.task_id in {message["headers"]["id"] for message in queued(client)}  # type: ignore[index]


def test_two_beats_that_look_at_the_same_moment_submit_a_time_once(client: redis.Redis, write: Write) -> None:
    beats = [Clockwork(client, write(HOURLY.format(missed="all"))) for _ in range(4)]
    for beat in beats:
        beat.look(FROM + 1)
    for hour in range(1, 6):
        threads = [threading.Thread(target=beat.look, args=(FROM + hour * 3600,)) for beat in beats]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(queued(client)) == 5


def test_a_beat_that_dies_between_the_submission_and_the_note_leaves_nothing_out_and_doubles_nothing(
    client: redis.Redis, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write(HOURLY.format(missed="skip"))
    Clockwork(client, settings).look(FROM + 1)
    with monkeypatch.context() as patch:
        patch.setattr(ScheduleBook, "advance", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Clockwork(client, settings).look(FROM + 3600)
    assert len(queued(client)) == 1
    assert read_schedules(client, settings, FROM + 3600).schedules[0].sent_for is None
    Clockwork(client, settings).look(FROM + 3610)
    assert len(queued(client)) == 1
    assert read_schedules(client, settings, FROM + 3610).schedules[0].sent_for == FROM + 3600


@pytest.mark.parametrize(("missed", "tasks", "skipped"), [("once", 1, 4), ("all", 5, 0), ("skip", 0, 5)])
def test_times_at_which_no_beat_ran_are_treated_as_is_wanted_and_told(
    missed: str, tasks: int, skipped: int, client: redis.Redis, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write(HOURLY.format(missed=missed))
    Clockwork(client, settings).look(FROM + 1)
    with caplog.at_level(logging.WARNING):
        Clockwork(client, settings).look(FROM + 5 * 3600 + 100)
    events = [fields[b"event"] for _, fields in client.xrange(keys.events())]
    assert len(queued(client)) == tasks
    assert events == [b"schedule_missed"] * bool(skipped)
    assert (f"schedule_times_left_out schedule=news count={skipped}" in caplog.text) is bool(skipped)
    assert read_schedules(client, settings, FROM + 5 * 3600 + 100).schedules[0].skipped == skipped


def test_a_file_of_tasks_is_submitted_whole_and_each_task_says_whose_it_is(
    client: redis.Redis, write: Write, tmp_path: Path
) -> None:
    lines = ['"what is new?"', "", '{"prompt": "and what else?", "priority": "high", "metadata": {"of": "me"}}']
    (tmp_path / "daily.jsonl").write_text("\n".join(lines))
    settings = write('[schedules.news]\nevery_s = 3600\nexpires_s = 600\ntasks = "daily.jsonl"\n')
    Clockwork(client, settings).look(FROM + 1)
    Clockwork(client, settings).look(FROM + 3600)
    bodies = {str(message["body"]) for message in queued(client)}
    assert len(queued(client)) == 2
    assert len(bodies) == 2
    assert read_schedules(client, settings, FROM + 3600).schedules[0].tasks == 2
    assert {message["headers"]["fleet_expires"] for message in queued(client)} == {FROM + 4200}  # type: ignore[index]


def test_a_file_that_is_gone_keeps_its_time_due_and_is_told_without_what_lies_in_it(
    client: redis.Redis, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write('[schedules.news]\nevery_s = 3600\ntasks = "daily.jsonl"\n')
    clockwork = Clockwork(client, settings)
    clockwork.look(FROM + 1)
    for text in (None, '{"prompt": "secret words", "priority": "secret priority"}\n'):
        if text is not None:
            (tmp_path / "daily.jsonl").write_text(text)
        clockwork.look(FROM + 3600 + (0 if text is None else AGAIN_S))
        view = read_schedules(client, settings, FROM + 3700)
        assert "daily.jsonl" in view.schedules[0].state and "overdue" in view.schedules[0].state
        assert "secret" not in view.trouble + view.schedules[0].state + caplog.text
    (tmp_path / "daily.jsonl").write_text('"what is new?"\n')
    clockwork.look(FROM + 3600 + AGAIN_S + 1)
    assert not queued(client), "it is not tried at every look"
    clockwork.look(FROM + 3600 + 2 * AGAIN_S)
    assert len(queued(client)) == 1
    assert read_schedules(client, settings, FROM + 3700).schedules[0].state == "on time"


def test_a_paused_schedule_leaves_its_times_out_and_goes_on_by_itself(client: redis.Redis, write: Write) -> None:
    settings = write(HOURLY.format(missed="all"))
    clockwork, book = Clockwork(client, settings), ScheduleBook(client)
    clockwork.look(FROM + 1)
    book.pause("news", until=FROM + 9000, by="ann")
    clockwork.look(FROM + 3600)
    view = read_schedules(client, settings, FROM + 3700).schedules[0]
    assert view.state.startswith("paused by ann until") and view.next[0] == FROM + 10_800
    clockwork.look(FROM + 7200)
    assert not queued(client)
    clockwork.look(FROM + 10_800)
    assert len(queued(client)) == 1
    assert not book.resume("nobody") and book.resume("news")


def test_an_edited_time_makes_nothing_of_the_past_due(client: redis.Redis, write: Write) -> None:
    Clockwork(client, write(HOURLY.format(missed="all"))).look(FROM + 1)
    minutely = write('[schedules.news]\nevery_s = 60\nmissed = "all"\ntask = { prompt = "x" }\n')
    Clockwork(client, minutely).look(FROM + 3001)
    assert not queued(client)
    Clockwork(client, minutely).look(FROM + 3061)
    assert len(queued(client)) == 1


def test_that_no_beat_looks_is_told_and_is_over_when_one_does(client: redis.Redis, write: Write) -> None:
    settings = write(HOURLY.format(missed="all"))
    told = read_schedules(client, settings, NOW).trouble
    assert told == "no beat submits the tasks of 1 schedule: none has looked in the last day"
    Clockwork(client, settings, beat="host:1").look(FROM + 1)
    assert read_schedules(client, settings, FROM + 10).trouble == ""
    assert "news should have run" in read_schedules(client, settings, FROM + 3700 + SILENT_S).trouble


def test_what_schedules_keep_has_an_end(client: redis.Redis, write: Write) -> None:
    clockwork = Clockwork(client, write(HOURLY.format(missed="all")), beat="host:1")
    clockwork.look(FROM + 1)
    clockwork.look(FROM + 3600)
    ScheduleBook(client).blame("news", "x" * 1000)
    kept = [*client.scan_iter(schedule_keys.schedule("*")), schedule_keys.beats()]
    assert len(kept) == 3 and every(client.ttl(name) > 0 for name in kept)


class Beat:
    """A real `celery -A fleet beat`, ended by its pid."""

    def __init__(self, folder: Path) -> None:
        self._log = (folder / "beat.log").open("ab")
        command = [sys.executable, "-m", "celery", "-A", "fleet", "beat", "--loglevel", "INFO"]
        self._process = subprocess.Popen(command, cwd=folder, stdout=self._log, stderr=self._log, env=dict(os.environ))

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self, number: int = signal.SIGKILL) -> int:
        if self.is_alive:
            self._process.send_signal(number)
        self._log.close()
        return self._process.wait(10)


def wait_for_more(client: redis.Redis, tasks: int, folder: Path) -> None:
    before = len(queued(client))
    wait_until(lambda: len(queued(client)) >= before + tasks, 30, (folder / "beat.log").read_text)


def test_beats_that_are_killed_and_a_redis_that_restarts_lose_no_time_and_double_none(
    own_redis: RedisServer, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", own_redis.url)
    settings = write('[schedules.news]\nevery_s = 1\nmissed = "all"\ntask = { prompt = "x" }\n')
    began = int(time.time())
    beats = [Beat(tmp_path), Beat(tmp_path)]
    try:
        with connect(own_redis.url, timeout_s=5) as client:
            wait_until(lambda: len(ScheduleBook(client).beats()) == 2, 30, (tmp_path / "beat.log").read_text)
            for _ in range(3):
                wait_for_more(client, 3, tmp_path)
                beats.pop(0).kill()
                beats.append(Beat(tmp_path))
            wait_until(lambda: len(ScheduleBook(client).beats()) == 5, 30, (tmp_path / "beat.log").read_text)
        own_redis.kill()
        time.sleep(2)  # times pass by while it is away
        own_redis.start()
        with connect(own_redis.url, timeout_s=5) as client:
            wait_for_more(client, 5, tmp_path)
            assert every(beat.is_alive for beat in beats)
            ends = [beat.kill(signal.SIGTERM) for beat in beats]
            entry = read_schedules(client, settings, time.time()).schedules[0]
            found = Counter(message["headers"]["id"] for message in queued(client))  # type: ignore[index]
    finally:
        for beat in beats:
            beat.kill()
    assert ends == [0, 0], (tmp_path / "beat.log").read_text()
    assert set(found.values()) == {1}
    time_of = {
        task_id_of(f"schedule:news:{datetime.fromtimestamp(at, UTC).isoformat()}:0"): at
        for at in range(began, int(time.time()) + 2)
    }
    times = sorted(time_of[str(task_id)] for task_id in found)
    assert times == list(range(times[0], times[0] + len(times)))
    assert entry.sent_for == times[-1]
