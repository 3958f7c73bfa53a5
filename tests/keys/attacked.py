"""Delegations under attack: chains that would be wider than they were given, and clients of Redis without any."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from fleet import config
from tests.keys.figures import Figure, Size
from tests.keys.scopes import widened
from tests.keys.unsigned import unsigned_accepted
from tests.redis_server import RedisServer

#: Random chains of delegations.
CHAINS = {"small": 500, "large": 10_000}


def measure_widened(size: Size) -> list[Figure]:
    """Count chains that allow what one of their links does not."""
    count = widened(CHAINS[size])
    return [Figure("widened=", f"{count}/{CHAINS[size]}", count == 0)]


def measure_unsigned(size: Size) -> list[Figure]:
    """Count tasks that a real worker answers although nobody who may has signed them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="fleet-keys-", ignore_cleanup_errors=True)))
        (own := folder / "redis").mkdir()
        server = RedisServer(own)
        stack.callback(server.stop)
        os.environ |= {"FLEET_HOME": str(folder / ".fleet"), "FLEET_CONFIG": str(folder / "fleet.toml")}  # of a process
        config.current.cache_clear()  # of its own: see `Row.apart`
        accepted = unsigned_accepted(folder, server.url)
    return [Figure("unsigned_accepted=", str(accepted), accepted == 0)]
