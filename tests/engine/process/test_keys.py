"""Keys in a real worker: rotated, refused and revoked while tasks run, of which none fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.signals.unusual.alarms import Alarm, swap
from fleet.store.client import connect
from fleet.vault import Envelope
from tests.engine.conftest import StartWorker
from tests.engine.load import Load
from tests.every import every
from tests.vault.keyed_api import KeyedApi, keyed_api
from tests.waiting import wait_until

ONE, TWO, THREE = (f"sk-canary-{name}-0123456789abcdef" for name in ("one", "two", "three"))
WAIT_S = 60


@pytest.fixture
def api(tmp_path: Path, fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedApi]:
    """An API that takes the first key, a pool that calls it, and that key in the encrypted file."""
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    with keyed_api(ONE) as served:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{served.url}"\ntimeout_s = 5\n'
            '[pools.research]\nbots = 20\nprovider = "acme"\nmodel = "m"\n'
            '[limits."acme/m"]\nrpm = 60000\n'
        )
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        Envelope(tmp_path / "home").add("acme", ONE)
        yield served
    config.current.cache_clear()


def fleet(*words: str, stdin: str | None = None) -> str:
    done = CliRunner().invoke(main, words, input=stdin, catch_exceptions=False, prog_name="fleet")
    assert done.exit_code == 0, done.output
    return done.output


def test_a_key_is_rotated_under_load_without_a_failed_call_and_one_that_dies_early_costs_no_task(
    api: KeyedApi, start_worker: StartWorker
) -> None:
    start_worker()
    stream = Load("research", every_s=0.01)
    wait_until(lambda: len(api.calls) > 20, WAIT_S, lambda: f"calls with the first key, got {len(api.calls)}")
    api.keys.add(TWO)
    fleet("keys", "rotate", "acme", stdin=f"{TWO}\n")
    wait_until(lambda: TWO in api.keys_since(0), 5, lambda: "a call with the new key")
    since = next(at for at, key in api.calls if key == TWO)
    wait_until(lambda: len(api.calls) > 200, WAIT_S, lambda: "more calls")
    assert api.keys_since(since + 0.5) == {TWO}
    # The provider revokes it, and the new one has only just been written: the 401 finds it.
    api.keys.add(THREE)
    Envelope(config.home_path()).add("acme", THREE, old_until=time.time())
    api.keys.discard(TWO)
    wait_until(lambda: THREE in api.keys_since(0), 5, lambda: "a call with the third key")
    results = stream.results()
    assert every(one.status == "ok" and one.attempts <= 2 for one in results)
    assert len(results) > 50


def test_a_revoked_key_pays_for_no_call_after_two_seconds_and_tasks_wait_for_the_next_one(
    api: KeyedApi, start_worker: StartWorker, redis_url: str
) -> None:
    worker = start_worker()
    stream = Load("research", every_s=0.01)
    wait_until(lambda: len(api.calls) > 20, WAIT_S, lambda: f"calls, got {len(api.calls)}")
    fleet("keys", "revoke", "acme")
    revoked_at, before = time.time(), len(stream.handles)
    wait_until(lambda: len(stream.handles) > before + 150, WAIT_S, lambda: "more tasks")
    wait_until(lambda: "hold_put" in worker.log, WAIT_S, lambda: f"the pool waits; log:\n{worker.log}")
    assert api.keys_since(revoked_at + 2) == set()
    waiting = json.loads(fleet("why", stream.handles[-1].id, "--json"))
    assert "is revoked" in json.dumps(waiting)
    assert json.loads(fleet("keys", "show", "acme", "--json"))["keys"][0]["state"] == "revoked"
    api.keys = {TWO}
    fleet("keys", "add", "acme", stdin=TWO)
    assert every(one.status == "ok" for one in stream.results())
    assert TWO in api.keys_since(revoked_at) and ONE not in api.keys_since(revoked_at + 2)


def test_tasks_of_a_suspended_key_wait_and_say_why_until_it_is_resumed(
    api: KeyedApi, start_worker: StartWorker, redis_url: str
) -> None:
    alarm = Alarm("key", "acme", time.time(), 72, 720, stage="suspended")
    with connect(redis_url) as client:
        assert swap(client, alarm.field_name, b"", alarm)
    worker = start_worker()
    from fleet import submit_task  # inside tests only

    handles = [submit_task.delay("What is 2+2?", pool="research") for _ in range(5)]
    wait_until(lambda: "hold_put" in worker.log, WAIT_S, lambda: f"the pool waits; log:\n{worker.log}")
    why = fleet("why", handles[-1].id)
    assert "acme rests, for its use is unusual" in why and "fleet keys resume acme" in why
    stats = json.loads(fleet("stats", "--json"))
    assert [one["kind"] for one in stats["diagnoses"]] == ["use_unusual"]
    assert stats["diagnoses"][0]["tasks"] == 5
    assert api.calls == []
    fleet("keys", "resume", "acme")
    assert every(handle.get(timeout=WAIT_S).status == "ok" for handle in handles)
