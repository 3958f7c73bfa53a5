"""Storms: what becomes of tasks while their provider fails, beside what people build with Celery today.

    python -m benchmarks.storm [--only refuse] [--systems fleet,jitter] [--short]

Tasks come at 80% of the provider's rate throughout, one in 20 of them critical. After a calm the provider fails in one
way for so long, comes back, and the rest is waited for. The provider's log tells what was sent, not the clients.

Peers: `peers/storm_app.py`; the LiteLLM row sends through its proxy, which runs in an environment of its own
(`--litellm PATH/bin/litellm`). None of them has a limit shared by its workers: their herds meet the provider's.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
import redis

from benchmarks.bench import print_table, private_home, until, worker

ROOT = Path(__file__).parents[1]
#: Requests a minute that the provider takes, and the share of it that is offered.
RPM, LOAD = 3000, 0.8
#: Median time to an answer (ms); slots of each of two worker processes.
LATENCY_MS, SLOTS, PROCESSES = 200, 60, 2
#: Seconds before the storm, and after it before nothing more is submitted.
CALM_S, AFTER_S = 10.0, 15.0
#: Seconds that the rest gets after the last submission, and after a storm's length, before it counts as not delivered.
REST_S = 60.0
#: One task in so many is critical.
CRITICAL_EVERY = 20
#: Seconds until an operator lifts what does not pass by itself.
LIFTED_AFTER_S = 60.0
#: Seconds that a call may take; where the provider hangs (in which storms), as long as people give models that think.
TIMEOUT_S, HANG_TIMEOUT_S = 10, 120
HANGING = ("hang", "accept", "half", "tenth")
#: Storms in which nothing is answered, and how often one call has to try (s).
OUTAGES, TRIED_S = ("refuse", "5xx", "529", "hang", "accept", "half"), 2.0
MODEL = "storm"
#: What all of them send as their key; LiteLLM wants a strong one.
KEY = f"sk-{'5f0e' * 8}"
SYSTEMS = ("fleet", "naive", "jitter", "breaker", "litellm")


@dataclass(frozen=True)
class Cell:
    """One storm.

    Args:
        kind: What `storm_provider.py` is told; `budget`: the day's money is used up instead.
        seconds: How long.
        fleet_only: True where the peers know no such thing.
        expires_s: Seconds after which nobody wants an answer; 0: never.
    """

    kind: str
    seconds: float
    fleet_only: bool = False
    expires_s: float = 0.0

    @property
    def name(self) -> str:
        what = {
            "refuse": "connections refused", "hang": "no answer", "accept": "connections taken, nothing read",
            "half": "half an answer, then nothing", "tenth": "one of ten answered, the others hang",
            "burst": "30% errors", "slow": "15 times as slow", "key": "key dead (401)",
            "hour": "one 429, Retry-After 1 h", "budget": "day's money used up",
        }  # fmt: skip
        until = f", lifted after {self.seconds:.0f} s" if self.kind in ("hour", "budget", "key") else ""
        dated = f", tasks expire in {self.expires_s:.0f} s" if self.expires_s else ""
        return f"{what.get(self.kind, self.kind)} {f'{self.seconds:.0f} s' if not until else ''}{until}{dated}".strip()


CELLS = (
    *(Cell(kind, seconds) for kind in ("refuse", "5xx", "529", "hang") for seconds in (10.0, 60.0, 180.0)),
    *(Cell(kind, 60.0) for kind in ("accept", "half", "tenth")),
    Cell("burst", 60.0),
    Cell("slow", 60.0),
    Cell("hour", LIFTED_AFTER_S, fleet_only=True),
    Cell("budget", LIFTED_AFTER_S, fleet_only=True),
    Cell("key", LIFTED_AFTER_S),
    Cell("5xx", 60.0, expires_s=30.0),
)


class System(Protocol):
    """Who works on tasks."""

    def submit(self, prompts: list[str], *, critical: bool, expires_s: float) -> None:
        """Queue tasks."""

    def outcomes(self) -> tuple[int, int, int, int]:
        """Return how many tasks are done well, failed for no reason of their own, failed for one, and expired."""

    def lift(self, cell: Cell) -> None:
        """Do what an operator does about it."""


class FleetSystem:
    """A fleet."""

    def __init__(self, url: str, home: Path, stack: ExitStack, cell: Cell) -> None:
        self._cell = cell
        os.environ["STORM_KEY"] = KEY
        timeout_s = HANG_TIMEOUT_S if cell.kind in HANGING else TIMEOUT_S
        usd = "usd_per_day = 0.004" if cell.kind == "budget" else ""  # used up before the storm begins
        (home / "fleet.toml").write_text(
            f'[worker]\nslots = {SLOTS}\n[providers.api]\nkind = "openai"\nbase_url = "{url}/v1"\n'
            f'api_key_env = "STORM_KEY"\ntimeout_s = {timeout_s}\n[limits."api/{MODEL}"]\nrpm = {RPM}\n{usd}\n'
            f'[prices."api/{MODEL}"]\ninput_usd_per_mtok = 0.1\noutput_usd_per_mtok = 0.4\n'
            f'[pools.storm]\nbots = {SLOTS}\nprovider = "api"\nmodel = "{MODEL}"\nmax_output_tokens = 32\n'
            "[health]\nwatch = false\n"
        )
        from fleet import config
        from fleet.cli.operate.limits import limits
        from fleet.store.client import connect
        from fleet.store.private.embedded import state_url

        config.current.cache_clear()
        self._command = limits
        self._redis = connect(state_url(config.current()), timeout_s=30)
        for number in range(PROCESSES):
            stack.enter_context(worker("fleet", "-n", f"w{number}@storm", log=home / "worker.log"))

    def submit(self, prompts: list[str], *, critical: bool, expires_s: float) -> None:
        from fleet.engine.messages.producer import submit_many
        from fleet.models import BotTask, Priority

        at = time.time() + expires_s if expires_s else None
        priority = Priority.CRITICAL if critical else Priority.BULK
        for _ in submit_many([BotTask(prompt=one, pool="storm", priority=priority, expires_at=at) for one in prompts]):
            pass

    def outcomes(self) -> tuple[int, int, int, int]:
        from fleet.store import keys

        good = bad = own = late = 0
        names = list(self._redis.scan_iter(keys.result("*"), count=5000))
        for start in range(0, len(names), 500):
            rows: Any = self._redis.mget(names[start : start + 500])
            for row in filter(None, rows):
                result = json.loads(row)["result"]
                error = result["error"]["type"] if result["status"] == "failed" else ""
                good, late, own = good + (not error), late + (error == "Expired"), own + (error == "OutOfTries")
                bad += error not in ("", "Expired", "OutOfTries")
        return good, bad, own, late

    def lift(self, cell: Cell) -> None:
        commands = {
            "hour": ["release", f"api/{MODEL}"],
            "budget": ["set", f"api/{MODEL}", "--usd-per-day", "1000"],
        }
        if cell.kind in commands:  # here, for a new interpreter takes a second to start
            self._command.main(commands[cell.kind], standalone_mode=False)


class CelerySystem:
    """Stock Celery with one way to try again."""

    def __init__(self, url: str, home: Path, stack: ExitStack, strategy: str) -> None:
        from celery import Celery

        from fleet import config
        from fleet.store.private.embedded import state_url

        config.current.cache_clear()
        broker = state_url(config.current())
        env = {
            "STORM_URL": url,
            "STORM_MODEL": MODEL,
            "STORM_BROKER": broker,
            "STORM_STRATEGY": strategy,
            "STORM_KEY": KEY,
        }
        self._redis: redis.Redis = redis.Redis.from_url(broker)
        self._app = Celery("storm", broker=broker, backend=broker)
        options = {"queue_order_strategy": "priority", "priority_steps": [0, 9]}
        self._app.conf.update(task_queue_max_priority=10, broker_transport_options=options)
        slots = str(SLOTS)
        for number in range(PROCESSES):
            place = ("-P", "threads", "-c", slots, "-n", f"w{number}@storm")
            stack.enter_context(worker("benchmarks.peers.storm_app", *place, env=env, log=home / "worker.log"))

    def submit(self, prompts: list[str], *, critical: bool, expires_s: float) -> None:
        for prompt in prompts:
            expires = expires_s or None
            self._app.send_task("storm.ask", (prompt,), priority=0 if critical else 9, expires=expires)

    def outcomes(self) -> tuple[int, int, int, int]:
        names = list(self._redis.scan_iter("celery-task-meta-*", count=5000))
        found = {"SUCCESS": 0, "FAILURE": 0, "REVOKED": 0}
        for start in range(0, len(names), 500):
            for row in filter(None, self._redis.mget(names[start : start + 500])):
                found[json.loads(row)["status"]] += 1
        return found["SUCCESS"], found["FAILURE"], 0, found["REVOKED"]  # nobody looks whether others were answered

    def lift(self, cell: Cell) -> None:
        """A peer knows nothing that could be lifted."""


@dataclass
class Storm:
    """What a cell has left: the provider's log and the clients' results.

    Args:
        cell: Which storm.
        began_at: Unix time at which the provider began to fail.
        calls: Each call that came: when (Unix time), how it was answered, whether it was a critical task's.
    """

    cell: Cell
    began_at: float
    submitted: int = 0
    good: int = 0
    failed: int = 0
    own: int = 0
    expired: int = 0
    calls: list[tuple[float, int, bool]] = field(default_factory=list)

    @property
    def ended_at(self) -> float:
        return self.began_at + self.cell.seconds

    def row(self) -> list[str]:
        """Return the cell's figures."""
        answered = [at for at, status, _ in self.calls if status == 200]
        after = [at for at in answered if at >= self.ended_at]
        # What was on its way when the storm began is no send of the storm.
        during = [at for at, _, _ in self.calls if self.began_at + 1 <= at < self.ended_at]
        peak = _most_within(sorted(at for at, _, _ in self.calls if at >= self.ended_at), 1.0)
        return [
            str(self.failed),
            str(self.own),
            f"{self.good:,} of {self.submitted - self.expired:,}",
            f"{len(self.calls) / max(1, self.good):.3f} ({self._least_sends():.3f})",
            f"{len(during) / max(1.0, self.cell.seconds - 1):.2f}",
            f"{min(after) - self.ended_at:.1f} s" if after else "never",
            f"{peak / (RPM / 60):.2f}",
            self._critical(after),
        ]

    def _least_sends(self) -> float:
        """Return the fewest sends per success: those that were not answered had been needed, and no other.

        In an outage one call each `TRIED_S` is: more would find its end no sooner than is asked for.
        """
        wasted: float = len(self.calls) - sum(status == 200 for _, status, _ in self.calls)
        if self.cell.kind in OUTAGES:
            wasted = min(wasted, self.cell.seconds / TRIED_S)
        return (wasted + self.good) / max(1, self.good)

    def _critical(self, after: list[float]) -> str:
        """Return how late, in the median, critical tasks came after the storm, and the others."""
        late: dict[bool, list[float]] = {True: [], False: []}
        for at, status, is_critical in self.calls:
            if status == 200 and at >= self.ended_at:
                late[is_critical].append(at - self.ended_at)
        if not late[True] or not late[False]:
            return "-"
        return f"{statistics.median(late[True]):.0f} / {statistics.median(late[False]):.0f} s"


def _most_within(times: list[float], seconds: float) -> int:
    """Return the most events within any window."""
    most, first = 0, 0
    for last, at in enumerate(times):
        while at - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


class Provider:
    """The running provider."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def storm(self, kind: str, seconds: float) -> float:
        """Let it fail; returns when that began (Unix time)."""
        return float(self._json(f"storm?kind={kind}&s={seconds}", method="POST")["at"])

    def calls(self) -> list[tuple[float, int, bool]]:
        """Return its log."""
        return [(at, status, is_critical) for at, status, is_critical in self._json("calls")]

    def _json(self, path: str, *, method: str = "GET") -> Any:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", method=method), timeout=10) as reply:
            return json.load(reply)


@contextmanager
def provider(**more: Any) -> Iterator[Provider]:
    """Run a provider that can be told to fail; `more` goes beyond the options of the simulator here."""
    options = {"rpm": RPM, "tpm": 10**9, "latency_ms": LATENCY_MS, "burst": 0.02, "seed": 1, **more}
    command = [sys.executable, "-m", "benchmarks.storm_provider", json.dumps(options)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            yield Provider(process, process.stdout.readline().strip())
        finally:
            process.kill()


@contextmanager
def _litellm(program: str, url: str, home: Path) -> Iterator[str]:
    """Run LiteLLM's proxy before the provider, as its documents advise for production; yields its address."""
    port = open_port()
    model = {
        "model_name": MODEL,
        "litellm_params": {"model": f"openai/{MODEL}", "api_base": f"{url}/v1", "api_key": "x"},
    }
    told = {
        "model_list": [{**model, "rpm": RPM}],
        "router_settings": {"num_retries": 3, "allowed_fails": 5, "cooldown_time": 10, "timeout": 10},
    }
    (home / "litellm.yaml").write_text(json.dumps(told))  # JSON is YAML
    command = [program, "--config", str(home / "litellm.yaml"), "--port", str(port), "--host", "127.0.0.1"]
    with (home / "litellm.log").open("w") as log:
        env = {**os.environ, "LITELLM_MASTER_KEY": KEY}
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, env=env)
    try:
        until(lambda: process.poll() is not None or lives(port), "LiteLLM's proxy", every_s=0.5)
        if process.poll() is not None:
            raise click.ClickException(f"LiteLLM's proxy ended:\n{(home / 'litellm.log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def open_port() -> int:
    """Return a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def lives(port: int) -> bool:
    """True when LiteLLM's proxy answers there."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2).close()
    except OSError:
        return False
    return True


def run_cell(cell: Cell, system: str, litellm: str = "") -> Storm:
    """Let one system live through one storm."""
    with private_home() as home, ExitStack() as stack:
        api = stack.enter_context(provider())
        url = api.url
        if system == "litellm":
            url = stack.enter_context(_litellm(litellm, url, home))
        made: System
        if system == "fleet":
            made = FleetSystem(url, home, stack, cell)
        else:
            made = CelerySystem(url, home, stack, {"litellm": "jitter"}.get(system, system))
        return _through(cell, made, api)


def _through(cell: Cell, system: System, provider: Provider) -> Storm:
    _warm(system, provider)
    storm, stop = Storm(cell, 0.0), threading.Event()
    producer = threading.Thread(target=_produce, args=(system, storm, stop), daemon=True)
    producer.start()
    time.sleep(CALM_S)
    storm.began_at = time.time() if cell.kind == "budget" else provider.storm(cell.kind, cell.seconds)
    time.sleep(cell.seconds)
    system.lift(cell)
    time.sleep(AFTER_S)
    stop.set()
    producer.join()
    end = time.monotonic() + REST_S + max(cell.seconds, HANG_TIMEOUT_S if cell.kind in HANGING else 0.0)
    while time.monotonic() < end:
        storm.good, storm.failed, storm.own, storm.expired = system.outcomes()
        if storm.good + storm.failed + storm.own + storm.expired >= storm.submitted:
            break
        time.sleep(0.5)
    storm.calls = provider.calls()
    return storm


def _warm(system: System, provider: Provider) -> None:
    """Wait until the first task was answered; it is not counted."""
    system.submit(["warm"], critical=True, expires_s=0)
    end = time.monotonic() + 60
    while not sum(system.outcomes()) and time.monotonic() < end:
        time.sleep(0.2)


def _produce(system: System, storm: Storm, stop: threading.Event) -> None:
    """Submit at an even pace; the warming task is the first."""
    storm.submitted, begun = 1, time.monotonic()
    while not stop.wait(0.1):
        due = int((time.monotonic() - begun) * RPM / 60 * LOAD) - storm.submitted + 1
        numbers = range(storm.submitted, storm.submitted + due)
        critical = [f"critical {n}" for n in numbers if n % CRITICAL_EVERY == 0]
        others = [f"bulk {n}" for n in numbers if n % CRITICAL_EVERY]
        system.submit(critical, critical=True, expires_s=storm.cell.expires_s)
        system.submit(others, critical=False, expires_s=storm.cell.expires_s)
        storm.submitted += due


COLUMNS = [
    "storm", "system", "failed", "of their own", "delivered", "sends/success (least)", "sends/s in it", "first after",
    "peak/limit", "critical / bulk",
]  # fmt: skip


@click.command()
@click.option("--only", default="", help="Kinds of storms, with commas between them: refuse,hang,half,5xx,burst,...")
@click.option("--systems", default="fleet,naive,jitter,breaker", show_default=True)
@click.option("--seconds", type=float, default=0.0, help="Only storms of that length.")
@click.option("--short", is_flag=True, help="One storm of 5xx, 5 s long: whether it runs at all.")
@click.option("--litellm", default="", help="Path of LiteLLM's program, for --systems litellm.")
def main(only: str, systems: str, seconds: float, short: bool, litellm: str) -> None:
    """Run storms and print one table."""
    kinds = set(filter(None, only.split(",")))
    cells = [cell for cell in CELLS if (not kinds or cell.kind in kinds) and (not seconds or cell.seconds == seconds)]
    if short:
        cells = [Cell("5xx", 5.0)]
    rows = []
    for cell in cells:
        for system in systems.split(","):
            if system not in SYSTEMS:
                raise click.UsageError(f"--systems: expected some of {', '.join(SYSTEMS)}, got {system}")
            if cell.fleet_only and system != "fleet":
                continue
            storm = run_cell(cell, system, litellm)
            rows.append([cell.name, system, *storm.row()])
            print(" | ".join(rows[-1]), flush=True)
    title = f"{LOAD:.0%} of {RPM:,} requests a minute, {PROCESSES} worker processes of {SLOTS} slots"
    print_table(title, COLUMNS, rows)


if __name__ == "__main__":
    main()
