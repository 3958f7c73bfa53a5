"""The servers that `benchmarks.real_servers` starts: llama.cpp's, LiteLLM's proxy, the simulator.

Each runs until its block ends.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

#: Seconds until a server must answer: LiteLLM imports for a minute on a busy machine.
START_S = 240.0
#: Tokens of the window that llama.cpp's server is started with.
LLAMA_WINDOW = 2048

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A server to be asked.

    Args:
        name: What it is.
        url: Root of its API.
        kind: Its wire.
        model: Which model is asked.
        key: A key that it takes.
        too_long_words: Words that are more than its window holds.
    """

    name: str
    url: str
    kind: str = "openai"
    model: str = "simulated-1"
    key: str = "test-key"
    too_long_words: int = 4000


@contextmanager
def llama_server(program: str, model: Path) -> Iterator[Server]:
    """Run llama.cpp's server with a model file."""
    port = _free_port()
    command = [_found(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "--jinja",
               "-c", str(LLAMA_WINDOW), "-np", "1", "--api-key", "test-key"]  # fmt: skip
    with _started(command, f"http://127.0.0.1:{port}/health"):
        yield Server("llama.cpp", f"http://127.0.0.1:{port}/v1", model=model.stem)


@contextmanager
def litellm(program: str) -> Iterator[Server]:
    """Run LiteLLM's proxy in front of a simulator with a small window and no temperature."""
    with simulator("openai") as behind, tempfile.TemporaryDirectory(prefix="fleet-litellm-") as folder:
        port = _free_port()
        settings = {
            "model_list": [
                {
                    "model_name": "behind",
                    "litellm_params": {
                        "model": "openai/odd-context-too-long",
                        "api_base": f"{behind.url}/v1",
                        "api_key": "k",
                    },
                }
            ],
            "general_settings": {"master_key": "sk-test-key"},
            "litellm_settings": {"num_retries": 0},
        }
        config = Path(folder, "config.yaml")
        config.write_text(json.dumps(settings), "utf-8")  # JSON is YAML
        command = [_found(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        with _started(command, f"http://127.0.0.1:{port}/health/liveliness"):
            yield Server("LiteLLM", f"http://127.0.0.1:{port}/v1", model="behind", key="sk-test-key")


@contextmanager
def simulator(kind: str) -> Iterator[Server]:
    """Run the simulator with the window of a small model."""
    port = _free_port()
    command = [sys.executable, "-m", "fleet.workers.simulator", "--port", str(port)]
    with _started(command, f"http://127.0.0.1:{port}/healthz"):
        yield Server("the simulator", f"http://127.0.0.1:{port}", kind, model="odd-context-too-long")


@contextmanager
def _started(command: list[str], health: str) -> Iterator[None]:
    """Run a program until the block ends; the block begins when it answers. What it says goes to a file."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "NO_PROXY": "127.0.0.1"}) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while not _answers(health):
                if process.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    told = said.read()[-2000:].decode("utf-8", "replace")
                    raise click.ClickException(f"expected {command[0]} to answer at {health}, it did not:\n{told}")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    try:
        with _DIRECT.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise click.ClickException(f"expected {program} on PATH, or its path as option, got nothing of that name")
    return path


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
