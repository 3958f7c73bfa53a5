"""Writes `state_0_2.json`: what 0.2.0 leaves in Redis when its only worker is killed in the middle of its work.

    python -m tests.e2e.releases.record

Needs the history with the first release. What it left is tested in every checkout: `test_left_by_0_2.py`.
"""

from __future__ import annotations

import base64
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

from fleet.store.client import connect
from tests.e2e.releases.first import SLOW_S, install_first
from tests.e2e.releases.site import Site
from tests.redis_server import RedisServer
from tests.waiting import wait_until

STATE = Path(__file__).with_name("state_0_2.json")
#: How a key of each type is read whole.
_READ = {
    "string": "GET", "list": "LRANGE 0 -1", "hash": "HGETALL", "zset": "ZRANGE 0 -1 WITHSCORES", "set": "SMEMBERS",
    "stream": "XRANGE - +",
}  # fmt: skip


def pack(value: Any) -> Any:
    """Return what Redis answered as JSON can hold it."""
    if isinstance(value, list):
        return [pack(one) for one in value]
    return base64.b85encode(zlib.compress(value, 9)).decode() if isinstance(value, bytes) else value


def unpack(value: Any) -> Any:
    """Return what `pack` was given."""
    if isinstance(value, list):
        return [unpack(one) for one in value]
    return zlib.decompress(base64.b85decode(value)) if isinstance(value, str) else value


def read(client: Any) -> dict[str, Any]:
    """Return all keys: name -> type and packed value."""
    found = {}
    for key in sorted(client.keys("*")):
        kind = client.type(key).decode()
        command, *rest = _READ[kind].split()
        with client.pipeline(transaction=False) as pipe:
            pipe.response_callbacks = {}  # as Redis says it
            value = pipe.execute_command(command, key, *rest).execute()[0]
        found[key.decode("latin-1")] = [kind, pack(value)]
    return found


def main() -> None:
    """Let 0.2.0 work, kill it, and write what is there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("redis", "first"):
            (folder / part).mkdir()
        server = RedisServer(folder / "redis")
        site = Site(folder, server, install_first(folder / "first"))
        try:
            site.simulate()
            worker = site.worker("old", "old1")
            site.ready("old1")
            site.fleet("old", "pools", "pause", "shut")
            site.fleet("old", "bots", "quarantine", "shared-003")
            site.submit("old", "a", "fails", "keys")
            wait_until(lambda: len(site.results()) == len(site.tasks), SLOW_S, "the first have ended")
            site.submit("old", "a", "held", "eta", "canvas", "tenants")
            site.submit("old", "a", "long")
            slow = {task["id"] for task in site.tasks.values() if task["kind"] == "long"}
            wait_until(lambda: sum("-long-" in n for n in site.ledger("begins")) == len(slow), SLOW_S, "all are begun")
            worker.kill()
            worker.wait()
            with connect(server.url) as client:
                told = {"tasks": site.tasks, "keys": read(client)}
        finally:
            site.end()
            server.stop()
    STATE.write_text(json.dumps(told, indent=0) + "\n")


if __name__ == "__main__":
    main()
