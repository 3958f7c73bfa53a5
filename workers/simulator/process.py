"""The simulator as a process of its own: starts the server, says where, and stops on a signal."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

from fleet.open_files import raise_limit
from fleet.workers.simulator.options import SimulatorOptions
from fleet.workers.simulator.server import Simulator

#: Exit code by signal: SIGTERM is how a stack stops it, SIGINT is a person's Ctrl-C.
EXIT_CODES = {signal.SIGTERM: 0, signal.SIGINT: 130}


def run(options: SimulatorOptions, *, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code.

    Raises:
        ConfigurationError: When it cannot listen, or the recorded answers are not usable.
    """
    return asyncio.run(_serve(options, host=host, port=port))


async def _serve(options: SimulatorOptions, *, host: str, port: int) -> int:
    stopped = asyncio.Event()
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        stopped.set()

    raise_limit()  # each caller is a connection
    loop = asyncio.get_running_loop()
    for number in EXIT_CODES:
        loop.add_signal_handler(number, stop, number)
    simulator = Simulator(options)
    url = await simulator.start(host=host, port=port)
    gc.freeze()  # what start-up made lives as long as the process: the collector need not look at it again
    print(url, flush=True)
    print(_summary(simulator), file=sys.stderr, flush=True)
    try:
        await stopped.wait()
    finally:
        await simulator.stop()
        for number in EXIT_CODES:  # a second signal must not turn the end of the process into a failure
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
    return EXIT_CODES[received[0]]


def _summary(simulator: Simulator) -> str:
    options = simulator.options
    line = f"simulator ready rpm={options.rpm} tpm={options.tpm} latency_ms={options.latency_ms:g} seed={options.seed}"
    if options.answers is not None:
        line += f" recorded_answers={simulator.model.recorded} duplicate_questions={simulator.model.duplicates}"
    return line
