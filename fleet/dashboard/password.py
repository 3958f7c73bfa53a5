"""The dashboard's generated password: one file below the state folder, readable by its owner only.

It is never printed, logged or put on a command line; people are told where the file lies.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from fleet.errors import ConfigurationError
from fleet.store.home import make_home, unusable

#: File below the state folder.
PASSWORD_FILE = "flower.password"
#: Random bytes of a password.
PASSWORD_BYTES = 16


def password(home: Path) -> str:
    """Return the dashboard's password, generated into `home` on first use.

    Raises:
        ConfigurationError: When the file is empty, or cannot be written or read.
    """
    path = home / PASSWORD_FILE
    try:
        if not path.exists():
            _write_once(path, secrets.token_urlsafe(PASSWORD_BYTES))
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise unusable(home, error) from error
    if not text:
        raise ConfigurationError(f"{path}: expected a password, got an empty file; delete it to get a new one")
    return text


def _write_once(path: Path, text: str) -> None:
    """Create `path` with `text`, whole or not at all; who came first wins."""
    make_home(path.parent)
    handle, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
    os.write(handle, f"{text}\n".encode())
    os.close(handle)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    Path(draft).unlink()
