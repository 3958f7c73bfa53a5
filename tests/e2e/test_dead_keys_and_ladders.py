"""Real workers, the real command, HTTP servers: a dead key, a missing one, an outage, a used-up day, lost code."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.store import keys
from fleet.store.client import connect
from fleet.waits import Wait
from tests.http_server import Handler, serving
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60
#: Answers of an API, as the wire of OpenAI has them.
ANSWER = {
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It is four."}}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24},
}
REFUSAL = {
    "error": {"message": "Incorrect API key provided.", "type": "invalid_request_error", "code": "invalid_api_key"}
}


class Api(Handler):
    """An API that takes one key."""

    good_key = "sk-good"
    #: Calls by model and status.
    seen: Counter[tuple[str, int]]

    def do_POST(self) -> None:
        model = json.loads(self.body())["model"]
        status = 200 if self.headers["Authorization"] == f"Bearer {self.good_key}" else 401
        self.seen[model, status] += 1
        self.send(status, ANSWER if status == 200 else REFUSAL)


@contextmanager
def api(port: int = 0) -> Iterator[tuple[int, Counter[tuple[str, int]]]]:
    """Serve an API, and tell its port and what it has seen."""
    seen: Counter[tuple[str, int]] = Counter()
    with serving(type("CountingApi", (Api,), {"seen": seen}), port=port) as url:
        yield int(url.rpartition(":")[2]), seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(tmp_path: Path, open_port: int, closed_port: int) -> None:
    """Write a fleet.toml.

    A key in a file; a ladder over an API that refuses connections; one under a short day; two pools that the first
    worker cannot serve; a ladder whose first key is missing.
    """
    (tmp_path / "fleet.toml").write_text(f"""
[worker]
slots = 20
[providers.keyed]
kind = "openai"
base_url = "http://127.0.0.1:{open_port}/v1"
api_key_file = "key.txt"
[providers.main]
kind = "openai"
base_url = "http://127.0.0.1:{closed_port}/v1"
api_key_env = "GOOD_KEY"
[providers.other]
kind = "openai"
base_url = "http://127.0.0.1:{open_port}/v1"
api_key_env = "GOOD_KEY"
[pools.keyed]
bots = 4
provider = "keyed"
model = "keyed-1"
[pools.ladder]
bots = 4
provider = "main"
model = "large-1"
[[pools.ladder.fallback]]
provider = "other"
model = "small-1"
[limits."other/daily-1"]
requests_per_day = 3
when_full = "degrade"
[pools.daily]
bots = 4
provider = "other"
model = "daily-1"
[[pools.daily.fallback]]
model = "small-1"
when = ["outage"]
[providers.missing]
kind = "openai"
base_url = "http://127.0.0.1:{open_port}/v1"
api_key_env = "LATE_KEY"
[pools.missing]
bots = 4
provider = "missing"
model = "missing-1"
[pools.codeless]
bots = 4
provider = "other"
model = "small-1"
function = "late_module:work"
[pools.half]
bots = 4
provider = "missing"
model = "missing-1"
canaries = "no/such/canaries.jsonl"
[[pools.half.fallback]]
provider = "other"
model = "small-1"
""")
    config.current.cache_clear()


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def ask(pool: str) -> tuple[str, str, str]:
    """Submit one task and tell how it ended, who served it and what with."""
    done = fleet("submit", "What is 2+2?", "--pool", pool, "--json", "--timeout", str(WAIT_S))
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    return result["status"], result["served_by"], result["model"]


def lines_of(path: Path) -> list[str]:
    return [json.loads(line)["status"] for line in path.read_text().splitlines()] if path.exists() else []


def told(pool: str) -> tuple[str, str]:
    """Return the cause that `fleet pools` names in a pool's gate, and what it says of it."""
    rows = {row["pool"]: row for row in json.loads(fleet("pools", "--json").stdout)["pools"]}
    (wait,) = rows[pool]["waits"]
    return wait["cause"], wait["line"]


def key_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "key.txt"
    path.write_text(key)
    path.chmod(0o600)


def test_what_is_missing_or_dead_makes_its_own_pool_wait_until_it_is_mended_and_ladders_serve_meanwhile(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("GOOD_KEY", Api.good_key)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": f"What is {n}+2?"}) + "\n" for n in range(30)))
    run, out = ("run", "in.jsonl", "-o", "out.jsonl", "--pool", "keyed"), tmp_path / "out.jsonl"
    key_file(tmp_path, "sk-dead")
    closed, workers = free_port(), list[WorkerProcess]()
    with api() as (port, seen):
        write(tmp_path, port, closed)
        try:
            workers.append(WorkerProcess(tmp_path).wait_ready())

            ids = list(submit_many([{"prompt": "hi", "pool": pool} for pool in ("missing", "codeless")]))
            assert told("missing")[0] == "key" and "variable LATE_KEY, got nothing" in told("missing")[1]
            assert told("codeless")[0] == "configuration" and "No module named 'late_module'" in told("codeless")[1]
            assert "pool_shut pool=missing cause=key" in workers[0].log
            assert "canaries_unusable pool=half" in workers[0].log
            assert ask("half") == ("ok", "fallback 1", "small-1")

            ended = fleet(*run)
            assert (ended.exit_code, lines_of(out)) == (3, []), ended.stderr
            assert "30 tasks wait: keyed/keyed-1/default: there is no key that the provider takes" in ended.stderr
            assert "Incorrect API key provided" in ended.stderr and "sk-dead" not in ended.stderr
            refused = seen["keyed-1", 401]
            assert 1 <= refused <= 20  # at most what was on its way already

            assert {ask("ladder") for _ in range(5)} == {("ok", "fallback 1", "small-1")}
            with api(closed) as (_, back):
                wait_until(lambda: ask("ladder") == ("ok", "call", "large-1"), WAIT_S, "the ladder's own API serves")
                assert back["large-1", 200]

            served = [ask("daily")[1:] for _ in range(5)]
            assert served == [("call", "daily-1")] * 3 + [("fallback 1", "small-1")] * 2
            assert seen["daily-1", 200] == 3

            key_file(tmp_path, Api.good_key)
            (tmp_path / "late_module.py").write_text("def work(task, bot):\n    return bot.chat(task.prompt)\n")
            with connect(redis_url) as redis:  # as a process of Celery's own pools holds it, that has taken one
                wait = Wait("key", time.time() + 3600, "missing/missing-1/default")
                redis.set(keys.hold(keys.queue("missing")), wait.to_json(), px=3_600_000)
            began = time.monotonic()
            workers.append(WorkerProcess(tmp_path, env={"LATE_KEY": Api.good_key}))
            workers[0].send(signal.SIGTERM)
            workers[1].wait_ready()
            assert workers[0].wait() == 0
            wait_until(
                lambda: {json.loads(fleet("why", one, "--json").stdout)["state"] for one in ids} == {"finished"}, WAIT_S
            )
            ended = fleet(*run)
            assert (ended.exit_code, lines_of(out)) == (0, ["ok"] * 30), ended.stderr
            assert (seen["keyed-1", 200], seen["keyed-1", 401]) == (30, refused)
            assert time.monotonic() - began < WAIT_S  # nobody has waited for the next probe of the dead key
        finally:
            for worker in workers:
                worker.kill()
