"""Real processes that are killed in the middle of a probe, and of opening the gates."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from fleet.errors import NotSoon
from fleet.resilience import read_breakers
from fleet.resilience.layouts import STATE, BreakerAt
from fleet.store import keys
from tests.resilience.fleet_of_breakers import LIMIT, member
from tests.resilience.test_breakers import forget

ROOT = Path(__file__).parents[2]

#: Becomes the probe (or closes the breaker), says so, and hangs where it would send (or open the gates).
VICTIM = """
import asyncio, sys
from fleet.errors import NotSoon
from fleet.resilience import Breakers
from fleet.store.client import Store

async def hang(limit, is_first):
    print("at the gates", flush=True)
    await asyncio.sleep(600)

async def main(url, limit, does_well):
    breakers = Breakers(Store(url), {limit: "aaaa"}, on_closed=hang)
    await breakers.load()
    while True:
        try:
            if await breakers.admit(limit):
                break
        except NotSoon:
            await asyncio.sleep(0.02)
    if does_well:
        breakers.did_well(limit, who="probe", seconds=0.1, output_tokens=1, is_probe=True)
    else:
        print("probe", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] == "well"))
"""


def kill_in_the_middle(url: str, what: str) -> None:
    """Run the victim until it says that it is there, then kill -9."""
    command = [sys.executable, "-c", VICTIM, url, LIMIT, what]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT) as victim:
        assert victim.stdout is not None
        said = victim.stdout.readline()
        victim.kill()
    assert said in (b"probe\n", b"at the gates\n"), said


async def next_probe_s(url: str) -> float:
    """Return the seconds until another process is given a probe."""
    async with member(url) as other:
        started = time.monotonic()
        while time.monotonic() < started + 10:
            forget(other)
            try:
                assert await other.breakers.admit(LIMIT)
                return time.monotonic() - started
            except NotSoon:
                await asyncio.sleep(0.01)
    raise AssertionError("expected a probe within 10 s, got none")


def test_a_probe_whose_process_is_killed_holds_nobody_up(redis_url: str) -> None:
    async def break_it() -> None:
        async with member(redis_url) as one:
            await one.open()

    asyncio.run(break_it())
    kill_in_the_middle(redis_url, "nothing")
    assert asyncio.run(next_probe_s(redis_url)) < 5


def test_gates_that_a_killed_process_was_to_open_are_opened_by_the_next_one_that_does_well(redis_url: str) -> None:
    async def work() -> None:
        async with member(redis_url) as one:
            await one.open()
        await asyncio.to_thread(kill_in_the_middle, redis_url, "well")
        async with member(redis_url) as other:
            (view,) = await read_breakers(other.store, [LIMIT])
            assert view.is_closed
            ended = time.monotonic() + 20
            while not other.closed:
                assert time.monotonic() < ended, "expected the gates to be opened by another process"
                await other.tell("good")
                await asyncio.sleep(0.05)
            await other.do_well("good")
            lifted = STATE.unpack(await other.store.command("HGET", keys.breaker(LIMIT), "state"))
            assert lifted[BreakerAt.LIFT_AT] == 0  # once is enough

    asyncio.run(work())
