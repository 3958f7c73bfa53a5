"""A key is rotated under load: plain calls, streams and requests of an SDK; judged by the simulator's own ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.vault import Envelope
from fleet.workers.simulator.ledger import key_label
from tests.engine.conftest import StartWorker
from tests.engine.load import Load
from tests.engine.process.test_keys import ONE, THREE, TWO, WAIT_S, fleet
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send

BOTS = """\
import asyncio

async def asks(task, bot):
    client, told = bot.openai(), [{"role": "user", "content": task.prompt}]
    async def streamed():
        stream = await client.chat.completions.create(model="gpt-9", messages=told, stream=True)
        return "".join([piece.choices[0].delta.content or "" async for piece in stream if piece.choices])
    await client.models.list()
    return "".join(await asyncio.gather(*(streamed() for _ in range(3)), bot.chat(task.prompt)))[:20]
"""


@pytest.fixture
def simulator(tmp_path: Path, fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A simulator behind a provider that needs a key, two pools that call it, and that key in the encrypted file."""
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    (tmp_path / "rotated_bots.py").write_text(BOTS)
    with running(rpm=10**9, tpm=10**12, latency_ms=50) as url:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{url}/v1"\ntimeout_s = 5\n'
            '[pools.plain]\nbots = 20\nprovider = "acme"\nmodel = "m"\n'
            '[pools.sdk]\nbots = 20\nprovider = "acme"\nmodel = "m"\nfunction = "rotated_bots:asks"\n'
            '[limits."acme/m"]\nrpm = 60000\n'
        )
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        Envelope(tmp_path / "home").add("acme", ONE)
        yield url
    config.current.cache_clear()


def test_no_call_and_no_task_fails_while_a_key_is_rotated_and_the_old_one_is_used_no_more(
    simulator: str, start_worker: StartWorker, request: pytest.FixtureRequest
) -> None:
    def takes(*keys: str) -> None:
        labels = ",".join(map(key_label, keys))
        assert send(simulator, f"/keys?only={labels}", method="POST").json == {"only": sorted(map(key_label, keys))}

    def account(key: str) -> dict[str, Any]:
        found: dict[str, Any] = send(simulator, "/ledger").json["keys"].get(key_label(key), {})
        return found

    takes(ONE)
    worker = start_worker()
    load = Load("plain", "sdk", every_s=0.02)
    request.addfinalizer(load.stop)
    wait_until(lambda: account(ONE).get("served", 0) > 100, WAIT_S, lambda: f"calls with the first key:\n{worker.log}")

    takes(ONE, TWO)  # the provider takes both for a while
    fleet("keys", "rotate", "acme", stdin=f"{TWO}\n")
    wait_until(lambda: account(TWO).get("served", 0) > 100, WAIT_S, lambda: f"calls with the new key:\n{worker.log}")
    first = account(ONE)
    assert first["rejected_401"] == 0
    one = json.loads(fleet("keys", "show", "acme", "--json"))["keys"][0]["versions"][0]["fingerprint"]
    revoked_at = time.time()
    fleet("keys", "revoke", "acme", "--fingerprint", one)
    time_of_last_call = account(ONE)["last_call_at_s"]
    assert time_of_last_call - revoked_at <= 2.0

    # The provider takes only the third from one moment to the next, before its time has come.
    fleet("keys", "rotate", "acme", "--in", "1h", stdin=f"{THREE}\n")
    takes(THREE)
    wait_until(lambda: account(THREE).get("served", 0) > 100, WAIT_S, lambda: f"calls with the third:\n{worker.log}")
    results = load.results()
    failed = [result for result in results if result.status != "ok"]
    assert failed == [], f"rotation_failed={len(failed)} of {len(results)}; log:\n{worker.log}"
    assert account(ONE)["last_call_at_s"] - revoked_at <= 2.0
    assert "breaker_opened" not in worker.log and "hold_put" not in worker.log
    ledger = send(simulator, "/ledger").json
    assert ledger["total"]["served"] > 300
    assert every_canary_is_absent(worker.log)


def every_canary_is_absent(text: str) -> bool:
    return not any(key in text for key in (ONE, TWO, THREE))
