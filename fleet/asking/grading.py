"""What a task says about its right answer, where that is known. No model sees it. Comparison: `answers/marking.py`."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen, Lasting

#: Longest right answer (characters), and longest words before it.
MOST_RIGHT_CHARS, MOST_MARK_CHARS = 10_000, 100


class Graded(Frozen):
    """The fields of a task whose right answer is known: the fleet's record of bots and models learns from it."""

    right: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_RIGHT_CHARS,
        description="The right answer, where it is known; never sent to a model. The record of bots learns from it.",
    )
    right_by: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_MARK_CHARS,
        description="What of an answer is compared with `right`: `.field` of a JSON answer, or the rest of the line "
        "behind the last of these words (`A:`). None: all of it.",
    )


class Classed(Lasting):
    """The field of a result that says of what kind its task was."""

    kind: str = Field("default", exclude_if=lambda kind: kind == "default", description="Class of its task.")
