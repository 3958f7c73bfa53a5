"""`fleet forget` on a real Redis, with a real worker: canaries in tasks of every state are found nowhere afterwards."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import TaskRevokedError

from fleet import config
from fleet.engine.messages import queues
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.erasure.names import pseudonym_of
from fleet.engine.outcomes.dead_letters import bury
from fleet.engine.outcomes.stored import result_meta
from fleet.models import BotResult, TaskError
from fleet.store import bill_keys, erasure_keys, flow_keys, keys
from tests.burials import keep
from tests.cli.operate.test_cancel import bring_back
from tests.cli.operate.test_cancel_killed import dies_before
from tests.cli.operate.test_dead import client, fleet
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.forks import in_child
from tests.waiting import wait_until

__all__ = ["client"]

#: Generous: the machine may be slow.
WAIT_S = 60.0
#: Writes to Redis between two that are tried (count): each try takes a process.
STRIDE = 7
TENANT, NEIGHBOUR = "canary-acme", "canary"
FUNCTIONS = """
import asyncio, pathlib
async def good(task, bot):
    await bot.chat(task.prompt)
    return f"canary-answer of {task.tenant}"
async def bad(task, bot):
    raise ValueError(f"canary-error of {task.tenant}")
async def long(task, bot):
    pathlib.Path("begun").touch()
    await bot.chat(task.prompt)
    await asyncio.sleep(600)
"""
POOLS = """
[pools.{name}]
bots = 3
provider = "simulator"
model = "sim-small"
function = "work:{name}"
"""


def dump(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Yield each key of a Redis with all that lies there, its own name among it."""
    for name in client.scan_iter():
        kind = client.type(name)
        if kind == b"none":  # what a worker keeps for a moment is gone since it was listed
            continue
        read: Any = {
            b"string": lambda name: [client.get(name)],
            b"hash": lambda name: [part for pair in client.hgetall(name).items() for part in pair],  # type: ignore[union-attr]
            b"list": lambda name: client.lrange(name, 0, -1),
            b"set": client.smembers,
            b"zset": lambda name: client.zrange(name, 0, -1),
            b"stream": lambda name: [
                part
                for _, fields in client.xrange(name)
                for pair in fields.items()
                for part in pair  # type: ignore[union-attr]
            ],
        }[kind]
        value = b"\n".join([name, *(read(name) or ())])
        yield bytes(name).decode(), value + b"".join(map(unpacked_base64, re.findall(rb"[A-Za-z0-9+/]{40,}=*", value)))


def unpacked_base64(text: bytes) -> bytes:
    """Return what a text is in plain, as plain clients write their bodies; nothing when it is no base64."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return b""


def keys_with(client: redis.Redis, word: str) -> set[str]:
    return {name for name, value in dump(client) if word.encode() in value}


def submit(count: int, **fields: Any) -> list[str]:
    given = {"prompt": f"canary-prompt of {fields.get('tenant')}", **fields}
    return list(submit_many(given for _ in range(count)))


def left_behind(client: redis.Redis, pool: str, *, at: float) -> str:
    """Move a task that waits to a worker whose lease was renewed at that time, and return its id."""
    (task_id,) = submit(1, pool=pool, tenant=TENANT, priority="bulk")
    place = queues.list_key(keys.queue(pool), 4)
    message: Any = client.rpop(flow_keys.flow(flow_of(TENANT), place))
    client.rpop(place)
    client.hset(keys.unacked(), f"tag-{task_id}", place.encode() + b"\n" + message)
    client.zadd(keys.unacked_index(), {f"tag-{task_id}": at})
    return task_id


def test_canaries_of_tasks_in_every_state_are_found_nowhere_and_the_neighbours_stay(
    start_worker: StartWorker, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.tasks import submit_task

    monkeypatch.setenv("FLEET_BILL__EXPORT", str(tmp_path / "calls.jsonl"))
    (tmp_path / "work.py").write_text(FUNCTIONS)
    (tmp_path / "fleet.toml").write_text("".join(POOLS.format(name=name) for name in ("good", "bad", "long")))
    config.current.cache_clear()
    fleet("budgets", "set", f"tenant:{TENANT}", "--usd-per-day", "50")
    worker = start_worker()
    ends = [*submit(3, pool="good", tenant=TENANT), *submit(3, pool="bad", tenant=TENANT)]
    theirs = [*submit(3, pool="good", tenant=NEIGHBOUR), *submit(3, pool="bad", tenant=NEIGHBOUR)]
    (running,) = submit(1, pool="long", tenant=TENANT)
    wait_until(lambda: client.exists(*map(keys.result, ends + theirs)) == 12, WAIT_S, lambda: worker.log)
    wait_until((tmp_path / "begun").exists, WAIT_S, lambda: worker.log)
    fleet("pools", "pause", "good")
    queued = submit(20, pool="good", tenant=TENANT, metadata={"whose": "canary-customer"}, idempotency_key=None)
    kept = submit(20, pool="good", tenant=NEIGHBOUR)
    later = submit_task.apply_async(("canary-prompt",), {"pool": "good", "tenant": TENANT}, countdown=600)
    (cancelled,) = submit(1, pool="good", tenant=TENANT, metadata={"whose": "canary-cancelled"})
    fleet("cancel", "--tenant", TENANT, "--metadata", "whose=canary-cancelled", "--yes")
    message = client.lindex(queues.list_key(keys.queue("good"), 2), -1)
    client.hset(keys.suspects(), hashlib.sha1(message).hexdigest(), "process")  # type: ignore[arg-type]
    export = tmp_path / "calls.jsonl"
    wait_until(lambda: export.exists() and f'"{TENANT}"' in export.read_text(), WAIT_S, "calls are exported")
    wait_until(lambda: not client.keys("fleet:limit:*:open"), WAIT_S, "no call is noted as open")
    found = keys_with(client, TENANT)
    assert {keys.result(ends[0]), keys.dead_letter_bodies(), keys.parked(), keys.unacked(), keys.events()} <= found

    counted = json.loads(fleet("forget", "--tenant", TENANT, "--dry-run", "--json").stdout)
    assert (counted["erased"], counted["waiting"], counted["held"]) == (False, 21, 1)
    assert keys_with(client, TENANT) == found
    told = json.loads(fleet("forget", "--tenant", TENANT, "--running", "cancel", "--yes", "--json").stdout)

    assert (told["waiting"], told["held"], told["still_running"], told["submitted_meanwhile"]) == (21, 1, [], 0)
    assert (told["stored"]["dead letters"], told["stored"]["results"]) == (3, 6)
    assert keys_with(client, TENANT) == keys_with(client, "canary-customer") == set()
    every_word = {"canary-prompt", "canary-answer", "canary-error"}
    left = [value for _, value in dump(client) if every(word.encode() not in value for word in every_word) is False]
    assert every(f"of {NEIGHBOUR}".encode() in value for value in left)
    assert client.exists(*map(keys.result, theirs)) == 6
    assert client.llen(queues.list_key(keys.queue("good"), 2)) == len(kept)
    with pytest.raises(TaskRevokedError):
        later.get(timeout=5)
    assert client.exists(keys.result(running), keys.result(queued[0]), keys.result(cancelled)) == 3  # REVOKED, no words
    assert "canary-" not in worker.log
    text = export.read_text()
    assert TENANT not in text and told["pseudonym"] in text and f'"tenant":"{NEIGHBOUR}"' in text
    billed = fleet("bill", "--by", "tenant", "--json").stdout
    assert f'"{told["pseudonym"]}"' in billed and f'"{NEIGHBOUR}"' in billed and TENANT not in billed
    (event,) = json.loads(fleet("events", "--name", "words_erased", "--json").stdout)["events"]
    assert event["fields"].items() >= {"tenant": told["pseudonym"], "waiting": "21", "held": "1", "left": "0"}.items()
    again = json.loads(fleet("forget", "--tenant", TENANT, "--yes", "--json").stdout)
    assert (again["pseudonym"], again["waiting"], sum(again["stored"].values())) == (told["pseudonym"], 0, 0)


def test_what_a_dead_worker_held_goes_and_what_a_living_one_holds_is_told_as_left(client: redis.Redis) -> None:
    dead = left_behind(client, "research", at=time.time() - 60)
    told = json.loads(fleet("forget", "--tenant", TENANT, "--wait-s", "0", "--yes", "--json").stdout)
    assert (told["left_behind"], told["still_running"]) == (1, [])
    assert client.hlen(keys.unacked()) == client.zcard(keys.unacked_index()) == 0
    assert b"REVOKED" in client.get(keys.result(dead))  # type: ignore[operator]
    alive = left_behind(client, "research", at=time.time() + 60)
    told = json.loads(fleet("forget", "--tenant", TENANT, "--wait-s", "0", "--yes", "--json", code=1).stdout)
    assert (told["left_behind"], told["still_running"]) == (0, [alive])


def test_sums_of_the_bill_stay_when_a_name_is_taken_twice(client: redis.Redis) -> None:
    from fleet.economy.bill.rows import summed, unpacked
    from fleet.entries import Entry
    from fleet.usage import Usage

    usage = Usage(input_tokens=7)
    entry = Entry(
        "i", "t", "research", "bot", TENANT, "chat", "", "a/b/c", "", usage, 3_000_001, "settled", time.time()
    )
    pseudonym = pseudonym_of(client, TENANT)
    for _ in range(2):
        for (key, name), row in summed([entry]).items():
            client.hset(key, name, row)
        fleet("forget", "--tenant", TENANT, "--yes")
    (day,) = [key for key, _ in summed([entry]) if key.startswith(bill_keys.day(0)[:-1])]
    ((name, row),) = client.hgetall(day).items()  # type: ignore[union-attr]
    assert json.loads(name)[1] == pseudonym
    assert (unpacked(row).calls, unpacked(row).usd_picos, unpacked(row).usage.input_tokens) == (2, 6_000_002, 14)


def test_many_tasks_of_others_do_not_hold_it_up_and_are_left_alone(client: redis.Redis) -> None:
    others = submit(20_000, pool="research", tenant=NEIGHBOUR)
    mine = submit(50, pool="research", tenant=TENANT)
    began = time.monotonic()
    told = json.loads(fleet("forget", "--tenant", TENANT, "--yes", "--json").stdout)
    assert told["waiting"] == len(mine) and time.monotonic() - began < WAIT_S / 2
    assert client.llen(queues.list_key(keys.queue("research"), 2)) == len(others)
    assert keys_with(client, TENANT) == set()


def test_by_id_and_by_metadata_only_those_tasks_go(client: redis.Redis) -> None:
    first, second, third = (submit(1, pool="research", metadata={"n": number})[0] for number in range(3))
    fleet("forget", "--task", first, "--yes")
    fleet("forget", "--metadata", "n=1", "--yes")
    (left,) = client.lrange(queues.list_key(keys.queue("research"), 2), 0, -1)  # type: ignore[misc]
    assert json.loads(left)["headers"]["id"] == third
    assert second != first
    for wrong in (("--task", first, "--tenant", "a"), (), ("--tenant", "")):
        fleet("forget", *wrong, code=2)
    fleet("forget", "--tenant", "a", code=2)  # nobody is there to be asked


def test_a_chord_that_holds_a_result_of_the_tenant_goes_and_others_stay(client: redis.Redis) -> None:
    for group, tenant in (("one", TENANT), ("two", NEIGHBOUR)):
        part = json.dumps([1, "t", "SUCCESS", {"task_id": "t", "status": "ok", "tenant": tenant}])
        client.zadd(erasure_keys.chord_parts(group), {part: 0})
    assert json.loads(fleet("forget", "--tenant", TENANT, "--yes", "--json").stdout)["stored"]["chords"] == 1
    assert client.exists(erasure_keys.chord_parts("two")) and not client.exists(erasure_keys.chord_parts("one"))


def test_redis_is_told_to_write_its_files_anew(client: redis.Redis) -> None:
    told = fleet("forget", "--tenant", TENANT, "--rewrite", "--yes").stderr
    assert "writes its files anew in the background: " in told


def test_the_log_of_slow_commands_quotes_no_prompt_afterwards(client: redis.Redis) -> None:
    before = client.config_get("slowlog-log-slower-than")["slowlog-log-slower-than"]  # type: ignore[index]
    try:
        client.config_set("slowlog-log-slower-than", 0)
        client.rpush("theirs", f"a message with a prompt of {TENANT}")
        client.config_set("slowlog-log-slower-than", 1_000_000)
        assert TENANT in repr(client.slowlog_get(1000))
        told = json.loads(fleet("forget", "--tenant", TENANT, "--yes", "--json").stdout)
        assert told["slow_commands"] > 0 and TENANT not in repr(client.slowlog_get(1000))
    finally:
        client.config_set("slowlog-log-slower-than", before)


def fill(client: redis.Redis) -> None:
    """Put a tenant's words where tasks leave them: queues, parked, results, dead letters, bill, events, limits."""
    from fleet.engine.tasks import submit_task

    client.flushdb()
    submit(3, pool="research", tenant=TENANT)
    submit_task.apply_async(("canary-prompt",), {"pool": "research", "tenant": TENANT}, countdown=600)
    ids = submit(2, pool="writing", tenant=TENANT)
    for task_id, status in zip(ids, ("ok", "failed"), strict=True):
        error = TaskError(type="BotFunctionFailed", message="canary-error") if status == "failed" else None
        result = BotResult(
            task_id=task_id, status=status, pool="writing", tenant=TENANT, error=error, finished_at=time.time()
        )  # type: ignore[arg-type]
        client.set(keys.result(task_id), result_meta(result))
        if burial := bury(result, headers={}, body=json.dumps([[], {"prompt": "x", "tenant": TENANT}, {}]).encode()):
            keep(client, burial, config.current())
    client.zadd(keys.limit_keys("a/b/c", TENANT).bots, {"bot": 1})
    client.hset(bill_keys.day(int(time.time() // 86_400)), json.dumps(["research", TENANT, "chat", "a/b/c", ""]), b"")
    client.hset(bill_keys.budgets_live(), f"tenant:{TENANT}", "-1 5000000 -1 -1 0")
    client.hset(bill_keys.lapsed(), "id", json.dumps(["process", 1, 2, ["fleet", f"tenant:{TENANT}"], 0]))
    client.xadd(keys.events(), {"event": "budget_changed", "scope": f"tenant:{TENANT}", "by": "x"})


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
def test_one_that_is_killed_before_any_of_its_steps_is_finished_by_the_next(client: redis.Redis) -> None:
    command = ("forget", "--tenant", TENANT, "--yes")
    for step in range(0, 40 * STRIDE, STRIDE):
        fill(client)
        assert len(keys_with(client, TENANT)) >= 9
        said = in_child(dies_before(step, command))()
        if said == "done":
            break
        assert not said, said
        bring_back(client)
        fleet(*command)
        assert keys_with(client, TENANT) == set(), f"step {step}"
    else:
        pytest.fail("expected the command to end within so many steps")
    assert step > 3 * STRIDE
