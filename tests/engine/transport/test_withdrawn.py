"""Taking back what waits, on a real Redis: out of lists and parked sets, into leases, in small steps."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import envelope, fresh_envelope, task_headers, task_id_in
from fleet.engine.messages.queues import list_key
from fleet.engine.transport import leases
from fleet.engine.transport.parking import parked
from fleet.engine.transport.revoked import mark_revoked
from fleet.engine.transport.withdrawal import withdrawn
from fleet.store import keys
from fleet.store.client import Script, connect, run_script
from tests.every import every

LIST = list_key("q", 2)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def message(task_id: str, ends_in_s: float | None = None) -> bytes:
    now = time.time()
    return fresh_envelope(
        task_id=task_id, queue="q", priority=2, body=b'[[],{"prompt":"x"},{}]', queued_at=now,
        expires_at=None if ends_in_s is None else now + ends_in_s,
    )  # fmt: skip


def plain(ends_in_s: float, padding: str = "") -> str:
    """Return a message as a plain Celery client writes it."""
    expires = datetime.fromtimestamp(time.time() + ends_in_s, UTC).isoformat()
    return f'{{"body": "{padding}", "headers": {{"task": "fleet.submit_task", "id": "p", "expires": "{expires}"}}}}'


def queue(client: redis.Redis, *messages: bytes, place: str = LIST) -> None:
    for one in messages:
        client.lpush(place, one)


def park(client: redis.Redis, task_id: str, text: bytes) -> None:
    call = parked.publish_later_call("q", LIST, 2, text, task_id=task_id, at=time.time() + 600)
    run_script(client, parked.PUBLISH_LATER, *call)


def waiting(client: redis.Redis, place: str = LIST) -> list[str | None]:
    """Return the ids in a list, the next one first."""
    return [task_id_in(text) for text in reversed(client.lrange(place, 0, -1))]  # type: ignore[arg-type]


def ids(stretches: Iterator[withdrawn.Stretch]) -> list[str | None]:
    return [task_id_in(one.message) for stretch in stretches for one in stretch.found]


def test_what_is_wanted_leaves_its_place_wherever_it_lies_and_the_others_keep_their_order(client: redis.Redis) -> None:
    names = [f"t{number}" for number in range(2500)]
    drawn = random.Random(7)
    wanted = {name for name in names if drawn.random() < 0.3}
    queue(client, *map(message, names))
    queue(client, message("urgent"), place=list_key("q", 0))
    park(client, "later", message("later"))
    park(client, "kept", message("kept"))
    found = ids(withdrawn.withdraw(client, "q", "ids", [*wanted, "urgent", "later"]))
    assert found == ["urgent", *(name for name in names if name in wanted), "later"]
    assert waiting(client) == [name for name in names if name not in wanted]
    assert client.hkeys(keys.parked()) == [b"kept"]
    assert client.zcard(keys.openings()) == 1
    assert client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == len(found)


def test_a_task_of_celerys_own_is_withdrawn_once_its_end_has_passed_and_for_no_other_reason(
    client: redis.Redis,
) -> None:
    own = {
        name: plain(seconds).replace("fleet.submit_task", "own.task") for name, seconds in (("over", -5), ("soon", 60))
    }
    client.lpush(LIST, own["soon"], own["over"])
    client.zadd(keys.revoked(), {task_id_in(own["soon"].encode()) or "": time.time() + 600})
    assert any(withdrawn.seek_end(client, "q"))
    (found,) = (one for stretch in withdrawn.withdraw(client, "q", "over") for one in stretch.found)
    assert found.message == own["over"].encode()
    assert client.lrange(LIST, 0, -1) == [own["soon"].encode()]


def test_all_of_a_queue_is_withdrawn_but_what_is_no_bots(client: redis.Redis) -> None:
    own = envelope(task_id="own", queue="q", priority=2, headers=task_headers("own") | {"task": "own"}, body=b"[]")
    queue(client, message("a"), own, message("b"), b"nonsense")
    park(client, "later", message("later"))
    assert ids(withdrawn.withdraw(client, "q", "all")) == ["a", "b", "later"]
    assert [text in (own, b"nonsense") for text in client.lrange(LIST, 0, -1)] == [True, True]  # type: ignore[union-attr]
    assert (client.hlen(keys.parked()), client.zcard(keys.parked_order("q"))) == (0, 0)


def test_what_is_over_is_found_without_reading_json_and_the_next_end_is_told(client: redis.Redis) -> None:
    queue(client, message("endless"), message("over", -5), message("soon", 30), message("late", 90), message("out"))
    park(client, "parked", message("parked", -1))
    mark_revoked(client, ["out"])
    stretches = list(withdrawn.withdraw(client, "q", "over"))
    assert ids(iter(stretches)) == ["over", "out", "parked"]
    assert min(s.next_end for s in stretches if s.next_end) == pytest.approx(time.time() + 30, abs=5)
    assert waiting(client) == ["endless", "soon", "late"]


def test_whoever_withdraws_and_dies_loses_nothing_a_suspect_stays_one_and_a_mark_follows(client: redis.Redis) -> None:
    keyed = b'{"mark":"k",' + message("k")[1:]
    queue(client, keyed, message("suspect"))
    client.set(keys.submitted("k"), "q|1|x")
    client.hset(keys.suspects(), hashlib.sha1(client.lindex(LIST, 0)).hexdigest(), "somebody q")  # type: ignore[arg-type]
    (stretch,) = withdrawn.withdraw(client, "q", "all")
    tags = [one.tag for one in stretch.found]
    assert client.get(keys.submitted("k")) == f"t|{tags[0]}".encode()
    assert [leases.is_suspect(tag) for tag in tags] == [False, True]
    assert waiting(client) == []
    run_script(client, leases.RESTORE, *leases.restore_call(tags))  # what a sweep does once its leases are over
    assert waiting(client) == ["k", "suspect"]
    assert client.hlen(keys.suspects()) == 1
    withdrawn.acknowledge(client, [one for stretch in withdrawn.withdraw(client, "q", "all") for one in stretch.found])
    assert (client.hlen(keys.unacked()), client.zcard(keys.unacked_index())) == (0, 0)


def test_only_python_can_tell_who_is_meant_by_a_body_and_what_moves_meanwhile_is_met(client: redis.Redis) -> None:
    names = [f"t{number}" for number in range(700)]
    queue(client, *map(message, names))
    park(client, "t9999", message("t9999"))
    seen = []

    def matches(text: bytes) -> bool:
        name = str(task_id_in(text))
        seen.append(name)
        if len(seen) == 300:
            client.rpop(LIST, 2)  # a worker takes two while we look
        return name.endswith("9")

    found = [one for stretch in withdrawn.withdraw_matching(client, "q", matches) for one in stretch.found]
    names_found = [str(task_id_in(one.message)) for one in found]
    assert names_found == [name for name in names if name.endswith("9")] + ["t9999"]
    assert client.llen(LIST) + len(found) == len(names) + 1 - 2
    assert sum(len(s.found) for s in withdrawn.withdraw_matching(client, "q", lambda _: True, is_meant=False)) == 628
    assert client.llen(LIST) == 628


def test_one_process_walks_through_a_queue_and_again_only_when_the_next_end_has_come(client: redis.Redis) -> None:
    assert withdrawn.claim(client) is None
    now = time.time()
    client.zadd(keys.ends(), {"later": now + 600, "q": now - 1})
    claimed = withdrawn.claim(client)
    assert claimed is not None and claimed[0] == "q"
    assert withdrawn.claim(client) is None
    withdrawn.finish(client, claimed, now + 0.1, 50)
    assert client.zscore(keys.ends(), "q") == pytest.approx(now + 50, abs=10)
    client.zadd(keys.ends(), {"q": now - 1})
    claimed = withdrawn.claim(client)
    assert claimed is not None
    client.execute_command("ZADD", keys.ends(), "LT", now + 5, "q")  # queued meanwhile
    withdrawn.finish(client, claimed, None, 1)
    assert client.zscore(keys.ends(), "q") == pytest.approx(now + 5)
    client.zadd(keys.ends(), {"q": now - 1})
    claimed = withdrawn.claim(client)
    assert claimed is not None
    withdrawn.finish(client, claimed, None, 1)
    assert client.zscore(keys.ends(), "q") is None


def test_the_end_that_a_plain_clients_message_tells_is_when_its_queue_is_walked_through(client: redis.Redis) -> None:
    client.lpush(LIST, plain(18_000))
    assert any(withdrawn.seek_end(client, "q"))
    assert client.zscore(keys.ends(), "q") == pytest.approx(time.time() + 18_000, abs=60)
    assert every(not one for one in withdrawn.seek_end(client, "q"))  # known
    client.lpush(list_key("q", 4), plain(-5), plain(9_000))
    assert any(withdrawn.seek_end(client, "q"))
    assert withdrawn.claim(client) is not None


@pytest.mark.parametrize("place", [0, 700, 2499, 2999])
def test_a_seek_looks_at_each_message_of_a_queue_that_stands_once_wherever_it_lies(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(withdrawn, "SOUGHT_MOST", 500)
    client.lpush(LIST, *(plain(9_000) if n == place else message(f"m{n}") for n in range(3000)))
    counts: list[int] = []
    call = withdrawn.run_script

    def counting(client: redis.Redis, script: Script, *parts: Any) -> Any:
        reply = call(client, script, *parts)
        counts.append(reply[2])
        return reply

    monkeypatch.setattr(withdrawn, "run_script", counting)
    steps = withdrawn.seek_end(client, "q")
    found = [next(steps)]  # who looks next goes on where this one has stopped
    client.lpush(LIST, plain(600), *(message(f"new{n}") for n in range(40)))
    client.rpush(LIST, message("back"))  # moves all places, from the end that takes take from
    found += withdrawn.seek_end(client, "q")
    assert found.count(True) == 1 and sum(counts) == 3001
    assert client.zscore(keys.ends(), "q") == pytest.approx(time.time() + 9_000, abs=60)
    counts.clear()
    assert any(withdrawn.seek_end(client, "q")), "what has come meanwhile is looked at in the next pass, and no more"
    assert client.zscore(keys.ends(), "q") == pytest.approx(time.time() + 600, abs=60)
    assert sum(counts) == 42 and 0 < client.ttl(keys.turn("ends:seen:q")) <= withdrawn.SOUGHT_LIFE_S
    client.ltrim(LIST, 41, -1)  # the newest are gone
    counts.clear()
    assert every(not one for one in withdrawn.seek_end(client, "q")) and sum(counts) == 3001
    client.delete(LIST)
    assert every(not one for one in withdrawn.seek_end(client, "q"))
    client.lpush(LIST, plain(30))
    assert any(withdrawn.seek_end(client, "q"))


@pytest.mark.parametrize(("taken", "back", "gone"), [(0, 40, False), (30, 10, False), (0, 90, True)])
def test_a_seek_jumps_over_none_where_messages_are_put_back_or_taken_while_it_pauses(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, taken: int, back: int, gone: bool
) -> None:
    monkeypatch.setattr(withdrawn, "SOUGHT_MOST", 100)
    client.lpush(LIST, *(message(f"m{n}") for n in range(600)))
    steps = withdrawn.seek_end(client, "q")
    assert (next(steps), next(steps)) == (False, False)
    client.lset(LIST, 200, plain(9_000))  # the next one to be looked at
    if gone:  # the last one that was looked at
        client.lset(LIST, 199, withdrawn.GONE)
    if taken:
        client.rpop(LIST, taken)
    client.rpush(LIST, *(message(f"back{n}") for n in range(back)))
    client.lpush(LIST, *(message(f"new{n}") for n in range(20)))
    assert any(steps)
    assert client.zscore(keys.ends(), "q") == pytest.approx(time.time() + 9_000, abs=60)


def test_a_seek_copies_few_bytes_where_all_lists_stand_and_no_more_than_a_step_where_they_do_not(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawn, "STRETCH_BYTES", 100_000)  # twenty times less than it is
    for step in range(5):
        client.lpush(list_key("q", step), *(b" " * 5_000 + message(f"m{step}-{n}") for n in range(60)))

    def copied() -> list[int]:
        """Seek, and return how many messages each step has copied."""
        counts = []
        with client.monitor() as monitor:
            for _ in withdrawn.seek_end(client, "q"):
                client.echo("step")
                seen = 0
                while "echo" not in (line := monitor.next_command()["command"].lower()):
                    words = line.split()
                    if words[0] == "lrange":
                        seen += int(words[-1]) - int(words[-2]) + 1
                    seen += words[0] == "lindex"
                counts.append(seen)
        return counts

    first = copied()
    assert len(first) >= 15 and max(first) < 2 * 100_000 // 5_000
    assert copied() == [5], "one message of each list that stands"
    client.lpush(list_key("q", 4), plain(-5))
    assert any(withdrawn.seek_end(client, "q"))


def test_a_seek_lets_a_running_walk_and_the_pause_behind_it_be(client: redis.Redis) -> None:
    client.lpush(LIST, plain(-5))
    assert any(withdrawn.seek_end(client, "q"))
    claimed = withdrawn.claim(client)
    assert claimed is not None
    client.lpush(LIST, plain(-4))
    assert every(not one for one in withdrawn.seek_end(client, "q"))
    assert withdrawn.claim(client) is None
    withdrawn.finish(client, claimed, time.time(), withdrawn.LONGEST_PAUSE_S)
    assert every(not one for one in withdrawn.seek_end(client, "q"))
    assert withdrawn.claim(client) is None
    client.zrem(keys.ends(), "q")  # the walk had passed the place before the message came there
    assert any(withdrawn.seek_end(client, "q")), "what was seen during a walk is looked at again"


def test_an_end_that_no_walk_would_act_on_makes_none(client: redis.Redis) -> None:
    client.lpush(LIST, plain(-5, padding="x" * weight.MAX_MESSAGE_BYTES))
    client.lpush(LIST, plain(-5).replace("T", " at "))
    assert every(not one for one in withdrawn.seek_end(client, "q"))
    assert client.zscore(keys.ends(), "q") is None
