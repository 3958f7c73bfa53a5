"""`fleet run` and `fleet submit`, from the outside: a real worker, a real Redis, the simulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from fleet.cli.main import main
from fleet.cli.run import flow
from fleet.cli.run.collector import Collector, result_of
from fleet.cli.run.commands import result_line
from fleet.config import load
from fleet.engine.local_simulator import ensure_simulator, stop_simulator
from fleet.engine.messages.producer import submit_many, task_id_of
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.embedded import ensure_redis, stop_redis
from tests.every import every
from tests.waiting import wait_until

FLEET = [sys.executable, "-m", "fleet.cli.main"]
#: The simulator of these tests: quick, but slow enough that a run can be caught in the middle.
SIMULATOR = {
    "FLEET_SIMULATOR__LATENCY_MS": "30",
    "FLEET_SIMULATOR__RPM": "1000000",
    "FLEET_SIMULATOR__TPM": "900000000",
}
WORKER = {"FLEET_WORKER__PROCESSES": "1", "FLEET_WORKER__SLOTS": "20"}


@dataclass(frozen=True)
class Stack:
    """One worker with its Redis and simulator."""

    home: Path
    redis_url: str
    simulator_url: str

    def calls(self) -> int:
        """Calls that the simulator would have billed so far."""
        host = urlsplit(self.simulator_url)
        connection = HTTPConnection(str(host.hostname), host.port, timeout=5)
        connection.request("GET", "/ledger")
        ledger = json.loads(connection.getresponse().read())
        connection.close()
        return int(ledger["total"]["served"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start one worker for all tests of this module."""
    home = tmp_path_factory.mktemp("stack") / ".fleet"
    home.mkdir(mode=0o700)
    variables = {**os.environ, **SIMULATOR, **WORKER, "FLEET_HOME": str(home)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        redis_url, simulator_url = ensure_redis(home, load().redis.server), ensure_simulator(load(), home).url
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "fleet",
        "worker",
        "--loglevel",
        "ERROR",
        "--without-mingle",
        "--without-gossip",
    ]
    with (home / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=variables, cwd=home, stdout=log, stderr=log)
    with Collector(state_url=redis_url, broker_url=redis_url, timeout_s=5) as collector:
        wait_until(collector.workers_alive, 30, "the worker reports")
    yield Stack(home, redis_url, simulator_url)
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    stop_redis(home)
    stop_simulator(home)


@pytest.fixture
def use_stack(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Let commands of this process find the module's stack."""
    for name, value in {**SIMULATOR, **WORKER, "FLEET_HOME": str(stack.home)}.items():
        monkeypatch.setenv(name, value)
    return stack


@dataclass
class Files:
    """IN and OUT of a test."""

    source: Path
    target: Path
    prompts: list[str] = field(default_factory=list)

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".run")

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.target.read_text().splitlines()]

    def count(self) -> int:
        return self.target.read_bytes().count(b"\n") if self.target.exists() else 0


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def write(files: Files, count: int) -> None:
    # Each test asks questions of its own.
    lines = [{"id": f"q{number}", "question": f"{uuid.uuid4()}: {number}?"} for number in range(1, count + 1)]
    files.source.write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(files: Files, *arguments: str, stdin: bytes | None = None) -> Result:
    command = ["run", str(files.source), "-o", str(files.target), "--window", "40", *arguments]
    return CliRunner().invoke(main, command, input=stdin)


def start(files: Files, *, window: int) -> subprocess.Popen[str]:
    """Start `fleet run` as a process of its own; a small window makes it slow."""
    command = [*FLEET, "run", str(files.source), "-o", str(files.target), "--window", str(window)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def is_whole(files: Files, count: int) -> bool:
    """Whether OUT has each line once, with its id, answered."""
    found = sorted((record["line"], record["id"], record["status"]) for record in files.records())
    return found == [(number, f"q{number}", "ok") for number in range(1, count + 1)]


# ---- fleet run


def test_a_run_answers_every_line_once_and_pays_for_it_once(use_stack: Stack, files: Files) -> None:
    write(files, 100)
    before = use_stack.calls()
    answer = run(files, "--pool", "research")
    assert answer.exit_code == 0, answer.output
    assert is_whole(files, 100)
    assert use_stack.calls() - before == 100
    assert not files.note.exists()
    assert "100 ok" in answer.stderr
    assert "simulator" in answer.stderr
    record = files.records()[0]
    assert list(record)[:4] == ["id", "line", "status", "answer"]
    assert record["pool"] == "research"
    assert record["simulated"] is True
    assert record["usage"]["output_tokens"] > 0


def test_a_finished_run_does_nothing_but_repeat_its_summary(use_stack: Stack, files: Files) -> None:
    write(files, 5)
    run(files)
    before, content = use_stack.calls(), files.target.read_bytes()
    answer = run(files)
    assert answer.exit_code == 0
    assert "nothing left to do: 5 lines done before" in answer.stderr
    assert (use_stack.calls(), files.target.read_bytes()) == (before, content)


@pytest.mark.parametrize(("kill", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_goes_on_without_paying_twice(use_stack: Stack, files: Files, kill: int, code: int) -> None:
    write(files, 200)
    before = use_stack.calls()
    process = start(files, window=8)
    wait_until(lambda: files.count() > 20, 30, "the run has written some answers")
    process.send_signal(kill)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert 20 < files.count() < 200
    assert files.note.exists()
    assert kill == signal.SIGKILL or "Run the same command again" in said
    files.target.write_bytes(files.target.read_bytes() + b'{"id": "q1", "li')  # what a crash may leave

    answer = run(files, "--json")
    assert answer.exit_code == 0, answer.output
    assert is_whole(files, 200)
    assert use_stack.calls() - before == 200
    summary = json.loads(answer.stdout)
    assert (summary["done"], summary["ok"], summary["finished"]) == (200, 200, True)
    assert 20 < summary["done_before"] < 200
    assert not files.note.exists()


def test_answers_that_came_while_nobody_waited_are_read_and_not_paid_again(use_stack: Stack, files: Files) -> None:
    write(files, 40)
    process = start(files, window=40)
    wait_until(lambda: files.count() > 0, 30, "the run has written an answer")
    process.kill()
    process.communicate()
    run_id = json.loads(files.note.read_text())["run_id"]
    with Collector(state_url=use_stack.redis_url, broker_url=use_stack.redis_url, timeout_s=5) as collector:
        ids = [task_id_of(f"{run_id}:{number}:'q{number}'") for number in range(1, 41)]
        wait_until(lambda: len(collector.fetch(ids)) == 40, 30, "all are finished")
    before = use_stack.calls()
    assert run(files).exit_code == 0
    assert is_whole(files, 40)
    assert use_stack.calls() == before


def test_a_bad_line_is_a_failed_answer_and_the_others_go_on(use_stack: Stack, files: Files) -> None:
    files.source.write_text('"one"\n\n{"id": "bad", "text": "no prompt"}\n{"id": "x", "prompt": "two"}\nnonsense')
    answer = run(files)
    assert answer.exit_code == 1
    by_line = {record["line"]: record for record in files.records()}
    assert {line: record["status"] for line, record in by_line.items()} == {1: "ok", 3: "failed", 4: "ok", 5: "failed"}
    assert by_line[3]["id"] == "bad"
    assert by_line[3]["error"]["type"] == "InvalidTask"
    assert "--field" in by_line[3]["error"]["message"]
    assert "2 x InvalidTask" in answer.stderr


def test_failed_lines_are_final_until_retry_failed(use_stack: Stack, files: Files) -> None:
    files.source.write_text('{"id": "q1", "question": "fine"}\n{"id": "q2", "text": "no question"}\n')
    assert run(files).exit_code == 1
    assert "nothing left to do: 2 lines done before" in run(files).stderr
    files.source.write_text('{"id": "q1", "question": "fine"}\n{"id": "q2", "question": "mended"}\n')
    before = use_stack.calls()
    assert run(files, "--retry-failed").exit_code == 0
    assert is_whole(files, 2)
    assert use_stack.calls() - before == 1
    assert not files.note.exists()


def test_a_failed_task_is_paid_again_only_by_retry_failed(use_stack: Stack, files: Files) -> None:
    write(files, 3)
    assert run(files, "--deadline-s", "0.000001").exit_code == 1
    assert {record["error"]["type"] for record in files.records()} == {"DeadlineExceeded"}
    assert run(files, "--retry-failed").exit_code == 0
    assert is_whole(files, 3)


def test_a_pipe_is_run_as_it_comes_and_says_that_it_cannot_be_resumed(use_stack: Stack, files: Files) -> None:
    command = [*FLEET, "run", "-", "-o", str(files.target)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write('"first"\n')
    process.stdin.flush()
    wait_until(lambda: files.count() == 1, 30, "the first line is answered while the pipe is open")
    process.send_signal(signal.SIGINT)
    process.wait(30)
    assert process.stderr is not None
    said = process.stderr.read()
    process.stdin.close()
    process.stderr.close()
    assert process.returncode == 130
    assert "cannot be resumed" in said
    assert not files.note.exists()


def test_an_output_of_another_input_is_refused(use_stack: Stack, files: Files) -> None:
    write(files, 3)
    run(files)
    content = files.target.read_bytes()
    write(files, 2)
    refused = run(files)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert files.target.read_bytes() == content
    assert run(files, "--overwrite").exit_code == 0
    assert is_whole(files, 2)


def test_lines_added_after_the_end_are_run_with_resume(use_stack: Stack, files: Files) -> None:
    write(files, 2)
    run(files)
    files.source.write_text(files.source.read_text() + '{"id": "q3", "question": "new"}\n')
    refused = run(files)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    before = use_stack.calls()
    assert run(files, "--resume").exit_code == 0
    assert is_whole(files, 3)
    assert use_stack.calls() - before == 1


def test_wrong_files_and_options_are_refused_before_anything_is_paid(use_stack: Stack, files: Files) -> None:
    write(files, 2)
    before = use_stack.calls()
    same = CliRunner().invoke(main, ["run", str(files.source), "-o", str(files.source)])
    for answer, words in (
        (same, "a different file from IN"),
        (run(files, "--pool", "nowhere"), "research, writing, review"),
        (run(files, "--deadline-s", "-1"), "deadline_s"),
    ):
        assert answer.exit_code in (1, 2)
        assert words in answer.stderr
    files.target.write_text("something of mine\n")
    assert run(files).exit_code == 2
    assert files.target.read_text() == "something of mine\n"
    assert use_stack.calls() == before


def test_a_run_whose_output_was_taken_away_is_refused(use_stack: Stack, files: Files) -> None:
    write(files, 200)
    process = start(files, window=8)
    wait_until(lambda: files.count() > 0, 30, "the run has written an answer")
    process.kill()
    process.communicate()
    files.target.unlink()
    refused = run(files)
    assert refused.exit_code == 2
    assert "no such file" in refused.stderr
    assert not files.target.exists()


def test_without_a_worker_a_run_says_so_again_and_again_and_can_be_stopped(
    files: Files, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setattr(flow, "STALL_S", 0.3)
    write(files, 5)
    submitted = queued(redis_url)
    said: list[str] = []

    def warn(self: object, message: str) -> None:
        said.append(message)
        if len(said) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("fleet.cli.run.progress.ProgressView.warn", warn)
    answer = run(files)
    assert answer.exit_code == 130
    assert len(said) == 3
    assert every("celery -A fleet worker" in message for message in said)
    assert "5 tasks in flight" in said[1]
    assert queued(redis_url) - submitted == 5  # also after they were submitted again


def queued(url: str) -> int:
    """Messages in the queues of all pools."""
    with connect(url, timeout_s=5) as client:
        return sum(client.llen(name) for name in client.scan_iter("fleet.*") if client.type(name) == b"list")


# ---- fleet submit


def test_submit_prints_the_answer_and_who_gave_it(use_stack: Stack) -> None:
    answer = CliRunner().invoke(main, ["submit", "What is 2+2?", "--pool", "review", "--priority", "high"])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.strip()
    assert "review-" in answer.stderr
    assert "(simulator)" in answer.stderr


def test_submit_reads_a_prompt_from_stdin_and_prints_json(use_stack: Stack) -> None:
    answer = CliRunner().invoke(main, ["submit", "-", "--json"], input="What is 2+2?\n")
    result = json.loads(answer.stdout)
    assert (result["status"], answer.exit_code) == ("ok", 0)


def test_submit_exits_with_1_when_the_task_failed(use_stack: Stack) -> None:
    answer = CliRunner().invoke(main, ["submit", "x", "--deadline-s", "0.000001"])
    assert answer.exit_code == 1
    assert answer.stdout == ""
    assert "DeadlineExceeded" in answer.stderr


def test_submit_without_a_worker_warns_and_exits_with_3(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    answer = CliRunner().invoke(main, ["submit", "x", "--timeout", "0.1"])
    assert answer.exit_code == 3
    assert "celery -A fleet worker" in answer.stderr
    assert "no result within" in answer.stderr
    waiting = CliRunner().invoke(main, ["submit", "x", "--no-wait"])
    assert waiting.exit_code == 0
    assert uuid.UUID(waiting.stdout.strip())


def test_the_line_of_a_result_says_what_is_unknown() -> None:
    line = result_line({"status": "failed", "error": {"type": "BadRequest", "message": "no"}, "attempts": 1})
    assert "failed: BadRequest: no" in line
    assert "cost unknown" in line


# ---- results


def test_a_failure_written_by_celery_is_a_failed_result() -> None:
    result = result_of({"status": "FAILURE", "result": {"exc_type": "WorkerLostError", "exc_message": ["x"]}})
    assert (result["status"], result["error"]["type"]) == ("failed", "WorkerLostError")
    assert result_of({"status": "REVOKED", "result": None})["error"]["type"] == "REVOKED"


def test_released_results_expire_soon_and_their_marks_sooner(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    (task_id,) = submit_many(["x"], idempotency_keys=["a key"])
    with connect(redis_url, timeout_s=5) as client:
        client.set(keys.result(task_id), b"{}", ex=86_400)
        client.expire(keys.submitted(task_id), 86_400)  # as the step that stores the result does
        client.set(keys.result("brief"), b"{}", ex=60)
        with Collector(state_url=redis_url, broker_url=redis_url, timeout_s=5) as collector:
            collector.release([task_id, "brief", "gone"])
        assert 3500 < client.ttl(keys.result(task_id)) <= 3600
        assert 0 < client.ttl(keys.submitted(task_id)) < client.ttl(keys.result(task_id))
        assert client.ttl(keys.result("brief")) <= 60
