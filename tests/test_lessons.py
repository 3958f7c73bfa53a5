"""A process's own copy of what models have taught: what it answers, what it tells the fleet, what it takes over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.lessons import (
    FAST,
    MOST_LESSONS,
    PROBE_AFTER_S,
    RATIO,
    RATIO_BOUNDS,
    TEACHING_TOKENS,
    UNMEASURED,
    WINDOW,
    Lesson,
    Notebook,
)

API = "openai/gpt-5"


def test_what_is_learnt_of_one_model_holds_for_no_other() -> None:
    notebook = Notebook()
    notebook.learn(API, "temperature")
    assert notebook.refused(API) == {"temperature"}
    assert notebook.refused("openai/gpt-4") == frozenset()


def test_what_the_fleet_is_told_is_told_once_and_again_when_it_could_not_be() -> None:
    notebook = Notebook(lambda: 5.0)
    notebook.learn(API, "temperature")
    untold = notebook.untold()
    assert untold == {(API, "temperature"): Lesson(API, "temperature", 5.0)}
    assert notebook.untold() == {}
    notebook.forget(API, "temperature")
    notebook.tell_again(untold)
    assert notebook.untold() == {(API, "temperature"): None}  # what is newer stands


def test_what_the_fleet_knows_is_taken_over_but_for_what_it_is_not_told_yet() -> None:
    notebook = Notebook(lambda: 5.0)
    notebook.learn(API, "temperature")
    notebook.learn(API, "top_p")
    notebook.untold()
    notebook.learn(API, "seed")
    notebook.replace({(API, "top_p"): Lesson(API, "top_p", 5.0)})
    assert notebook.refused(API) == {"top_p", "seed"}
    notebook.forget(API, "top_p")
    notebook.replace({(API, "top_p"): Lesson(API, "top_p", 5.0)})
    assert notebook.refused(API) == {"seed"}


def test_a_model_that_refuses_everything_fills_no_memory() -> None:
    now = [0.0]
    notebook = Notebook(lambda: now[0])
    for number in range(MOST_LESSONS + 50):
        now[0] = number
        notebook.learn(API, f"field_{number}")
    assert len(notebook.refused(API)) == MOST_LESSONS
    assert f"field_{MOST_LESSONS + 49}" in notebook.refused(API)


def test_the_ratio_moves_slowly_with_answers_and_fast_with_the_figures_of_an_error() -> None:
    notebook = Notebook()
    notebook.counted(API, estimated=1000, true=1400)
    assert 1.0 < notebook.measure(API).ratio < 1.05
    for _ in range(200):
        notebook.counted(API, estimated=1000, true=1400)
    assert 1.35 < notebook.measure(API).ratio <= 1.4
    notebook.counted("other/model", estimated=1000, true=1400, weight=FAST)
    assert notebook.measure("other/model").ratio == 1.2


def test_a_ratio_that_creeps_is_told_and_one_that_stands_is_not() -> None:
    notebook = Notebook()
    told = 0
    for _ in range(300):
        notebook.counted(API, estimated=1000, true=1200)
        told += len(notebook.untold())
    assert 5 <= told <= 15


def test_a_short_prompt_teaches_nothing_and_an_estimate_that_is_too_high_changes_nothing() -> None:
    notebook = Notebook()
    notebook.counted(API, estimated=TEACHING_TOKENS - 1, true=4 * TEACHING_TOKENS)
    assert notebook.measure(API) == UNMEASURED
    for _ in range(100):
        notebook.counted(API, estimated=1000, true=700)
    assert notebook.measure(API).ratio == 1.0


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(-5, 10**12)), max_size=30))
def test_whatever_providers_count_the_ratio_stays_within_its_bounds(counts: list[tuple[int, int]]) -> None:
    notebook = Notebook()
    for estimated, true in counts:
        notebook.counted(API, estimated=estimated, true=true)
    assert 1.0 <= notebook.measure(API).ratio <= RATIO_BOUNDS[1]


def test_a_ratio_that_others_told_is_taken_over_and_forgotten_with_them() -> None:
    notebook = Notebook()
    notebook.replace({(API, RATIO): Lesson(API, RATIO, 0.0, 1.5)})
    assert notebook.measure(API).ratio == 1.5
    notebook.replace({})
    assert notebook.measure(API).ratio == 1.0


def test_a_window_holds_for_a_day() -> None:
    now = [0.0]
    notebook = Notebook(lambda: now[0])
    notebook.overflowed(API, window_tokens=2048)
    assert notebook.measure(API).window_tokens == 2048
    now[0] = PROBE_AFTER_S + 1
    notebook.learn(API, "temperature")
    assert notebook.measure(API).window_tokens is None
    assert [lesson.what for lesson in notebook.due()] == []  # a window is not probed: it is learnt anew
    assert (API, WINDOW) in notebook.untold()


def test_only_who_is_let_tries_again_and_only_once() -> None:
    notebook = Notebook()
    notebook.learn(API, "temperature")
    assert not notebook.may_probe(API, "temperature")
    notebook.let_probe({(API, "temperature")})
    assert [notebook.may_probe(API, "temperature") for _ in range(2)] == [True, False]
