"""The state folder: making it, writing files into it, and the one error for one that cannot be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fleet.errors import ConfigurationError


def make_home(home: Path) -> None:
    """Create the state folder, for its owner only, and write a byte into it: rights alone do not tell of a full disk.

    Raises:
        ConfigurationError: When that is not possible.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"x")
    except OSError as error:
        error.filename = None  # of the probe: the folder is named
        raise unusable(home, error) from error


def unusable(home: Path, error: OSError) -> ConfigurationError:
    """Return the one error for a state folder that cannot be written: no rights, a file in its place, a full disk."""
    got = "a file" if home.exists() and not home.is_dir() else str(error.strerror or error)
    where = f" ({error.filename})" if error.filename and str(error.filename) != str(home) else ""
    return ConfigurationError(
        f"expected a folder that can be written at {home}, got: {got}{where}; mend that, or set FLEET_HOME to "
        "another place"
    )


def write_private(path: Path, text: str) -> None:
    """Replace a file at once; only its owner may read it.

    Raises:
        ConfigurationError: When it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        raise unusable(path.parent, error) from error
