"""For how long a provider is asked to keep documents, where keeping costs more than reading them once. Pure."""

from __future__ import annotations

from fleet.conversation import Kept

#: Price of a token that is written for five minutes, for an hour, or read, as a share of plain input's. Anthropic's,
#: the same for all of its models: https://docs.claude.com/en/docs/build-with-claude/prompt-caching
WRITTEN_5M, WRITTEN_1H, READ = 1.25, 2.0, 0.1
#: Answers within five minutes that are taken to have been before any is known: documents are stored to be asked about.
EXPECTED = 3


def keeping(short: int, long: int, later: int) -> Kept | None:
    """Return how long documents are to be kept so that the next answer is expected to cost least; None: not at all.

    Args:
        short: Answers that came within five minutes of the one before, as far as is known.
        long: Those that came within an hour.
        later: Those that came later.
    """
    short += EXPECTED
    total = short + long + later
    costs: dict[Kept | None, float] = {
        "5m": (READ * short + WRITTEN_5M * (total - short)) / total,
        "1h": (READ * (short + long) + WRITTEN_1H * later) / total,
        None: 1.0,
    }
    return min(costs, key=lambda kept: costs[kept])
