"""`fleet top`: one frame on paper, and the live screen with its keys on a real terminal."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from fcntl import ioctl

import pytest
from rich.console import Console

from fleet import config
from fleet.cli.operate.top_view import frame, spark
from fleet.engine.admission.gates import read_gates
from fleet.engine.operations.overview import open_overview
from fleet.signals.ahead.outlook import Drain
from fleet.signals.diagnosis.finding import Diagnosis, Help
from fleet.signals.view import FleetView, WaitLine
from fleet.store import keys
from fleet.store.client import connect
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import REPO

WAIT_S = 30


class Terminal:
    """`fleet top` on a terminal of 80x24, and all that it has written."""

    def __init__(self, url: str, *options: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        env = {**os.environ, "FLEET_REDIS__URL": url, "FLEET_REDIS__SOCKET_TIMEOUT_S": "1", "TERM": "xterm-256color"}
        env = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES", "CI", "NO_COLOR")}
        command = [sys.executable, "-m", "fleet.cli.main", "top", "--every", "0.2", *options]
        env["PYTHONPATH"] = str(REPO)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        self._text = ""

    def shows(self, pattern: str) -> bool:
        """True when something new was written that matches, escape sequences aside."""
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                self._text += os.read(self._master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        return re.search(pattern, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._text)) is not None

    def press(self, keys_: str) -> None:
        self._text = ""
        os.write(self._master, keys_.encode())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        os.close(self._master)


@pytest.fixture
def view(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> FleetView:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    with open_overview(config.current()) as overview:
        return overview.read()


@pytest.fixture
def terminal(own_redis: RedisServer) -> Iterator[Terminal]:
    terminal = Terminal(own_redis.url)
    yield terminal
    terminal.end()


@pytest.mark.parametrize("height", [16, 24, 50])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_frame_fits_into_the_terminal(view: FleetView, width: int, height: int) -> None:
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(frame(view, width=width, height=height, sort="per_hour", pool=0))
    lines = console.export_text().splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in ("completions", "errors", "resources", "research", "limit ", "simulated answers", "q quit"):
        assert word in text


def test_what_tasks_wait_for_stands_on_top_and_beside_its_pool(view: FleetView) -> None:
    wait = WaitLine(pool="research", cause="outage", tasks=40, line="openai/gpt-5/default: the provider fails")
    held = view.model_copy(update={"waits": (wait,), "headline": "40 tasks wait: openai/gpt-5/default: the provider"})
    for width, height in ((60, 16), (200, 50)):
        console = Console(width=width, height=height, record=True, file=io.StringIO())
        console.print(frame(held, width=width, height=height, sort="per_hour", pool=0))
        lines = console.export_text().splitlines()
        assert len(lines) < height and max(map(len, lines)) <= width
        assert lines[1].startswith("! No worker runs: the next tasks will wait")
        assert lines[2].startswith("40 tasks wait: openai/gpt-5/default")
        assert [line.split()[-1] for line in lines if line.startswith("research ")] == ["outage"]


def test_the_worst_findings_stand_on_top_with_what_helps(view: FleetView) -> None:
    found = [
        Diagnosis(kind="provider_down", severity="critical", sentence=f"alpha/m-{n} is down{' and says why' * 9}",
                  help=Help(command="fleet limits reset-breaker alpha/m-1"))
        for n in range(9)
    ]  # fmt: skip
    for width, height, most in ((60, 16, 1), (80, 24, 4), (200, 50, 4)):
        for shown in (found, []):
            console = Console(width=width, height=height, record=True, file=io.StringIO())
            ill = view.model_copy(update={"diagnoses": tuple(shown)})
            console.print(frame(ill, width=width, height=height, sort="per_hour", pool=0))
            lines = console.export_text().splitlines()
            assert len(lines) < height and max(map(len, lines)) <= width
            assert lines[1].startswith("× alpha/m-0 is down and says why" if shown else "✓ all well")
            if shown and height > 16:
                top = " ".join(" ".join(lines[1 : 1 + most]).split())
                assert "▸ fleet limits reset-breaker alpha/m-1" in top
                assert "more findings: fleet stats" in top


def test_a_pool_without_a_live_worker_is_not_open(view: FleetView) -> None:
    for workers, gate in ((0, "no worker"), (1, "open")):
        pools = tuple(pool.model_copy(update={"workers": workers}) for pool in view.pools)
        with io.StringIO() as text:
            shown = frame(
                view.model_copy(update={"pools": pools, "waits": ()}), width=80, height=24, sort="load", pool=0
            )
            Console(file=text, width=80).print(shown)
            (research,) = (line for line in text.getvalue().splitlines() if line.startswith("research "))
        assert research.rstrip().endswith(gate)


@pytest.mark.parametrize("sort", ["evidence", "per_hour", "failed", "load", "mean_ms", "cost_usd_micros"])
@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_figure_is_cut_off_in_a_busy_fleet(view: FleetView, sort: str, width: int) -> None:
    drain = Drain(tasks=59, per_s=0, short="opens 19:04 UTC")
    busy = {"waiting": 14_164, "busy_bots": 12, "completions": 114_164, "failed": 900, "oldest_s": 100.0,
            "drain": drain, "backlog": dict.fromkeys(("critical", "high", "normal", "low", "bulk"), 2_345)}  # fmt: skip
    pools = tuple(pool.model_copy(update=busy) for pool in view.pools)
    figures = {"load": 12, "per_hour": 1_234, "completions": 14_321, "failed": 321, "mean_ms": 12_300, "evidence": 9.1,
               "cost_usd_micros": 123_456}  # fmt: skip
    columns = {name: (value,) * len(view.bots.name) for name, value in figures.items()}
    bots = view.bots.model_copy(update={**columns, "state": ("quarantined",) * len(view.bots.name)})
    view = view.model_copy(update={"pools": pools, "bots": bots})
    console = Console(width=width, height=24, file=io.StringIO())
    console.print(frame(view, width=width, height=24, sort=sort, pool=0))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    tables = text[text.index("pool ") : text.rindex("q quit")]
    assert ("waits" in tables) is (width < 100) and "tpm" in tables
    assert not [line for line in tables.splitlines() if "…" in line and "limit" not in line and "ago" not in line]


def test_the_worst_bots_come_first_with_what_speaks_against_them_and_until_when(view: FleetView) -> None:
    bots = view.bots
    changed: dict[str, object] = {}
    for column, at, value in (
        ("evidence", 6, 9.2), ("state", 6, "quarantined"), ("until", 6, 1_800_000_000.0),
        ("reason", 6, "bad answers: 45% of its last tasks, 5% is usual"),
        ("evidence", 3, 4.4), ("reason", 3, "slow: 30% of its last tasks"), ("alike", 3, True),
    ):  # fmt: skip
        row = list(changed.get(column, getattr(bots, column)))  # type: ignore[call-overload]
        row[at] = value
        changed[column] = tuple(row)
    bad = view.model_copy(update={"bots": bots.model_copy(update=changed)})
    for width in (60, 80, 200):
        console = Console(width=width, height=24, record=True, file=io.StringIO())
        console.print(frame(bad, width=width, height=24, sort="evidence", pool=0))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        (at,) = (number for number, line in enumerate(lines) if "against it" in line)
        assert lines[at + 1].split()[:2] == ["research-007", "quarantined"] and "9.2" in lines[at + 1]
        assert lines[at + 2].split()[0] == "research-004" and "slow: 30%" in lines[at + 2]
        assert "until 2027-01-1" in lines[at + 1]
    assert ", bad answers: 45% of its last tasks, 5% is usual" in lines[at + 1]
    assert lines[at + 2].rstrip().endswith("slow: 30% of its last tasks, answers like others")


@pytest.mark.parametrize("width", [60, 120])
def test_a_frame_is_of_the_window_asked_for_with_cost_and_what_is_wrong(view: FleetView, width: int) -> None:
    finding = Diagnosis(
        kind="provider_down", severity="critical", sentence="openai is down", help=Help(command="fleet limits")
    )
    spans = tuple(span.model_copy(update={"failed": place, "cost_usd_micros": 10**place})
                  for place, span in enumerate(view.spans, start=1))  # fmt: skip
    played = view.model_copy(update={"spans": spans, "diagnoses": (finding,)})
    for window, failed, cost in (("15m", 1, "$0.0000"), ("24h", 3, "$0.0010")):
        console = Console(width=width, height=24, file=io.StringIO())
        console.print(frame(played, width=width, height=24, sort="load", pool=0, window=window))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert len(text.splitlines()) < 24 and max(map(len, text.splitlines())) <= width
        assert f"{failed} in {window}" in text and f"{cost} in {window}" in text
        assert "openai is down" in text


def test_figures_that_are_old_say_so(view: FleetView) -> None:
    console = Console(width=200, height=24, record=True, file=io.StringIO())
    console.print(frame(view, width=200, height=24, sort="load", pool=0, trouble="Redis is away", age_s=7.0))
    assert "STALE, 7 s old: Redis is away" in console.export_text()


def test_a_sparkline_shows_every_minute_that_was_not_empty() -> None:
    assert spark([0, 1, 500, 1000], 4) == " ▁▄█"
    assert spark([1, 0, 0], 2) == "  "
    assert spark([], 5) == ""


def test_keys_pause_resume_sort_and_end(own_redis: RedisServer, terminal: Terminal) -> None:
    wait_until(lambda: terminal.shows(r"bot \(by evidence\)"), WAIT_S, "the screen is drawn")
    terminal.press("s")
    wait_until(lambda: terminal.shows(r"bot \(by last hour\)"), WAIT_S, "it is sorted")
    with connect(own_redis.url) as client:
        writing = [keys.queue("writing")]
        terminal.press("\x1b[B")
        terminal.press("p")
        wait_until(lambda: not read_gates(client, writing)[0].is_open, WAIT_S, "the pool is paused")
        wait_until(lambda: terminal.shows("writing: closed"), WAIT_S, "it says so")
        assert read_gates(client, [keys.queue("research")])[0].is_open
        terminal.press("p")
        wait_until(lambda: read_gates(client, writing)[0].is_open, WAIT_S, "the pool is resumed")
    terminal.press("q")
    assert terminal.process.wait(10) == 0


def test_it_stays_alive_and_says_so_when_redis_hangs(own_redis: RedisServer, terminal: Terminal) -> None:
    wait_until(lambda: terminal.shows("completions"), WAIT_S, "the screen is drawn")
    own_redis.freeze()
    wait_until(lambda: terminal.shows("STALE"), WAIT_S, "it says that its figures are old")
    terminal.press("q")
    assert terminal.process.wait(10) == 0
