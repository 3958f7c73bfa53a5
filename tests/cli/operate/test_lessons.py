"""`fleet limits` shows what models have taught, `fleet limits forget` forgets it; on a real Redis."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.lesson_checks import known_lessons, lesson_checks
from fleet.engine.answers.lessons import SharedLessons, read_lessons
from fleet.lessons import UNSENT, Notebook
from fleet.store.client import Store, connect
from tests.every import every

API = "simulator/simulated-1"


def fleet(*args: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(args))
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(autouse=True)
def taught(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model have refused two things, counted otherwise, and named its window."""
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    notebook = Notebook()

    async def tell() -> None:
        store = Store(redis_url)
        shared = SharedLessons(store, notebook)
        notebook.learn(API, "temperature")
        notebook.learn(API, "role:system")
        notebook.learn(API, f"{UNSENT}verbosity")
        notebook.counted(API, estimated=1000, true=1620, weight=0.5)
        notebook.overflowed(API, window_tokens=2048)
        await shared.close()
        await store.close()

    asyncio.run(tell())


def test_limits_lists_what_a_model_refuses_and_how_it_counts() -> None:
    shown = fleet("limits").output
    assert "  refuses   temperature (learnt 20" in shown
    assert "  unsent    verbosity (learnt 20" in shown
    assert "tried again in 24 h)" in shown
    assert "  refuses   the role system" in shown
    assert "  counts    1.31 tokens where Fleet estimates one" in shown
    assert "  window    2,048 tokens" in shown


def test_limits_lists_it_for_programs() -> None:
    lessons = json.loads(fleet("limits", "--json").output)["limits"][0]["lessons"]
    assert {lesson.get("refuses") for lesson in lessons} == {None, "temperature", "role:system"}
    assert [lesson["unsent"] for lesson in lessons if "unsent" in lesson] == ["verbosity"]
    assert [lesson["ratio"] for lesson in lessons if "ratio" in lesson] == [1.31]
    assert [lesson["window_tokens"] for lesson in lessons if "window_tokens" in lesson] == [2048]
    assert every(lesson["tried_again_at"] > lesson["learnt_at"] for lesson in lessons if "refuses" in lesson)


def test_doctor_says_which_pools_rest_on_what_their_model_refuses() -> None:
    settings = config.current()
    found = {check.name: check.found for check in lesson_checks(settings, known_lessons(settings))}
    pool = next(iter(settings.pools))
    assert found[f"pools.{pool}: temperatures"] == f"{API} refuses `temperature`: its bots differ by archetype alone"
    assert found[f"pools.{pool}: context windows"] == f"{API} takes 2,048 tokens, its bots have up to 8,192"


def test_forget_forgets_one_thing_or_all_of_them(redis_url: str) -> None:
    assert fleet("limits", "forget", API, "temperature").output == f"{API}: forgot 1 lesson: temperature\n"
    assert fleet("limits", "forget", API, "verbosity").output == f"{API}: forgot 1 lesson: verbosity\n"
    assert fleet("limits", "forget", API, "window").output == f"{API}: forgot 1 lesson: window\n"
    assert fleet("limits", "forget", API).output == f"{API}: forgot 2 lessons: ratio, role:system\n"
    assert fleet("limits", "forget", API).output == f"{API}: nothing was known\n"
    with connect(redis_url) as client:
        assert read_lessons(client) == []


def test_forgetting_a_model_that_nobody_uses_says_which_there_are() -> None:
    assert API in fleet("limits", "forget", "simulator/simulated-2", code=2).output
