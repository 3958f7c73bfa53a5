"""The agents of `benchmarks.agents`: one with three tools, and the same one for a model that goes round in circles.

Both sides run this very object. A bot differs from the bare loop in nothing but the client.
"""

from __future__ import annotations

from pydantic_ai import Agent

#: What `search` looks in: enough that results differ, small enough that they cost nothing.
NOTES = (
    "The old bridge was built in 1871 and carries the northern line.",
    "The harbour freezes in hard winters, the last time in 2012.",
    "A careful reader finds two drafts of the second chapter.",
    "The lantern on the pier is lit by hand at dusk.",
)

agent: Agent[None, str] = Agent(instructions="Look things up before you answer. Name what you found.", retries=3)


@agent.tool_plain
def search(query: str, limit: int = 2) -> list[str]:
    """Return notes that a query's words are in, or the first ones."""
    words = query.lower().split()
    found = [note for note in NOTES if any(word in note.lower() for word in words)]
    return (found or list(NOTES))[: max(1, limit % 3)]


@agent.tool_plain
def distance(start: str, end: str) -> float:
    """Return the kilometres between two places."""
    return float(sum(map(ord, start + end)) % 900)


@agent.tool_plain
def year_of(event: str) -> int:
    """Return the year of an event."""
    return 1850 + sum(map(ord, event)) % 170
