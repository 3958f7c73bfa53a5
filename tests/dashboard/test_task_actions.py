"""What the page does about tasks: cancelled, queued again, thrown away, each with an event that says who did it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from itertools import count
from types import SimpleNamespace

import pytest
import redis

from fleet import config
from fleet.dashboard import task_actions
from fleet.dashboard.actions import carry_out, parse
from fleet.engine.messages import queues
from fleet.engine.operations.overview import open_overview
from fleet.engine.transport.held import find_held
from fleet.errors import ConfigurationError
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.operations.test_story import hold, message_of, queue
from tests.engine.operations.test_task_page import die

HOST = socket.gethostname()
RESEARCH = queues.list_key("fleet.research", 2)


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    with connect(redis_url) as opened:
        yield opened


def do(**action: object) -> str:
    return carry_out(parse(json.dumps(action).encode()), config.current(), by="ann").said


def events() -> list[tuple[str, dict[str, str]]]:
    with open_overview(config.current()) as overview:
        return [(event.name, event.fields) for event in overview.read().events]


def test_a_waiting_task_is_cancelled_and_a_held_one_is_only_kept_from_beginning_again(client: redis.Redis) -> None:
    queue(client, "waits")
    hold(client, message_of("held"))
    assert do(do="cancel", task="waits") == "cancelled: it waited, and does not start"
    assert json.loads(client.get(keys.result("waits")) or b"")["status"] == "REVOKED"
    assert do(do="cancel", task="held") == "it has ended, or runs: what runs goes on"
    assert find_held(client, "held") is not None and client.get(keys.result("held")) is None
    client.set(keys.result("done"), '{"status": "SUCCESS", "result": {"status": "ok"}}')
    assert do(do="cancel", task="done", running=True) == "it has ended: no worker holds it"
    assert do(do="cancel", task="typo", running=True).startswith("nobody knows 'typo': it has no message and no result")
    assert client.get(keys.result("typo")) is None
    cancelled = [fields for name, fields in events() if name == "task_cancelled"]
    assert cancelled == [{"task": "waits", "by": "ann", "host": HOST}], "only what was ended is told"


def test_dead_tasks_are_queued_again_one_by_one_and_by_reason(client: redis.Redis) -> None:
    for task in ("one", "two", "three"):
        die(client, task)
    die(client, "other", reason="Poison")
    assert do(do="replay", task="one") == "1 queued"
    assert do(do="replay", task="one") == "1 gone before"
    assert do(do="replay", reason="BadAnswer") == "2 queued"
    assert client.llen(RESEARCH) == 3
    assert do(do="purge", pool="research") == "1 purged"
    assert do(do="purge", everything=True) == "no dead letters"
    with pytest.raises(ConfigurationError, match="purge: expected a task, a pool, a reason or everything"):
        do(do="purge")
    said = [fields for name, fields in events() if name in ("dead_replayed", "dead_purged")]
    assert said[0] == {"pool": "research", "reason": "all", "purged": "1", "by": "ann", "host": HOST}
    assert said[1] == {"pool": "all", "reason": "BadAnswer", "queued": "2", "by": "ann", "host": HOST}


def test_a_bulk_that_takes_long_says_how_much_is_left_and_repeating_it_goes_on(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        die(client, f"t{number}")
    with monkeypatch.context() as patch:
        patch.setattr(task_actions, "BULK_S", -1.0)
        assert (
            do(do="replay", reason="BadAnswer") == "no dead letters; 5 dead letters left: once more goes on with them"
        )
    assert do(do="replay", reason="BadAnswer") == "5 queued"
    assert client.llen(RESEARCH) == 5


def test_going_on_reaches_what_is_older_than_letters_that_stay(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        die(client, f"old{number}")
    for number in range(2):
        die(client, f"stays{number}", reason="Expired")
    seconds = count()
    monkeypatch.setattr(task_actions, "BULK_S", 2.5)
    monkeypatch.setattr(task_actions, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    first = carry_out(parse(b'{"do": "replay", "everything": true}'), config.current(), by="ann")
    assert first.said.startswith("2 stay, ") and "; 3 dead letters left: once more" in first.said
    more = json.loads(first.json())["more"]
    assert (more["do"], more["everything"]) == ("replay", True)
    second = carry_out(parse(json.dumps(more).encode()), config.current(), by="ann")
    assert second.said == "2 queued; 1 dead letter left: once more goes on with them" and second.more is not None
    third = carry_out(second.more, config.current(), by="ann")
    assert (third.said, third.more) == ("1 queued", None)


def test_a_replay_that_dies_after_any_of_its_steps_loses_nothing_and_doubles_nothing(client: redis.Redis) -> None:
    """The letter goes last: whoever repeats a replay whose process died before that queues nothing twice."""
    die(client, "t1")
    row, body = client.hget(keys.dead_letters(), "t1"), client.hget(keys.dead_letter_bodies(), "t1")
    assert row is not None and body is not None
    order = client.zrange(keys.dead_letter_order(), 0, -1)
    do(do="replay", task="t1")
    client.hset(keys.dead_letters(), "t1", row)  # as if it had died before its letter was removed
    client.hset(keys.dead_letter_bodies(), "t1", body)
    client.zadd(keys.dead_letter_order(), dict.fromkeys(order, 0))
    assert do(do="replay", reason="BadAnswer") == "1 queued before"
    assert client.llen(RESEARCH) == 1
    assert do(do="replay", reason="BadAnswer") == "no dead letters"
