"""`fleet keys` from a shell: values come from stdin, and no output, event or file shows one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.signals.unusual.alarms import Alarm, swap
from fleet.store import vault_keys
from fleet.vault import Envelope, key_fingerprint
from tests.every import every
from tests.vault.keyed_api import KeyedApi, keyed_api
from tests.worker_process import REPO

ONE, TWO = "sk-canary-one-0123456789abcdef", "sk-canary-two-0123456789abcdef"


@pytest.fixture
def api(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedApi]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    monkeypatch.setenv("A_KEY", ONE)
    with keyed_api(ONE) as served:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "openai"\nbase_url = "{served.url}"\n'
            '[providers.other]\nkind = "openai"\napi_key_env = "A_KEY"\n'
            '[providers.far]\nkind = "openai"\n'
            '[pools.research]\nprovider = "acme"\nmodel = "m"\n'
        )
        config.current.cache_clear()
        yield served
    config.current.cache_clear()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as found:
        yield found


def fleet(*words: str, stdin: str | None = None, code: int = 0) -> str:
    done = CliRunner().invoke(main, words, input=stdin, catch_exceptions=False, prog_name="fleet")
    assert done.exit_code == code, done.output
    assert ONE not in done.output and TWO not in done.output
    return done.output


def rows() -> dict[str, dict[str, object]]:
    return {row["provider"]: row for row in json.loads(fleet("keys", "--json"))["keys"]}


def test_a_key_is_added_listed_rotated_and_revoked(api: KeyedApi, client: redis.Redis, tmp_path: Path) -> None:
    assert {name: row["state"] for name, row in rows().items()} == {
        "acme": "not needed", "far": "missing", "other": "current",
    }  # fmt: skip
    told = fleet("keys", "add", "acme", stdin=f"{ONE}\n")
    assert f"key {key_fingerprint('acme', ONE)}, version 1" in told and "home-key" in told
    assert rows()["acme"]["version"] == "1"
    told = fleet("keys", "rotate", "acme", "--json", stdin=TWO)
    assert json.loads(told) == {
        "provider": "acme", "fingerprint": key_fingerprint("acme", TWO), "version": "2",
        "revokes": [key_fingerprint("acme", ONE)], "revokes_in_s": 125.0,
    }  # fmt: skip
    shown = fleet("keys", "show", "acme")
    assert re.search(r"version   1: [0-9a-f]{4}, draining", shown) and "version   2" in shown
    fleet("keys", "revoke", "acme")
    assert rows()["acme"]["state"] == "revoked"
    events = json.loads(fleet("events", "--json"))["events"]
    assert [event["name"] for event in events] == ["key_revoked", "key_rotated", "key_added"]
    assert every(event["fields"]["by"] and event["fields"]["host"] for event in events)
    assert len(client.hgetall(vault_keys.revoked_keys())) == 2
    assert every(TWO.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_cannot_be_done_is_refused_and_changes_nothing(api: KeyedApi, client: redis.Redis) -> None:
    assert "run `fleet keys add acme`" in fleet("keys", "rotate", "acme", stdin=ONE, code=2)
    assert "expected a key in the prompt or on stdin, got nothing" in fleet("keys", "add", "acme", stdin="", code=2)
    assert "without spaces" in fleet("keys", "add", "acme", stdin="two words", code=2)
    assert "comes from `api_key_env`" in fleet("keys", "add", "other", stdin=ONE, code=2)
    assert "expected a provider of" in fleet("keys", "show", "acne", code=2)
    assert "four hexadecimal digits" in fleet("keys", "revoke", "acme", "--fingerprint", "xyz", code=2)
    assert "it needs none" in fleet("keys", "revoke", "acme", code=2)
    assert "value-on-the-command-line" in fleet("keys", "add", "acme", "value-on-the-command-line", code=2)
    fleet("keys", "add", "acme", stdin=ONE)
    assert "fleet keys rotate acme" in fleet("keys", "add", "acme", stdin=TWO, code=2)
    assert "again" in fleet("keys", "rotate", "acme", stdin=ONE, code=2)
    assert client.exists(vault_keys.revoked_keys()) == 0
    fleet("keys", "revoke", "acme")
    assert "was not revoked" in fleet("keys", "add", "acme", stdin=ONE, code=2)
    assert [one.version for one in Envelope(config.home_path()).read().of("acme")] == [1]


def test_what_is_unusual_about_a_key_is_told_until_somebody_resumes_it(api: KeyedApi, client: redis.Redis) -> None:
    alarm = Alarm("key", "acme", 1.8e9, 72, 720, stage="suspended")
    assert swap(client, alarm.field_name, b"", alarm)
    told = "720 requests a minute, 72 are usual, since 2027-01-15 08:00:00 UTC; its calls wait until it is resumed"
    assert rows()["acme"]["unusual"] == f"{told}: fleet keys resume acme"
    assert told in " ".join(fleet("keys", "show", "acme").split())
    assert json.loads(fleet("keys", "resume", "acme", "--json")) == {"name": "acme", "resumed": True}
    assert rows()["acme"]["unusual"] == ""
    assert "there was no alarm" in fleet("keys", "resume", "acme")
    assert "there was no alarm" in fleet("keys", "resume", "research-001")
    assert "expected a key (acme) or a bot of a pool, got 'acne'" in fleet("keys", "resume", "acne", code=2)


def test_a_key_from_a_variable_is_revoked_too(api: KeyedApi, client: redis.Redis) -> None:
    fleet("keys", "revoke", "other")
    assert list(client.hgetall(vault_keys.revoked_keys())) == [f"other|{key_fingerprint('other', ONE)}".encode()]
    assert rows()["other"]["state"] == "revoked"


def test_check_asks_the_api_with_the_key_and_fails_when_one_is_refused(api: KeyedApi) -> None:
    fleet("keys", "add", "acme", stdin=ONE)
    assert fleet("keys", "check", "acme") == "acme: ok: taken\n"
    api.keys.clear()
    told = json.loads(fleet("keys", "check", "acme", "--json", code=1))["keys"][0]
    assert (told["ok"], told["said"].partition(":")[0]) == (False, "refused with 401")
    assert "fleet keys add far" in fleet("keys", "check", "far", code=1)


def test_a_damaged_file_is_told_by_the_list_and_by_the_doctor(api: KeyedApi) -> None:
    fleet("keys", "add", "far", stdin=ONE)
    fleet("keys", "add", "acme", stdin=TWO)
    envelope = Envelope(config.home_path())
    envelope.path.write_bytes(envelope.path.read_bytes()[:-40])
    assert "changed or cut" in str(rows()["far"]["trouble"])
    doctor = CliRunner().invoke(main, ("doctor", "--json"), prog_name="fleet").stdout
    assert "changed or cut" in doctor and ONE not in doctor


def test_a_passphrase_seals_the_file_and_workers_need_its_file(api: KeyedApi, tmp_path: Path) -> None:
    words = "correct horse battery staple"
    fleet("keys", "add", "acme", stdin=ONE)
    assert "12 characters or more" in fleet("keys", "passphrase", stdin="short", code=2)
    assert "expected one line" in fleet("keys", "passphrase", stdin="one\ntwo", code=2)
    told = fleet("keys", "passphrase", stdin=f"{words}\n")
    assert "set vault.passphrase_file" in told and words not in told
    assert "vault.passphrase_file" in str(rows()["acme"]["trouble"])
    assert "vault.passphrase_file" in fleet("keys", "rotate", "acme", stdin=TWO, code=2)
    file = tmp_path / "passphrase"
    file.write_text(words)
    file.chmod(0o600)
    with (tmp_path / "fleet.toml").open("a") as settings:
        settings.write(f'[vault]\npassphrase_file = "{file}"\n')
    config.current.cache_clear()
    assert rows()["acme"]["state"] == "current"
    assert json.loads(fleet("keys", "rotate", "acme", "--json", stdin=TWO))["version"] == "2"
    assert json.loads(fleet("events", "--name", "keys_resealed", "--json"))["events"]


def test_a_terminal_asks_once_for_the_passphrase_and_then_for_the_key(api: KeyedApi, tmp_path: Path) -> None:
    Envelope(config.home_path()).reseal("correct horse battery staple")
    command = [sys.executable, "-m", "fleet.cli.main", "keys", "add", "acme"]
    child, terminal = os.openpty()
    process = subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(REPO)}, start_new_session=True)  # fmt: skip
    os.close(terminal)
    assert process.stderr is not None and process.stdout is not None
    for question, answer in (("Key of acme: ", ONE), ("Passphrase: ", "correct horse battery staple")):
        said = ""
        while not said.endswith(question):
            letter = process.stderr.read(1).decode()
            assert letter, said
            said += letter
        os.write(child, f"{answer}\n".encode())
    told, _ = process.communicate(timeout=60)
    os.close(child)
    assert process.returncode == 0 and b"version 1" in told and ONE.encode() not in told
