"""Keys that are turned, revoked and out of reach while 200 calls a second go on: none fails, and a revoked one stops.

They lie in Fleet's encrypted file, and in OpenBao where that is installed, else in a plain file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.keys.figures import Figure, Size
from tests.keys.served import Producer, Served, key_number, served
from tests.vault.bao import ROOT_TOKEN, installed, running_bao
from tests.waiting import wait_until

#: Tasks a second, how long each key serves (s), how many there are, and worker processes.
RATE, TURN_S, KEYS, WORKERS = (
    {"small": 60.0, "large": 220.0}, {"small": 0.5, "large": 6.0}, {"small": 1, "large": 6}, {"small": 1, "large": 2},
)  # fmt: skip
#: How much faster the clock of `measure_away` goes: 15 minutes of `max_stale_s` are 15 seconds.
FASTER = 60.0
#: Generous: the machine may be slow.
WAIT_S = 60.0
#: A vault's path of the key.
_SECRET = "fleet/acme"


class Source(NamedTuple):
    """Where the key of a scene lies, and what can be done there."""

    name: str
    scene: Served
    put: Callable[[str], None]
    go: Callable[[], None]
    come: Callable[[], None]


@contextmanager
def sealed() -> Iterator[Source]:
    """A scene whose key is in the encrypted file; it is never away."""
    with served("") as scene:
        verbs = iter(["add"])

        def put(key: str) -> None:
            scene.fleet("keys", next(verbs, "rotate"), "acme", stdin=key)

        yield Source("encrypted file", scene, put, lambda: None, lambda: None)


@contextmanager
def vaulted() -> Iterator[Source]:
    """A scene whose key is in OpenBao, which is read five minutes apart on a faster clock."""
    with running_bao() as bao:
        times = f"refresh_s = {300 / FASTER}\nmax_stale_s = {900 / FASTER}"
        vault = f'address = "{bao.address}"\ntoken_file = "token"\n{times}'
        with served(f'api_key_vault = "{_SECRET}#key"', vault) as scene:
            _write_private(scene.folder / "token", ROOT_TOKEN)

            def put(key: str) -> None:
                bao.write(_SECRET, key=key)

            yield Source("OpenBao", scene, put, bao.go, bao.come)


@contextmanager
def filed() -> Iterator[Source]:
    """A scene whose key is in a plain file, that may be gone for a while."""
    with served('api_key_file = "key"', f"refresh_s = {300 / FASTER}\nmax_stale_s = {900 / FASTER}") as scene:
        path, aside = scene.folder / "key", scene.folder / "key.aside"
        yield Source(
            "plain file", scene, lambda key: _write_private(path, key), lambda: _move(path, aside),
            lambda: _move(aside, path),
        )  # fmt: skip


def _move(path: Path, to: Path) -> None:
    path.rename(to)


def _write_private(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


def measure(size: Size) -> list[Figure]:
    """Turn the key in the encrypted file by `fleet keys rotate`."""
    return _measured("rotation_failed=", sealed, size)


def measure_vault(size: Size) -> list[Figure]:
    """Write new versions into OpenBao, where that is installed."""
    return _measured("rotation_vault_failed=", vaulted, size) if size == "large" and installed() else []


def measure_file(size: Size) -> list[Figure]:
    """Replace a plain file."""
    return _measured("rotation_file_failed=", filed, size) if size == "large" else []


def _measured(name: str, source: Callable[[], AbstractContextManager[Source]], size: Size) -> list[Figure]:
    """Turn the key again and again, each old one refused soon after the new one was used first."""
    with source() as turned:
        failed, note = _turn(turned, size)
    return [Figure(name, str(failed), failed == 0, (note,))]


def _turn(source: Source, size: Size) -> tuple[int, str]:
    scene = source.scene
    source.put(key_number(1))
    scene.start_workers(WORKERS[size])
    producer = Producer(RATE[size])
    wait_until(lambda: len(scene.api.calls) > 20, WAIT_S, lambda: f"calls; log:\n{scene.log()[-2000:]}")
    began, before = time.monotonic(), len(scene.api.calls)
    for number in range(2, KEYS[size] + 2):
        key = key_number(number)
        scene.api.keys.add(key)
        source.put(key)
        wait_until(lambda: key in scene.api.seen, WAIT_S, "a call with the new key")  # noqa: B023
        time.sleep(TURN_S[size])  # not to wait for a state: calls go on, and other workers hear of it, or of a 401
        scene.api.keys = {key}
    wait_until(lambda: len(scene.api.calls) > before + 50, WAIT_S, "more calls")
    rate = (len(scene.api.calls) - before) / (time.monotonic() - began)
    results = producer.results()
    failed = sum(one.status != "ok" for one in results)
    return (
        failed,
        f"{source.name}: {KEYS[size]} turns under {rate:.0f} calls/s; of {len(results)} tasks {failed} failed",
    )


def measure_revoke(size: Size) -> list[Figure]:
    """Revoke the key under load; return when the last call with it began."""
    with sealed() as source:
        scene = source.scene
        source.put(key_number(1))
        scene.start_workers(WORKERS[size])
        producer = Producer(RATE[size])
        wait_until(lambda: len(scene.api.calls) > 50, WAIT_S, lambda: f"calls; log:\n{scene.log()[-2000:]}")
        at = time.time()
        scene.fleet("keys", "revoke", "acme")
        wait_until(lambda: "hold_put" in scene.log(), WAIT_S, "the pool waits for a key")
        time.sleep(2.5)  # not to wait for a state: a call that comes too late would come now
        last = max(began for began, key in scene.api.calls if key == key_number(1))
        scene.api.keys.add(key_number(2))
        scene.fleet("keys", "add", "acme", stdin=key_number(2))
        results = producer.results()
    failed = sum(one.status != "ok" for one in results)
    late = max(0.0, last - at)
    note = f"of {len(results)} tasks {failed} failed; those that met the revoked key waited for the next one"
    return [Figure("last_call_started_after_revoke_s=", f"{late:.2f}", late <= 2.0 and failed == 0, (note,))]


def measure_away(size: Size) -> list[Figure]:
    """Take the source away for 10 and for 20 minutes of its clock: it is not noticed, or tasks wait; none fails."""
    if size == "small":
        return []
    with (vaulted if installed() else filed)() as source:
        scene = source.scene
        source.put(key_number(1))
        scene.start_workers(2)
        producer = Producer(20.0)
        wait_until(lambda: len(scene.api.calls) > 20, WAIT_S, lambda: f"calls; log:\n{scene.log()[-2000:]}")
        _pass(5)
        source.go()
        _pass(10)
        waited = scene.log().count("key_waits")
        source.come()
        _pass(10)
        source.go()
        _pass(20)
        told = scene.fleet("why", producer.ids[-1], "--json")
        parked = sum(pool["parked"] + pool["waiting"] for pool in json.loads(scene.fleet("stats", "--json"))["pools"])
        source.come()
        results = producer.results()
    failed = sum(one.status != "ok" for one in results)
    has_reason = "[providers.acme]" in told
    note = f"{source.name}: a minute lasted {60 / FASTER:g} s; {len(results)} tasks, {parked} waited after 20 minutes"
    return [
        Figure("away_10min_waited=", str(waited), waited == 0, (note,)),
        Figure(
            "away_20min_failed=", str(failed), failed == 0 and parked > 0 and has_reason,
            (f"`fleet why` named [providers.acme]: {has_reason}",),
        ),
    ]  # fmt: skip


def _pass(minutes: float) -> None:
    """Let time pass on the source's clock."""
    time.sleep(60 * minutes / FASTER)
