"""Secrets in files: one word each, which only its owner can read. Nothing here shows one."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from fleet.errors import KeyMissing
from fleet.quoting import Hidden

#: Largest key file that is read, in bytes: more is neither a key nor an identity token.
_MAX_KEY_BYTES = 16_384


def read_variable(name: str, variables: Mapping[str, str]) -> Hidden:
    """Return the key that a variable holds.

    Raises:
        KeyMissing: When it holds no usable key. Never quotes it.
    """
    return one_word(Hidden(variables.get(name, "")), f"variable {name}")


def read_secret(path: Path, *, setting: str, is_private: bool = True) -> Hidden:
    """Return the one word that a file holds which only its owner can read.

    Args:
        path: The file; `~` is understood.
        setting: What names it, for errors.
        is_private: False: whoever mounts it sees to who can read it, as systemd, Docker and Kubernetes do.

    Raises:
        KeyMissing: When it cannot be read, others can read it too, or it holds no single word.
    """
    return one_word(_read_file(path.expanduser(), setting, is_private), f"file {path}")


def read_line(path: Path, *, setting: str) -> Hidden:
    """Return the one line that a file holds which only its owner can read, spaces and all: a passphrase.

    Raises:
        KeyMissing: As `read_secret`. Never quotes it.
    """
    lines = [Hidden(line) for line in _read_file(path.expanduser(), setting, is_private=True).strip().splitlines()]
    if len(lines) != 1:
        raise KeyMissing(
            f"{setting}: expected one line in {path}, got {'several' if lines else 'none'}: write the passphrase there"
        )
    return lines[0]


def _read_file(path: Path, setting: str, is_private: bool) -> Hidden:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise KeyMissing(f"{setting}: expected a file, got something else at {path}")
            if is_private and found.st_mode & 0o077:
                raise KeyMissing(
                    f"{setting}: expected {path} to be readable by its owner only, got mode "
                    f"{stat.S_IMODE(found.st_mode):04o}: run `chmod 600 {path}`"
                )
            if found.st_size > _MAX_KEY_BYTES:
                raise KeyMissing(f"{setting}: expected {_MAX_KEY_BYTES} bytes at most, got {found.st_size} in {path}")
            return Hidden(file.read(_MAX_KEY_BYTES).decode("utf-8", "replace"))
    except OSError as error:
        raise KeyMissing(
            f"{setting}: expected a readable file, got {error.strerror or type(error).__name__} for {path}"
        ) from error


def one_word(text: str, source: str) -> Hidden:
    """Return a secret without the spaces around it.

    Args:
        text: What came.
        source: Where from, for errors.

    Raises:
        KeyMissing: When it is none. Never quotes it.
    """
    text = Hidden(text)  # whatever is raised below: a traceback shows no key
    key = text.strip()
    if not key:
        raise KeyMissing(f"expected a key in the {source}, got nothing: set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyMissing(
            f"expected one key without spaces, line breaks or special characters in the {source}, got something else"
        )
    return key
