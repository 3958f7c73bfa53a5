"""The parts of `benchmarks.cost` in virtual time, with few tasks: each lever saves, and answers stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cost import cell, lane_choice, traces
from benchmarks.cost.cell import Levers, Run
from benchmarks.cost.tables import GPT_5, O3, SONNET
from benchmarks.cost.world import PriceTable
from fleet.workers.context import count_tokens
from tests.every import every

TASKS = 300


def saved(run: Run, of: Run, table: PriceTable) -> float:
    return 1 - run.usd[table.name] / of.usd[table.name]


def test_the_cell_has_the_tokens_and_the_repeats_that_it_says() -> None:
    assert count_tokens(cell.document(1)) == cell.PREFIX_TOKENS
    own = count_tokens(cell.notes(1)) + count_tokens(cell.question(1))
    assert abs(own - cell.OWN_TOKENS) <= 5 and abs(count_tokens(cell.answer(1)) - cell.ANSWER_TOKENS) <= 5
    stream = cell.cases(2000, 0.35)
    assert len({case.question for case in stream}) == 1300


@pytest.mark.parametrize("tables", [(GPT_5, O3), (SONNET,)], ids=["openai", "anthropic"])
def test_prefixes_and_lanes_save_and_change_no_answer(tables: tuple[PriceTable, ...], tmp_path: Path) -> None:
    stream = cell.cases(TASKS, 0.1)
    recorded = cell.record(tmp_path / "answers.jsonl", TASKS)
    off, prefix, both = (
        cell.run(tables, stream, levers, recorded)
        for levers in (Levers(), Levers(prefix=True), Levers(prefix=True, lanes=True))
    )
    assert off.answers == prefix.answers == both.answers
    assert every(text == cell.answer(case.question) for text, case in zip(both.answers, stream, strict=True))
    assert off.calls == prefix.calls == both.calls == TASKS, "none is paid twice"
    for table in tables:
        assert saved(prefix, off, table) > 0.3 and saved(both, prefix, table) > 0.1, table.name


def test_equal_tasks_are_billed_once_and_all_are_answered(tmp_path: Path) -> None:
    stream, recorded = cell.cases(TASKS, 0.35), cell.record(tmp_path / "answers.jsonl", TASKS)
    off, once = (cell.run((GPT_5,), stream, levers, recorded) for levers in (Levers(), Levers(answers=True)))
    assert off.answers == once.answers and len(once.answers) == TASKS
    assert once.calls == len({case.question for case in stream}) < off.calls == TASKS
    assert 0.25 < saved(once, off, GPT_5) <= 0.35, "without it the provider's cache has some of what is asked again"


def test_a_replay_reads_what_the_ideal_cache_reads_but_for_the_least_length_of_a_cached_prompt() -> None:
    shared = tuple(range(8))
    trace = [traces.Request(600.0 * n, 12 * 512, (*shared, *range(100 * n + 100, 100 * n + 104))) for n in range(9)]
    assert traces.ideal(trace) == 8 * 8 * 512
    assert count_tokens(traces.prompt(trace[0])) == trace[0].tokens
    kept, unkept = traces.replay(trace), traces.replay(trace, traces.KEYS, traces.UNKEPT)
    assert 0.95 < kept.of_ideal <= 1.05 and unkept.read == 0, "ten minutes lie between two"


def test_the_lane_that_is_taken_is_the_cheapest_by_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_choice, "PREFIXES", (0, 20_000))
    found = list(lane_choice.choices())
    assert len(found) == 12 and every(one.is_cheapest for one in found)
    assert {one.taken for one in found} == {"batch", "flex", "standard"}, "never a fixed order"
