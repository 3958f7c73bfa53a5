"""What a worker process tells of its keys with each report: what they are known by, never a key."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fleet.quoting import brief
from fleet.signals.recorder import HeldKeyReport
from fleet.store.clock import CLOCK
from fleet.vault.keyring import HeldKey, Keyring
from fleet.vault.sources import NEEDLESS
from fleet.waits import MOST_TOLD


def held_keys(keyring: Keyring) -> Iterator[HeldKeyReport]:
    """Yield what is told of each key, but for those that are needed by nobody."""
    for held in keyring.held:
        if held.kept_in != NEEDLESS and (held.value or held.wait is not None or held.failure is not None):
            yield _told(held)


def _told(held: HeldKey) -> HeldKeyReport:
    secret, ends_s = held.secret, held.until_s
    return HeldKeyReport(
        key=held.name,
        source=held.kept_in,
        fingerprint=held.fingerprint,
        version="" if secret is None else secret.version,
        made_at=None if secret is None else secret.made_at,
        expires_at=None if ends_s is None else round(CLOCK.now_s() + ends_s - time.monotonic(), 1),
        waits="" if held.wait is None else held.wait.words,
        failure="" if held.failure is None else brief(str(held.failure), MOST_TOLD),
    )
