"""`benchmarks.agents`: nobody is connected to unseen, and a missed bar is told."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.agents import rows_of
from benchmarks.agents_egress import Egress
from benchmarks.agents_fleet import LOOPS, Governed, Side
from tests.waiting import wait_until

REPO = Path(__file__).parents[2]
BARE = Side(25.0, 60.0, 10.0, Counter(good=9, ModelHTTPError=1), {"refused_429": 3})
OURS = Governed(24.9, 60.0, 15.0, Counter(ok=10), {"refused_429": 0}, loops=Counter(NoProgress=LOOPS))


def missed(ours: Governed) -> list[str]:
    return [row[0].split()[0] for row in rows_of(BARE, ours, 10) if row[4] is False]


def test_a_fleet_that_keeps_every_bar_misses_none() -> None:
    assert missed(OURS) == []


@pytest.mark.parametrize(
    ("change", "bar"),
    [
        ({"ends": Counter(ok=9, OutOfTries=1)}, "failed_for_provider"),
        ({"ends": Counter(ok=9)}, "failed_for_provider"),
        ({"accused": ["bot 4"]}, "accused"),
        ({"usage_diff": 1}, "usage_diff"),
        ({"ledger": {"refused_429": 1}}, "over_limit"),
        ({"foreign": ["192.0.2.1 443"]}, "foreign_connections"),
        ({"unwatched": 1}, "foreign_connections"),
        ({"loops": Counter(NoProgress=LOOPS - 1, BadAnswer=1)}, "loops_stopped"),
        ({"calls_per_s": 23.7}, "calls/s"),
    ],
)
def test_each_bar_that_is_missed_is_told(change: dict[str, Any], bar: str) -> None:
    assert missed(replace(OURS, **change)) == [bar]


@pytest.mark.parametrize(
    ("code", "foreign"),
    [
        ("socket.create_connection(('127.0.0.1', GOOD)).close()", []),
        ("socket.socket().connect_ex(('127.0.0.1', OTHER))", ["127.0.0.1 OTHER"]),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.2', GOOD))", ["127.0.0.2 GOOD"]),
        ("asyncio.run(main())", ["127.0.0.1 OTHER"]),
        ("subprocess.run([sys.executable, '-c', 'import socket; socket.socket().connect_ex((\"127.0.0.1\", OTHER))'])",
         ["127.0.0.1 OTHER"]),
    ],
    ids=["allowed", "another port", "a datagram", "of asyncio", "of a child"],
)  # fmt: skip
def test_whoever_a_process_connects_to_is_noted(tmp_path: Path, code: str, foreign: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as good, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        ports = {"GOOD": good.getsockname()[1], "OTHER": closed.getsockname()[1]}
        egress = Egress(tmp_path, frozenset({ports["GOOD"]}))
        program = f"""
import asyncio, contextlib, socket, subprocess, sys
GOOD, OTHER = {ports["GOOD"]}, {ports["OTHER"]}
async def main():
    with contextlib.suppress(OSError):
        await asyncio.open_connection('127.0.0.1', OTHER)
{code.replace("OTHER))'", f"{ports['OTHER']}))'")}
"""
        environment = {**os.environ, **egress.environment(REPO)}
        with subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], env=environment) as process:
            assert process.wait(30) == 0
        assert process.pid in egress.watched()
    wanted = [line.replace("OTHER", str(ports["OTHER"])).replace("GOOD", str(ports["GOOD"])) for line in foreign]
    assert egress.foreign() == wanted


def test_a_name_that_is_looked_up_is_foreign(tmp_path: Path) -> None:
    egress = Egress(tmp_path, frozenset())
    code = """
import contextlib, socket
for name in ("localhost", "127.0.0.1", "nobody.invalid"):
    with contextlib.suppress(OSError):
        socket.getaddrinfo(name, 1, flags=socket.AI_NUMERICHOST)
"""
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **egress.environment(REPO)}, check=True)
    assert egress.foreign() == ["nobody.invalid *"]


def test_open_sockets_are_seen_without_the_hook(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        egress = Egress(tmp_path, frozenset())
        code = f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            with egress.looking([psutil.Process(process.pid)]):
                wait_until(egress.foreign, 10, "it is seen")
            process.communicate()
        assert egress.foreign() == [f"127.0.0.1 {port}"] and process.pid not in egress.watched()
