"""What is typed into the page's search field: `pool=research state=failed job=nightly`, as a `Wish`.

A name that is not one of ours is one of the tasks' metadata; `metadata.pool=...` asks for metadata with such a name.
"""

from __future__ import annotations

import shlex
from typing import cast

from fleet.config import Settings
from fleet.engine.operations.task_search import FOUND_STATES, FoundState, Wish
from fleet.engine.outcomes.cancelling import Selection
from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.signals.catalogue import ERROR_NAMES

#: Names with a meaning of their own; any other one is a name in metadata.
NAMES = ("pool", "tenant", "kind", "state", "error")
#: Before a name in metadata that is also one of those.
METADATA = "metadata."
#: Tasks that the page lists (count), and characters of a question at most.
LISTED, MOST_CHARS = 100, 2000


def wish_of(text: str, settings: Settings) -> Wish:
    """Read a question.

    Args:
        text: Pairs of `name=value`, apart by spaces; values with spaces stand in quotes.
        settings: Pools.

    Raises:
        ConfigurationError: When it is none.
    """
    ours, metadata = dict[str, str](), dict[str, str]()
    for word in _words(text):
        name, is_pair, value = word.partition("=")
        if not is_pair or not name:
            raise ConfigurationError(
                f"search: expected name=value, such as pool=research job=nightly, got {quote(word)}"
            )
        if name in NAMES:
            ours[name] = value
        else:
            metadata[name.removeprefix(METADATA)] = value
    for name, known in (("pool", settings.pools), ("state", FOUND_STATES), ("error", sorted(ERROR_NAMES))):
        if name in ours and ours[name] not in known:
            raise ConfigurationError(f"{name}: expected one of {', '.join(known)}, got {quote(ours[name])}")
    return Wish(
        Selection(ours.get("pool"), ours.get("tenant"), metadata),
        kind=ours.get("kind"), error=ours.get("error"), limit=LISTED,
        states=(cast(FoundState, ours["state"]),) if "state" in ours else FOUND_STATES,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text[: MOST_CHARS + 1])
    except ValueError as error:
        raise ConfigurationError(f"search: expected name=value, got {quote(text)}: {error}") from error
    if not words or len(text) > MOST_CHARS:
        raise ConfigurationError(
            f"search: expected name=value pairs of {MOST_CHARS:,} characters at most, got {quote(text)}"
        )
    return words
