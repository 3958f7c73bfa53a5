"""Where a provider's key comes from: an environment variable, or a file that only its owner can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from fleet.config import SIMULATOR, ProviderSettings, vendor_of
from fleet.errors import KeyMissing

#: Variable that each vendor's own tools read: what the error message proposes.
_USUAL_VARIABLE = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
#: Largest key file that is read, in bytes: more is no key.
_MAX_KEY_BYTES = 8192


def read_key(settings: ProviderSettings, model: str = "") -> str:
    """Return the key of a provider; the simulator's is the word "simulator" unless one is configured.

    A server on this host or a private network needs none: then it is empty, and no key is sent. It is empty, too, for
    a model whose SDK reads its cloud's own variables and files.

    Args:
        settings: The provider's table in fleet.toml.
        model: What it is asked for.

    Raises:
        KeyMissing: When no source is configured, or it gives no usable key. Never quotes the key.
    """
    if settings.api_key_env:
        return read_variable(settings.api_key_env, os.environ)
    if settings.api_key_file:
        return read_secret(settings.api_key_file, setting="api_key_file")
    if settings.kind == "simulator":
        return SIMULATOR
    if not settings.needs_key_for(model):
        return ""
    usual = _USUAL_VARIABLE.get(settings.kind) or f"{vendor_of(model) or 'vendor'}_API_KEY".upper().replace("-", "_")
    raise KeyMissing(
        f"expected a key for a provider of kind {settings.kind!r}, got none: in fleet.toml set "
        f'api_key_env = "{usual}" (and that variable), or api_key_file = "PATH"'
    )


def read_variable(name: str, variables: Mapping[str, str]) -> str:
    """Return the key that a variable holds.

    Raises:
        KeyMissing: When it holds no usable key. Never quotes it.
    """
    return _checked(variables.get(name, ""), f"variable {name}")


def read_secret(path: Path, *, setting: str) -> str:
    """Return the one word that a file holds which only its owner can read.

    Args:
        path: The file; `~` is understood.
        setting: What names it, for errors.

    Raises:
        KeyMissing: When it cannot be read, others can read it too, or it holds no single word.
    """
    return _checked(_read_file(path.expanduser(), setting), f"file {path}")


def _read_file(path: Path, setting: str) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise KeyMissing(f"{setting}: expected a file, got something else at {path}")
            if found.st_mode & 0o077:
                raise KeyMissing(
                    f"{setting}: expected {path} to be readable by its owner only, got mode "
                    f"{stat.S_IMODE(found.st_mode):04o}: run `chmod 600 {path}`"
                )
            return file.read(_MAX_KEY_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise KeyMissing(
            f"{setting}: expected a readable file, got {error.strerror or type(error).__name__} for {path}"
        ) from error


def _checked(text: str, source: str) -> str:
    key = text.strip()
    if not key:
        raise KeyMissing(f"expected a key in the {source}, got nothing: set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyMissing(
            f"expected one key without spaces, line breaks or special characters in the {source}, got something else"
        )
    return key
