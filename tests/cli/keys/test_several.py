"""`fleet keys` with several keys of a provider, keys that serve later, keys that are due, and keys of tools."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.store import vault_keys
from fleet.vault import Envelope, key_fingerprint
from tests.cli.keys.test_commands import ONE, TWO, fleet


@pytest.fixture
def home(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    old = tmp_path / "old-key"
    old.touch(0o600)
    old.write_text(ONE)
    long_ago = time.time() - 100 * 86_400
    os.utime(old, (long_ago, long_ago))
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    (tmp_path / "fleet.toml").write_text(
        '[providers.acme]\nkind = "openai"\nkeys = ["a", "b"]\n'
        f'[providers.old]\nkind = "openai"\nrotate_days = 90\napi_key_file = "{old}"\n'
        f'[tools.search]\nbase_url = "https://api.example.com"\napi_key_file = "{old}"\n'
        '[pools.research]\nprovider = "acme"\nmodel = "m"\n'
    )
    config.current.cache_clear()
    yield tmp_path / "home"
    config.current.cache_clear()


def rows() -> dict[str, dict[str, object]]:
    return {row["key"]: row for row in json.loads(fleet("keys", "--json"))["keys"]}


def test_each_key_has_a_name_a_value_and_a_life_of_its_own(home: Path, redis_url: str) -> None:
    fleet("keys", "add", "acme/a", stdin=ONE)
    fleet("keys", "add", "acme/b", stdin=TWO)
    found = rows()
    assert {name: row["state"] for name, row in found.items()} == {
        "acme/a": "current", "acme/b": "current", "old": "current", "tools/search": "current",
    }  # fmt: skip
    assert [found[f"acme/{label}"]["fingerprint"] for label in "ab"] == [
        key_fingerprint("acme", key) for key in (ONE, TWO)
    ]
    assert "expected one of the keys acme/a, acme/b" in fleet("keys", "revoke", "acme", code=2)
    assert "expected a provider of acme/a, acme/b, old" in fleet("keys", "show", "acme/c", code=2)
    fleet("keys", "revoke", "acme/a")
    assert (rows()["acme/a"]["state"], rows()["acme/b"]["state"]) == ("revoked", "current")
    with redis.Redis.from_url(redis_url) as client:
        assert list(client.hgetall(vault_keys.revoked_keys())) == [f"acme|{key_fingerprint('acme', ONE)}".encode()]
    assert "was not revoked" in fleet("keys", "rotate", "acme/b", stdin=ONE, code=2), "under no label"


def test_a_key_that_is_to_serve_later_is_stored_now_and_the_old_one_ends_when_its_calls_have_had_their_time(
    home: Path,
) -> None:
    fleet("keys", "add", "acme/a", stdin=ONE)
    told = json.loads(fleet("keys", "rotate", "acme/a", "--in", "2h", "--json", stdin=TWO))
    assert (told["starts_in_s"], told["revokes_in_s"]) == (pytest.approx(7200, abs=60), pytest.approx(7325, abs=60))
    assert rows()["acme/a"]["fingerprint"] == key_fingerprint("acme", ONE)
    shown = fleet("keys", "show", "acme/a")
    assert "ahead" in shown and "serves from" in shown and "draining" in shown
    later = Envelope(home, clock=lambda: time.time() + 7300).read()
    serving = later.serving("acme/a", time.time() + 7300)
    assert serving is not None and serving.version == 2
    assert "expected a time ahead" in fleet("keys", "rotate", "acme/a", "--at", "2020-01-01", stdin=ONE, code=2)
    assert "expected a length of time" in fleet("keys", "rotate", "acme/a", "--in", "soon", stdin=ONE, code=2)
    assert "expected one of --now" in fleet("keys", "rotate", "acme/a", "--in", "1h", "--now", stdin=ONE, code=2)
    assert "comes from `api_key_file`" in fleet("keys", "rotate", "tools/search", stdin=TWO, code=2)
    refused = fleet("keys", "rotate", "old", "--in", "1h", stdin=TWO, code=2)
    assert "write the new key into that file" in refused and "at that time" in refused


def test_a_key_that_is_older_than_its_days_is_told_by_the_list_and_by_the_doctor(home: Path) -> None:
    assert "due to be replaced for 10 days" in fleet("keys", "show", "old")
    assert "fleet keys rotate old" in fleet("keys")
    due = rows()
    assert due["old"]["due_in_s"] == pytest.approx(-10 * 86_400, abs=600) and due["tools/search"]["due_in_s"] is None
    doctor = json.loads(CliRunner().invoke(main, ("doctor", "--json"), prog_name="fleet").stdout)
    checks = {check["name"]: check for check in doctor}
    assert "due to be replaced for 10 days" in json.dumps(checks["key old: age"])
    assert "fleet keys add acme/a" in json.dumps(checks["provider acme/a: key"])
