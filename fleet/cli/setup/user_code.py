"""Functions and files of the user that pools name: does a worker that starts get them?

A module that is imported may do anything: hang, print, end its process, crash it. So each is loaded in a process of its
own, as a worker would, with a time limit; only what went wrong comes back. What it does as it is imported (it opens a
connection, it writes a file) is done, as in every worker that starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fleet.config import PoolSettings, Settings
from fleet.engine.answers.canaries import load_canaries
from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.store.private.service import PYTHON_MODULE

#: Seconds that an import may take; a worker that starts would wait longer, and so would whoever starts it.
IMPORT_S = 20.0
#: Imports at once (count): each costs a start of Python.
AT_ONCE = 4
#: Characters of what went wrong.
TROUBLE_CHARS = 500


@dataclass(frozen=True, slots=True)
class UserCode:
    """A setting of a pool that names code or a file: `function`, `agent`, `validator` or `canaries`.

    Args:
        setting: Its name.
        path: Its value.
        deps: Of an agent: what makes its dependencies.
    """

    setting: str
    path: str
    deps: str = ""


def code_of(pool: PoolSettings) -> Iterator[UserCode]:
    """Yield what a pool names."""
    if pool.agent:
        yield UserCode("agent", pool.agent, pool.deps or "")
    for setting, value in (("function", pool.function), ("validator", pool.validator), ("canaries", pool.canaries)):
        if value:
            yield UserCode(setting, str(value))


def load_all(settings: Settings) -> dict[UserCode, str | None]:
    """Load everything that pools name, each once; return what went wrong, None for what loads."""
    wanted = list(dict.fromkeys(code for pool in settings.pools.values() for code in code_of(pool)))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(wanted, threads.map(trouble_with, wanted), strict=True))


def trouble_with(code: UserCode, *, timeout_s: float = IMPORT_S) -> str | None:
    """Load one and return what went wrong, or None."""
    if code.setting == "canaries":
        try:
            load_canaries(Path(code.path))
        except ConfigurationError as error:
            return str(error)
        return None
    theirs, ours = os.pipe()
    try:
        command = [*PYTHON_MODULE, __name__, code.setting, code.path, code.deps, str(ours)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(ours,),
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(ours)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return f"expected an import that ends, got none within {timeout_s:g} s"
    finally:
        _end(process)
        os.set_blocking(theirs, False)
        said = _read(theirs)
    if said == _LOADS:
        return None
    if said:
        return said.decode(errors="replace")
    return f"expected an import that ends, got a process that {_ending(process.returncode)}"


_LOADS = b"\0"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and whatever it has started."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left; macOS says it the other way
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 4 * TROUBLE_CHARS)
    except BlockingIOError:  # something it started still holds the other end
        return b""
    finally:
        os.close(pipe)


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _load(setting: str, path: str, deps: str) -> bytes:
    """Load as a worker does; runs in a process of its own."""
    from fleet.workers.bot.function import load_bot
    from fleet.workers.bot.validator import load_validator
    from fleet.workers.frameworks.own_bots import load_agent

    loads: dict[str, Callable[[str], object]]
    loads = {"function": load_bot, "agent": partial(load_agent, deps=deps or None), "validator": load_validator}
    try:
        loads[setting](path)
    except ConfigurationError as error:
        return str(error).removeprefix(f"{setting} {path}: ")[:TROUBLE_CHARS].encode(errors="replace")
    except BaseException as error:  # noqa: BLE001 - the process' boundary: whatever came is the answer
        return f"{type(error).__name__}: {quote(str(error))}".encode(errors="replace")
    return _LOADS


if __name__ == "__main__":
    os.write(int(sys.argv[4]), _load(*sys.argv[1:4]))
    os._exit(0)  # threads of the user's would keep the process
