"""`fleet dead`, `fleet why` and `fleet pools` as a shell sees them, on a real Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import redis
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.cli.operate.dead import ADVICE
from fleet.engine.messages import queues
from fleet.engine.outcomes.dead_letters import CAUSES, bury
from fleet.limiter import Terms
from fleet.limiter.scripts import PENALISE
from fleet.models import BotResult, TaskError
from fleet.signals.windows import MINUTES, PERIOD, Period
from fleet.store import keys
from fleet.store.client import connect, run_script
from fleet.waits import Wait
from tests.burials import keep

BODY = json.dumps([[], {"prompt": "a secret question", "pool": "research"}, {}]).encode()
RESEARCH = queues.list_key(keys.queue("research"), 2)


@pytest.fixture
def client(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    with connect(redis_url) as opened:
        yield opened


def fleet(*args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, args, prog_name="fleet", catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def die(client: redis.Redis, *task_ids: str, reason: str = "ProviderUnavailable", pool: str = "research") -> None:
    for task_id in task_ids:
        error = TaskError(type=reason, message="expected an answer,\ngot [none]")
        result = BotResult(
            task_id=task_id, status="failed", error=error, pool=pool, attempts=4, finished_at=time.time()
        )
        burial = bury(result, headers={}, body=BODY, provider_errors={reason: 4})
        assert burial is not None
        client.set(keys.result(task_id), json.dumps({"result": result.model_dump(mode="json")}))
        keep(client, burial, config.current())


def test_a_list_is_one_line_per_letter_and_says_how_many_there_are(client: redis.Redis) -> None:
    die(client, "t1", "t2", "t3")
    done = fleet("dead", "list", "--limit", "2")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["DIED", "TASK", "POOL", "REASON", "LIVES", "MESSAGE"]
    assert [row.split()[3] for row in rows] == ["t3", "t2"]
    assert "expected an answer, got [none]" in rows[0]
    assert "2 of 3 dead letters; more with --before" in done.stderr
    cursor = done.stderr.split("--before ")[1].strip()
    assert [row.split()[3] for row in fleet("dead", "list", "--before", cursor).stdout.splitlines()[1:]] == ["t1"]


def test_a_list_as_json_can_be_narrowed_and_holds_no_prompt(client: redis.Redis) -> None:
    die(client, "t1")
    die(client, "t2", reason="Poison", pool="review")
    data = json.loads(fleet("dead", "list", "--pool", "review", "--reason", "Poison", "--json").stdout)
    assert (data["total"], data["next"]) == (1, None)
    assert [(row["task_id"], row["cause"]) for row in data["letters"]] == [("t2", "poison")]
    assert "secret" not in fleet("dead", "list", "--json").stdout


def test_a_task_whose_message_named_no_pool_is_told_as_that(client: redis.Redis) -> None:
    error = TaskError(type="InvalidTask", message="expected a task")
    result = BotResult(task_id="t1", status="failed", error=error, attempts=0, finished_at=time.time())
    burial = bury(result, headers={}, body=b"[[], {}, {}]")
    assert burial is not None
    keep(client, burial, config.current())
    (row,) = fleet("dead", "list", "--pool", "-").stdout.splitlines()[1:]
    assert row.split()[3:6] == ["t1", "no", "pool"], row
    assert fleet("dead", "reasons").stdout.splitlines()[1].startswith("no pool  InvalidTask")
    shown = fleet("dead", "show", "t1").stdout
    assert "no pool: its message never named one" in shown and "no kind" in shown
    assert json.loads(fleet("dead", "list", "--json").stdout)["letters"][0]["pool"] is None


def test_an_empty_list_is_no_error(client: redis.Redis) -> None:
    done = fleet("dead", "list")
    assert (done.stdout, done.stderr) == ("", "fleet: 0 of 0 dead letters\n")


def test_a_letter_is_shown_with_advice_and_with_its_body_only_when_asked(client: redis.Redis) -> None:
    die(client, "t1")
    text = fleet("dead", "show", "t1").stdout
    assert "ProviderUnavailable (attempts)" in text
    assert "4 (4 ProviderUnavailable)" in text
    assert ADVICE["attempts"] in text
    assert "secret" not in text
    assert "a secret question" in fleet("dead", "show", "t1", "--body").stdout
    assert json.loads(fleet("dead", "show", "t1", "--body", "--json").stdout)["body"] == BODY.decode()


def test_there_is_advice_for_every_cause() -> None:
    assert set(ADVICE) == {*CAUSES.values(), "bug"}


def test_an_unknown_letter_is_a_failure_that_says_where_to_look(client: redis.Redis) -> None:
    for command in ("show", "replay", "purge"):
        assert "'nobody': expected the id of a dead task, got none" in fleet("dead", command, "nobody", code=1).stderr


def test_a_replay_of_one_task_queues_it_and_takes_it_off_the_list(client: redis.Redis) -> None:
    die(client, "t1", "t2")
    assert fleet("dead", "replay", "t1").stderr == "fleet: 1 queued\n"
    assert client.llen(RESEARCH) == 1
    assert fleet("dead", "list").stderr == "fleet: 1 of 1 dead letter\n"


def test_a_replay_by_filter_takes_all_that_match_and_nothing_else(client: redis.Redis) -> None:
    die(client, *(f"t{number}" for number in range(450)))
    die(client, "other", reason="Poison")
    done = fleet("dead", "replay", "--reason", "ProviderUnavailable", "--yes", "--json")
    assert json.loads(done.stdout) == {"queued": 450}
    assert client.llen(RESEARCH) == 450
    assert json.loads(fleet("dead", "list", "--json").stdout)["total"] == 1


def test_a_whole_set_is_never_changed_unasked(client: redis.Redis) -> None:
    die(client, "t1")
    for command in ("replay", "purge"):
        assert f"expected --yes to {command} 1 dead letter" in fleet("dead", command, "--all", code=2).stderr
        assert "expected one of: task ids" in fleet("dead", command, "--yes", code=2).stderr
        assert "expected one of: task ids" in fleet("dead", command, "t1", "--all", code=2).stderr
    assert client.llen(RESEARCH) == 0


def test_dead_letters_are_counted_by_reason_and_a_replay_says_first_what_it_may_cost(client: redis.Redis) -> None:
    die(client, "t1", "t2")
    die(client, "t3", reason="Poison", pool="review")
    minute = Period(*[0.0] * len(Period._fields))._replace(
        number=time.time() // 60, completions=4, ok=4, cost_usd_micros=2_000_000
    )
    client.setrange(keys.series("research"), int(minute.number % MINUTES) * PERIOD.size, PERIOD.pack(*minute))
    done = fleet("dead", "reasons")
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:]] == [
        ["research", "ProviderUnavailable", "2"], ["review", "Poison", "1"],
    ]  # fmt: skip
    assert "3 dead letters; to replay them: about $1.00, and what 1 of pools without" in done.stderr
    data = json.loads(fleet("dead", "reasons", "--pool", "research", "--json").stdout)
    assert (data["total"], data["groups"][0]["cause"], data["groups"][0]["replay_usd_micros"]) == (2, "attempts", 10**6)
    told = fleet("dead", "replay", "--reason", "ProviderUnavailable", "--dry-run").stderr
    assert told == "fleet: would queue 2 dead letters: about $1.00\n"
    assert json.loads(fleet("dead", "replay", "--all", "--dry-run", "--json").stdout) == {
        "letters": 3, "replay_usd_micros": 10**6, "letters_without_price": 1,
    }  # fmt: skip
    assert "expected --pool, --reason or --all" in fleet("dead", "replay", "t1", "--dry-run", code=2).stderr
    assert client.llen(RESEARCH) == 0


def test_a_purge_throws_letters_away_and_queues_nothing(client: redis.Redis) -> None:
    die(client, "t1", "t2", "t3")
    assert fleet("dead", "purge", "t1").stderr == "fleet: 1 purged\n"
    assert fleet("dead", "purge", "--all", "--yes").stderr == "fleet: 2 purged\n"
    assert fleet("dead", "purge", "--all", "--yes").stderr == "fleet: no dead letters\n"
    assert client.llen(RESEARCH) == client.hlen(keys.dead_letters()) == 0
    assert client.exists(keys.result("t1")) == 1


def test_a_reason_that_is_no_error_is_wrong_usage(client: redis.Redis) -> None:
    assert "ProviderUnavailable" in fleet("dead", "list", "--reason", "Bad", code=2).stderr


def test_why_tells_the_story_and_exits_with_1_for_an_unknown_task(client: redis.Redis) -> None:
    die(client, "t1")
    fleet("dead", "replay", "t1")
    fleet("pools", "pause", "research")
    text = fleet("why", "t1").stdout
    assert text.startswith("t1: queued, pool research\n  it waits in fleet.research, priority normal for ")
    assert "the gate of fleet.research is closed; `fleet pools resume` opens it" in text
    assert json.loads(fleet("why", "t1", "--json").stdout)["ahead"] == 0
    assert fleet("why", "nobody", code=1).stdout.startswith("nobody: unknown\n")


def test_why_of_a_held_task_reads_its_limit(client: redis.Redis) -> None:
    die(client, "t1")
    fleet("dead", "replay", "t1")
    limit = keys.limit_keys("simulator/simulated-1/default")
    told = {"retry_after_us": 60_000_000, "held_by": "", "terms": Terms().pack()}
    run_script(client, PENALISE, *PENALISE.call(state=limit.state, facts=limit.facts, **told))
    assert "the limit simulator/simulated-1/default" in fleet("why", "t1").stdout
    assert "after a 429" in fleet("why", "t1").stdout


def test_pools_tells_what_each_pools_tasks_wait_for_and_what_to_do(client: redis.Redis) -> None:
    client.lpush(RESEARCH, "{}", "{}")
    report = {"name": "w@h", "pid": 1, "cpu_percent": 1, "rss_mb": 1, "slots": 1, "busy": 0, "at": time.time()}
    client.hset(keys.workers(), "w@h", json.dumps(report | {"queues": ["fleet.research", "celery"]}))
    wait = Wait("key", time.time() + 60, "simulator/simulated-1/default", "401: invalid api key")
    client.set(keys.hold("fleet.research"), wait.to_json(), px=60_000)
    client.lpush("fleet.writing", "{}")
    rows = {row["pool"]: row for row in json.loads(fleet("pools", "--json").stdout)["pools"]}
    (found,) = rows["research"]["waits"]
    assert (found["cause"], found["tasks"], found["is_lasting"]) == ("key", 2, True)
    assert [row["waits"][0]["cause"] for row in rows.values() if row["waits"]] == ["key", "worker"]
    text = " ".join(fleet("pools").stdout.split())
    assert (
        "research: 2 tasks wait: simulator/simulated-1/default: there is no key that the provider takes (401: inv"
        in text
    )
    assert "give the provider a key that works" in text
    assert "writing: 1 task waits: no live worker serves pool writing" in text


def test_pools_shows_backlogs_gates_and_the_inbox(client: redis.Redis) -> None:
    client.lpush(RESEARCH, json.dumps({"headers": {"queued_at": time.time() - 90}}))
    client.lpush("celery", "x", "y")
    seconds = client.time()[0]
    client.zadd(keys.bot_leases("research"), {"research-001|a": (seconds + 9) * 1e6, "research-002|b": 1.0})
    fleet("pools", "pause", "writing", "--below", "high", "--for", "10m")
    rows = {row["pool"]: row for row in json.loads(fleet("pools", "--json").stdout)["pools"]}
    assert list(rows) == ["research", "writing", "review", "(celery)"]
    assert (rows["research"]["backlog"]["normal"], rows["research"]["in_flight"]) == (1, 1)
    assert rows["research"]["oldest_s"] == pytest.approx(90, abs=5)
    assert (rows["research"]["gate"], rows["research"]["lowest_taken"]) == ("open", "bulk")
    assert rows["writing"]["lowest_taken"] == "high"
    assert rows["writing"]["gate_left_s"] == pytest.approx(600, abs=5)
    assert rows["(celery)"]["backlog"]["critical"] == 2
    table = fleet("pools").stdout.splitlines()
    assert table[0].split()[:4] == ["POOL", "BOTS", "RUNNING", "WAITING"]
    assert "high and above, for" in table[2]


def test_pausing_sets_the_gate_that_workers_obey_and_resuming_removes_it(client: redis.Redis) -> None:
    gate = keys.gate(keys.queue("research"))
    fleet("pools", "pause", "research")
    assert (client.get(gate), client.ttl(gate)) == (b"-1", -1)
    fleet("pools", "pause", "research", "--below", "high", "--for", "1.5h")
    assert client.get(gate) == b"1"
    assert client.pttl(gate) == pytest.approx(5_400_000, abs=5000)
    assert fleet("pools", "resume", "research", "writing").stderr == "fleet: research: open\nfleet: writing: was open\n"
    assert client.exists(gate) == 0


def test_a_wrong_pool_or_time_is_wrong_usage_and_changes_nothing(client: redis.Redis) -> None:
    assert (
        "pool: expected one of research, writing, review, got 'x'"
        in fleet("pools", "pause", "research", "x", code=2).stderr
    )
    for wrong in ("ten", "0", "-1", "10y", "400d", ""):
        assert "expected a time like 90s" in fleet("pools", "pause", "research", "--for", wrong, code=2).stderr
    assert client.keys("fleet:gate:*") == []


@pytest.mark.parametrize("module", ["dead", "why", "pools"])
def test_importing_a_command_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, fleet.cli.operate.{module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not {"rich", "redis", "celery", "kombu"} & set(done.stdout.split())


def test_more_groups_than_are_counted_apart_are_in_the_sum_all_the_same(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(client, "t1", pool="research")
    die(client, "t2", "t3", pool="review")
    monkeypatch.setattr("fleet.engine.outcomes.dead_letter_office.MOST_GROUPS", 1)
    assert "3 dead letters; to replay 1 of them: " in fleet("dead", "reasons").stderr
    assert json.loads(fleet("dead", "reasons", "--pool", "review", "--json").stdout)["total"] == 2
    assert "would queue 3 dead letters; 1 of them: " in fleet("dead", "replay", "--all", "--dry-run").stderr
