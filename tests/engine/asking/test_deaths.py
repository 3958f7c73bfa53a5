"""Workers and producers that are killed in the middle of an ask: it ends as it would, and nothing is left locked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import fleet
from fleet.engine.asking.outcome import AskOutcome
from fleet.store import keys
from fleet.store.client import connect
from tests.engine.asking.conftest import AskStage
from tests.waiting import wait_until
from tests.worker_process import REPO

#: A producer that asks, to be killed while its members run and wait.
PRODUCER = """
import fleet
fleet.ask_fleet("What is 6 * 7?", n=6, pools=["slow", "never"], at_once=6, deadline_s=6)
"""


def test_members_of_a_killed_worker_are_answered_by_other_bots_and_no_bot_answers_twice(stage: AskStage) -> None:
    first = stage.worker()

    async def go() -> AskOutcome:
        asking = asyncio.ensure_future(
            fleet.ask_fleet_async("What is 6 * 7?", n=9, pools=["slow"], at_once=9, stop="shadow", deadline_s=90)
        )
        with connect(stage.server.url) as client:
            await asyncio.to_thread(
                wait_until, lambda: client.hlen(keys.bot_claims("slow")) == 9, 30, lambda: "all run"
            )
        first.kill()
        return await asking

    found = asyncio.run(go())
    assert (found.status, found.answer, found.answered) == ("ok", "42", 9)
    assert len({one.bot for one in found.members}) == 9


def test_a_killed_producer_leaves_nothing_locked_and_its_members_end_by_themselves(stage: AskStage) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPO), "FLEET_CONFIG": str(stage.folder / "fleet.toml")}
    with connect(stage.server.url) as client:
        wait_until(lambda: client.hlen(keys.bot_claims("slow")) == 0, 60, lambda: "nothing of another test runs")
        producer = subprocess.Popen([sys.executable, "-c", PRODUCER], env=env, cwd=stage.folder)
        queue = f"{keys.queue('never')}\x06\x162"
        try:
            wait_until(lambda: client.hlen(keys.bot_claims("slow")) == 3, 60, lambda: "its members run")
            wait_until(lambda: client.llen(queue) == 3, 10, lambda: "the others wait")
        finally:
            producer.send_signal(signal.SIGKILL)
            producer.wait()
        wait_until(lambda: client.hlen(keys.bot_claims("slow")) == 0, 30, lambda: "their bots are free")
        wait_until(lambda: client.hlen(keys.unacked()) == 0, 30, lambda: "no message is held")
        wait_until(lambda: client.llen(queue) == 0, 60, lambda: "what nobody wants any more is gone")
        assert not [key for key in client.scan_iter("*") if b"ask" in key and client.ttl(key) < 0]
