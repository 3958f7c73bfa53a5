"""Flower's own buttons, Revoke and Terminate, by the API that they call: tasks that run, that wait, that are parked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
from celery.exceptions import TaskRevokedError
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import connect
from tests.counted import counted
from tests.dashboard.flower_process import running
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until

#: Generous: the machine may be slow.
WAIT_S = 60.0
#: A bot that answers once and then works on for minutes.
LONG = """
import asyncio, pathlib
async def long(task, bot):
    await bot.chat(task.prompt)
    pathlib.Path("called-" + task.prompt[-1]).touch()
    while not pathlib.Path("go").exists():
        await asyncio.sleep(0.05)
    return "done"
"""

#: A provider that nobody is, on a port where nothing listens.
DOWN = '[providers.down]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def press(redis_url: str, tmp_path: Path, fleet_env: None) -> Iterator[Callable[[str, bool], None]]:
    def press(task_id: str, terminate: bool) -> None:
        path = f"/api/task/revoke/{task_id}{'?terminate=true' if terminate else ''}"
        status, _, body = flower.ask("POST", path, "fleet:secret", body="")
        assert status == 200, body

    with running(tmp_path, redis_url, "--basic-auth=fleet:secret") as flower:
        press.flower = flower  # type: ignore[attr-defined]
        yield press


def shown(press: Any, task_id: str) -> tuple[str, str]:
    """Return state and reason of a task as Flower has them; none: it does not know it."""

    def info() -> dict[str, Any]:
        status, body = press.flower.get(f"/api/task/info/{task_id}", "fleet:secret")
        told: dict[str, Any] = json.loads(body) if status == 200 else {"state": None}
        return told

    task = info()
    while True:
        listed = json.loads(press.flower.get(f"/api/tasks?state={task['state']}", "fleet:secret")[1])
        before, task = task, info()
        if task["state"] == before["state"]:  # else it has changed between the two questions
            assert task["state"] is None or task_id in listed
            return str(task["state"]), task.get("exception") or ""


def test_revoke_spares_what_runs_terminate_stops_it_and_what_waits_or_is_parked_ends_at_once(
    start_worker: StartWorker, client: redis.Redis, tmp_path: Path, press: Callable[[str, bool], None]
) -> None:
    from fleet.engine.tasks import submit_task

    (tmp_path / "long.py").write_text(LONG)
    pools = "".join(f'[pools.{name}]\nbots = 3\nprovider = "simulator"\nmodel = "sim-small"\n{more}'
                    for name, more in (("slow", 'function = "long:long"\n'), ("shut", "")))  # fmt: skip
    pools += f'[pools.down]\nbots = 3\nprovider = "down"\nmodel = "m"\n{DOWN}'
    (tmp_path / "fleet.toml").write_text(pools)
    config.current.cache_clear()
    client.set(keys.gate(keys.queue("shut")), -1)
    worker = start_worker()
    submit_task.app.control.enable_events(reply=True, timeout=WAIT_S, limit=1)  # as Flower does, every five seconds
    spared, stopped = (submit_task.delay(f"What is 1+{n}?"[:-1], pool="slow") for n in (1, 2))
    queued, waits = submit_task.delay("x", pool="shut"), submit_task.delay("x", pool="down")
    parked = submit_task.apply_async(("x",), {"pool": "shut"}, countdown=3600)
    of_a_job = submit_task.delay("What is 1+", pool="slow", metadata={"job": "nightly"})
    for n in (1, 2, "+"):
        wait_until((tmp_path / f"called-{n}").exists, WAIT_S, lambda: f"both work; log:\n{worker.log}")
    press(spared.id, False)
    for task, terminate in ((stopped, True), (queued, False), (parked, True)):
        press(task.id, terminate)
        with pytest.raises(TaskRevokedError):
            task.get(timeout=WAIT_S)
    wait_until(lambda: shown(press, stopped.id) == ("REVOKED", ""), WAIT_S, "Flower has heard of it")
    wait_until(lambda: shown(press, waits.id)[0] == "RETRY", WAIT_S, "Flower knows that it waits")
    assert shown(press, waits.id)[1].startswith("waits: ")
    client.set(keys.gate(keys.queue("down")), -1)
    CliRunner().invoke(main, ["cancel", "--pool", "down", "--yes"])
    wait_until(lambda: shown(press, waits.id) == ("REVOKED", ""), WAIT_S, lambda: f"got {shown(press, waits.id)}")
    told = CliRunner().invoke(main, ["cancel", "--metadata", "job=nightly", "--running", "--yes", "--json"])
    assert json.loads(told.stdout) == {"waiting": 0, "held": [of_a_job.id], "stopped": True}
    with pytest.raises(TaskRevokedError):
        of_a_job.get(timeout=WAIT_S)
    wait_until(lambda: client.llen(keys.queue("shut") + "\x06\x162") == 0, WAIT_S, "nothing is left behind the gate")
    assert client.hlen(keys.parked()) == 0
    wait_until(lambda: counted(client, catalogue.REVOKED.name) == 3, WAIT_S, "what the stopped ones have cost counts")
    assert counted(client, catalogue.CALLS.name) == 2
    (tmp_path / "go").touch()
    assert spared.get(timeout=WAIT_S).answer == "done"
    wait_until(lambda: client.zcard(keys.bot_leases("slow")) == 0, WAIT_S, "all bots are free")


def test_each_of_flowers_controls_works_or_names_the_command_that_does_it_and_only_operators_use_them(
    start_worker: StartWorker, client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    from fleet.engine.app import app

    name = (worker := start_worker("-Q", "research,review", "-c", "4")).name
    env = {"FLEET_DASHBOARD__OPERATORS": '["fl*t", "nobody"]', "FLEET_DASHBOARD__SHOW_TEXTS": "true"}
    with running(tmp_path, redis_url, "--basic-auth=fleet:secret,anna:hers", env=env) as flower:

        def post(path: str, login: str = "fleet:secret", **form: object) -> tuple[int, str]:
            status, _, said = flower.ask("POST", f"/api/{path}?{urlencode(form)}", login, body="")
            return status, said

        def ask() -> Any:
            return app.control.inspect(destination=[name], timeout=WAIT_S, limit=1)

        known = lambda: json.loads(flower.get("/api/workers?refresh=1", "anna:hers")[1])  # noqa: E731
        wait_until(lambda: "stats" in known().get(name, ()), WAIT_S, "Flower knows the worker, and anna may look")
        queues = lambda: {queue["name"] for queue in ask().active_queues()[name]}  # noqa: E731
        slots = lambda: ask().stats()[name]["pool"]["max-concurrency"]  # noqa: E731
        refused = [
            ("task/rate-limit/fleet.submit_task", {"workername": name, "ratelimit": "5/m"}, "fleet limits set"),
            ("task/timeout/fleet.submit_task", {"workername": name, "soft": 3, "hard": 9}, "deadline_s"),
            (f"worker/pool/restart/{name}", {}, "fleet up"),
            (f"worker/pool/autoscale/{name}", {"min": 1, "max": 3}, "--autoscale=MAX,MIN"),
            (f"worker/pool/grow/{name}", {"n": -9}, "1 to 2000 slots"),
            (f"worker/pool/grow/{name}", {"n": 5000}, "1 to 2000 slots"),
            (f"worker/pool/shrink/{name}", {"n": 4}, "1 to 2000 slots"),
            (f"worker/queue/cancel-consumer/{name}", {"queue": "nowhere"}, "fleet.research"),
            ("task/abort/0c0c0c0c-0000-4000-8000-000000000000", {}, "fleet cancel"),
        ]
        done: list[tuple[str, dict[str, object], Callable[[], bool]]] = [
            (f"worker/pool/grow/{name}", {"n": 3}, lambda: slots() == 7),
            (f"worker/pool/shrink/{name}", {"n": 2}, lambda: slots() == 5),
            (f"worker/queue/add-consumer/{name}", {"queue": "writing"}, lambda: "fleet.writing" in queues()),
            (f"worker/queue/cancel-consumer/{name}", {"queue": "review"}, lambda: "fleet.review" not in queues()),
            (f"worker/shutdown/{name}", {}, lambda: not worker.alive),
        ]
        for path, form, *_ in [*refused, *done, ("task/async-apply/fleet.submit_task", {}, "")]:
            status, said = post(path, "anna:hers", **form)
            assert (status, "expected an operator" in said and "'anna'" in said) == (403, True), (path, said)
        assert (slots(), "fleet.writing" in queues(), client.xlen(keys.events())) == (4, False, 1)  # it has started
        assert "worker-shutdown" not in flower.get(f"/worker/{name}", "anna:hers")[1]
        assert "worker-shutdown" in flower.get(f"/worker/{name}", "fleet:secret")[1]
        for path, form, says in refused:
            status, said = post(path, **form)
            assert (400 <= status < 500, says in said) == (True, True), (path, said)
        task = json.dumps({"args": ["What is 6 * 7?"], "timeout": WAIT_S})
        status, _, said = flower.ask("POST", "/api/task/apply/fleet.submit_task", "fleet:secret", task)
        assert (status, "42" in said) == (200, True), said
        of_task = json.loads(said)["task-id"]
        for path in (f"/fleet/task/{of_task}", f"/api/task/result/{of_task}"):
            for login, may_read in (("fleet:secret", True), ("anna:hers", False)):
                status, said = flower.get(path, login)
                reads = re.search(r"answer\W+42\b", said) is not None
                assert (reads, "expected an operator" in said) == (may_read, not may_read), (path, login, said)
        assert "6 * 7" not in flower.get(f"/task/{of_task}", "fleet:secret")[1]
        for path, form, holds in done:
            status, said = post(path, **form)
            assert status == 200, (path, said)
            wait_until(holds, WAIT_S, lambda path=path: f"{path} has worked; log:\n{worker.log}")  # type: ignore[misc]
        told = lambda: [  # noqa: E731
            (fields[b"what"].decode(), fields[b"by"])
            for _, fields in client.xrange(keys.events())  # type: ignore[union-attr]
            if fields[b"event"] == b"flower_control"
        ]
        wait_until(lambda: told() == [(path, b"fleet") for path, *_ in done], WAIT_S, lambda: f"told: {told()}")
