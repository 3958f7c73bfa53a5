"""One real worker process from the outside: what producers get back, and what a worker survives."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from fleet import config
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask
from fleet.signals.catalogue import COMPLETIONS, DUPLICATES
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, REPO

WAIT_S = 30


def total(redis_url: str, counter: str) -> int:
    return counted(connect(redis_url), counter)


def results(redis_url: str, ids: list[str]) -> list[BotResult]:
    """Return the results that exist by now."""
    stored = connect(redis_url).mget([keys.result(task_id) for task_id in ids])
    return [BotResult.model_validate(json.loads(row)["result"]) for row in stored if row]  # type: ignore[union-attr]


def python(code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter, as a producer in another process does."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_delay_takes_a_prompt_a_dict_and_a_model_and_get_returns_the_result(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    out = python(
        "from fleet import submit_task, BotTask\n"
        "tasks = [submit_task.delay('What is 2+2?', pool='research', priority='high'),\n"
        "         submit_task.delay({'prompt': 'What is 2+3?'}),\n"
        "         submit_task.delay(BotTask(prompt='What is 2+4?', metadata={'a': 1}))]\n"
        "print([task.get(timeout=30).model_dump_json() for task in tasks])",
        tmp_path,
    )
    four, five, six = (BotResult.model_validate_json(row) for row in eval(out))
    assert (four.answer, five.answer, six.answer) == ("4", "5", "6")
    assert four.status == "ok" and four.pool == "research" and four.bot is not None
    assert four.bot.startswith("research-") and four.simulated and four.usage.total_tokens > 0
    assert six.metadata == {"a": 1}


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [
        (("x",), {"priority": "urgent"}, "expected one of critical, high, normal, low, bulk, got 'urgent'"),
        (("x",), {"pool": "nowhere"}, "pool: expected one of research, writing, review, got 'nowhere'"),
        ((), {}, "expected either `prompt` or `messages`"),
        (("x",), {"promt": "y"}, "the nearest known one is `prompt`"),
        ((5,), {}, "expected a prompt (str), a dict or a BotTask, got 5"),
        (("x",), {"deadline_s": 0}, "deadline_s"),
    ],
)
def test_wrong_arguments_fail_in_the_producer_and_queue_nothing(
    fleet_env: None, redis_url: str, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    from fleet.engine.tasks import submit_task

    with pytest.raises(InvalidTask) as caught:
        submit_task.delay(*args, **kwargs)
    assert says in str(caught.value)
    assert connect(redis_url).keys("fleet.*") == []


def test_a_plain_celery_client_knows_only_the_url_and_the_name(start_worker: StartWorker, redis_url: str) -> None:
    start_worker()
    plain = Celery(broker=redis_url, backend=redis_url)
    answer = plain.send_task("fleet.submit_task", args=["What is 5+5?"], kwargs={"pool": "writing"}).get(timeout=WAIT_S)
    assert (answer["status"], answer["answer"], answer["pool"]) == ("ok", "10", "writing")
    plain.close()


def test_malformed_messages_become_typed_failed_results_and_the_worker_goes_on(
    start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker()
    plain = Celery(broker=redis_url, backend=redis_url)
    redis = connect(redis_url)
    sent = [
        plain.send_task("fleet.submit_task", args=[5]),
        plain.send_task("fleet.submit_task", kwargs={"promt": "x"}),
        plain.send_task("fleet.submit_task", args=["x"], kwargs={"pool": "nowhere"}),
        plain.send_task("fleet.submit_task", args=["x"] * 40),
        plain.send_task("fleet.unheard_of"),
    ]
    raw = {
        "not-json": {"body": base64.b64encode(b"{").decode()},
        "no-triple": {"body": base64.b64encode(b"5").decode()},
        "pickle": {"content-type": "application/x-python-serialize"},
        "odd-task": {"headers": {"task": ["a"], "id": "odd-task"}},
        "odd-time": {"headers": {"task": "fleet.submit_task", "id": "odd-time", "queued_at": 1e999}},
        "odd-canvas": {"body": base64.b64encode(b'[[], {"prompt": "x"}, {"callbacks": [5], "chord": "x"}]').decode()},
        "odd-eta": {"headers": {"task": "fleet.submit_task", "id": "odd-eta", "eta": "yesterday"}},
    }
    for task_id, change in raw.items():
        message = {
            "body": base64.b64encode(b'[["x"], {}, {}]').decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "fleet.submit_task", "id": task_id},
            "properties": {"body_encoding": "base64", "delivery_info": {}, "correlation_id": task_id},
        }  # fmt: skip
        redis.lpush(list_key("celery", 2), json.dumps(message | change))
    redis.lpush(list_key("celery", 2), "garbage", json.dumps({"properties": 5}), "[" * 200_000)
    surrogate = {"headers": {"task": "fleet.submit_task", "id": "\ud800"}, "properties": {"delivery_info": {}}}
    redis.lpush(list_key("celery", 2), json.dumps(surrogate))
    ids = [result.id for result in sent] + list(raw)
    wait_until(lambda: len(results(redis_url, ids)) == len(ids), WAIT_S, f"{len(ids)} results; log:\n{worker.log}")
    failed = results(redis_url, ids)
    assert {result.error.type for result in failed if result.error} == {"InvalidTask"}
    assert {result.task_id for result in failed if result.status == "ok"} == {"odd-time", "odd-canvas"}
    wait_until(lambda: redis.llen("fleet:unreadable") == 3, WAIT_S, "three unreadable messages put aside")
    wait_until(lambda: redis.hlen("fleet:unacked") == 0, WAIT_S, "everything is acknowledged")
    assert plain.send_task("fleet.submit_task", args=["What is 1+1?"]).get(timeout=WAIT_S)["answer"] == "2"
    assert worker.alive
    plain.close()


def test_links_chains_chords_and_groups_of_celery_work_with_bot_tasks(
    start_worker: StartWorker, tmp_path: Path, redis_url: str
) -> None:
    (tmp_path / "with_own_task.py").write_text(
        "from fleet import app\n"
        "@app.task(name='own.answers')\n"
        "def answers(results):\n"
        "    many = results if isinstance(results, list) else [results]\n"
        "    return sorted(result['answer'] for result in many)\n"
    )
    start_worker(app="with_own_task")
    out = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from celery import chain, chord, group\n"
        "from fleet import submit_task\n"
        "from with_own_task import app, answers\n"
        "ask = lambda n: submit_task.si(f'What is {n}+1?', pool='review')\n"
        "print(chain(ask(1), answers.s()).apply_async().get(timeout=30))\n"
        "print(chord([ask(1), ask(2)], answers.s()).apply_async().get(timeout=30))\n"
        "print([r['answer'] for r in group(ask(4), ask(5)).apply_async().get(timeout=30)])\n",
        tmp_path,
    )
    assert out.splitlines() == ["['2']", "['2', '3']", "['5', '6']"]


def test_kill_9_of_a_worker_loses_nothing_and_doubles_no_result(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "300")
    config.current.cache_clear()
    victim = start_worker(app=QUICK_LEASES)
    start_worker(app=QUICK_LEASES)
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(120)))
    wait_until(lambda: len(results(redis_url, ids)) >= 20, WAIT_S, "the first results")
    victim.kill()
    wait_until(lambda: len(results(redis_url, ids)) == len(ids), 90, "all results")
    assert {result.status for result in results(redis_url, ids)} == {"ok"}
    assert total(redis_url, COMPLETIONS.name) == len(ids)
    wait_until(lambda: connect(redis_url).hlen("fleet:unacked") == 0, WAIT_S, "everything is acknowledged")


def test_a_worker_told_to_stop_finishes_what_runs_and_hands_back_the_rest(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "300")
    config.current.cache_clear()
    worker = start_worker()
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(100)))
    wait_until(lambda: len(results(redis_url, ids)) >= 10, WAIT_S, "the first results")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    redis = connect(redis_url)
    finished = len(results(redis_url, ids))
    assert redis.hlen("fleet:unacked") == 0
    assert redis.llen(list_key(keys.queue("research"), 2)) + finished == len(ids)
    assert 10 <= finished < len(ids)
    assert total(redis_url, DUPLICATES.name) == 0


def test_no_prompt_and_no_answer_reaches_the_log(start_worker: StartWorker, redis_url: str) -> None:
    worker = start_worker("-E")
    secret = "xyzzy-the-secret-word"
    ids = list(submit_many([BotTask(prompt=f"Say {secret} and 12+30")]))
    plain = Celery(broker=redis_url, backend=redis_url)
    ids += [plain.send_task("fleet.submit_task", args=[secret], kwargs={"promt": secret}).id]
    plain.close()
    wait_until(lambda: len(results(redis_url, ids)) == 2, WAIT_S, "both results")
    answer = results(redis_url, ids)[0].answer
    assert answer
    assert secret not in worker.log
    assert answer not in worker.log
    assert "finished task=" in worker.log and "simulated=True" in worker.log


def test_the_same_idempotency_key_makes_one_task_however_it_is_submitted(
    start_worker: StartWorker, redis_url: str
) -> None:
    from fleet.engine.tasks import submit_task

    start_worker()
    first = submit_task.delay("What is 1+2?", pool="research", idempotency_key="order-7")
    again = submit_task.delay("What is 1+2?", pool="research", idempotency_key="order-7")
    (third,) = submit_many([BotTask(prompt="What is 1+2?", idempotency_key="order-7")])
    assert first.id == again.id == third
    assert first.get(timeout=WAIT_S).answer == again.get(timeout=WAIT_S).answer == "3"
    assert total(redis_url, COMPLETIONS.name) == 1
    with pytest.raises(InvalidTask, match="expected no Celery options beside it, got"):
        submit_task.apply_async(("x",), {"idempotency_key": "a"}, countdown=5)


def test_a_revoked_task_that_runs_is_cancelled_and_its_slot_is_free_again(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from celery.exceptions import TaskRevokedError

    from fleet.engine.tasks import submit_task

    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20000")
    config.current.cache_clear()
    worker = start_worker()
    task = submit_task.delay("What is 1+2?", pool="research")
    wait_until(lambda: connect(redis_url).hlen("fleet:unacked") == 1, WAIT_S, "the task runs")
    task.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        task.get(timeout=WAIT_S)
    wait_until(lambda: connect(redis_url).hlen("fleet:unacked") == 0, WAIT_S, "it is acknowledged")
    assert worker.alive


def test_the_pool_grows_shrinks_and_autoscales_by_celerys_own_controls(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.engine.app import app

    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "3000")
    config.current.cache_clear()

    def busy() -> int:
        return int(connect(redis_url).hlen("fleet:unacked"))  # type: ignore[arg-type]

    worker = start_worker("-c", "2")
    list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(30)))
    wait_until(lambda: busy() == 2, WAIT_S, "both slots are busy")
    app.control.pool_grow(3, reply=True, timeout=5, limit=1)
    wait_until(lambda: busy() == 5, WAIT_S, f"five slots are busy; log:\n{worker.log}")
    app.control.pool_shrink(4, reply=True, timeout=5, limit=1)
    wait_until(lambda: busy() == 1, WAIT_S, "one slot is left")
    worker.kill()

    scaled = start_worker("--autoscale", "6,1")
    wait_until(lambda: busy() - 1 == 6, WAIT_S, f"all six slots are busy; log:\n{scaled.log}")


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGQUIT,)])
def test_a_second_ctrl_c_stops_at_once_and_the_next_worker_finishes_every_task_once(
    start_worker: StartWorker, redis_url: str, monkeypatch: pytest.MonkeyPatch, signals: tuple[signal.Signals, ...]
) -> None:
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "30000")
    config.current.cache_clear()
    worker = start_worker("-c", "10")
    ids = list(submit_many({"prompt": f"What is {n}+1?", "pool": "research"} for n in range(15)))
    wait_until(lambda: connect(redis_url).hlen("fleet:unacked") == 10, WAIT_S, "all slots are busy")
    for number in signals:
        worker.send(number)
        wait_until(lambda: " shutdown (MainProcess)" in worker.log, WAIT_S, "the worker has heard")
    worker.wait(timeout_s=15)
    assert len(results(redis_url, ids)) == 0
    assert connect(redis_url).llen(list_key(keys.queue("research"), 2)) == 15, worker.log
    monkeypatch.setenv("FLEET_SIMULATOR__LATENCY_MS", "20")
    start_worker()
    wait_until(lambda: len(results(redis_url, ids)) == 15, 60, "all results")
    assert total(redis_url, COMPLETIONS.name) == 15


def test_a_configuration_error_ends_a_worker_with_one_line(tmp_path: Path, redis_url: str) -> None:
    from tests.worker_process import WorkerProcess

    (tmp_path / "fleet.toml").write_text("[pools.a]\nbotz = 3\n")
    worker = WorkerProcess(tmp_path, env={"FLEET_REDIS__URL": redis_url})
    assert worker.wait() == 2
    assert "Traceback" not in worker.log
    assert "pools.a.botz: unknown key, the nearest known one is `bots`" in worker.log
