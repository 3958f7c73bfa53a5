"""Dead letters on a real Redis: kept with their results, listed without scans, run again once, thrown away."""

from __future__ import annotations

import base64
import inspect
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet import errors
from fleet.config import DeadLetterSettings, PoolSettings, Settings
from fleet.engine.messages import queues
from fleet.engine.messages.broker import ENQUEUE, enqueue_call
from fleet.engine.messages.envelope import EXPIRES, HISTORY, envelope, task_headers
from fleet.engine.messages.producer import task_id_of
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, scope_of
from fleet.engine.outcomes.dead_letters import (
    CAUSES,
    HISTORY_MOST,
    RECORD,
    body_of,
    bury,
    cause_of_death,
    letter_constants,
    letter_keys,
    parts_of,
    record_arguments,
)
from fleet.models import BotResult, TaskError
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import Script, connect, run_script
from tests.burials import keep
from tests.counted import counted

SETTINGS = Settings(pools={"research": PoolSettings(bots=3), "review": PoolSettings(bots=2)})
#: Settings of a store that holds three letters.
SMALL = SETTINGS.model_copy(update={"dead_letters": DeadLetterSettings(max_letters=3, expires_s=60)})


def body_of_task(**arguments: Any) -> bytes:
    return json.dumps([[], arguments, {}]).encode()


BODY = body_of_task(prompt="a secret question", pool="research", kind="math", priority="low")


@pytest.fixture
def state(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def office(state: redis.Redis) -> DeadLetterOffice:
    return DeadLetterOffice(state, state, SETTINGS)


def failed(task_id: str, kind: str = "BadRequest", pool: str | None = "research", **fields: Any) -> BotResult:
    error = TaskError(type=kind, message="expected this, got that")
    return BotResult(task_id=task_id, status="failed", error=error, pool=pool, finished_at=1_760_000_000.5, **fields)


def die(
    state: redis.Redis,
    task_id: str,
    kind: str = "BadRequest",
    pool: str | None = "research",
    *,
    body: bytes | None = None,
    headers: dict[str, Any] | None = None,
    settings: Settings = SETTINGS,
) -> str:
    """Let a task fail for good: its failed result and its dead letter."""
    result = failed(task_id, kind, pool, bot="research-001", attempts=2)
    burial = bury(result, headers=headers or {"task": "fleet.submit_task"}, body=body or BODY)
    assert burial is not None
    state.set(keys.result(task_id), result.model_dump_json(), ex=600)

    keep(state, burial, settings)
    return task_id


def ids(office: DeadLetterOffice, **scope: str) -> list[str]:
    return [filed.letter.task_id for filed in office.walk(**scope)]


def queued(state: redis.Redis, pool: str = "research", priority: int = 3) -> list[dict[str, Any]]:
    rows = state.lrange(queues.list_key(keys.queue(pool), priority), 0, -1)
    return [json.loads(row) for row in rows]


def test_every_error_that_a_result_can_carry_has_a_cause() -> None:
    types = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.FleetError)]
    branches = {errors.FleetError, errors.Waits, errors.RetryLater, errors.GiveUp, errors.StoreError}
    assert {kind.__name__ for kind in types if kind not in branches} == set(CAUSES)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("ProviderUnavailable", "attempts"),
        ("DeadlineExceeded", "deadline"),
        ("InvalidTask", "validation"),
        ("Poison", "poison"),
        ("KeyRejected", "refused"),
        ("BotFunctionFailed", "function"),
        ("FleetError", "bug"),
    ],
)
def test_a_typed_failure_has_the_cause_an_operator_acts_on(kind: str, cause: str) -> None:
    assert cause_of_death(failed("t", kind)) == cause


def test_a_task_with_an_answer_is_not_dead() -> None:
    for status in ("ok", "degraded"):
        result = BotResult(task_id="t", status=status, finished_at=1.0)  # type: ignore[arg-type]
        assert cause_of_death(result) is None
        assert bury(result, headers={}, body=b"[]") is None


def test_a_letter_tells_what_died_of_what_and_holds_no_prompt(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t1", "ProviderUnavailable")
    filed = office.find("t1")
    assert filed is not None
    letter = filed.letter
    assert (letter.pool, letter.kind, letter.priority.name) == ("research", "math", "LOW")
    assert (letter.reason, letter.cause, letter.attempts) == ("ProviderUnavailable", "attempts", 2)
    assert [(death.bot, death.error) for death in letter.history] == [("research-001", "ProviderUnavailable")]
    assert filed.died_at == pytest.approx(state.time()[0], abs=5)
    assert "secret" not in letter.model_dump_json()
    assert b"secret" in (office.body("t1") or b"")


def test_letters_are_listed_newest_first_by_pool_by_reason_and_by_both(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    die(state, "a", "BadRequest", "research")
    die(state, "b", "Poison", "research")
    die(state, "c", "Poison", "review")
    die(state, "d", "Poison", None, body=b"no json")
    assert ids(office) == ["d", "c", "b", "a"]
    assert ids(office, pool="research") == ["b", "a"]
    assert ids(office, reason="Poison") == ["d", "c", "b"]
    assert ids(office, pool="research", reason="Poison") == ["b"]
    assert ids(office, pool="-") == ["d"]
    assert [office.count(), office.count(pool="review"), office.count(reason="Poison")] == [4, 1, 3]


def test_pages_follow_each_other_without_gap_or_overlap(state: redis.Redis, office: DeadLetterOffice) -> None:
    for number in range(7):
        die(state, f"t{number}")
    seen, before = [], None
    while True:
        page = office.page(limit=3, before=before, pool="research")
        seen += [filed.letter.task_id for filed in page.letters]
        if (before := page.next) is None:
            break
    assert seen == [f"t{number}" for number in reversed(range(7))]


def test_names_that_only_look_alike_do_not_share_a_scope() -> None:
    assert len({scope_of(None, None), scope_of("a", None), scope_of(None, "a"), scope_of("a", "a")}) == 4


def test_the_oldest_make_room_and_are_counted(state: redis.Redis, office: DeadLetterOffice) -> None:
    for number in range(5):
        die(state, f"t{number}", settings=SMALL)
    assert ids(office) == ["t4", "t3", "t2"]
    assert state.hlen(keys.dead_letter_bodies()) == 3
    assert state.zcard(keys.dead_letter_order()) == 4 * 3
    assert counted(state, catalogue.DEAD_LETTERS_DROPPED.name) == 2
    assert counted(state, catalogue.DEAD_LETTERS.name) == 5


def test_memory_is_bounded_too_and_the_newest_letter_always_stays(state: redis.Redis, office: DeadLetterOffice) -> None:
    tight = SETTINGS.model_copy(update={"dead_letters": DeadLetterSettings(max_mb=1)})
    large = body_of_task(prompt="x" * 700_000)
    die(state, "a", settings=tight)
    die(state, "b", body=large, settings=tight)
    die(state, "c", body=large, settings=tight)
    assert ids(office) == ["c"]
    die(state, "d", body=body_of_task(prompt="x" * 2_000_000), settings=tight)
    assert ids(office) == ["d"]


def test_the_size_that_is_kept_is_the_size_there_is(state: redis.Redis, office: DeadLetterOffice) -> None:
    for number in range(6):
        die(state, f"t{number % 4}", settings=SMALL)
    office.purge("t0")
    stored = [*state.hvals(keys.dead_letters()), *state.hvals(keys.dead_letter_bodies())]
    assert int(state.get(keys.dead_letter_bytes()) or 0) == sum(map(len, stored)) > 0
    for task_id in ids(office):
        office.purge(task_id)
    assert state.get(keys.dead_letter_bytes()) == b"0"
    assert state.exists(*letter_keys().values()) == 1


def test_letters_whose_time_is_over_are_not_listed_and_go_with_the_next_one(state: redis.Redis) -> None:
    office = DeadLetterOffice(state, state, SMALL)
    die(state, "old", settings=SMALL)
    raw = state.hget(keys.dead_letters(), "old") or b""
    now_us, long_ago = raw.partition(b"|")[0], b"%016d" % (int(raw.partition(b"|")[0]) - 61_000_000)
    state.hset(keys.dead_letters(), "old", raw.replace(now_us, long_ago, 1))
    for member in state.zrange(keys.dead_letter_order(), 0, -1):
        state.zrem(keys.dead_letter_order(), member)
        state.zadd(keys.dead_letter_order(), {member.replace(now_us, long_ago): 0})
    assert ids(office) == [] and office.count() == 0
    die(state, "new", settings=SMALL)
    assert state.hkeys(keys.dead_letters()) == [b"new"]
    assert counted(state, catalogue.DEAD_LETTERS_DROPPED.name) == 0


def test_a_thousand_groups_are_counted_each_whatever_is_over_before_them(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    now_us = int(time.time() * 1e6)
    over = [f"b:a{number:04d}:Poison|{1:016d}|over-{number}" for number in range(600)]
    kept = [f"b:research:Reason{number:04d}|{now_us + copy:016d}|t{number}-{copy}"
            for number in range(1001) for copy in range(1 + number % 2)]  # fmt: skip
    state.zadd(keys.dead_letter_order(), dict.fromkeys([*over, *kept], 0))
    groups = office.groups()
    assert len(groups) == 1001 and sum(group.letters for group in groups) == len(kept) == 1501
    assert {group.letters for group in groups if int(group.reason[-4:]) % 2} == {2}
    assert office.groups(pool="research") == groups and office.groups(pool="a0001") == ()


def test_all_are_replayed_or_purged_once_while_workers_add_to_them(
    state: redis.Redis, office: DeadLetterOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.engine.outcomes.dead_letter_office.PAGE", 3)
    for number in range(10):
        die(state, f"t{number}")
    replayed = []
    for number, filed in enumerate(office.walk(pool="research")):
        die(state, f"new{number}")  # a worker adds one
        if number == 4:
            die(state, "t0")  # and one that was still to come has died once more
        assert office.replay(filed.letter.task_id) == "queued"
        replayed.append(filed.letter.task_id)
    assert replayed == [f"t{number}" for number in range(9, 0, -1)], "what died since is left for the next time"
    for filed in office.walk():
        die(state, filed.letter.task_id)  # it dies again before it is thrown away
        assert not office.purge(filed.letter.task_id, died_us=filed.died_us)
    assert office.count() == 10 == sum(group.letters for group in office.groups())


def test_all_keys_of_the_store_expire_together(state: redis.Redis) -> None:
    die(state, "t", settings=SMALL)
    assert {state.ttl(key) for key in letter_keys().values()} == {60}


def test_a_task_that_dies_again_is_one_letter(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t", "BadRequest")
    die(state, "t", "Poison")
    assert ids(office) == ["t"]
    assert ids(office, reason="BadRequest") == []


def test_recording_inside_another_script_is_one_step_with_it(
    state: redis.Redis, office: DeadLetterOffice, tmp_path: Path
) -> None:
    names, values = RECORD.keys.split(), RECORD.argv.split()
    (tmp_path / "finish.lua").write_text(
        "redis.call('SET', KEYS[RESULT], ARGV[PAYLOAD], 'EX', 60)\n"
        f"record_dead_letter({{ {', '.join(f'KEYS[{name.upper()}]' for name in names)} }}, "
        f"{{ {', '.join(f'ARGV[{name.upper()}]' for name in values)} }})\nreturn 1"
    )
    finish = Script.beside(
        str(tmp_path / "here.py"), "finish.lua", keys=RECORD.keys, argv=f"payload {RECORD.argv}", using=[RECORD]
    )
    burial = bury(failed("t"), headers={}, body=BODY)
    assert burial is not None
    call = finish.call(
        result=keys.result("t"), **letter_keys(), totals=keys.totals(), payload="the result",
        **letter_constants(SETTINGS), **record_arguments(burial, SETTINGS.pools),
    )  # fmt: skip
    assert run_script(state, finish, *call) == 1
    assert office.replay("t") == "queued"
    assert state.get(keys.result("t")) is None


def test_a_replay_queues_the_task_with_a_fresh_life_and_without_its_result(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    die(state, "t")
    assert office.replay("t") == "queued"
    (message,) = queued(state)
    assert message["headers"]["id"] == message["properties"]["correlation_id"] == "t"
    assert message["properties"]["delivery_info"]["routing_key"] == keys.queue("research")
    assert message["headers"]["queued_at"] == pytest.approx(state.time()[0], abs=5)
    assert message["headers"]["expires"] is message["headers"]["eta"] is None
    assert base64.b64decode(message["body"]) == BODY
    assert state.get(keys.result("t")) is None
    assert office.find("t") is None
    assert state.xlen(keys.bell()) == 1


def test_a_replay_keeps_producers_with_the_same_idempotency_key_out(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    task_id = task_id_of("t")
    die(state, task_id)
    state.set(keys.submitted(task_id), "done", ex=60)  # as the failed result left it
    assert office.replay(task_id) == "queued"
    assert state.ttl(keys.submitted(task_id)) == -1
    call = enqueue_call([keys.submitted(task_id), "list", b"again"], SETTINGS)
    assert run_script(state, ENQUEUE, *call) == 0


def test_a_letter_that_is_gone_is_unknown_and_queues_nothing(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t")
    assert [office.replay("t"), office.replay("t")] == ["queued", "unknown"]
    assert len(queued(state)) == 1


def test_a_replay_that_died_before_its_last_step_can_be_repeated_and_queues_once(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    die(state, "t")
    letter, body = state.hget(keys.dead_letters(), "t"), state.hget(keys.dead_letter_bodies(), "t")
    office.replay("t")
    state.hset(keys.dead_letters(), "t", letter or b"")  # as if the letter had not been removed
    state.hset(keys.dead_letter_bodies(), "t", body or b"")
    assert office.replay("t") == "queued before"
    assert len(queued(state)) == 1
    assert office.find("t") is None


def test_a_newer_result_is_never_removed_by_a_replay(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t")
    state.set(keys.result("t"), "a good result")
    assert office.replay("t") == "finished since"
    assert state.get(keys.result("t")) == b"a good result"
    assert queued(state) == [] and office.find("t") is None


def test_a_task_whose_result_has_expired_is_queued(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t")
    state.delete(keys.result("t"))
    assert office.replay("t") == "queued"


@pytest.mark.parametrize(("reason", "said_at"), [("Expired", None), ("BadAnswer", 1.0)])
def test_a_task_whose_end_has_passed_stays_a_letter_unless_it_gets_a_new_one(
    state: redis.Redis, office: DeadLetterOffice, reason: str, said_at: float | None
) -> None:
    fields = {"prompt": "x", "pool": "research", "priority": "low"} | ({"expires_at": said_at} if said_at else {})
    die(state, "t", reason, body=json.dumps([[], fields, {}]).encode())
    assert office.replay("t") == "expired"
    assert (queued(state), office.find("t") is not None) == ([], True)
    assert office.replay("t", life_s=60) == "queued"
    (message,) = queued(state)
    new_end = message["headers"][EXPIRES]
    assert time.time() < new_end < time.time() + 61
    assert json.loads(base64.b64decode(message["body"]))[1].get("expires_at") == (new_end if said_at else None)
    assert state.zscore(keys.ends(), keys.queue("research")) == new_end


def test_a_task_that_dies_after_a_replay_tells_of_both_deaths_and_can_be_replayed_again(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    die(state, "t", "ProviderUnavailable")
    office.replay("t")
    (message,) = queued(state)
    die(state, "t", "DeadlineExceeded", headers=message["headers"])
    filed = office.find("t")
    assert filed is not None
    assert [death.error for death in filed.letter.history] == ["ProviderUnavailable", "DeadlineExceeded"]
    assert office.replay("t") == "queued"
    assert len(queued(state)) == 2


def test_the_history_is_bounded_and_a_foreign_one_ignored() -> None:
    many = [{"at": 1.0, "bot": None, "error": "X"}] * 50
    burial = bury(failed("t"), headers={HISTORY: many}, body=b"[]")
    assert burial is not None and len(burial.letter.history) == HISTORY_MOST
    for foreign in ("x", [{"at": "never"}], 7, [many]):
        burial = bury(failed("t"), headers={HISTORY: foreign}, body=b"[]")
        assert burial is not None and len(burial.letter.history) == 1


def test_a_letter_of_a_pool_that_is_gone_or_of_a_foreign_task_goes_to_the_inbox(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    body = body_of_task(prompt="x", pool="gone")
    die(state, "t1", "InvalidTask", None, body=body)
    die(state, "t2", "InvalidTask", None, headers={"task": "own.unheard_of"})
    assert [office.replay(task_id) for task_id in ("t1", "t2")] == ["queued", "queued"]
    rows = [json.loads(row) for row in state.lrange(queues.list_key("celery", 2), 0, -1)]
    rows += [json.loads(row) for row in state.lrange(queues.list_key("celery", 3), 0, -1)]
    assert sorted(row["headers"]["task"] for row in rows) == ["fleet.submit_task", "own.unheard_of"]


def test_state_and_broker_may_be_two_servers(redis_url: str, state: redis.Redis) -> None:
    with connect(f"{redis_url.removesuffix('/0')}/1") as broker:
        office = DeadLetterOffice(state, broker, SETTINGS)
        task_id = task_id_of("t")
        die(state, task_id)
        assert office.replay(task_id) == "queued"
        assert queued(state) == [] and len(queued(broker)) == 1
        assert (state.exists(keys.submitted(task_id)), broker.exists(keys.submitted(task_id))) == (0, 1)


def test_purging_keeps_a_letter_that_has_died_again_since(state: redis.Redis, office: DeadLetterOffice) -> None:
    die(state, "t")
    filed = office.find("t")
    assert filed is not None
    die(state, "t", "Poison")
    assert not office.purge("t", died_us=filed.died_us)
    assert office.purge("t")
    assert not office.purge("t")


def test_the_body_of_a_request_and_the_parts_of_a_message_are_what_was_sent() -> None:
    body = BODY
    message = envelope(task_id="t", queue="q", priority=2, headers=task_headers("t"), body=body)
    headers, same = parts_of(message)
    assert (headers["id"], same) == ("t", body)
    args, kwargs, _ = json.loads(body)
    assert json.loads(body_of({"args": args, "kwargs": kwargs}))[:2] == [args, kwargs]
    assert json.loads(body_of({"args": ["\ud800"], "kwargs": None}))[:2] == [["\ud800"], {}]


@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b"5", b'{"headers": 5, "body": 1}', b"\xff", b'{"headers":{},"body":""}']
)
def test_what_is_no_message_has_no_parts(garbage: bytes) -> None:
    assert parts_of(garbage) == ({}, b"")


@pytest.mark.parametrize("body", [b"", b"[", b"5", b"[[]]", b"[[], 5, {}]", b'[[], {"pool": 5, "priority": []}, {}]'])
def test_a_body_that_cannot_be_read_is_kept_as_it_is(state: redis.Redis, office: DeadLetterOffice, body: bytes) -> None:
    result = failed("t", "InvalidTask", None)
    burial = bury(result, headers={"task": ["a"], "origin": "\ud800"}, body=body)
    assert burial is not None
    assert (burial.letter.pool, burial.letter.kind, burial.letter.headers) == (None, None, {})
    assert burial.body == body


def test_half_a_surrogate_pair_in_a_message_does_not_stop_the_letter(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    error = TaskError(type="BadAnswer", message="got \ud800")
    result = BotResult(task_id="t", status="failed", error=error, finished_at=1.0)
    burial = bury(result, headers={}, body=b"[]")
    assert burial is not None
    keep(state, burial, SETTINGS)
    filed = office.find("t")
    assert filed is not None and filed.letter.message == "got ?"


def test_refused_messages_make_room_for_each_other_and_for_no_real_letter(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    bounds = DeadLetterSettings(max_letters=3, max_refused=2, expires_s=60)
    settings = SETTINGS.model_copy(update={"dead_letters": bounds})
    for name in ("a", "b", "c"):
        die(state, name, "BadRequest", settings=settings)
    for number in range(50):
        die(state, f"junk-{number}", "InvalidTask", settings=settings)
    assert ids(office) == ["junk-49", "junk-48", "c", "b", "a"]
    assert counted(state, catalogue.DEAD_LETTERS_DROPPED.name) == 48  # type: ignore[arg-type]
    for name in ("d", "e", "f", "g"):  # real ones make room for each other, and for what is older of the refused ones
        die(state, name, "BadRequest", settings=settings)
    assert [name for name in ids(office) if not name.startswith("junk")] == ["g", "f", "e"]
    assert office.count(reason="InvalidTask") <= 2


def test_refused_messages_take_an_eighth_of_the_memory_at_most(state: redis.Redis, office: DeadLetterOffice) -> None:
    settings = SETTINGS.model_copy(update={"dead_letters": DeadLetterSettings(max_mb=1)})
    die(state, "real", "BadRequest", body=body_of_task(prompt="x" * 500_000), settings=settings)
    for number in range(60):
        die(state, f"junk-{number}", "InvalidTask", body=body_of_task(prompt="x" * 8000), settings=settings)
    assert office.find("real") is not None
    assert int(state.get(keys.dead_letter_bytes()) or 0) < 500_000 + 2**20 // 8 + 5000  # type: ignore[arg-type]


def test_a_large_refused_message_is_not_kept_whole_and_says_so_when_it_is_to_be_queued_again(
    state: redis.Redis, office: DeadLetterOffice
) -> None:
    die(state, "huge", "InvalidTask", body=body_of_task(prompt="x" * 1_000_000))
    assert office.body("huge") == b""
    before = state.get(keys.result("huge"))
    assert office.replay("huge") == "not kept"
    assert office.find("huge") is not None and state.get(keys.result("huge")) == before
    die(state, "real", "BadRequest", body=body_of_task(prompt="x" * 1_000_000))
    assert len(office.body("real") or b"") > 1_000_000
