"""What is said of an ask that has too few votes for an outcome."""

from __future__ import annotations

from fleet.engine.asking.outcome import Heard, WhyOver
from fleet.engine.asking.question import AskTerms
from fleet.errors import NoQuorum
from fleet.quoting import quote


def no_quorum(question: AskTerms, heard: Heard, votes: int, cancelled: int, why: WhyOver) -> NoQuorum:
    """Return the error of an ask.

    Args:
        question: What was asked.
        heard: What came of members.
        votes: How many had one.
        cancelled: How many had no result.
        why: Why nobody else is heard.
    """
    errors = [result.error.type for result, _ in heard if result.error is not None]
    uncounted = sum(counted is None and result.error is None for result, counted in heard)
    had = ", ".join([
        *(f"{errors.count(kind)} failed with {kind}" for kind in dict.fromkeys(errors)),
        *([f"{uncounted} had nothing to count by {quote(question.count_by or 'text')}"] if uncounted else []),
        *([f"{cancelled} had no answer in time"] if cancelled else []),
    ])  # fmt: skip
    when = f"within {question.deadline_s:g} s" if why == "deadline" else f"of {question.n} members"
    return NoQuorum(
        f"expected {question.least} answers {when}, got {votes}{': ' + had if had else ''}; `fleet why TASK` "
        "tells what a member waits for"
    )
