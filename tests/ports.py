"""Ports for servers of tests that are killed, or end, and are started again where they were."""

from __future__ import annotations

import random
import socket

#: Below those that Linux (32,768) and macOS (49,152) give to outgoing connections.
_PORTS = range(20_000, 32_000)
_chance = random.SystemRandom()  # Hypothesis seeds the other one, and two runs at a time would meet


def lasting_port() -> int:
    """Return a port of 127.0.0.1 that is free, and that no outgoing connection takes while its server is away."""
    while True:
        if is_free(port := _chance.choice(_PORTS)):
            return port


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of 127.0.0.1."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
