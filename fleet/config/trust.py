"""Whether a fleet.toml or a state folder that was merely found may be used: it names code that will run as us.

As git does with a repository that it finds in a parent folder (CVE-2022-24765). What is named by FLEET_CONFIG or
FLEET_HOME is not looked at: who sets a variable has chosen.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fleet.errors import ConfigurationError


def check_found(found: Path, *, variable: str, with_code: bool) -> None:
    """Refuse what somebody else may have put there.

    Args:
        found: A file or folder that was found by search.
        variable: What names it to allow it.
        with_code: True when modules beside it are imported: then nobody else may add a file to its folder.

    Raises:
        ConfigurationError: When it, or its folder, belongs to neither us nor root, or others may write there. On a
            file system that is mounted read-only nobody can have put it there since.
    """
    trouble = _trouble(found, folder=False) or _trouble(found.parent, folder=True, with_code=with_code)
    if trouble is not None and not _is_read_only(found):
        raise ConfigurationError(
            f"{found}: expected what is found by search to be out of others' reach, got {trouble}; if you trust it, "
            f"set {variable}={found}"
        )


def _trouble(path: Path, *, folder: bool, with_code: bool = True) -> str | None:
    try:
        found = path.stat()
    except OSError as error:
        return f"{path}, which cannot be looked at ({error.strerror})"
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path}, which belongs to user {found.st_uid}"
    is_kept = folder and not with_code and found.st_mode & stat.S_ISVTX  # there nobody replaces another's files
    if found.st_mode & stat.S_IWOTH and not is_kept:
        return f"{path}, which everybody may write to (mode {stat.S_IMODE(found.st_mode):04o})"
    return None


def _is_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
