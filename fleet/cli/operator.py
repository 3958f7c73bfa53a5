"""Who runs a command: what events of deeds name."""

from __future__ import annotations

import os
from getpass import getuser


def operator_name() -> str:
    """Return who runs this command; a container's user may have a number only."""
    try:
        return getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
