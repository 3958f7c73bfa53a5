"""Bots that fall into one answer, in a real worker with a real simulator: found, named, treated, and diverse again."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.engine.messages.queues import list_key
from fleet.models import BotTask, Priority
from fleet.store import keys
from fleet.store.client import connect
from tests.diversity.played import pool_of_prose
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess
from tests.workers.simulator.running import running, send

BOTS, WINDOW, QUESTIONS = 40, 200, 1000
TEMPERATURES = [round(0.3 + 0.005 * number, 3) for number in range(BOTS)]
CONFIG = """
[providers.replay]
kind = "simulator"
base_url = "{url}"
[pools.talk]
bots = {bots}
provider = "replay"
[pools.talk.persona]
temperatures = {temperatures}
[worker]
slots = 40
[diversity]
window = {window}
every_s = 0.2
"""


class Talk:
    """The pool `talk`, fed with questions and looked at by its own command."""

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url)
        numbers = itertools.cycle(range(QUESTIONS))
        self._tasks = (BotTask(prompt=f"Question {number}", pool="talk", kind="talk") for number in numbers)

    def feed_until(self, **wanted: object) -> dict[str, Any]:
        """Submit tasks until the state of the class has these values; return that state."""
        state: dict[str, Any] = {}

        def there() -> bool:
            if self._redis.llen(list_key(keys.queue("talk"), Priority.NORMAL)) < WINDOW:  # type: ignore[operator]
                list(submit_many(itertools.islice(self._tasks, WINDOW)))
            time.sleep(0.05)  # the simulator runs in this process, and needs it more
            raw = self._redis.hget(keys.diversity_states(), "talk|talk")
            state.update(json.loads(raw) if raw else {})  # type: ignore[arg-type]
            return all(state.get(name) == value for name, value in wanted.items()) and _is_learnt(state)

        wait_until(there, 60, f"the class has {wanted}")
        return state


def _is_learnt(state: dict[str, Any]) -> bool:
    return bool(state) and state["readings"]["across"]["usual_score"] is not None


def shown() -> dict[str, Any]:
    rows = json.loads(CliRunner().invoke(main, ["diversity", "--json"]).stdout)["classes"]
    assert len(rows) == 1
    return dict(rows[0])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """One recorded answer for each question."""
    path = tmp_path / "answers.jsonl"
    rows = ({"question": f"Question {n}", "answer": pool_of_prose()[n]} for n in range(QUESTIONS))
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_collapsed_bots_are_named_half_of_them_treated_and_all_once_it_helps(
    redis_url: str, tmp_path: Path, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    with running(answers=answers) as url:
        path = tmp_path / "fleet.toml"
        path.write_text(CONFIG.format(url=url, bots=BOTS, temperatures=TEMPERATURES, window=WINDOW))
        config.current.cache_clear()
        worker = WorkerProcess(tmp_path)
        try:
            worker.wait_ready()
            talk = Talk(redis_url)
            assert talk.feed_until(phase="watching")["flagged"] == []
            told = send(url, "/collapse?share=0.4&until=order", method="POST").json
            bad = {TEMPERATURES.index(temperature) + 1 for temperature in told["temperatures"]}
            assert len(bad) == 16
            during = talk.feed_until(phase="treating")
            named, trial = set(during["flagged"]), during["trial"]
            assert len(named & bad) >= 0.9 * max(len(named), len(bad))
            assert abs(len(trial["treated"]) - len(trial["control"])) <= 1
            assert {int(bot) for bot in during["remedies"]} == set(trial["treated"]) == named - set(trial["control"])
            after = talk.feed_until(verdict="remedy 1: helped")
            assert {int(bot) for bot in after["remedies"]} >= named
            verdict = "diversity_verdict pool=talk kind=talk remedy=1 verdict=helped"
            wait_until(lambda: verdict in worker.log, what="the verdict in the log")
        finally:
            worker.kill()
    assert "Question" not in worker.log
    text = CliRunner().invoke(main, ["diversity"]).stdout
    assert "remedy 1: helped" in text
    assert CliRunner().invoke(main, ["diversity", "relearn", "talk", "other"]).exit_code == 2
    assert CliRunner().invoke(main, ["diversity", "relearn", "talk", "talk"]).exit_code == 0
    assert (shown()["phase"], shown()["remedies"]) == ("learning", {})
