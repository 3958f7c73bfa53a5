"""`fleet run` and `fleet submit`, from the outside: a real worker, a real Redis, the simulator."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
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
from fleet.cli.run.entries import LineFormat, read_questions
from fleet.config import load
from fleet.engine.local_simulator import ensure_simulator, stop_simulator
from fleet.engine.messages.producer import submit_many, task_id_of
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.embedded import ensure_redis, stop_redis
from fleet.store.private.service import free_port
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


def start(files: Files, *arguments: str, window: int) -> subprocess.Popen[str]:
    """Start `fleet run` as a process of its own; a small window makes it slow."""
    command = [*FLEET, "run", str(files.source), "-o", str(files.target), "--window", str(window), *arguments]
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
    assert list(record)[-1] == "asked"
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
        lines = files.source.read_bytes().splitlines()
        ids = [task_id_of(f"{run_id}:{question.asked}") for question in read_questions(lines, LineFormat())]
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


def ask(*names: str) -> str:
    """Lines of IN, each with a question of its own that holds its name."""
    return "".join(json.dumps({"id": name, "question": f"{name}: {SALT}?"}) + "\n" for name in names)


#: What makes the questions of this test run its own.
SALT = uuid.uuid4().hex


def pairs(files: Files) -> dict[int, str]:
    """Line -> id, of the answers that belong to a line of IN."""
    return {record["line"]: record["id"] for record in files.records() if record["line"] is not None}


def stop_early(files: Files, count: int) -> None:
    """Run until there are so many answers, then kill the run."""
    process = start(files, window=4)
    wait_until(lambda: files.count() >= count, 30, "the run has written some answers")
    process.kill()
    process.communicate()


def test_an_input_that_was_replaced_is_asked_and_its_old_answers_stay(use_stack: Stack, files: Files) -> None:
    files.source.write_text(ask("r1", "r2", "r3"))
    run(files)
    before = use_stack.calls()
    files.source.write_text(ask("n1", "n2"))
    answer = run(files, "--quiet", "--json")
    assert answer.exit_code == 0
    assert pairs(files) == {1: "n1", 2: "n2"}
    assert {record["id"] for record in files.records() if record["line"] is None} == {"r1", "r2", "r3"}
    assert use_stack.calls() - before == 2
    assert answer.stderr.count("3 answers to no line of IN any more") == 1
    summary = json.loads(answer.stdout)
    assert (summary["done"], summary["without_line"]) == (2, 3)
    files.source.write_text(ask("r2"))  # it is asked again: its answer is still there
    assert run(files).exit_code == 0
    assert (pairs(files), use_stack.calls() - before) == ({1: "r2"}, 2)


def test_a_run_goes_on_after_its_input_was_edited_reordered_and_inserted_into(use_stack: Stack, files: Files) -> None:
    names = [f"e{number}" for number in range(60)]
    files.source.write_text(ask(*names, "twin", "twin"))
    before = use_stack.calls()
    stop_early(files, 20)
    answered = {record["id"] for record in files.records()}
    kept = [name for name in names if name != "e3"]
    kept[0], kept[5] = kept[5], kept[0]
    wanted = ["twin", *kept[:30], "inserted", *kept[30:], "twin", "twin"]
    files.source.write_text(ask(*wanted))
    answer = run(files)
    assert answer.exit_code == 0, answer.output
    assert pairs(files) == dict(enumerate(wanted, start=1))
    assert use_stack.calls() - before == 62 + 2  # what was asked first, one insertion, the third twin
    assert f"{len(answered & set(wanted))} line" in answer.stderr
    assert "to ask" in answer.stderr


def test_the_same_prompt_with_another_id_or_option_is_another_question(use_stack: Stack, files: Files) -> None:
    line = {"id": "a", "prompt": f"same {SALT}"}
    files.source.write_text(json.dumps(line))
    run(files)
    before = use_stack.calls()
    changes = ({"id": "b"}, {"max_output_tokens": 9}, {"pool": "review"}, {"effort": "low"})
    for changed in ({**line, **change} for change in changes):
        files.source.write_text(json.dumps(changed))
        assert run(files).exit_code == 0
    assert use_stack.calls() - before == 4
    assert "nothing left to do" in run(files, "--pool", "research", "--kind", "other").stderr  # no part of the question


def test_a_run_of_the_previous_release_is_resumed_by_its_own_keys(use_stack: Stack, files: Files) -> None:
    write(files, 6)
    run_id, content = uuid.uuid4().hex, files.source.read_bytes()
    prompts = [json.loads(line)["question"] for line in content.splitlines()]
    old = {
        "run_id": run_id, "input": str(files.source), "size_bytes": len(content),
        "head_sha256": hashlib.sha256(content).hexdigest(), "started_at": 1.5, "prompt_field": None, "id_field": "id",
    }  # fmt: skip
    files.note.write_text(json.dumps(old))
    row = {"id": "q2", "line": 2, "status": "ok", "answer": "old answer", "error": None}
    files.target.write_text(json.dumps(row) + "\n")
    keys_then = [f"{run_id}:{number}:'q{number}'" for number in (1, 3)]
    ids = list(submit_many([prompts[0], prompts[2]], idempotency_keys=keys_then))
    with Collector(state_url=use_stack.redis_url, broker_url=use_stack.redis_url, timeout_s=5) as collector:
        wait_until(lambda: len(collector.fetch(ids)) == 2, 30, "what was in flight is answered")
    before = use_stack.calls()
    assert run(files).exit_code == 0
    assert is_whole(files, 6)
    assert use_stack.calls() - before == 3
    assert {record["answer"] for record in files.records() if record["line"] == 2} == {"old answer"}


def test_fields_of_a_line_are_obeyed_and_a_wrong_one_fails_it_alone(use_stack: Stack, files: Files) -> None:
    lines = [
        {"id": "p", "prompt": f"p {SALT}", "pool": "review", "metadata": {"row": 1}, "source": "x"},
        {"id": "wrong", "prompt": "x", "pool": "nowhere"},
        {"id": "half", "prompt": "x \ud83d"},
        {"custom_id": "batch", "body": {"model": "m", "messages": [{"role": "user", "content": f"b {SALT}"}]}},
    ]
    files.source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = run(files, "--pool", "research")
    assert answer.exit_code == 1
    by_id = {record["id"]: record for record in files.records()}
    assert {name: record["status"] for name, record in by_id.items()} == {
        "p": "ok", "wrong": "failed", "half": "failed", "batch": "ok"
    }  # fmt: skip
    assert [by_id[name]["pool"] for name in ("p", "batch")] == ["review", "research"]
    assert by_id["p"]["metadata"] == {"row": 1}
    assert "nowhere" in by_id["wrong"]["error"]["message"]
    assert answer.stderr.count("source, body.model") == 1
    files.target.read_bytes().decode()


def test_the_line_of_a_revoked_task_can_be_retried(use_stack: Stack, files: Files) -> None:
    write(files, 1)
    with connect(use_stack.redis_url, timeout_s=5) as client:
        client.set(keys.gate(keys.queue("review")), "-1", ex=60)
        marks = set(client.scan_iter(keys.submitted("*")))
        process = start(files, "--pool", "review", window=4)
        wait_until(lambda: set(client.scan_iter(keys.submitted("*"))) - marks, 30, "the task is queued")
        (mark,) = set(client.scan_iter(keys.submitted("*"))) - marks
        task_id = mark.decode().removeprefix(keys.submitted(""))
        meta = {"status": "REVOKED", "result": {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}}
        client.set(keys.result(task_id), json.dumps(meta), ex=600)  # as Celery's worker stores it
        process.communicate(timeout=30)
        client.delete(keys.gate(keys.queue("review")))
    assert process.returncode == 1
    assert [record["status"] for record in files.records()] == ["failed"]
    assert run(files, "--pool", "review", "--retry-failed").exit_code == 0
    assert is_whole(files, 1)


def test_a_file_that_is_no_json_lines_and_an_output_to_stdout_are_refused_in_one_line(files: Files) -> None:
    for content, words in (
        (gzip.compress(b'"a"'), "gzip file"),
        (b'[{"prompt": "a"}]', "JSON array"),
        (b"id,prompt\n1,a\n", "CSV file"),
    ):
        files.source.write_bytes(content)
        refused = run(files)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
        assert words in refused.stderr
        assert not files.target.exists() and not files.note.exists()
    refused = CliRunner().invoke(main, ["run", str(files.source), "-o", "-"])
    assert refused.exit_code == 2
    assert "stdout" in refused.stderr
    assert not Path("-").exists()


def test_lines_added_after_the_end_are_run(use_stack: Stack, files: Files) -> None:
    write(files, 2)
    run(files)
    files.source.write_text(files.source.read_text() + '{"id": "q3", "question": "new"}\n')
    before = use_stack.calls()
    assert run(files).exit_code == 0
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


def test_a_run_without_a_redis_leaves_nothing_behind(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", f"redis://127.0.0.1:{free_port()}/0")
    write(files, 5)
    answer = run(files)
    assert answer.exit_code == 2 and "expected a Redis that answers" in answer.stderr
    assert [file.name for file in files.source.parent.iterdir()] == [files.source.name]


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


# ---- what is expected, and what comes


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "points": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "required": ["title", "points"],
    "additionalProperties": False,
}
#: Lines of a file by its nature: number -> line.
NATURES: dict[str, Callable[[int], dict[str, Any]]] = {
    "short": lambda n: {"prompt": f"What is {n} + {n}?", "kind": "dry-sum"},
    "long": lambda n: {"prompt": f"Tell of {uuid.uuid4()}. " + "It was so. " * 40 * n, "kind": "dry-story"},
    "beyond the window": lambda n: {"prompt": f"{uuid.uuid4()} " + "word " * 3000, "kind": "dry-book"},
    "brief": lambda n: {"prompt": f"Tell of {uuid.uuid4()}.", "kind": "dry-brief", "max_output_tokens": 20},
    "JSON": lambda n: {"prompt": f"Tell of {uuid.uuid4()}.", "kind": "dry-json", "answer_schema": SCHEMA},
    "mixed": lambda n: NATURES[("short", "long", "JSON")[n % 3]](n),
    "without a kind": lambda n: {"prompt": f"Tell of {uuid.uuid4()}." if n % 2 else f"What is {n} * {n}?"},
}


def write_tasks(files: Files, nature: str, count: int) -> None:
    files.source.write_text("".join(json.dumps(NATURES[nature](n)) + "\n" for n in range(1, count + 1)))
    files.target.unlink(missing_ok=True)


def misses(told: dict[str, Any], come: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the figures of a run that lie far outside of what its dry-run has told.

    A range holds 19 of 20 figures, and `tests/economy/test_estimate.py` counts that. Here are 60 figures by chance, so
    each end is moved out by as much again: what lies beyond is wrong, not unlucky.
    """
    names = ("input_tokens", "output_tokens", "cost_usd_picos")
    true = {name: come[name] - (before[name] if before else 0) for name in names}
    return {name: (true[name], told[name]) for name in names if not _is_near(true[name], told[name])}


def _is_near(figure: float, told: dict[str, float]) -> bool:
    low, expected, high = (told[name] for name in ("low", "expected", "high"))
    return low * low <= figure * expected and figure * expected <= high * high


@pytest.mark.parametrize("nature", NATURES)
def test_real_runs_lie_in_the_ranges_that_their_dry_runs_tell_learnt_or_not(
    use_stack: Stack, files: Files, nature: str
) -> None:
    def told() -> dict[str, Any]:
        done = CliRunner().invoke(main, ["run", str(files.source), "-o", str(files.target), "--dry-run", "--json"])
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def come() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(files, "--json").stdout)
        return found

    calls = use_stack.calls()
    write_tasks(files, nature, 24)
    first = told()
    assert (first["tasks"], first["learnt"], use_stack.calls()) == (24, True, calls)
    if nature != "mixed":
        assert [one["tasks"] for one in first["guessed"]] == [24]
    assert misses(first, come()) == {}

    write_tasks(files, nature, 24)
    second = told()
    # Without a kind nothing is known to be alike; and a call that uses all that it has reserved teaches nothing.
    assert bool(second["guessed"]) == (nature in ("without a kind", "brief"))
    assert misses(second, come()) == {}

    whole = files.source.read_text()
    write_tasks(files, nature, 24)
    files.source.write_text(files.source.read_text().splitlines(keepends=True)[0] + whole)
    more = files.source.with_name("more.jsonl")
    files.source.rename(more)
    files.source.write_text("".join(more.read_text().splitlines(keepends=True)[:8]))
    before = come()
    more.rename(files.source)
    rest = told()
    assert (rest["answered"], rest["tasks"]) == (8, 17)
    assert misses(rest, come(), before) == {}
