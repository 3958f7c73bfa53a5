"""The simulator as a process: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet.cli.stack.simulator import simulator
from tests.waiting import wait_until
from tests.workers.simulator.running import chat, total


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command and give its process and the address it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "fleet.workers.simulator", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        try:
            yield started, started.stdout.readline().strip()
        finally:
            started.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_prints_its_address_serves_and_stops_on_a_signal(number: signal.Signals, code: int) -> None:
    with process("--rpm", "60", "--seed", "3", "--hang-rate", "0.0") as (started, url):
        assert chat(url, "What is 2+2?").headers["x-ratelimit-limit-requests"] == "60"
        started.send_signal(number)
        rest, errors = started.communicate(timeout=10)
        assert started.returncode == code
        assert rest == ""  # the address was the only line of data
        assert "Traceback" not in errors
        assert "simulator ready rpm=60" in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_that_keep_coming_while_it_stops_change_nothing(number: signal.Signals, code: int) -> None:
    with process() as (started, _):

        def gone() -> bool:
            started.send_signal(number)
            return started.poll() is not None

        wait_until(gone)
        _, errors = started.communicate(timeout=10)
        assert started.returncode == code
        assert "Traceback" not in errors


def test_it_stops_although_calls_hang() -> None:
    with process("--hang-rate", "1") as (started, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
            connection.sendall(
                f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            wait_until(lambda: total(url)["hung"] == 1)
            started.send_signal(signal.SIGTERM)
            _, errors = started.communicate(timeout=10)
        assert started.returncode == 0
        assert "Traceback" not in errors


def test_it_needs_neither_celery_nor_redis_nor_the_rest_of_the_fleet() -> None:
    program = (
        "import sys, fleet.workers.simulator.process, fleet.workers.simulator.command\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('celery', 'kombu', 'redis')\n"
        "       or name.startswith(('fleet.cli', 'fleet.engine', 'fleet.store'))])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_shows_examples_and_does_not_import_the_server() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from fleet.cli.stack.simulator import simulator\n"
        "print(CliRunner().invoke(simulator, ['--help']).output); assert 'aiohttp' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "fleet simulator --port 8080 --rpm 500 --tpm 200000 --seed 7" in found.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rpm", "0"], "rpm: expected at least 1, got 0"),
        (["--answers", "absent.jsonl"], "expected a readable JSONL file, got No such file"),
        (["--host", "192.0.2.1"], "expected to listen on 192.0.2.1:0, got"),
    ],
)
def test_a_wrong_value_is_one_clear_line(options: list[str], message: str) -> None:
    result = CliRunner().invoke(simulator, options)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_missing_answer_field_names_the_fields_there_are(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question": "q", "model": {"solution": "s"}}), "utf-8")
    result = CliRunner().invoke(simulator, ["--answers", str(path), "--answer-field", "solution"])
    assert result.exit_code == 1
    assert "expected a field 'solution', got only: question, model.solution" in result.output


def test_a_taken_port_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = CliRunner().invoke(simulator, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1
    assert "choose another port, or 0" in result.output


def test_real_recorded_answers_come_back_each_to_its_own_question(data_dir: Path) -> None:
    file = data_dir / "gsm8k_model_solutions.jsonl"
    with file.open("rb") as lines:
        records = [json.loads(line) for line in lines][::20]
    options = ("--answers", str(file), "--answer-field", "175b_verification.solution")
    with process(*options, "--rpm", "1000000", "--tpm", "1000000000") as (_, url):
        for record in records:
            reply = chat(url, record["question"], max_tokens=1000)
            assert reply.json["choices"][0]["message"]["content"] == record["175b_verification"]["solution"]
        counters = total(url)
        assert (counters["served"], counters["unmatched"]) == (len(records), 0)
