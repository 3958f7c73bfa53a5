"""What the demo submits, counts and draws, without running anything."""

from __future__ import annotations

import io
import tomllib
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from fleet.cli.demo import view
from fleet.cli.demo.score import Score
from fleet.cli.demo.tasks import DEMO_TOML, POOLS, demo_tasks
from fleet.config import Settings, load
from fleet.models import Priority
from fleet.signals import BudgetRow
from tests.every import every


@pytest.fixture
def settings() -> Settings:
    return load(**tomllib.loads(DEMO_TOML.format(seed=7)))


def a_result(status: str = "ok", **fields: Any) -> dict[str, Any]:
    return {"status": status, "bot": "research-001", "persona": "creative", "answer": "42\n[bold]", **fields}


def a_score(count: int = 6) -> Score:
    return Score({f"t{number}": task for number, task in enumerate(demo_tasks(count, seed=1))})


def drawn(thing: Any, width: int) -> str:
    file = io.StringIO()
    Console(width=width, file=file).print(thing)
    return file.getvalue()


def test_the_demo_has_a_hundred_bots_on_a_hundred_and_twenty_slots_and_only_the_simulator(settings: Settings) -> None:
    assert settings.bots == 100
    assert settings.worker.processes * settings.slots_per_process == 120
    assert {name: pool.bots for name, pool in settings.pools.items()} == {"research": 30, "writing": 40, "review": 30}
    assert every(settings.is_simulated(pool) for pool in settings.pools)
    assert settings.simulator.seed == 7


def test_the_same_seed_gives_the_same_tasks_and_another_one_others() -> None:
    assert list(demo_tasks(50, seed=3)) == list(demo_tasks(50, seed=3))
    assert list(demo_tasks(50, seed=3)) != list(demo_tasks(50, seed=4))


def test_the_mix_has_every_priority_and_as_many_tasks_per_bot_in_every_pool() -> None:
    tasks = list(demo_tasks(5000, seed=0))
    assert {task.priority for task in tasks} == set(Priority)
    shares = Counter(task.pool for task in tasks)
    assert every(abs(shares[pool] / 5000 - percent / 100) < 0.03 for pool, percent in POOLS.items())


def test_a_result_counts_once_and_a_strangers_result_never() -> None:
    score = a_score()
    score.add({"t0": a_result(), "stranger": a_result()})
    score.add({"t0": a_result("failed")})
    assert (score.done, score.summary.failed, len(score.pending)) == (1, 0, 5)


def test_failures_and_waits_are_counted_where_the_task_belongs() -> None:
    score = a_score()
    first, second = score.tasks["t0"], score.tasks["t1"]
    score.add({"t0": a_result("failed", queued_ms=1000, limited_ms=500)})
    assert score.failed_in(str(first.pool)) == 1
    assert score.mean_wait_s(first.priority) == 1.5
    if second.priority != first.priority:
        assert score.mean_wait_s(second.priority) is None
    assert sum(score.done_of(priority) for priority in Priority) == 1


@pytest.mark.parametrize("width", [80, 118])
def test_the_live_view_fits_a_terminal_and_cuts_no_number(settings: Settings, width: int) -> None:
    score = a_score(500)
    score.add({name: a_result(queued_ms=12_345) for name in list(score.tasks)[:400]})
    score.backlog = {("research", Priority.CRITICAL): 123}
    budget = BudgetRow("simulator/simulated-1/default", rpm=1800, tpm=None, used_rpm=1234.0, used_tpm=None)
    frame = view.frame(
        score, settings, elapsed_s=20.0, budgets=[budget], flower="Flower http://127.0.0.1:5555", width=width
    )
    text = drawn(frame, width)
    assert len(text.splitlines()) <= 24
    words = ("400 of 500", "20.0 tasks/s", "5 s left", "123", "12.3 s", "critical", "1,234 of 1,800", "127.0.0.1:5555")
    for word in words:
        assert word in text, text


def test_sixty_columns_show_every_count_and_cut_no_word_but_the_answers(settings: Settings) -> None:
    score = a_score(500)
    score.add({name: a_result(queued_ms=12_345) for name in list(score.tasks)[:400]})
    score.backlog = {("research", Priority.CRITICAL): 123}
    budget = BudgetRow("simulator/simulated-1/default", rpm=1800, tpm=None, used_rpm=1234.0, used_tpm=None)
    frame = view.frame(score, settings, elapsed_s=20.0, budgets=[budget], flower="Flower http://127.0.0.1:5", width=60)
    text = drawn(frame, 60)
    assert len(text.splitlines()) <= 24
    for word in ("400 of 500", "20.0 tasks/s", "5 s left", "123", "12.3", "crit", "1,234 of 1,800", "127.0.0.1:5"):
        assert word in text, text
    assert "…" not in text.split("bot ")[0]
    assert "42 [bold]" in drawn(view.closing(score, elapsed_s=1.0, width=60), 60)


def test_an_answer_is_shown_as_it_is_and_not_read_as_markup() -> None:
    score = a_score()
    score.add({"t0": a_result()})
    assert "42 [bold]" in drawn(view.closing(score, elapsed_s=1.0, width=118), 118)


def test_the_last_line_before_any_result_names_no_rate_that_is_not_known() -> None:
    assert view.plain_line(a_score(), 0.0) == "0 of 6 done, 0 failed, 0.0 tasks/s, 0 s"
