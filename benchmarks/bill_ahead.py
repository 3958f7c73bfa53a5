"""Whether the range of `fleet run --dry-run` holds: files of different shapes, told before and run for real."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.bill_fleet import Fleet, Provider, prices_of, running

#: Files, and lines of the smallest and of the largest.
FILES, FEWEST, MOST = 20, 40, 200
#: Lines of each kind that are answered before, so that something is learnt.
BEFORE = 30
#: Median time to an answer, in milliseconds.
LATENCY_MS = 50
#: Figures whose range must hold: as the dry-run tells them, and where a run's ledger has them.
FIGURES = {"input_tokens": "input_tokens", "output_tokens": "output_tokens", "cost_usd_picos": "billed_usd_picos"}
KINDS = ("sums", "prose", "summary")


@dataclass(frozen=True, slots=True)
class Told:
    """One file: which figures lay outside of their ranges, and how far the cost was from what was expected."""

    lines: int
    outside: tuple[str, ...]
    cost_ratio: float


def try_files() -> Iterator[Told]:
    """Draw files, tell what they will take, run them, and compare."""
    os.environ["BILL_KEY"] = "sk-ahead"
    settings = (
        '[worker]\nslots = 40\n[health]\nwatch = false\n[providers.api]\nkind = "openai"\nbase_url = "{url}"\n'
        'api_key_env = "BILL_KEY"\n[pools.ahead]\nbots = 40\nprovider = "api"\nmodel = "mini"\n'
        "max_output_tokens = 600\n" + prices_of("api/mini")
    )
    provider = Provider("--latency-ms", str(LATENCY_MS), "--seed", "11")
    draw = random.Random(23)
    try:
        with running(settings, provider) as fleet:
            before = [_line(draw, kind, long=False) for kind in KINDS for _ in range(BEFORE)]
            _run(fleet, "before", before)
            for number in range(FILES):
                yield _try(fleet, f"file-{number}", draw_file(draw))
    finally:
        provider.stop()


def draw_file(draw: random.Random) -> list[dict[str, Any]]:
    """Return the lines of one file: of one kind or of several, short or long, of different sizes."""
    kinds = draw.sample(KINDS, draw.randint(1, 3))
    share = draw.random() if draw.random() < 0.5 else 0.0
    return [_line(draw, draw.choice(kinds), long=draw.random() < share) for _ in range(draw.randint(FEWEST, MOST))]


def _line(draw: random.Random, kind: str, *, long: bool) -> dict[str, Any]:
    number = draw.randrange(10**6)
    if kind == "sums":
        prompt = f"What is {number} + {draw.randrange(1000)}?"
    elif kind == "prose":
        prompt = f"Write about subject {number}."
    else:
        words = draw.choices(
            ("bots", "answer", "questions", "about", "every", "river", "stone"), k=draw.randint(20, 200)
        )
        prompt = f"Summarise {number}: {' '.join(words)}"
    return {
        "prompt": prompt + (" Mind the details." * draw.randint(10, 40) if long else ""),
        "pool": "ahead",
        "kind": kind,
    }


def _try(fleet: Fleet, name: str, lines: list[dict[str, Any]]) -> Told:
    source = fleet.home / f"{name}.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    looked = fleet.command("run", str(source), "--dry-run", "--json")
    if looked.returncode:
        raise RuntimeError(f"dry-run of {name}: exit code {looked.returncode}: {looked.stderr[-500:]}")
    told = json.loads(looked.stdout)
    fleet.provider.reset()
    total = _run(fleet, name, lines)
    outside = [
        figure
        for figure, counter in FIGURES.items()
        if not told[figure]["low"] <= total[counter] <= told[figure]["high"]
    ]
    return Told(len(lines), tuple(outside), total["billed_usd_picos"] / max(1, told["cost_usd_picos"]["expected"]))


def _run(fleet: Fleet, name: str, lines: list[dict[str, Any]]) -> dict[str, int]:
    source, target = fleet.home / f"{name}.jsonl", fleet.home / f"{name}.out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    done = fleet.command("run", str(source), "-o", str(target), "--wait")  # workers may be slow to start
    if done.returncode:
        raise RuntimeError(f"run of {name}: exit code {done.returncode}: {done.stderr[-500:]}")
    fleet.provider.wait_quiet()
    return dict(fleet.provider.ledger()["total"])
