"""The four users of `fleet acl apply`: each does its job, and no more.

What the rules of each allow and refuse is asked of a real Redis and of the bundled Valkey; the rest of one of them.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis

from fleet.store.client import connect
from fleet.store.private.server import bundled_program
from tests.dashboard.flower_process import running
from tests.dashboard.test_routes import PAUSE, Served
from tests.redis_server import RedisServer, server_program
from tests.waiting import wait_until
from tests.worker_process import REPO, WorkerProcess

#: What a producer does: one task whose result it awaits, in bulk, later, twice under one key, and in a group.
PRODUCE = """
import json
from celery import group
from fleet import submit_many, submit_task
first = submit_task.delay("one", pool="research", priority="high")
later = submit_task.apply_async(("two",), {"pool": "research"}, countdown=0.5)
again = [submit_task.delay("three", pool="research", idempotency_key="k").id for _ in range(2)]
many = submit_many([{"prompt": "four", "pool": "research"}, {"prompt": "five", "pool": "research"}])
both = group(submit_task.s("six", pool="research"), submit_task.s("seven", pool="research")).apply_async()
assert again[0] == again[1]
for result in (first, later):
    result.get(timeout=60)
both.get(timeout=60)
print(json.dumps({"id": first.id}))
"""
#: Runs commands of `fleet` one after another in one process, which has loaded all that they need; prints the exit code
#: and the errors of each.
IN_TURN = """
import json, sys
from click.testing import CliRunner
from fleet.cli.main import main
told = [CliRunner().invoke(main, words) for words in json.loads(sys.argv[1])]
print(json.dumps([[one.exit_code, one.stderr] for one in told]))
"""
#: Of messages that are taken, the dashboard's Flower puts none back, and gets no answers of workers: `docs/redis.md`.
HELD_REFUSED = {"fleet-dashboard fleet:unacked", "fleet-dashboard fleet:unacked_swept"}
TOML = """
[pools.research]
bots = 3
[pools.writing]
bots = 1
[simulator]
latency_ms = 1
"""

ASK_IN_VAIN = """
from fleet import submit_task
try: submit_task.delay("seven", pool="research").get(timeout=3)
except Exception as error: print(error)
"""


@dataclass(frozen=True)
class Door:
    """A server with the four users, and their URLs."""

    server: RedisServer
    folder: Path
    urls: dict[str, str]

    def env(self, role: str) -> dict[str, str]:
        return {"PYTHONPATH": str(REPO), "FLEET_REDIS__URL": self.urls[role]}

    def run(self, role: str, *command: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, *command]
        env = {**os.environ, **self.env(role)}
        return subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120)

    def fleet(self, role: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(role, "-m", "fleet.cli.main", *words)

    def fleet_in_turn(self, role: str, *commands: str) -> list[tuple[int, str]]:
        """Return exit code and errors of each command, all of them carried out by one process of this role."""
        done = self.run(role, "-c", IN_TURN, json.dumps([command.split() for command in commands]))
        assert done.returncode == 0, done.stderr
        return [(code, errors) for code, errors in json.loads(done.stdout)]

    def run_as_admin(self, *words: str) -> subprocess.CompletedProcess[str]:
        return replace(self, urls={"admin": self.server.url}).fleet("admin", *words)

    def refused(self) -> list[str]:
        """Return what was refused to whom since the last call."""
        with connect(self.server.url) as client:
            found = [f"{row['username']} {row['object']}" for row in client.acl_log()]
            client.acl_log_reset()
        return found


@pytest.fixture
def door(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    programs = {"redis": shutil.which("redis-server"), "valkey": bundled_program(), "": server_program()}
    program = programs[name := getattr(request, "param", "")]
    if program is None:
        pytest.skip(f"expected {name} on this machine")
    (tmp_path / "fleet.toml").write_text(TOML)
    server = RedisServer(tmp_path, program=Path(program))
    monkeypatch.setenv("FLEET_REDIS__URL", server.url)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "fleet.cli.main", "acl", "--pool", "research", "apply", "users.env"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = [row for row in (tmp_path / "users.env").read_text().splitlines() if row.startswith("FLEET_REDIS__URL=")]
        urls = [row.partition("=")[2] for row in rows]
        yield Door(server, tmp_path, {url.partition("fleet-")[2].partition(":")[0]: url for url in urls})
    finally:
        server.stop()


@pytest.mark.parametrize("door", ["redis", "valkey"], indirect=True)
def test_each_role_does_its_job_and_is_refused_the_rest(door: Door) -> None:
    worker = WorkerProcess(door.folder, env=door.env("worker"))
    try:
        worker.wait_ready()
        produced = door.run("producer", "-c", PRODUCE)
        assert produced.returncode == 0, produced.stderr
        task = json.loads(produced.stdout)["id"]
        looks = ("stats", "tasks", f"why {task}", "pools", "bill", "events", "limits", "dead list")
        assert door.fleet_in_turn("producer", "submit eight --pool research")[0][0] == 0
        looked = door.fleet_in_turn("dashboard", *(f"{look} --json" for look in looks))
        assert [code for code, _ in looked] == [0] * len(looks), looked
        acts = ("pools pause research", "pools resume research", "cancel nobody")
        acted = door.fleet_in_turn("operator", *acts)
        assert [code for code, _ in acted] == [0, 0, 1], acted
        assert door.refused() == []
        other_pool, paused = door.fleet_in_turn("producer", "submit nine --pool writing", "pools pause research")
        (paused_there,) = door.fleet_in_turn("dashboard", "pools pause research")
        assert (other_pool[0], paused[0], paused_there[0]) == (2, 2, 2)
        assert "`fleet acl` prints" in paused[1] and "`fleet acl` prints" in paused_there[1]
        assert len(door.refused()) >= 3
    finally:
        worker.kill()


def test_a_stack_runs_as_the_worker_and_a_file_as_the_producer_with_flower_as_dashboard_or_operator(
    door: Door, fleet_home: Path
) -> None:
    """`fleet up`, `fleet run` and the Fleet tab, each as the user of its role: none is refused anything of its job."""
    up = door.fleet("worker", "up", "-d", "--workers", "1", "--no-flower")
    try:
        assert up.returncode == 0, up.stderr
        (door.folder / "in.jsonl").write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(20)))
        ran = door.fleet("producer", "run", "in.jsonl", "-o", "out.jsonl", "--pool", "research")
        assert ran.returncode == 0, ran.stderr
        answers = [json.loads(line) for line in (door.folder / "out.jsonl").read_text().splitlines()]
        assert [one["status"] for one in answers] == ["ok"] * 20
        assert door.refused() == []
        for role in ("dashboard", "operator"):
            with running(door.folder, door.urls[role], env=door.env(role)) as flower:
                login = f"fleet:{(fleet_home / 'flower.password').read_text().strip()}"
                parts = ("", "/state?also=asks&also=schedules", "/tasks?q=state=waiting", "/dead", "/metrics")
                pages = [*(f"/fleet{part}" for part in parts), "/tasks", "/workers"]
                assert {path: flower.get(path, login)[0] for path in pages} == dict.fromkeys(pages, 200)
                is_allowed = role == "operator"
                assert set(door.refused()) <= HELD_REFUSED
                got, told = Served(flower, login, door.server).act(PAUSE, login=login)
                assert (got == 200) == is_allowed and ("`fleet acl` prints" in told) != is_allowed, told
                assert (not set(door.refused()) - HELD_REFUSED) == is_allowed
    finally:
        door.fleet("worker", "down")


def test_a_producer_is_told_what_its_tasks_wait_for(door: Door) -> None:
    (door.folder / "in.jsonl").write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(3)))
    ran = door.fleet("producer", "run", "in.jsonl", "-o", "out.jsonl", "--pool", "research")
    assert door.refused() == ["fleet-producer lindex"]  # how old the oldest message is, which may be another's
    assert (ran.returncode, "no worker is alive to serve pool research" in ran.stderr) == (3, True), ran.stderr
    asked = door.run("producer", "-c", ASK_IN_VAIN)
    assert "no live worker serves pool research" in asked.stdout, asked.stdout + asked.stderr


def test_a_worker_whose_user_loses_a_right_waits_and_fails_no_task(door: Door) -> None:
    worker = WorkerProcess(door.folder, env=door.env("worker"))
    try:
        worker.wait_ready()
        with connect(door.server.url) as client:
            client.execute_command("ACL", "SETUSER", "fleet-worker", "-evalsha", "-eval", "-zadd", "clearselectors")
            sent = door.run(
                "producer", "-c", "from fleet import submit_task as s; print(s.delay('x', pool='research').id)"
            )
            task = sent.stdout.strip()
            wait_until(lambda: client.acl_log(), 30, "Redis refuses the worker something")
            assert client.get(f"celery-task-meta-{task}") is None
            restored = door.fleet("operator", "acl", "--json")
            words = next(one["rules"] for one in json.loads(restored.stdout)["users"] if one["role"] == "worker")
            client.execute_command("ACL", "SETUSER", "fleet-worker", *words)
            wait_until(lambda: b"SUCCESS" in (client.get(f"celery-task-meta-{task}") or b""), 60, "the task is done")
        assert worker.alive
    finally:
        worker.kill()


def test_the_file_of_urls_is_its_owners_and_a_second_run_keeps_passwords(door: Door) -> None:
    file = door.folder / "users.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with connect(door.server.url) as client:
        kept = client.acl_getuser("fleet-worker")
    again = door.run_as_admin("acl", "apply", "more.env", "--json")
    assert json.loads(again.stdout)["made"] == []
    assert not (door.folder / "more.env").exists()
    with connect(door.server.url) as client:
        assert client.acl_getuser("fleet-worker")["passwords"] == kept["passwords"]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(door.urls["worker"].replace("@", "x@")).ping()
    assert door.run_as_admin("acl", "apply", "users.env").returncode == 2
    assert door.fleet("operator", "acl", "apply", "other.env").returncode == 2
    behind = replace(door, urls={"odd": "sentinel://127.0.0.1:1/0"}).fleet("odd", "acl", "apply", "other.env")
    assert (behind.returncode, "aclfile of every server" in behind.stderr) == (2, True), behind.stderr
