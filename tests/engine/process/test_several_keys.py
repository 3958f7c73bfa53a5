"""Several keys in a real worker: one that dies or leaks harms nobody; when all do, tasks wait and say for what."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from fleet.vault import Envelope, key_fingerprint
from tests.engine.conftest import StartWorker
from tests.engine.load import Load
from tests.engine.process.test_keys import ONE, THREE, TWO, WAIT_S, fleet
from tests.every import every
from tests.vault.keyed_api import KeyedApi, keyed_api
from tests.waiting import wait_until


@pytest.fixture
def api(tmp_path: Path, fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedApi]:
    """An API that takes two keys, which a pool's provider has in the encrypted file."""
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    with keyed_api(ONE, TWO) as served:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{served.url}"\ntimeout_s = 5\nkeys = ["a", "b"]\n'
            '[pools.research]\nbots = 20\nprovider = "acme"\nmodel = "m"\n'
            '[limits."acme/m"]\nrpm = 60000\n[limits."acme/m/b"]\nrpm = 59000\n'
            '[prices."acme/m"]\ninput_usd_per_mtok = 1.0\noutput_usd_per_mtok = 1.0\n'
        )
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        for label, value in (("a", ONE), ("b", TWO)):
            Envelope(tmp_path / "home").add(f"acme/{label}", value)
        yield served
    config.current.cache_clear()


def test_one_dead_and_one_revoked_key_harm_nobody_and_without_any_tasks_wait_and_say_why(
    api: KeyedApi, start_worker: StartWorker, redis_url: str, request: pytest.FixtureRequest
) -> None:
    worker = start_worker()
    stream = Load("research", every_s=0.01)
    request.addfinalizer(stream.stop)
    wait_until(lambda: {ONE, TWO} <= api.keys_since(0), WAIT_S, lambda: f"calls with both keys; log:\n{worker.log}")
    api.keys = {TWO}
    dead_at = time.time()
    wait_until(lambda: "breaker_opened limit=acme/m/a" in worker.log, WAIT_S, lambda: f"a breaker; log:\n{worker.log}")
    seen = len(api.calls)
    wait_until(lambda: len(api.calls) > seen + 50, WAIT_S, lambda: "calls with the other key")
    assert "hold_put" not in worker.log, "nobody waits"
    limits = {row["limit"]: row for row in json.loads(fleet("limits", "--json"))["limits"]}
    assert (limits["acme/m/a"]["rpm"], limits["acme/m/b"]["rpm"]) == (60000, 59000)
    breakers = {row["limit"]: row["state"] for row in json.loads(fleet("breakers", "--json"))["breakers"]}
    assert breakers["acme/m/a"] != "closed" and breakers["acme/m/b"] == "closed"

    def billed() -> set[str]:
        return {row["key"] for row in json.loads(fleet("bill", "--by", "key", "--json"))["lines"]}

    wait_until(lambda: billed() == {"a", "b"}, 10, lambda: str(billed()))

    fleet("keys", "revoke", "acme/b")
    revoked_at = time.time()
    wait_until(lambda: "hold_put" in worker.log, WAIT_S, lambda: f"the pool waits; log:\n{worker.log}")
    waiting = json.loads(fleet("why", stream.handles[-1].id, "--json"))
    assert waiting["state"] != "unknown"
    assert TWO not in api.keys_since(revoked_at + 2)

    api.keys = {THREE}
    fleet("keys", "add", "acme/b", stdin=THREE)
    assert every(one.status == "ok" for one in stream.results())
    assert THREE in api.keys_since(dead_at)
    rows = {row["key"]: row for row in json.loads(fleet("keys", "--json"))["keys"]}
    assert rows["acme/b"]["fingerprint"] == key_fingerprint("acme", THREE)
    assert (rows["acme/b"]["label"], rows["acme/b"]["version"]) == ("b", "2")
    assert every(value not in worker.log for value in (ONE, TWO, THREE))
