"""Rollouts on a real fleet: what is bad goes back by itself and no task pays for it, what is good can be finished."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

import fleet
from fleet import config
from fleet.cli.main import main
from fleet.cli.operate.why import read_story
from fleet.engine.answers.rollouts import SENT
from fleet.engine.local_simulator import stop_simulator
from fleet.engine.operations.overview import open_overview
from fleet.engine.operations.rollouts.board import begin
from fleet.errors import ConfigurationError
from fleet.models import BotResult
from fleet.rollouts import Rollout, read_rollouts
from fleet.signals.metrics import exposition
from fleet.store import answer_keys, keys
from fleet.store.client import connect
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES, WorkerProcess

TOML = """
[redis]
url = "{url}"

[pools.lab]
bots = 6
candidates = ["odd-looping", "odd-moderated", "simulated-2"]

[pools.other]
bots = 3

[simulator]
latency_ms = 5

[worker]
slots = 12
"""


class Stage:
    """A fleet with one worker at a time."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder, self.server = folder, server
        self.worker = self.new_worker()

    def new_worker(self) -> WorkerProcess:
        env = {"FLEET_HOME": str(self.folder / ".fleet"), "FLEET_CONFIG": str(self.folder / "fleet.toml")}
        return WorkerProcess(self.folder, "-Q", "fleet.lab,fleet.other", env=env, app=QUICK_LEASES).wait_ready()

    def kill(self) -> None:
        """kill -9, and start another one."""
        self.worker.kill()
        self.worker = self.new_worker()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, redis_process: RedisServer) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("rollouts")
    (folder / "fleet.toml").write_text(TOML.format(url=redis_process.url))
    (folder / "terse.txt").write_text("You answer in as few words as you can.\n")
    with connect(redis_process.url) as client:
        client.flushall()
    made = Stage(folder, redis_process)
    with ExitStack() as stack:
        stack.callback(lambda: stop_simulator(folder / ".fleet"))
        stack.callback(lambda: made.worker.kill())
        yield made


@pytest.fixture
def client(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_CONFIG", str(stage.folder / "fleet.toml"))
    config.current.cache_clear()
    with connect(stage.server.url) as client:
        yield client


def command(*words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main, ["rollout", *words, "--json"], prog_name="fleet", catch_exceptions=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def answered(number: int, **wishes: Any) -> list[BotResult]:
    """Have tasks done, and return their results."""
    asked = [fleet.submit_task.delay(f"What is {n} * 7?", pool="lab", **wishes) for n in range(number)]
    return [one.get(timeout=60) for one in asked]


def is_running(client: redis.Redis) -> bool:
    return bool(client.hexists(answer_keys.rollouts(), "lab"))


def wait_until_workers_know(want: bool) -> None:
    """Wait until a worker gives some of a few tasks what is tried, or none any more."""
    wait_until(lambda: any(SENT in one.sent for one in answered(12)) is want, 30, "workers know")


@pytest.mark.parametrize("model", ["odd-looping", "odd-moderated"])
def test_a_model_that_is_bad_goes_back_and_no_task_pays_for_it(stage: Stage, client: redis.Redis, model: str) -> None:
    made = command("lab", "--model", model, "--share", "50%")
    results: list[BotResult] = []

    def is_over() -> bool:
        results.extend(answered(10))
        return not is_running(client)

    results += answered(4)
    stage.kill()  # what was counted and what runs is in Redis
    wait_until(is_over, 90, lambda: str(read_rollouts(client)))
    assert Counter(one.status for one in results) == {"ok": len(results)}
    assert every(one.answer == str(n * 7) for one in results for n in [round(float(one.answer) / 7)])
    (shown,) = [one for one in command("list")["rollouts"] if one["id"] == made["id"]]
    assert shown["word"] == "back" and "of its tasks have a good first answer" in shown["why"]
    assert shown["new_failed"] == shown["new_tasks"] >= 3 and shown["old_failed"] == 0
    events = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in client.xrange(keys.events())]
    mine = [one["event"] for one in events if one.get("rollout") == made["id"]]
    assert mine == ["rollout_started", "rollout_back"]
    with open_overview(config.current()) as overview:
        view = overview.read()
    (finding,) = [one for one in view.diagnoses if one.kind == "rollout_back"]
    assert finding.severity == "info" and finding.about == "lab" and model in finding.sentence
    assert not client.zcard(keys.quarantined("lab")), "no bot answers for what was tried"
    wait_until_workers_know(False)


def test_two_operators_start_one_rollout_and_stop_it_once(stage: Stage, client: redis.Redis) -> None:
    done: list[str] = []

    def start(persona: str) -> None:
        wanted = Rollout(id="", pool="lab", persona=persona, share=0.5, since=0)
        try:
            with connect(stage.server.url) as mine:
                begin(mine, config.current(), wanted, by=persona)
            done.append("started")
        except ConfigurationError as error:
            done.append(str(error))

    both = [threading.Thread(target=start, args=(persona,)) for persona in ("creative", "conservative")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    (refused,) = [one for one in done if one != "started"]
    assert "expected no rollout there, got persona" in refused and "`fleet rollout stop lab`" in refused
    assert command("stop", "lab")["stopped"] is True
    assert command("stop", "lab")["stopped"] is False
    assert not is_running(client)


def test_a_persona_of_ones_own_that_is_good_can_be_finished(stage: Stage, client: redis.Redis) -> None:
    made = command("lab", "--persona-file", str(stage.folder / "terse.txt"), "--share", "50%")
    assert made["persona"] == "terse" and "prompt" not in made
    wait_until_workers_know(True)
    results = answered(60)
    tried = [one for one in results if SENT in one.sent]
    assert 15 <= len(tried) <= 45 and {one.persona for one in tried} == {"terse"}
    assert "terse" not in {one.persona for one in results if one not in tried}
    assert Counter(one.status for one in results) == {"ok": 60} and is_running(client)
    story = read_story(tried[0].task_id, config.current())
    assert f"its bot worked under rollout {made['id']}: persona terse (`fleet rollout show lab`)" in story.lines
    with open_overview(config.current()) as overview:
        metrics = exposition(overview.read()).decode()
    assert 'fleet_rollout_share{pool="lab"} 0.5' in metrics
    assert re.search(r'fleet_rollout_tasks\{outcome="good",pool="lab",setting="new"\} [1-9]', metrics)
    shown = CliRunner().invoke(main, ["rollout", "show", "lab"], prog_name="fleet").stdout
    assert "100.0 beside 100.0 % good" in shown
    over = command("finish", "lab")
    assert over["finished"] and over["toml"] == [
        "[pools.lab]",
        'persona.archetypes = ["analytical"]',
        'persona.system_prompts.analytical = """..."""  # the text of persona terse',
    ]
    wait_until_workers_know(False)


def test_a_model_that_is_good_is_asked_and_becomes_the_setting(stage: Stage, client: redis.Redis) -> None:
    command("lab", "--model", "simulated-2", "--share", "50%")
    wait_until_workers_know(True)
    models = {one.model for one in answered(30) if SENT in one.sent}
    assert models == {"simulated-2"} and is_running(client)
    assert command("finish", "lab")["toml"][:2] == ["[pools.lab]", 'model = "simulated-2"']


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lab"], "expected --persona, --persona-file or --model, got none"),
        (["lab", "--model", "gpt-9"], "candidates"),
        (["lab", "--persona", "conservativ"], "the nearest known one is `conservative`"),
        (["lab", "--persona", "pirate"], "analytical, conservative, creative, exploratory; `--persona-file FILE`"),
        (["lab", "--persona", "creative", "--share", "80%"], "--share: expected 0.1% to 50%, got 80.0%"),
        (["lab", "--persona", "creative", "--share", "most"], "expected a share such as 5% or 0.05, got 'most'"),
        (["lap", "--persona", "creative"], "pool 'lap'"),
        (["show", "nobody"], "expected a pool or id"),
    ],
)
def test_what_cannot_be_tried_is_refused(client: redis.Redis, words: list[str], said: str) -> None:
    assert said in command(*words, code=2)


def test_a_pool_without_a_rollout_asks_redis_nothing_more_for_its_tasks(stage: Stage, client: redis.Redis) -> None:
    command("lab", "--persona", "creative", "--share", "50%")
    try:
        for _ in range(2):
            fleet.submit_task.delay("What is 1 + 1?", pool="other").get(timeout=30)
        (state,) = [one for one in read_rollouts(client) if one.rollout.ended is None]
        assert (state.new.tasks, state.old.tasks) == (0, 0)
    finally:
        command("stop", "lab")
