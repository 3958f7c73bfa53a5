"""What 100,000 tasks that wait behind one 429 with an hour of Retry-After cost: Redis's CPU, commands, slots.

python -m benchmarks.parked [--tasks 100000] [--seconds 600]
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import Any

import click
import psutil

from benchmarks.bench import cpu_s, print_table, private_home, until, worker
from benchmarks.storm import MODEL, PROCESSES, SLOTS, provider

#: Tasks that are submitted at once.
CHUNK = 5000


@click.command()
@click.option("--tasks", default=100_000, show_default=True)
@click.option("--seconds", default=600.0, show_default=True, help="How long they are watched.")
def main(tasks: int, seconds: float) -> None:
    """Park tasks, watch, and print one table."""
    from fleet import config
    from fleet.engine.messages.producer import submit_many
    from fleet.models import BotTask
    from fleet.store import keys
    from fleet.store.client import connect
    from fleet.store.private.embedded import state_url

    with private_home() as home, ExitStack() as stack:
        api = stack.enter_context(provider())
        os.environ["STORM_KEY"] = "storm"
        (home / "fleet.toml").write_text(
            f'[worker]\nslots = {SLOTS}\n[providers.api]\nkind = "openai"\nbase_url = "{api.url}/v1"\n'
            f'api_key_env = "STORM_KEY"\n[limits."api/{MODEL}"]\nrpm = 3000\n'
            f'[pools.storm]\nbots = {SLOTS}\nprovider = "api"\nmodel = "{MODEL}"\n'
        )
        config.current.cache_clear()
        redis = connect(state_url(config.current()), timeout_s=30)
        server = psutil.Process(int(redis.info("server")["process_id"]))

        def idle() -> float:
            before, began = cpu_s(server), time.monotonic()
            time.sleep(min(seconds, 60.0))
            return (cpu_s(server) - before) / (time.monotonic() - began)

        for number in range(PROCESSES):
            stack.enter_context(worker("fleet", "-n", f"w{number}@parked", log=home / "worker.log"))
        until(lambda: len(redis.hgetall(keys.workers())) == PROCESSES, "workers")
        empty = idle()
        api.storm("hour", 3600)
        for _ in submit_many([BotTask(prompt="the first", pool="storm")]):
            pass
        queue = keys.queue("storm")
        until(lambda: bool(redis.exists(keys.hold(queue))), "the hold")
        for start in range(0, tasks, CHUNK):
            batch = [BotTask(prompt=f"task {n}", pool="storm") for n in range(start, min(start + CHUNK, tasks))]
            for _ in submit_many(batch):
                pass
        time.sleep(5)
        before: Any = redis.info("stats")["total_commands_processed"]
        cpu, began = cpu_s(server), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        held, commands = redis.hlen(keys.unacked()), redis.info("stats")["total_commands_processed"] - before
        rows = [
            ["Redis CPU, workers idle, nothing waits", f"{empty:.2%}"],
            [f"Redis CPU, {tasks:,} tasks wait", f"{(cpu_s(server) - cpu) / passed:.2%}"],
            ["Redis commands a second then", f"{commands / passed:.0f}"],
            ["slots that they hold", str(held)],
            ["calls sent meanwhile", str(len([at for at, _, _ in api.calls() if at > time.time() - passed]))],
        ]
        print_table(f"{tasks:,} tasks behind one 429 with Retry-After 1 h, {passed:.0f} s", ["what", "figure"], rows)


if __name__ == "__main__":
    main()
