"""The encrypted file of keys: what it holds stays whole and secret, whatever is done to it."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.errors import ConfigurationError, KeyMissing
from fleet.vault import Envelope
from fleet.vault.passphrases import ASK, Lock, checked
from tests.every import every

SECRET = "sk-canary-0123456789"


@pytest.fixture
def envelope(tmp_path: Path) -> Envelope:
    return Envelope(tmp_path / "home")


def value_of(envelope: Envelope, provider: str = "acme") -> str:
    found = envelope.read().newest(provider)
    assert found is not None
    return envelope.unseal(found)


def test_a_key_comes_back_and_lies_nowhere_in_the_clear(envelope: Envelope, tmp_path: Path) -> None:
    envelope.add("acme", SECRET)
    assert value_of(envelope) == SECRET
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {envelope.path, envelope.key_file} <= set(files)
    assert every(SECRET.encode() not in path.read_bytes() for path in files)
    assert every(path.stat().st_mode & 0o077 == 0 for path in (envelope.path, envelope.key_file))
    assert SECRET not in repr(envelope.read())


def test_a_second_key_needs_rotate_and_the_first_is_thrown_away_once_it_is_revoked(tmp_path: Path) -> None:
    now = [1000.0]
    envelope = Envelope(tmp_path / "home", clock=lambda: now[0])
    envelope.add("acme", SECRET)
    with pytest.raises(ConfigurationError, match="fleet keys rotate acme"):
        envelope.add("acme", "another")
    before, added = envelope.add("acme", "another", old_until=1060.0)
    assert (added.version, [one.version for one in before.of("acme")]) == (2, [1])
    assert [one.state(now[0]) for one in envelope.read().of("acme")] == ["draining", "current"]
    now[0] = 1061.0
    envelope.add("other", "third")
    old, new = envelope.read().of("acme")
    assert (old.state(now[0]), old.sealed, envelope.unseal(new)) == ("revoked", "", "another")
    with pytest.raises(KeyMissing, match="it is revoked"):
        envelope.unseal(old)


def damages(text: bytes) -> dict[str, bytes]:
    """Return what may become of the file: cut, changed in the middle, a key swapped or its story changed."""
    told = json.loads(text)
    swapped = json.loads(text)
    swapped["keys"][0]["sealed"], swapped["keys"][1]["sealed"] = told["keys"][1]["sealed"], told["keys"][0]["sealed"]
    undone = json.loads(text)
    undone["keys"][0]["revoked_at"] = 1.0
    fewer = {**told, "keys": told["keys"][:1]}
    changed = {"swapped": swapped, "undone": undone, "fewer": fewer, "kinds": {**told, "seal": 7}}
    changed["seal"] = {**told, "seal": told["seal"][::-1]}
    return {
        "empty": b"", "cut": text[: len(text) // 2], "no json": b"x" + text, "list": b"[]",
        **{name: json.dumps(one).encode() for name, one in changed.items()},
    }  # fmt: skip


def test_what_was_changed_or_cut_is_told_and_the_file_before_it_can_be_taken(envelope: Envelope) -> None:
    envelope.add("acme", SECRET)
    envelope.add("other", "second")
    envelope.add("third", "third")
    whole = envelope.path.read_bytes()
    for name, damaged in damages(whole).items():
        envelope.path.write_bytes(damaged)
        with pytest.raises(KeyMissing, match=f"changed or cut: `cp {envelope.backup} {envelope.path}`") as raised:
            envelope.read()
        assert SECRET not in str(raised.value), name
        with pytest.raises(KeyMissing):
            envelope.add("fourth", "fourth")
        assert envelope.path.read_bytes() == damaged, f"{name}: what cannot be read is not overwritten"
    shutil.copy(envelope.backup, envelope.path)
    assert value_of(envelope) == SECRET
    assert value_of(envelope, "other") == "second"


def test_another_key_file_or_none_is_told_and_nothing_is_lost(envelope: Envelope, tmp_path: Path) -> None:
    envelope.add("acme", SECRET)
    right = envelope.key_file.read_bytes()
    Envelope(tmp_path / "other").add("acme", "x")
    shutil.copy(tmp_path / "other-key", envelope.key_file)
    with pytest.raises(KeyMissing, match="got another one"):
        envelope.read()
    envelope.key_file.unlink()
    for attempt in (envelope.read, lambda: envelope.add("b", "c")):
        with pytest.raises(KeyMissing):
            attempt()
    assert not envelope.key_file.exists(), "no new key file where the old one is only missing"
    envelope.key_file.write_bytes(right)
    envelope.key_file.chmod(0o644)
    with pytest.raises(KeyMissing, match="chmod 600"):
        envelope.read()
    envelope.key_file.chmod(0o600)
    assert value_of(envelope) == SECRET


def _add_some(home: Path, name: str) -> None:
    for number in range(8):
        Envelope(home).add(f"{name}{number}", f"secret-{name}{number}")


def test_two_writers_at_once_lose_nothing(envelope: Envelope) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add_some, args=(envelope.home, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    names = [f"{name}{number}" for name in "ab" for number in range(8)]
    assert {name: value_of(envelope, name) for name in names} == {name: f"secret-{name}" for name in names}


#: Writes versions for ever, and says which one is safe.
_WRITER = """
import sys
from pathlib import Path
from fleet.vault import Envelope
envelope = Envelope(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    envelope.add(f"p{number}", f"secret-{number}")
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file_with_all_that_was_said_to_be_safe(envelope: Envelope) -> None:
    draw = random.Random(7)
    envelope.add("acme", SECRET)
    for _ in range(5):
        folder = envelope.home
        shutil.copytree(folder, folder.with_name("again"), dirs_exist_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        time.sleep(draw.uniform(0.0, 0.05))  # not to wait for a state: to strike anywhere in a write
        os.kill(writer.pid, 9)
        safe = [1, *(int(line) for line in writer.stdout.read().split())]
        writer.wait()
        writer.stdout.close()
        assert {number: value_of(envelope, f"p{number}") for number in safe} == {n: f"secret-{n}" for n in safe}
        envelope.add("after", "it")
        assert value_of(envelope) == SECRET
        shutil.rmtree(folder)
        folder.with_name("again").rename(folder)


WORDS, OTHERS = "correct horse battery staple", "another line of words"


@contextmanager
def typed(passphrase: str) -> Iterator[list[str]]:
    """Somebody sits at the terminal and types a passphrase whenever asked; yields how often that was."""
    asked: list[str] = []
    token = ASK.set(lambda: asked.append("") or passphrase)  # type: ignore[func-returns-value]
    try:
        yield asked
    finally:
        ASK.reset(token)


def test_a_passphrase_replaces_the_key_file_in_the_file_and_in_the_one_before(envelope: Envelope) -> None:
    envelope.add("acme", SECRET)
    before = envelope.read()
    envelope.reseal(WORDS)
    envelope.key_file.unlink()
    fresh = Envelope(envelope.home)
    assert fresh.is_opened_by_a_passphrase
    with typed(WORDS) as asked:
        assert value_of(fresh) == SECRET and asked
        shutil.copy(envelope.backup, envelope.path)
        assert value_of(Envelope(envelope.home)) == SECRET
        fresh.add("other", "second")
        after = fresh.read()
    assert not envelope.key_file.exists()
    assert [one.fingerprint for one in before.versions] == [one.fingerprint for one in after.of("acme")]
    assert every(SECRET.encode() not in path.read_bytes() for path in envelope.home.iterdir())


def test_workers_read_the_passphrase_from_a_file_and_without_one_say_what_is_missing(
    envelope: Envelope, tmp_path: Path
) -> None:
    envelope.add("acme", SECRET)
    envelope.reseal(WORDS)
    file = tmp_path / "passphrase"
    file.write_text(f"{WORDS}\n")
    file.chmod(0o600)
    assert value_of(Envelope(envelope.home, passphrase_file=file)) == SECRET
    with pytest.raises(KeyMissing, match=r"set vault\.passphrase_file"):
        Envelope(envelope.home).read()
    file.chmod(0o644)
    with pytest.raises(KeyMissing, match="chmod 600"):
        Envelope(envelope.home, passphrase_file=file).read()
    file.chmod(0o600)
    for text, words in (("", "got none"), ("one\ntwo", "got several")):
        file.write_text(text)
        with pytest.raises(KeyMissing, match=words):
            Envelope(envelope.home, passphrase_file=file).read()


def test_a_wrong_passphrase_and_a_changed_way_to_the_key_are_told_and_lose_nothing(envelope: Envelope) -> None:
    envelope.add("acme", SECRET)
    envelope.reseal(WORDS)
    whole = envelope.path.read_bytes()
    with typed(OTHERS), pytest.raises(KeyMissing, match="the passphrase that") as raised:
        Envelope(envelope.home).add("other", "second")
    assert OTHERS not in str(raised.value) and envelope.path.read_bytes() == whole
    told = json.loads(whole)
    for kdf in ({}, 7, {**told["kdf"], "n": 2**30}, {**told["kdf"], "n": 3}, {**told["kdf"], "name": "md5"}):
        envelope.path.write_bytes(json.dumps({**told, "kdf": kdf}).encode())
        with typed(WORDS), pytest.raises(KeyMissing, match="changed or cut"):
            Envelope(envelope.home).read()
    envelope.path.write_bytes(json.dumps({name: value for name, value in told.items() if name != "kdf"}).encode())
    with typed(WORDS), pytest.raises(KeyMissing, match="got another one"):
        Envelope(envelope.home).read()
    shutil.copy(envelope.backup, envelope.path)
    with typed(WORDS):
        assert value_of(Envelope(envelope.home)) == SECRET


def test_one_passphrase_is_replaced_by_another_and_a_short_one_is_refused(envelope: Envelope) -> None:
    envelope.reseal(WORDS)
    with typed(WORDS):
        envelope.add("acme", SECRET)
        envelope.reseal(OTHERS)
    with typed(OTHERS):
        assert value_of(Envelope(envelope.home)) == SECRET
    with typed(WORDS), pytest.raises(KeyMissing, match="got another one"):
        Envelope(envelope.home).read()
    with pytest.raises(ConfigurationError, match="12 characters or more, got 5"):
        checked("short")
    assert WORDS not in repr(Lock.of_passphrase(WORDS))
