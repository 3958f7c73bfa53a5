"""The two sides of `benchmarks.agents`: a fleet whose bots run an agent, and a bare loop, on one simulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psutil

from benchmarks.agents_egress import Egress
from benchmarks.bench import cpu_s, private_home, until, worker
from benchmarks.bill_fleet import ROOT, Fleet, Provider, prices_of

#: Requests a minute that the provider takes, share of them that fail, and median time to an answer (ms).
RPM, ERROR_RATE, LATENCY_MS = 1500, 0.15, 200
#: Bots and slots, worker processes; turns with tools of a run, so that it makes one call more.
BOTS, PROCESSES, TURNS = 100, 2, 5
#: Runs that go in circles.
LOOPS = 20
MODEL, LOOPING = f"agent-{TURNS}", "agent-loop"
#: Who calls -> its key: each has the provider's limit for itself, and lines of its own in the ledger.
KEYS = {"api": "sk-agents-fleet", "circles": "sk-agents-circles", "bare": "sk-agents-bare"}
#: The share of the calls in which the rate is not measured: at the beginning, and again at the end.
EDGE = 0.1
#: Seconds between two looks at the ledger.
LOOK_S = 0.1

SETTINGS = f"""
[worker]
slots = {BOTS // PROCESSES}
[providers.api]
kind = "openai"
base_url = "{{url}}/v1"
api_key_env = "AGENTS_KEY_API"
[providers.circles]
kind = "openai"
base_url = "{{url}}/v1"
api_key_env = "AGENTS_KEY_CIRCLES"
[limits."api/{MODEL}"]
rpm = {RPM}
counting = "bucket"
[limits."circles/{LOOPING}"]
rpm = {RPM}
counting = "bucket"
[pools.agents]
bots = {BOTS}
provider = "api"
model = "{MODEL}"
agent = "benchmarks.agents_bots:agent"
[pools.circles]
bots = {LOOPS}
provider = "circles"
model = "{LOOPING}"
agent = "benchmarks.agents_bots:agent"
{prices_of(f"api/{MODEL}", f"circles/{LOOPING}")}"""


@dataclass
class Side:
    """What one side has done.

    Attributes:
        calls_per_s: Calls that the provider took, while the limit was binding.
        seconds: From the first to the last call.
        cpu_ms: CPU milliseconds of its processes for each answer it got.
        ends: How its runs ended.
        ledger: The provider's counters of its key.
    """

    calls_per_s: float
    seconds: float
    cpu_ms: float
    ends: Counter[str]
    ledger: dict[str, int]


@dataclass
class Governed(Side):
    """What the fleet has done, and what became of others.

    Attributes:
        redis_cpu_ms: As `cpu_ms`, of Redis.
        accused: Bots of the good agents that stand worse than well, or results that blame one.
        usage_diff: Tokens and pico-dollars by which the bill differs from the ledger.
        foreign: Whom its processes connected to beside Redis and the provider.
        unwatched: Workers that were not watched for it.
        loops: How the runs that go in circles ended, by error.
    """

    redis_cpu_ms: float = 0.0
    accused: list[str] = field(default_factory=list)
    usage_diff: int = 0
    foreign: list[str] = field(default_factory=list)
    unwatched: int = 0
    loops: Counter[str] = field(default_factory=Counter)


@contextmanager
def provider_of() -> Iterator[Provider]:
    """Run the simulator of both sides."""
    options = {"rpm": RPM, "error-rate": ERROR_RATE, "latency-ms": LATENCY_MS, "seed": 18}
    found = Provider(*(part for name, value in options.items() for part in (f"--{name}", str(value))))
    try:
        yield found
    finally:
        found.stop()


def prompts_of(runs: int, what: str) -> list[str]:
    """Return different prompts."""
    return [f"Request {number} of {what}: what do the notes tell of the harbour?" for number in range(runs)]


def run_bare(provider: Provider, runs: int) -> Side:
    """Let the bare loop do it."""
    plan = {"url": provider.url, "key": KEYS["bare"], "model": MODEL, "slots": BOTS, "rpm": RPM}
    plan["prompts"] = prompts_of(runs, "the bare loop")
    command = [sys.executable, "-m", "benchmarks.agents_peer", json.dumps(plan)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Looks(provider, KEYS["bare"], [psutil.Process(process.pid)]) as looks:
            done = json.loads(process.stdout.readline() or "{}")
    if not done:
        raise RuntimeError(f"expected what the bare loop has done, it ended with code {process.returncode}")
    rate, seconds, cpu_ms = looks.figures()
    return Side(rate, seconds, cpu_ms, Counter(done["ends"]), looks.ledger())


def run_fleet(provider: Provider, runs: int) -> Governed:
    """Let a fleet do it, and then run in circles."""
    for name in ("api", "circles"):
        os.environ[f"AGENTS_KEY_{name.upper()}"] = KEYS[name]
    with _running(provider) as (fleet, egress, workers):
        done = _worked(fleet, provider, workers, runs)
        ids = fleet.submit({"pool": "circles", "prompt": prompt} for prompt in prompts_of(LOOPS, "circles"))
        until(lambda: fleet.done >= runs + LOOPS, "runs in circles", every_s=LOOK_S)
        done.loops = Counter(_end(result) for result in fleet.results(ids))
        provider.wait_quiet()
        done.usage_diff = _usage_diff(fleet, provider)
        done.ledger["refused_429"] += _account(provider, KEYS["circles"])["refused_429"]
        done.foreign = egress.foreign()
        done.unwatched = len({one.pid for one in workers} - egress.watched())
    return done


@contextmanager
def _running(provider: Provider) -> Iterator[tuple[Fleet, Egress, list[psutil.Process]]]:
    from fleet import config

    with private_home() as home, ExitStack() as stack:
        (home / "fleet.toml").write_text(SETTINGS.replace("{url}", provider.url))
        os.environ["FLEET_CONFIG"] = str(home / "fleet.toml")
        config.current.cache_clear()
        fleet = Fleet(home, provider)
        stack.callback(fleet.close)
        egress = Egress(home, frozenset((_port_of(provider.url), _redis_port(fleet))))
        env = egress.environment(ROOT)
        workers = [
            stack.enter_context(worker("fleet", "-n", f"w{number}@agents", env=env, log=home / "worker.log"))
            for number in range(PROCESSES)
        ]
        stack.enter_context(egress.looking(workers))
        yield fleet, egress, workers


def _worked(fleet: Fleet, provider: Provider, workers: list[psutil.Process], runs: int) -> Governed:
    """Let the good agents run."""
    server = psutil.Process(int(fleet.redis.info("server")["process_id"]))
    with Looks(provider, KEYS["api"], workers, [server]) as looks:
        ids = fleet.submit({"pool": "agents", "prompt": prompt} for prompt in prompts_of(runs, "the fleet"))
        until(lambda: fleet.done >= runs, f"{runs} runs", every_s=LOOK_S)
    rate, seconds, cpu_ms, redis_cpu_ms = looks.figures()
    results = fleet.results(ids)
    accused, ends = _accused(fleet, results), Counter(map(_end, results))
    return Governed(rate, seconds, cpu_ms, ends, looks.ledger(), redis_cpu_ms=redis_cpu_ms, accused=accused)


class Looks:
    """Looks often at the ledger of a key and at the CPU time of processes, until the block ends.

    Args:
        provider: Whose ledger.
        key: Whose line of it.
        groups: Processes whose time is summed.
    """

    def __init__(self, provider: Provider, key: str, *groups: list[psutil.Process]) -> None:
        self._provider, self._key, self._groups = provider, key, groups
        self._seen: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Looks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def ledger(self) -> dict[str, int]:
        """Return the counters as they are."""
        return _account(self._provider, self._key)

    def figures(self) -> tuple[float, ...]:
        """Return calls a second that were taken, seconds from first to last, CPU milliseconds of each group an answer.

        The first and the last tenth of the calls count for the seconds only: processes warm up, and the last runs are
        too few for the limit to bind.
        """
        first, last = self._seen[0].taken, self._seen[-1].taken
        edge = (last - first) * EDGE
        begun, *_, ended = [one for one in self._seen if first + edge <= one.taken <= last - edge]
        busy = [one.at_s for one in self._seen if first < one.taken < last]
        answers = ended.answered - begun.answered
        cpu_ms = [1000 * (after - before) / answers for before, after in zip(begun.cpu_s, ended.cpu_s, strict=True)]
        return (ended.taken - begun.taken) / (ended.at_s - begun.at_s), busy[-1] - busy[0], *cpu_ms

    def _look(self) -> None:
        while True:
            account, cpu = self.ledger(), tuple(cpu_s(*group) for group in self._groups)
            taken = account["served"] + account["errors_5xx"]
            self._seen.append(Look(time.monotonic(), taken, account["served"], cpu))
            if self._over.wait(LOOK_S):
                return


class Look(NamedTuple):
    """What was seen at a time: calls that were taken, those of them that were answered, CPU seconds by group."""

    at_s: float
    taken: int
    answered: int
    cpu_s: tuple[float, ...]


def _account(provider: Provider, key: str) -> dict[str, int]:
    from fleet.workers.simulator.ledger import key_label

    ledger = provider.ledger()
    found: dict[str, int] = ledger["keys"].get(key_label(key)) or dict.fromkeys(ledger["total"], 0)
    return found


def _end(result: dict[str, Any]) -> str:
    return str(result["error"]["type"] if result["status"] == "failed" else result["status"])


def _accused(fleet: Fleet, results: list[dict[str, Any]]) -> list[str]:
    """Return who is out, has bad answers on its record, or is blamed by a result."""
    from fleet.roster import health_rows_of, read_quarantined
    from fleet.store import keys

    raw: Any = fleet.redis.get(keys.health("agents"))
    bad, *_ = health_rows_of(raw or b"", BOTS).percents
    found = [f"bot {number}" for number, percent in enumerate(bad, 1) if percent]
    found += [f"{name} (out)" for name in read_quarantined(fleet.redis, ["agents"])]
    return found + [result["bot"] for result in results if (result["error"] or {}).get("blame") == "bot"]


def _usage_diff(fleet: Fleet, provider: Provider) -> int:
    """Return by how much the bill differs from the ledger: tokens of both directions, and pico-dollars."""
    calls = sum(_account(provider, KEYS[name])["calls"] for name in ("api", "circles"))
    bill, diff = fleet.settled_bill(calls, "provider"), 0
    for name in ("api", "circles"):
        ours, theirs = bill[name,], _account(provider, KEYS[name])
        diff += abs(ours.usage.input_tokens - theirs["input_tokens"])
        diff += abs(ours.usage.output_tokens - theirs["output_tokens"])
        diff += abs(ours.usd_picos - theirs["billed_usd_picos"])
    return diff


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def _redis_port(fleet: Fleet) -> int:
    return int(fleet.redis.connection_pool.connection_kwargs["port"])
