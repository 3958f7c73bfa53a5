"""Keys as releases up to 0.2 named them: inside the block, this process writes and reads as a worker of those did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from fleet.store import answer_keys, keys

#: Builder of a pool's key -> what stood in its name.
OF_POOL = {
    "bots": "bots", "bot_leases": "leases", "bot_claims": "claims", "quarantined": "quarantined",
    "quarantine_reasons": "quarantine-reasons", "probation": "probation", "health": "health", "norms": "norms",
    "bot_rows": "signals:bots", "bot_tasks": "signals:tasks", "series": "signals:series", "sketch": "signals:sketch",
    "errors": "signals:errors",
}  # fmt: skip
OF_KIND = {"skills": "skills", "specialists": "specialists", "answers": "diversity:answers"}
OF_ANSWERS = {"grades": "grades", "ration": "shadow-ration"}
#: What was kept of the whole fleet.
OF_FLEET = {
    "pool_totals": "totals", "pool_recent": "recent", "pool_failures": "failures", "pool_reaped": "reaped",
}  # fmt: skip


@contextmanager
def names_of_before() -> Iterator[None]:
    """Name keys as they were named."""
    former = keys.former
    with ExitStack() as patches:

        def patch(module: object, name: str, build: object) -> None:
            patches.enter_context(mock.patch.object(module, name, build))

        for name, what in OF_POOL.items():
            patch(keys, name, lambda pool, what=what: former(what, pool))
        for module, names in ((keys, OF_KIND), (answer_keys, OF_ANSWERS)):
            for name, what in names.items():
                patch(module, name, lambda pool, kind, what=what: former(what, f"{pool}:{kind}"))
        patch(answer_keys, "classes", lambda pool: former("graded-classes", pool))
        for name, of_fleet in OF_FLEET.items():
            whole = getattr(keys, of_fleet)
            patch(keys, name, lambda pool, whole=whole: whole())
        yield
