"""python -m benchmarks.gsm8k: the 1,319 GSM8K questions through `fleet run`, under limits that bind.

The simulator replays a language model's recorded answers, so each answer can be checked against its own question,
and its ledger tells what a provider would have counted. Needs the public data (FLEET_DATA_DIR or ../shared/data).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.bench import print_table, private_home, until, worker

ROOT = Path(__file__).parents[1]
#: The model whose answers are replayed.
MODEL = "175b_verification"
CONFIG = """
[providers.replay]
kind = "simulator"
base_url = "{url}"

[limits."replay/gsm8k"]
rpm = {rpm}
tpm = {tpm}

[prices."replay/gsm8k"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60

[pools.maths]
bots = 100
provider = "replay"
model = "gsm8k"
"""


@click.command()
@click.option("--questions", default=0, help="Only the first N questions; 0 = all.")
@click.option("--rpm", default=3000, show_default=True)
@click.option("--tpm", default=500_000, show_default=True)
def main(questions: int, rpm: int, tpm: int) -> None:
    """Run the questions and check every answer, the ledger and the limits."""
    data = Path(os.environ.get("FLEET_DATA_DIR") or ROOT.parent / "shared" / "data")
    with private_home() as home, ExitStack() as stack:
        source = home / "questions.jsonl"
        lines = (data / "gsm8k_test.jsonl").read_text().splitlines()
        source.write_text("\n".join(lines[:questions] if questions else lines) + "\n")
        url = stack.enter_context(_simulator(data / "gsm8k_model_solutions.jsonl", rpm, tpm))
        (home / "fleet.toml").write_text(CONFIG.format(url=url, rpm=rpm, tpm=tpm))
        for number in (1, 2):
            stack.enter_context(worker("fleet", "-n", f"w{number}@gsm8k", log=home / "worker.log"))
        _wait_for_workers(2)
        started = time.monotonic()
        _fleet_run(source, home / "answers.jsonl")
        seconds = time.monotonic() - started
        answers = [json.loads(line) for line in (home / "answers.jsonl").read_text().splitlines()]
        with urllib.request.urlopen(f"{url}/ledger") as reply:
            ledger = json.load(reply)["total"]
        figures = _figures(source, data, answers, ledger, seconds, tpm)
    print_table(
        f"GSM8K through `fleet run`, replaying {MODEL}, {rpm} requests and {tpm} tokens a minute",
        ["figure", "value"],
        [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in figures.items()],
    )


@contextmanager
def _simulator(answers: Path, rpm: int, tpm: int) -> Iterator[str]:
    """Run a simulator that replays the recorded answers; yields its URL."""
    command = [sys.executable, "-m", "fleet.workers.simulator", "--port", "0", "--rpm", str(rpm), "--tpm", str(tpm)]
    replay = ["--latency-ms", "300", "--answers", str(answers), "--answer-field", f"{MODEL}.solution"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, *replay], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1].rstrip("/")
    finally:
        process.terminate()
        process.wait()


def _wait_for_workers(count: int) -> None:
    from fleet import config
    from fleet.store import keys
    from fleet.store.client import connect
    from fleet.store.private.embedded import state_url

    redis = connect(state_url(config.current()))
    until(lambda: redis.hlen(keys.workers()) >= count, f"{count} workers")


def _fleet_run(source: Path, out: Path) -> None:
    command = [sys.executable, "-m", "fleet.cli.main", "run", str(source), "-o", str(out), "--field", "question"]
    subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})


def _figures(
    source: Path,
    data: Path,
    answers: list[dict[str, Any]],
    ledger: dict[str, Any],
    seconds: float,
    tpm: int,
) -> dict[str, Any]:
    questions = [json.loads(line) for line in source.read_text().splitlines()]
    recorded = {
        row["question"].strip(): row[MODEL]["solution"]
        for row in map(json.loads, (data / "gsm8k_model_solutions.jsonl").read_text().splitlines())
    }
    by_line = {row["line"]: row for row in answers}
    own = sum(
        (by_line[n]["answer"] or "").strip() == recorded[q["question"].strip()].strip()
        for n, q in enumerate(questions, start=1)
    )
    correct = sum(
        _number(by_line[n]["answer"] or "", "A:") == _number(q["answer"], "####")
        for n, q in enumerate(questions, start=1)
    )
    tokens = ledger["input_tokens"] + ledger["output_tokens"]
    used = sum(row["usage"]["input_tokens"] + row["usage"]["output_tokens"] for row in answers)
    return {
        "questions": len(questions),
        "results": len(answers),
        "failed": sum(row["status"] == "failed" for row in answers),
        "each the recorded answer of its own question": own,
        "correct": correct,
        "429s answered by the simulator": ledger["refused_429"],
        "calls: fleet's count": sum(row["attempts"] for row in answers),
        "calls: ledger": ledger["served"],
        "tokens: fleet's count": used,
        "tokens: ledger": tokens,
        "cost in US dollars: fleet's count": f"{sum(row['cost_usd_micros'] or 0 for row in answers) / 1e6:.6f}",
        "cost in US dollars: ledger": f"{ledger['billed_usd_micros'] / 1e6:.6f}",
        "seconds": f"{seconds:.1f}",
        "tokens a minute, of the limit": f"{tokens / seconds * 60 / tpm:.3f}",
        "mean wait for a grant, ms": f"{sum(row['limited_ms'] for row in answers) / max(1, len(answers)):,.0f}",
    }


def _number(text: str, mark: str) -> str:
    """Return the number after the last `mark`, without thousands separators or units."""
    match = re.search(r"-?[\d,]*\.?\d+", text.rsplit(mark, 1)[-1]) if mark in text else None
    return f"{float(match.group().replace(',', '')):g}" if match else ""


if __name__ == "__main__":
    main()
