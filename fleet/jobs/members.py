"""Members of jobs, by their task ids: which job, and at which place. Pure.

The id itself says both: a UUID of version 8, whose bits are the application's own (RFC 9562, section 5.8), with 60 bits
for the job and 60 for the place. So whoever ends a task knows its job, on every road, and tasks of no job pay nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

#: Members of a job at most (count): each takes a byte in one string, and about 15 in the order of completion.
MOST_MEMBERS = 10_000_000
#: Hexadecimal digits of a job's id, and of a place: 60 bits. Two of a million jobs share one by a chance of 4e-7.
DIGITS = 15
_MEMBER = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-8([0-9a-f]{3})-a([0-9a-f]{3})-([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class Membership:
    """A task's job, and its place there, from 0."""

    job: str
    position: int


def job_id_of(key: str) -> str:
    """Return the id of the job with this key: 15 hexadecimal digits."""
    return hashlib.sha256(b"fleet job:" + key.encode()).hexdigest()[:DIGITS]


def member_id(job: str, position: int) -> str:
    """Return the task id of a job's member."""
    place = f"{position:015x}"
    return f"{job[:8]}-{job[8:12]}-8{job[12:]}-a{place[:3]}-{place[3:]}"


def membership_of(task_id: str) -> Membership | None:
    """Return the job of a task; None: it has none. An id of version 8 that is not ours may name a job that is none."""
    if len(task_id) != 36 or task_id[14] != "8" or (found := _MEMBER.fullmatch(task_id)) is None:
        return None
    position = int(found[4] + found[5], 16)
    return Membership(found[1] + found[2] + found[3], position) if position < MOST_MEMBERS else None
