"""What `fleet doctor` says of documents that tasks share: how many calls read them from caches, and what that saves.

That calls of one document hardly read it any more is the finding `cache_missed`.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.economy.contexts.told import ContextBoard, read_contexts
from fleet.errors import FleetError
from fleet.money import dollars_of
from fleet.quoting import counted
from fleet.store.client import connect, store_errors
from fleet.store.private.embedded import state_url


def read_documents(settings: Settings) -> ContextBoard | None:
    """Return what documents have saved; None: Redis does not answer."""
    try:
        url = state_url(settings)
        with store_errors(url), connect(url, timeout_s=settings.redis.socket_timeout_s) as state:
            return read_contexts(state, float(state.time()[0]))
    except FleetError:
        return None


def context_checks(board: ContextBoard | None) -> Iterator[Check]:
    """Yield what is known of documents, if there are any."""
    if board is None or not (board.stored or board.documents):
        return
    lately = board.lately
    told = f"{counted(board.stored, 'document')} stored"
    if not lately.calls:
        yield ok("documents", f"{told}, none was asked about in the last 70 minutes")
        return
    told += f"; {lately.share:.0%} of {counted(lately.calls, 'call')} of late have read theirs from a cache"
    if lately.saved_picos >= 0:
        yield ok("documents", f"{told}, ${dollars_of(lately.saved_picos):,.4f} saved")
        return
    advice = "Let tasks that name one come together, or take it out of prompts that are asked now and then."
    yield warn("documents", f"{told}; caches have cost ${dollars_of(-lately.saved_picos):,.4f} more than none", advice)
