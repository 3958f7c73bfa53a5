"""Hosts for tests: network namespaces on one bridge, each of which can be cut off from the others and come back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


class Hosts:
    """A network of several hosts; the test itself is at its gateway.

    Args:
        names: Of the hosts, a letter each.
    """

    def __init__(self, names: str) -> None:
        number = os.getpid()
        self._id = f"{number % 1_000_000}"
        self._net = f"10.{20 + number % 200}.{number // 200 % 250}"
        self._names = names
        #: Address of the test.
        self.gateway = f"{self._net}.1"
        #: Where hosts find the test's Redis, for whoever has started it.
        self.redis_url = ""

    def inside(self, name: str) -> list[str]:
        """Return what runs a command on a host, in front of it."""
        return ["ip", "netns", "exec", self._host(name)]

    def cut_off(self, name: str) -> None:
        """Take a host's cable out: nothing arrives, and nobody is told."""
        _run("link", "set", self._cable(name), "down")

    def rejoin(self, name: str) -> None:
        """Put it back."""
        _run("link", "set", self._cable(name), "up")

    def start(self) -> None:
        bridge = f"fb{self._id}"
        _run("link", "add", bridge, "type", "bridge")
        _run("addr", "add", f"{self.gateway}/24", "dev", bridge)
        _run("link", "set", bridge, "up")
        for number, name in enumerate(self._names, 2):
            host, cable = self._host(name), self._cable(name)
            _run("netns", "add", host)
            _run("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
            _run("link", "set", cable, "master", bridge, "up")
            _run("-n", host, "addr", "add", f"{self._net}.{number}/24", "dev", "eth0")
            _run("-n", host, "link", "set", "eth0", "up")
            _run("-n", host, "link", "set", "lo", "up")

    def stop(self) -> None:
        for name in self._names:
            _run("netns", "del", self._host(name), check=False)
        _run("link", "del", f"fb{self._id}", check=False)

    def _host(self, name: str) -> str:
        return f"fleet-{self._id}-{name}"

    def _cable(self, name: str) -> str:
        return f"fv{self._id}{name}"


@contextmanager
def hosts(names: str) -> Iterator[Hosts]:
    """Build the network, and take it down."""
    network = Hosts(names)
    try:
        network.start()
        yield network
    finally:
        network.stop()


def why_not() -> str:
    """Say why there can be no such network here; empty: there can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    try:
        with hosts("p"):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"


def _run(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)
