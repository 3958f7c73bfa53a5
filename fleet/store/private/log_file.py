"""Log files of processes that run on: one that has grown is put aside while it is written.

The processes have their log as output and error stream, opened to append, so a log is copied and emptied rather than
renamed. What is written between the two is lost: a line or two, when a log is emptied in the middle of a burst.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

#: Bytes at which a log is put aside as NAME.log.1, in place of the one before: each log takes twice that at most.
LOG_MAX_BYTES = 10_000_000
#: Seconds between two looks at the size of logs.
LOOK_EVERY_S = 10.0


def rotate(log: Path, *, most_bytes: int = LOG_MAX_BYTES) -> bool:
    """Put a log aside when it has grown beyond `most_bytes`; True when it was.

    Safe when several processes do it at once. A log that isn't there, or cannot be written, stays as it is.
    """
    try:
        if log.stat().st_size <= most_bytes:
            return False
        with log.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the file is closed
            if os.fstat(file.fileno()).st_size <= most_bytes:
                return False
            aside = log.with_name(f"{log.name}.1")
            part = log.with_name(f"{log.name}.part")
            with part.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                file.truncate(0)
            part.replace(aside)
        return True
    except OSError:  # another process does it, or the disk is full: the next look tries again
        return False
