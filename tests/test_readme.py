"""README.md, carried out: its commands and snippets run as they stand, and what they print is compared.

One heading is one test: its file blocks (`# name` in the first line) are written into a folder, then its `console`
and `pycon` blocks run there in turn. What else the pages claim is checked by `test_docs.py`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.engine.local_simulator import stop_simulator
from fleet.store.private.embedded import stop_redis
from fleet.store.private.service import free_port
from fleet.workers.bot.persona import SYSTEM_PROMPTS
from tests.stack_processes import OPEN, end_all_of
from tests.waiting import wait_until

REPO = Path(__file__).parents[1]
README = REPO / "README.md"

#: Commands of README that are not run here, and why.
NOT_RUN = {
    "make demo": "tests/e2e/test_demo.py runs it",
    "make test": "this is it",
    "docker compose": "needs a Docker engine",
    ". .venv/bin/activate": "the tests run inside an environment already",
    "python -m benchmarks.": "takes minutes and needs a quiet machine",
}
#: The heading whose block starts the worker, and those whose commands need it.
WORKER_HEADING = "A worker, and a task from Python"
NEED_WORKER = (
    WORKER_HEADING,
    "A web handler",
    "Any other Celery client",
    "One task from the shell",
    "A file of tasks",
    "What is stuck, and what failed",
)
#: Folder and ports of README; the test's own stand for them.
SHOWN_FOLDER, SHOWN_PORT = "/srv/bots", "8080"
#: Seconds for any one command on a busy machine.
SLOW_S = 60.0


@dataclass(frozen=True)
class Block:
    """One fenced block of README."""

    heading: str
    language: str
    text: str


@dataclass(frozen=True)
class Step:
    """One command and what README shows of its output; `^C` in it is where the reader interrupts."""

    command: str
    shown: str

    @property
    def not_run(self) -> bool:
        return any(self.command.startswith(start) for start in NOT_RUN)


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page with the headings they stand under."""
    found, heading = [], ""
    for match in re.finditer(r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$", page, re.M | re.S):
        heading = match["heading"] or heading
        if match["text"] is not None:
            found.append(Block(heading, match["language"], match["text"]))
    return found


def steps_of(block: Block, prompt: str = "$ ") -> list[Step]:
    """Split a console block into its commands."""
    parts = re.split(rf"^{re.escape(prompt)}", block.text, flags=re.M)[1:]
    return [Step(*part.split("\n", 1)) for part in parts]


BLOCKS = blocks_of(README.read_text(encoding="utf-8"))
CONSOLES = [block for block in BLOCKS if block.language == "console"]
HEADINGS = list(
    dict.fromkeys(
        block.heading
        for block in BLOCKS
        if block.language == "pycon"
        or (block.language == "console" and not all(step.not_run for step in steps_of(block)))
    )
)


@dataclass
class Terminal:
    """Runs what README shows in one folder, as a reader would."""

    folder: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        inherited = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        self.env = {
            **inherited, "PATH": folders, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1", "COLUMNS": "88",
            "FLEET_HOME": str(self.folder / ".fleet"), "FLEET_FLOWER__PORT": "0",
            **dict([OPEN]),
        }  # fmt: skip

    def write_files(self, heading: str) -> None:
        """Write the blocks of a heading that are files."""
        for block in BLOCKS:
            name = re.match(r"# ([\w.]+)$", block.text, re.M)
            if block.heading == heading and block.language in ("python", "toml") and name is not None:
                (self.folder / name[1]).write_text(block.text, encoding="utf-8")

    def carry_out(self, heading: str) -> None:
        """Run all that stands under a heading and compare."""
        self.write_files(heading)
        for block in BLOCKS:
            if block.heading == heading and block.language == "pycon":
                self.talk(block)
            elif block.heading == heading and block.language == "console":
                for step in steps_of(block):
                    if not step.not_run and step.command != WORKER_COMMAND:
                        self.run(step)

    def run(self, step: Step) -> None:
        before, interrupted, after = step.shown.partition("^C\n")
        if not interrupted:
            self.expect(step.shown, self._output(step.command), step.command)
            return
        with self.running(step.command) as log:
            wait_until(lambda: self._has_begun(before, log), SLOW_S, f"{step.command}: {before or 'the first answers'}")
        self.expect(before + "...\n" + after, log.read_text(encoding="utf-8"), step.command)

    @contextmanager
    def running(self, command: str) -> Iterator[Path]:
        """Run a command until the end of the block, then press Ctrl-C."""
        log = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", self._own(command)], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        try:
            yield log
            os.killpg(process.pid, signal.SIGINT)
            process.wait(SLOW_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def talk(self, block: Block) -> None:
        """Type a Python session into a fresh interpreter."""
        typed = "".join(line[4:] + "\n" for line in block.text.splitlines() if line.startswith((">>> ", "... ")))
        got = self._output("python -i -q", typed)
        shown = [line for line in block.text.splitlines() if not line.startswith((">>> ", "... "))]
        printed = [re.sub(r"^((>>>|\.\.\.) ?)+", "", line) for line in got.splitlines()]
        self.expect("\n".join(shown), "\n".join(printed), "the Python session")

    def expect(self, shown: str, got: str, what: str) -> None:
        assert self._shows(shown, got), f"{what}\n--- README shows\n{shown}\n--- really\n{got}"

    def _has_begun(self, before: str, log: Path) -> bool:
        if before:
            return self._shows(before + "...\n", log.read_text(encoding="utf-8"))
        return any(out.stat().st_size for out in self.folder.glob("answers.jsonl"))

    def _shows(self, shown: str, got: str) -> bool:
        return shows(shown, self._readers(got))

    def _output(self, command: str, typed: str = "") -> str:
        done = subprocess.run(
            ["bash", "-c", self._own(command)], cwd=self.folder, env=self.env, input=typed, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SLOW_S,
        )  # fmt: skip
        return done.stdout

    def _own(self, command: str) -> str:
        closed = f"unset {OPEN[0]}; " if command.startswith("fleet doctor") else ""  # it would warn
        return closed + command.replace(SHOWN_PORT, str(self.port))

    def _readers(self, output: str) -> str:
        return output.replace(str(self.folder), SHOWN_FOLDER).replace(socket.gethostname(), "vm")


def shows(shown: str, got: str) -> bool:
    """True when the output is what README shows; `...` stands for any lines, or for the rest of a line."""
    lines = [re.escape(masked(line)).replace(r"\.\.\.", ".*") for line in shown.splitlines()]
    pattern = "".join(r"(?:.*\n)*?" if line == ".*" else f"{line}\n" for line in lines)
    return re.fullmatch(pattern, "".join(f"{masked(line)}\n" for line in got.splitlines())) is not None


def masked(line: str) -> str:
    """Replace what differs from run to run: ids, bots, counts, times, widths. A number alone is an answer: it stays."""
    if re.fullmatch(r"'?\d+'?", line):
        return line
    line = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "ID", line)
    line = re.sub(r"\b[a-z]+-\d{3}\b", "BOT", line)
    line = re.sub("|".join(SYSTEM_PROMPTS), "PERSONA", line)
    line = re.sub(r"\d+(?:[,.:]\d+)*", "#", line).replace("# ms", "# s")
    return re.sub(r"─+", "─", re.sub(r"\s+", " ", line)).rstrip()


WORKER_COMMAND = next(steps_of(block)[0].command for block in CONSOLES if block.heading == WORKER_HEADING)


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    home = folder / ".fleet"
    try:
        yield Terminal(folder)
        stop_redis(home)
        stop_simulator(home)
    finally:
        end_all_of(folder)


@pytest.fixture(scope="module")
def beside_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """The terminal of a reader whose worker runs in another one, as README starts it."""
    (step,) = (s for block in CONSOLES for s in steps_of(block) if s.command == WORKER_COMMAND)
    with terminal(tmp_path_factory.mktemp("bots")) as reader, reader.running(step.command) as log:
        wait_until(lambda: " ready." in log.read_text(encoding="utf-8"), SLOW_S, "the worker is ready")
        reader.expect(step.shown + "...\n", log.read_text(encoding="utf-8"), step.command)
        yield reader


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if heading in NEED_WORKER])
def test_what_is_shown_beside_a_worker_happens(heading: str, beside_worker: Terminal) -> None:
    beside_worker.carry_out(heading)


@pytest.mark.parametrize("heading", [heading for heading in HEADINGS if heading not in NEED_WORKER])
def test_what_is_shown_happens(heading: str, tmp_path: Path) -> None:
    with terminal(tmp_path) as reader:
        reader.carry_out(heading)


def test_every_reason_for_not_running_a_command_is_needed() -> None:
    commands = [step.command for block in CONSOLES for step in steps_of(block)]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)] == []
    assert set(NEED_WORKER) <= set(HEADINGS)


def test_a_changed_answer_word_or_order_is_noticed(tmp_path: Path) -> None:
    reader = Terminal(tmp_path)
    reader.expect("42\nwriting-001 · 68 tokens\n", "42\nreview-020 · 7 tokens\n", "numbers and bots may differ")
    for got in ("43\nBOT · 68 tokens\n", "42\nBOT · 68 words\n", "BOT · 68 tokens\n42\n"):
        with pytest.raises(AssertionError, match="README shows"):
            reader.expect("42\nwriting-001 · 68 tokens\n", got, "a test")
