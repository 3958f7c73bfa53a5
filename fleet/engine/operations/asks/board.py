"""Which ask a task is a member of, and what doctor says of asks that come to nothing. Reads, changes nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fleet.engine.asking.question import METADATA
from fleet.engine.asking.recent import RecentAsk
from fleet.engine.outcomes.cancelling import asked_in
from fleet.models import BotResult

#: The newest asks that are looked at (count), how old they may be (s), and the share that may have no outcome.
LOOKED_AT, LOOK_BACK_S, FAILED_SHARE = 50, 86_400.0, 0.2
#: Asks below which a share tells nothing (count).
FEW = 10
_ID = re.compile(r"[0-9a-f]{12}")


def ask_of(result: BotResult | None, message: bytes | None) -> str | None:
    """Return the id of the ask that a task is a member of, by its result or its message; None: of none, or unknown."""
    metadata: Any = result.metadata if result is not None else None
    if result is None and message is not None and (asked := asked_in(message)) is not None:
        metadata = asked.fields.get("metadata")
    found = metadata.get(METADATA) if isinstance(metadata, Mapping) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def failing(asks: Sequence[RecentAsk], now_s: float) -> tuple[int, int, str] | None:
    """Return failed asks, all of them, and what most failed of, where too many of the newest did; None: too few."""
    newest = [ask for ask in asks[:LOOKED_AT] if ask.at > now_s - LOOK_BACK_S]
    failed = [ask for ask in newest if ask.status == "failed"]
    if len(newest) < FEW or len(failed) < FAILED_SHARE * len(newest):
        return None
    errors = Counter(one.error or one.status for ask in failed for one in ask.members if one.side is None)
    return len(failed), len(newest), errors.most_common(1)[0][0] if errors else "no member was asked"
