"""Many answers, one outcome: python -m benchmarks.answers [--check].

The recorded answers of four language models to the 1,319 questions of GSM8K are the votes of four pools, in memory.
Each figure is the mean over 20 random halves: 10 cuts, each half counted once with weights learnt on the other. Then
bots that are fluent but wrong are looked for (`benchmarks/fluent.py`). Needs the public data (FLEET_DATA_DIR or
../shared/data); a minute.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import log
from pathlib import Path
from statistics import mean

import click

from benchmarks.bench import print_table, private_home
from benchmarks.fluent import BAD, BOTS, FLEETS, LIES, REPLAYED, SHARE, Asked, graded_cells, ungraded_cell
from fleet import config
from fleet.answers import (
    Kinship,
    Majority,
    Rule,
    Vote,
    Weighted,
    by_answer,
    canonical,
    is_fixed,
    leader,
    learnt,
    majority_chance,
    rest_is_worth,
)
from fleet.answers.stopping import SURE, WORTH
from fleet.store.client import connect
from fleet.store.private.embedded import state_url

ROOT = Path(__file__).parents[1]
#: The models whose answers were recorded.
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
#: What an answer ends with.
ANSWER = re.compile(r"A:\s*(.*)")
#: Cuts into two halves (count).
CUTS = 10


@dataclass(frozen=True, slots=True)
class Question:
    """A question's votes, in the order of MODELS, and its right answer in canonical form."""

    votes: tuple[Vote, ...]
    right: str


@dataclass(frozen=True, slots=True)
class Score:
    """Share of right outcomes, and of calls that were not needed."""

    right: float
    saved: float = 0.0


class ByAccuracy:
    """What voters would weigh if each erred by itself: the logarithm of the odds that it is right, of ten answers."""

    def __init__(self, kinship: Kinship) -> None:
        self._kinship = kinship

    def scores(self, votes: Sequence[Vote]) -> dict[str, float]:
        """As `Rule` says."""
        given = by_answer(votes)
        return {key: sum(self._kinship.odds(one) + log(9) for one in sources) for key, sources in given.items()}


#: True when the rest is not asked any more.
Stop = Callable[[Sequence[Vote], Sequence[str]], bool]


def read(path: Path) -> list[Question]:
    """Return the recorded answers; a model's answer without a number is an answer of its own."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Question(
            tuple(Vote(m, canonical(row[m]["solution"], pattern=ANSWER) or f"none of {m}") for m in MODELS),
            canonical(row["ground_truth"], pattern=ANSWER) or "",
        )
        for row in rows
    ]


def halves(questions: Sequence[Question]) -> Iterator[tuple[list[Question], list[Question]]]:
    """Yield (learnt on, counted) 2 * CUTS times."""
    for cut in range(CUTS):
        mixed = random.Random(cut).sample(questions, len(questions))
        middle = len(mixed) // 2
        yield mixed[:middle], mixed[middle:]
        yield mixed[middle:], mixed[:middle]


def counted(questions: Sequence[Question], rule: Rule, order: Sequence[int], stop: Stop | None = None) -> Score:
    """Ask the models in an order, until it is enough, and count right outcomes and calls that were not made."""
    right = calls = 0
    for question in questions:
        heard: list[Vote] = []
        for place, number in enumerate(order):
            heard.append(question.votes[number])
            if stop is not None and stop(heard, [MODELS[one] for one in order[place + 1 :]]):
                break
        calls += len(heard)
        right += leader(rule.scores(heard)) == question.right
    return Score(right / len(questions), 1 - calls / len(questions) / len(order))


def not_worth(rule: Weighted) -> Stop:
    """Return the early stop of weighted votes; situations that differ by the answers' words alone are one."""
    known: dict[tuple[tuple[str, int], ...], bool] = {}

    def stop(heard: Sequence[Vote], rest: Sequence[str]) -> bool:
        numbers, names = count(), dict[str, int]()
        situation = tuple((vote.source, names.setdefault(vote.key, next(numbers))) for vote in heard)
        if situation not in known:
            known[situation] = not rest or rest_is_worth(rule, heard, rest) < WORTH
        return known[situation]

    return stop


def figures(questions: Sequence[Question]) -> dict[str, Score]:
    """Return the mean over all halves of each way to ask."""
    found: dict[str, list[Score]] = {}
    as_recorded = range(len(MODELS))

    def note(name: str, score: Score) -> None:
        found.setdefault(name, []).append(score)

    for known, asked in halves(questions):
        rule, majority = Weighted(Kinship(learnt((one.votes, one.right) for one in known))), Majority()
        order = sorted(as_recorded, key=lambda number: -rule.kinship.odds(MODELS[number]))
        note("best single model", counted(asked, majority, order[:1]))
        note("majority", counted(asked, majority, as_recorded))
        note("majority, until it can't change", counted(asked, majority, as_recorded,
             lambda heard, rest: is_fixed(Majority(), heard, rest)))  # fmt: skip
        note("majority, until it is sure", counted(asked, majority, as_recorded,
             lambda heard, rest: majority_chance(heard) >= SURE))  # fmt: skip
        note("weighted by accuracy alone", counted(asked, ByAccuracy(rule.kinship), order))
        note("weighted", counted(asked, rule, order))
        note("weighted, until it can't change", counted(asked, rule, order,
             lambda heard, rest, rule=rule: is_fixed(rule, heard, rest)))  # type: ignore[misc] # fmt: skip
        note("weighted, until the rest isn't worth it", counted(asked, rule, order, not_worth(rule)))
    return {name: Score(mean(s.right for s in all_), mean(s.saved for s in all_)) for name, all_ in found.items()}


def bars(found: dict[str, Score]) -> list[tuple[str, str, bool]]:
    """Return what must hold: what it is, what was measured, whether it does."""
    single, plain = found["best single model"], found["majority"]
    weighted, early = found["weighted"], found["weighted, until the rest isn't worth it"]
    ahead, loss = 100 * (weighted.right - plain.right), 100 * (weighted.right - early.right)
    return [
        ("weighted is not below the best single model", f"{weighted.right:.4f}", weighted.right >= single.right),
        ("weighted beats the majority by 10 points", f"{ahead:.1f}", ahead >= 10),
        ("the early stop saves 40% of the calls", f"{early.saved:.1%}", early.saved >= 0.4),
        ("and loses 1 point at most", f"{loss:.2f}", loss <= 1),
    ]


def _fluent(questions: Sequence[Question]) -> Iterator[tuple[str, str, bool]]:
    """Find bots that are fluent but wrong on a Redis of its own, print a table, and yield what must hold."""
    asked = [Asked(one.votes[REPLAYED].key, one.right) for one in questions]
    rows: list[list[str]] = []
    with private_home(), connect(state_url(config.current())) as client:
        for name, one, most in graded_cells(client, asked):
            rows.append([
                name, f"{len(one.after)} of {FLEETS * BAD}", f"{one.median:g}", str(max(one.after, default=0)),
                f"{one.good_out} in {one.tasks:,}",
            ])  # fmt: skip
            yield f"{name}: all out, median at most {most}", f"{one.median:g}", (
                len(one.after) == FLEETS * BAD and one.median <= most
            )  # fmt: skip
            yield f"{name}: good bots out in 50,000", f"{one.good_out / FLEETS:.2g}", one.good_out == 0
        ungraded = ungraded_cell(client, [(one.right, [vote.key for vote in one.votes]) for one in questions])
        for one, shadows in ungraded:
            rows.append([
                "nobody grades, of each bot one of ten is wrong", f"{len(one.after)} of {BAD}", "", "",
                f"{one.good_out} in {one.tasks:,}",
            ])  # fmt: skip
            share = shadows / one.tasks
            yield "nobody grades: 16 of 20 out", str(len(one.after)), len(one.after) >= 16
            yield "nobody grades: good bots out", str(one.good_out), one.good_out == 0
            yield "nobody grades: 3% more calls at most", f"{share:.2%}", share <= SHARE
    heads = ["kind", "bad bots out", "graded tasks, median", "most", "good bots out"]
    print_table(f"{BAD} of {BOTS} bots give another question's answer in {LIES:.0%} of their tasks", heads, rows)


@click.command()
@click.option("--check", is_flag=True, help="Exit code 1 when a bar is missed.")
def main(check: bool) -> None:
    """Count the votes of four recorded models in every way, and print two tables."""
    data = Path(os.environ.get("FLEET_DATA_DIR") or ROOT.parent / "shared" / "data")
    found = figures(read(data / "gsm8k_model_solutions.jsonl"))
    rows = [[name, f"{score.right:.1%}", f"{score.saved:.1%}"] for name, score in found.items()]
    print_table(f"GSM8K, four models, mean of {2 * CUTS} halves", ["way to ask", "right", "calls saved"], rows)
    held = [*bars(found), *_fluent(read(data / "gsm8k_model_solutions.jsonl"))]
    print_table(
        "Bars", ["bar", "measured", "holds"], [[name, value, "yes" if ok else "NO"] for name, value, ok in held]
    )
    if check and not all(ok for _, _, ok in held):
        sys.exit(1)


if __name__ == "__main__":
    main()
