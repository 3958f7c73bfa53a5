"""The time before which a message must not be worked on: Celery's `eta`, also what `countdown` becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

#: Characters that a header with a time or a name has at most.
SHORT_CHARS = 256
#: Latest ETA that a message may have, in seconds of Unix time: the year 2200.
LATEST_ETA_S = 7_258_118_400


def eta_s(headers: Any) -> float | None:
    """Return the ETA in a message's headers as Unix time in seconds; None: it has none. Without a zone it is UTC.

    Raises:
        ValueError: When it isn't a time before 2200.
    """
    eta = headers.get("eta") if isinstance(headers, dict) else None
    if eta is None:
        return None
    if isinstance(eta, str) and len(eta) > SHORT_CHARS:
        raise ValueError("expected a short text")
    try:
        at = datetime.fromisoformat(str(eta))
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except OverflowError as error:
        raise ValueError("expected a time that a clock can show") from error
    if not 0 < seconds < LATEST_ETA_S:
        raise ValueError("expected a time between 1970 and 2200")
    return seconds
