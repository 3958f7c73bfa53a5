"""The provider of `benchmarks.behaviour`: the simulator as a process, and which bot is which of its voices.

It replays a language model's recorded answers (FLEET_DATA_DIR or ../shared/data); where there are none, sentences that
are made once. So what a good answer to a question is, is known.
"""

from __future__ import annotations

import json
import os
import random
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from sys import executable
from typing import Any

ROOT = Path(__file__).parents[1]
#: Real questions and the answers of four models to each.
DATA = Path(os.environ.get("FLEET_DATA_DIR") or ROOT.parent / "shared" / "data") / "gsm8k_model_solutions.jsonl"
#: The model whose answers are replayed.
MODEL = "175b_verification"


@dataclass(frozen=True)
class Pool:
    """A pool in which every bot has a temperature of its own, so that the simulator can tell them apart.

    Args:
        name: Its name.
        bots: How many.
        coolest: The first bot's temperature; pools with the same one have the same voices.
    """

    name: str
    bots: int = 100
    coolest: float = 0.3

    @property
    def temperatures(self) -> list[float]:
        return [round(self.coolest + 0.003 * number, 3) for number in range(self.bots)]

    def bot(self, temperature: float) -> str:
        """Return the name of the bot with that temperature."""
        from fleet.models import bot_name

        return bot_name(self.name, self.temperatures.index(temperature) + 1)


def recorded_answers() -> dict[str, str]:
    """Return a good answer by question."""
    if DATA.is_file():
        rows = map(json.loads, DATA.read_text().splitlines())
        return {row["question"].strip(): row[MODEL]["solution"] for row in rows}
    from fleet.workers.simulator.answers import SENTENCE_POOL

    draw = random.Random(0)
    return {f"Tell me about subject {n}.": " ".join(draw.choices(SENTENCE_POOL, k=6)) for n in range(1319)}


class Simulator:
    """A running simulator without limits in reach, told what to do. It can come back as another on the same port.

    Args:
        answers: JSONL file of what it replays.
        fields: Where the answers stand; of several each bot has one.
    """

    def __init__(self, answers: Path, fields: str, *, latency_ms: float, seed: int) -> None:
        self._options = [
            "--latency-ms",
            str(latency_ms),
            "--seed",
            str(seed),
            "--rpm",
            "1000000",
            "--tpm",
            "1000000000",
        ]
        self.url = ""
        self.start(answers, fields)

    def start(self, answers: Path, fields: str) -> None:
        """Start it; the second time where it listened before, after `stop`."""
        port = str(urllib.parse.urlsplit(self.url).port or 0)
        command = [executable, "-m", "fleet.workers.simulator", "--port", port, *self._options]
        replay = ["--answers", str(answers), "--answer-field", fields]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = Popen([*command, *replay], stdout=PIPE, stderr=DEVNULL, text=True, env=environment)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{path}") as reply:
            return dict(json.load(reply))

    def post(self, path: str, **query: object) -> dict[str, Any]:
        address = f"{self.url}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(urllib.request.Request(address, method="POST")) as reply:
            return dict(json.load(reply))

    def bad(self, pool: Pool) -> dict[str, dict[str, Any]]:
        """Return what each bad bot has done since it went bad, by name."""
        return {pool.bot(one["temperature"]): one for one in self.get("bad")["bad"]}

    @property
    def calls(self) -> int:
        return int(self.get("ledger")["total"]["calls"])
