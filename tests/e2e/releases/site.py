"""A fleet of a test at which both releases are at work, and what it has done: who began and ended which task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from fleet.store import keys
from fleet.store.client import connect
from tests.e2e.releases.first import SLOW_S
from tests.ports import lasting_port
from tests.redis_server import RedisServer
from tests.waiting import wait_until

PRODUCE = Path(__file__).with_name("produce.py")
FLEET = "import sys; from fleet.cli.main import main; sys.exit(main())"
WORK = """
import asyncio, os
def note(*words):
    descriptor = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (" ".join(map(str, words)) + "\\n").encode())
    os.close(descriptor)
async def work(task, bot):
    n = task.metadata["n"]
    note("begins", n, os.getpid())
    if task.metadata.get("fails"):
        raise ValueError("as told")
    await asyncio.sleep(task.metadata.get("long_s", 0))
    answer = await bot.chat(task.prompt)
    note("ends", n, os.getpid())
    return answer
"""
SETTINGS = """
[worker]
slots = 10
[health]
watch = false
[providers.sim]
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
api_key_env = "SIM_KEY"
[limits."sim/m"]
rpm = 900
usd_per_day = 100
[prices."sim/m"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
"""
POOL = '[pools.{name}]\nbots = 6\nprovider = "sim"\nmodel = "m"\nfunction = "work:work"\n'
POOLS = ("shared", "slow", "shut")


class Site:
    """One fleet, its folder, and both releases that are at work in it."""

    def __init__(self, folder: Path, server: RedisServer, first: Path | None = None) -> None:
        self.folder, self.client = folder, connect(server.url)
        self.pythons = {"old": str(first), "new": sys.executable}
        self.port = lasting_port()
        self.tasks: dict[str, dict[str, str]] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "work.py").write_text(WORK)
        shutil.copy(PRODUCE, folder)
        pools = "".join(POOL.format(name=name) for name in POOLS)
        (folder / "fleet.toml").write_text(SETTINGS.format(port=self.port) + pools)
        given = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}  # 0.2 knows fewer
        self.env = {
            **given, "FLEET_REDIS__URL": server.url, "FLEET_HOME": str(folder / ".fleet"),
            "PYTHONPATH": str(folder), "SIM_KEY": "sk-of-nobody-0000000001",
        }  # fmt: skip

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=out, stderr=out)
        self.processes.append(process)
        return process

    def simulate(self) -> None:
        """Start the provider."""
        command = ("simulator", "--port", str(self.port), "--rpm", "900", "--mode", "sliding", "--latency-ms", "50")
        self.start(sys.executable, "-c", FLEET, *command, log="simulator.log")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.client.close()

    def worker(self, release: str, name: str) -> subprocess.Popen[bytes]:
        command = (self.pythons[release], "-m", "celery", "-A", "fleet", "worker", "-n", f"{name}@h", "-l", "INFO")
        return self.start(*command, log=f"{name}.log")

    def ready(self, name: str) -> None:
        log = self.folder / f"{name}.log"
        wait_until(
            lambda: " ready." in log.read_text(errors="replace"), SLOW_S, lambda: log.read_text(errors="replace")
        )

    def run(self, release: str, *arguments: str, code: int | None = 0) -> str:
        done = subprocess.run(
            [self.pythons[release], *arguments], cwd=self.folder, env=self.env, capture_output=True, text=True,
            timeout=SLOW_S, check=False,
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def fleet(self, release: str, *arguments: str, code: int | None = 0) -> str:
        return self.run(release, "-c", FLEET, *arguments, code=code)

    def submit(self, release: str, name: str, *kinds: str) -> None:
        told = map(json.loads, self.run(release, "produce.py", name, *kinds).splitlines())
        self.tasks |= {task["id"]: task for task in told}

    def results(self) -> dict[str, Any]:
        stored = self.client.mget([keys.result(task_id) for task_id in self.tasks])
        return {task_id: json.loads(text) for task_id, text in zip(self.tasks, stored, strict=True) if text}

    def ledger(self, verb: str) -> Counter[str]:
        lines = (self.folder / "ledger").read_text().splitlines()
        return Counter(line.split()[1] for line in lines if line.startswith(verb))

    def releases(self) -> str:
        """What `fleet doctor` says of the workers' releases."""
        checks = json.loads(self.fleet("new", "doctor", "--json", code=None))
        return str(next(check["found"] for check in checks if check["name"] == "workers: releases"))
