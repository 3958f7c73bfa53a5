"""Is an answer right, where that is known? Pure, stdlib only, in linear time: it runs in workers."""

from __future__ import annotations

from fleet.answers.canonical import canonical


def is_right(answer: str, right: str, by: str | None = None) -> bool:
    """True when an answer means the same as the right one.

    Args:
        answer: As a bot gave it.
        right: What is right.
        by: What of the answer counts: `.field` of a JSON answer, or the rest of the line behind the last of these
            words. None: all of it. What is right may have the same form, or be that part alone.
    """
    wanted = part_of(right, by) or canonical(right)
    return (given := part_of(answer, by)) is not None and given == wanted


def part_of(answer: str, by: str | None) -> str | None:
    """Return what counts of an answer, in canonical form; None when it lacks that. `by` as `is_right` takes it."""
    if by is None:
        return canonical(answer)
    if by.startswith("."):
        return canonical(answer, field=by[1:])
    _, found, rest = answer.rpartition(by)
    return canonical(rest.lstrip(" \t").partition("\n")[0]) if found and rest.strip() else None
