"""Pools that a worker cannot serve: its other pools go on, and everybody tells why these do not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.workers.simulator.running import running

WAIT_S = 60
#: Pools of which each lacks something, by what `fleet why` must name, and the cause.
SHUT = {
    "keyless": ("variable A_KEY_NOBODY_SET", "key"),
    "fileless": ("api_key_file: expected a readable file", "key"),
    "codeless": ("function no_such_module:work", "configuration"),
    "uncheck": ("validator checks:missing", "configuration"),
    "nowhere": ("base_url: expected http(s)://HOST", "configuration"),
}


def write(tmp_path: Path, url: str) -> None:
    (tmp_path / "checks.py").write_text("def work(task, bot):\n    return bot.chat(task.prompt)\n")
    (tmp_path / "fleet.toml").write_text(f"""
[providers.sim]
kind = "simulator"
base_url = "{url}"
[providers.one]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "A_KEY_NOBODY_SET"
[providers.two]
kind = "openai"
base_url = "{url}/v1"
api_key_file = "no/such/file"
[providers.three]
kind = "openai"
base_url = "http//[nonsense"
api_key_env = "A_KEY"
[pools.fine]
bots = 2
provider = "sim"
canaries = "no/such/canaries.jsonl"
[pools.ladder]
bots = 2
provider = "one"
[[pools.ladder.fallback]]
provider = "sim"
[pools.keyless]
bots = 2
provider = "one"
[pools.fileless]
bots = 2
provider = "two"
[pools.codeless]
bots = 2
provider = "sim"
function = "no_such_module:work"
[pools.uncheck]
bots = 2
provider = "sim"
validator = "checks:missing"
[pools.nowhere]
bots = 2
provider = "three"
""")
    config.current.cache_clear()


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def test_pools_that_a_worker_cannot_serve_wait_alone_and_are_told_until_one_comes_that_can(
    start_worker: StartWorker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "test-key")
    with running() as url:
        write(tmp_path, url)
        ids = dict(zip(SHUT, submit_many([{"prompt": "What is 2+2?", "pool": pool} for pool in SHUT]), strict=True))
        worker = start_worker()
        for pool, (words, cause) in SHUT.items():
            assert f"pool_shut pool={pool} cause={cause}" in worker.log
            story = json.loads(fleet("why", ids[pool], "--json").stdout)
            assert (story["state"], story["cause"], story["is_lasting"]) == ("queued", cause, True), pool
            assert words in story["told"], pool
        assert "canaries_unusable pool=fine" in worker.log
        began = time.monotonic()
        done = fleet("submit", "What is 2+2?", "--pool", "keyless")
        assert (done.exit_code, time.monotonic() - began < 20) == (3, True), done.stderr
        assert "A_KEY_NOBODY_SET" in done.stderr
        ask = ("submit", "What is 2+2?", "--json", "--pool")
        own, other = (json.loads(fleet(*ask, pool).stdout) for pool in ("fine", "ladder"))
        assert (own["status"], own["served_by"]) == ("ok", "call")
        assert (other["status"], other["served_by"]) == ("ok", "fallback 1")
        rows = {row["pool"]: row for row in json.loads(fleet("pools", "--json").stdout)["pools"]}
        for pool, (_, cause) in SHUT.items():
            assert [wait["cause"] for wait in rows[pool]["waits"]] == [cause], pool
        assert f"{worker.name} cannot serve pool keyless" in " ".join(fleet("stats").stdout.replace("│", " ").split())

        with connect(redis_url) as redis:  # as a process of Celery's own pools holds it, that has taken one
            wait = Wait("key", time.time() + 3600, "one/simulated-1/default")
            redis.set(keys.hold(keys.queue("keyless")), wait.to_json(), px=3_600_000)
        start_worker(env={"A_KEY_NOBODY_SET": "test-key"})
        done = fleet("submit", "What is 2+2?", "--pool", "keyless", "--json")
        assert json.loads(done.stdout)["status"] == "ok", done.stderr
        wait_until(lambda: fleet("why", ids["keyless"]).stdout.count("its result is ok"), WAIT_S, "what waited is done")
