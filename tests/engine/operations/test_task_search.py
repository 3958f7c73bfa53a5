"""Tasks are found by what they are, wherever they lie, on a real Redis; a search is bounded and says so."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest
import redis

from fleet import config
from fleet.dashboard.search import wish_of
from fleet.engine.messages.envelope import envelope, task_body, task_headers
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations import task_search
from fleet.engine.operations.task_search import FOUND_STATES, Finder, TaskSearch, Wish
from fleet.engine.outcomes.cancelling import Selection
from fleet.engine.outcomes.dead_letters import bury
from fleet.engine.outcomes.stored import result_meta
from fleet.engine.transport.withdrawal import message_search, reading
from fleet.engine.transport.withdrawal.message_search import may_wait
from fleet.errors import ConfigurationError
from fleet.models import BotResult, BotTask, TaskError
from fleet.signals.windows import BOT_TASK, STATUSES
from fleet.store import keys
from tests.burials import keep
from tests.cli.operate.test_dead import client, fleet

__all__ = ["client"]

SECRET = "a secret question"


def task(pool: str = "research", *, job: str = "nightly", tenant: str = "acme", kind: str = "summary") -> BotTask:
    return BotTask(prompt=SECRET, pool=pool, tenant=tenant, kind=kind, metadata={"job": job, "run": 7})


def hold(client: redis.Redis, task_id: str, asked: BotTask) -> None:
    message = envelope(
        task_id=task_id, queue="fleet.research", priority=2, headers=task_headers(task_id),
        body=task_body(asked, "research"),
    )  # fmt: skip
    client.hset(keys.unacked(), f"tag-{task_id}", b"fleet.research\x06\x162\n" + message)


def die(client: redis.Redis, task_id: str, asked: BotTask, *, reason: str = "BadAnswer") -> None:
    result = BotResult(
        task_id=task_id, status="failed", error=TaskError(type=reason, message="m"), pool=asked.pool,
        finished_at=time.time(),
    )  # fmt: skip
    burial = bury(result, headers={}, body=task_body(asked, asked.pool or "research"))
    assert burial is not None
    keep(client, burial, config.current())


def finish(
    client: redis.Redis, number: int, *, status: str = "ok", job: str = "nightly", pool: str = "research"
) -> None:
    """Let a bot have finished a task of its own, as the finishing script remembers it."""
    task_id, bot = f"done-{pool}-{number}", f"{pool}-{number:03d}"
    result = BotResult(
        task_id=task_id,
        status=status,
        answer=SECRET,
        bot=bot,
        pool=pool,
        finished_at=time.time(),
        metadata={"job": job},
    )  # type: ignore[arg-type]
    client.set(keys.result(task_id), result_meta(result))
    entry = BOT_TASK.pack(task_id.encode(), int(time.time()), 5, STATUSES.index(status))
    client.setrange(keys.bot_tasks(pool), number * 4 * BOT_TASK.size, entry)


def find(client: redis.Redis, **wish: object) -> TaskSearch:
    chosen = Selection(**{name: wish.pop(name) for name in ("pool", "tenant", "metadata") if name in wish})  # type: ignore[arg-type]
    return Finder(client, client, config.current()).find(Wish(chosen, **wish))  # type: ignore[arg-type]


@pytest.fixture
def tasks(client: redis.Redis) -> list[str]:
    """Queue, hold, bury and finish tasks of two jobs; return the ids of those that wait."""
    waiting = list(submit_many([task(), task(job="daily"), task("writing", tenant="other")]))
    hold(client, "held", task())
    die(client, "dead", task())
    die(client, "dead-daily", task("writing", job="daily"), reason="Poison")
    finish(client, 1)
    finish(client, 2, job="daily")
    finish(client, 3, status="degraded", pool="writing")
    return waiting


def test_tasks_are_found_by_metadata_wherever_they_are_without_their_texts(
    client: redis.Redis, tasks: list[str]
) -> None:
    found = find(client, metadata={"job": "nightly"})
    assert {one.task_id: one.state for one in found.tasks} == {
        tasks[0]: "waiting", tasks[2]: "waiting", "held": "held", "dead": "failed",
        "done-research-1": "ok", "done-writing-3": "degraded",
    }  # fmt: skip
    assert found.is_complete and found.unsearched == ()
    first, dead = found.tasks[0], next(one for one in found.tasks if one.task_id == "dead")
    assert (first.pool, first.tenant, first.kind, first.metadata) == (
        "research", "acme", "summary", {"job": "nightly", "run": 7},
    )  # fmt: skip
    assert first.at == pytest.approx(time.time(), abs=60)
    assert (dead.error, dead.is_dead_letter, dead.metadata["run"]) == ("BadAnswer", True, 7)
    assert SECRET not in found.model_dump_json()
    assert {one.task_id for one in find(client, metadata={"run": "7", "job": "daily"}).tasks} == {
        tasks[1], "dead-daily",
    }  # fmt: skip


def test_pool_tenant_kind_state_and_error_narrow_a_search(client: redis.Redis, tasks: list[str]) -> None:
    assert [one.task_id for one in find(client, pool="writing").tasks] == [tasks[2], "dead-daily", "done-writing-3"]
    assert [one.task_id for one in find(client, error="Poison").tasks] == ["dead-daily"]
    assert [one.task_id for one in find(client, states=("held",)).tasks] == ["held"]
    of_tenant = find(client, tenant="acme", kind="summary")
    assert {one.task_id for one in of_tenant.tasks} == {tasks[0], tasks[1], "held", "dead", "dead-daily"}
    assert of_tenant.unsearched == ("degraded", "ok"), "results say neither"
    assert find(client, kind="chat").tasks == ()


def test_queues_that_have_only_a_pools_name_are_searched_too_and_lists_of_clients_own_priorities(
    client: redis.Redis,
) -> None:
    for task_id, at in {"bare": "writing", "nine": "fleet.writing\x06\x169", "both": "writing:3"}.items():
        body = b'[[],{"prompt":"x","metadata":{"job":"plain"}},{}]'
        client.lpush(at, envelope(
            task_id=task_id, queue=at, priority=0, headers=task_headers(task_id), body=body,
        ))  # fmt: skip
    for pool in ("writing", None):
        found = find(client, metadata={"job": "plain"}, pool=pool)
        assert {(one.task_id, one.pool) for one in found.tasks} == {
            (task_id, "writing") for task_id in ("bare", "nine", "both")
        }
    assert find(client, metadata={"job": "plain"}, pool="research").tasks == ()


def test_a_search_ends_at_its_bounds_and_says_so(client: redis.Redis, tasks: list[str]) -> None:
    list(submit_many(task(job="bulk") for _ in range(600)))
    some = find(client, metadata={"job": "bulk"}, limit=5)
    assert len(some.tasks) == 5 and not some.is_complete
    few = find(client, metadata={"job": "none"}, look_most=100)
    assert (few.tasks, few.looked_at, few.is_complete) == ((), 100, False)
    assert len(find(client, metadata={"job": "bulk"}, limit=600).tasks) == 600


def test_a_search_reads_about_4_mb_at_once_and_ends_at_its_bytes(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = task(job="long").model_copy(update={"prompt": "x" * 100_000})
    list(submit_many([long] * 120))
    monkeypatch.setattr(reading, "READ_BYTES", 400_000)  # a tenth of what it is
    monkeypatch.setattr(task_search, "LOOK_BYTES", 5_000_000)
    read, lrange = list[int](), client.lrange

    def reads(*args: Any) -> list[bytes]:
        messages = cast("list[bytes]", lrange(*args))
        read.append(sum(map(len, messages)))
        return messages

    monkeypatch.setattr(client, "lrange", reads)
    found = find(client, metadata={"job": "none"})
    assert found.ended_by == "bytes"
    assert not found.is_complete and 30 < found.looked_at < 45, "it says that there may be more"
    assert max(read) < 800_000 and sum(read) < 6_000_000
    read.clear()
    ids = ["a", "b", "c", "d"]
    assert may_wait(client, ids, config.current()) == set() and max(read) < 800_000
    monkeypatch.setattr(message_search, "READ_MOST_BYTES", 5_000_000)
    read.clear()
    assert may_wait(client, ids, config.current()) == set(ids), "all may wait where more waits than is read"
    assert sum(read) < 6_000_000


def test_a_search_tells_at_which_bound_it_ended_and_what_it_could_not_look_into(
    client: redis.Redis, tasks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(client, pool="research").ended_by is None
    assert find(client, pool="research", limit=1).ended_by == "limit"
    assert find(client, pool="research", look_most=1).ended_by == "look"
    assert find(client, tenant="acme").unreadable == 0
    client.hdel(keys.dead_letter_bodies(), "dead")
    assert find(client, tenant="acme").unreadable == 1
    assert find(client, pool="research").unreadable == 0  # the letter itself says its pool
    assert "1 dead letter may be meant, too" in fleet("tasks", "--tenant", "acme").stderr
    assert "raise --look" in fleet("tasks", "--tenant", "acme", "--look", "1").stderr
    monkeypatch.setattr(task_search, "LOOK_BYTES", 1)
    assert "which no option raises" in fleet("tasks", "--tenant", "acme").stderr


def test_what_others_put_into_a_queue_stops_no_search(client: redis.Redis, tasks: list[str]) -> None:
    for odd in (
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'{"headers": {"task": "fleet.submit_task"}, "properties": {}, "body": 3}',
    ):
        client.lpush("fleet.research\x06\x162", odd)
        client.hset(keys.unacked(), f"tag-{odd!r}", odd)
    client.hset(keys.dead_letter_bodies(), "dead", b"not json")
    assert len(find(client, pool="research").tasks) == 6
    assert "dead" not in {one.task_id for one in find(client, metadata={"job": "nightly"}).tasks}


def test_a_shell_finds_tasks_and_opens_one(client: redis.Redis, tasks: list[str]) -> None:
    found = json.loads(fleet("tasks", "--metadata", "job=daily", "--state", "waiting", "--json").stdout)
    assert [one["task_id"] for one in found["tasks"]] == [tasks[1]]
    listed = fleet("tasks", "list", "--pool", "research", "--state", "failed")
    assert "dead  " in listed.stdout and "failed: BadAnswer" in listed.stdout and "job=nightly run=7" in listed.stdout
    assert listed.stderr == "fleet: 1 task of 1 looked at\n"
    more = fleet("tasks", "--limit", "1", "--tenant", "acme").stderr
    assert "there may be more: raise --limit" in more and "not searched" in more
    assert json.loads(fleet("tasks", "show", tasks[0], "--json").stdout)["state"] == "queued"
    assert "expected NAME=VALUE, got 'job'" in fleet("tasks", "--metadata", "job", code=2).stderr
    assert "--pool: expected one of" in fleet("tasks", "list", "--pool", "nobody", code=2).stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pool=resarch", "pool: expected one of research, writing, review, got 'resarch'"),
        ("state=lost", "state: expected one of waiting, held, failed, degraded, ok, got 'lost'"),
        ("error=Nothing", "error: expected one of"),
        ("nightly", "search: expected name=value, such as pool=research job=nightly, got 'nightly'"),
        ("job='nightly", "search: expected name=value, got"),
        ("", "search: expected name=value pairs of 2,000 characters at most, got ''"),
        ("a=" + "x" * 2000, "search: expected name=value pairs of 2,000 characters at most"),
    ],
)
def test_a_question_that_is_none_is_refused_in_words(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        wish_of(text, config.load())
    assert str(refused.value).startswith(told) and len(str(refused.value)) < 1000


def test_a_question_of_the_page_is_read_as_the_shell_reads_its_options() -> None:
    wish = wish_of(
        "pool=research state=failed error=BadAnswer job='a b' metadata.pool=x tenant= kind=chat", config.load()
    )
    assert wish.chosen == Selection("research", "", {"job": "a b", "pool": "x"})
    assert (wish.states, wish.error, wish.kind) == (("failed",), "BadAnswer", "chat")
    assert wish_of("job=1", config.load()).states == FOUND_STATES
