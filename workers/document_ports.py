"""What agents ask of the documents that tasks share. How they are stored and kept warm: `fleet/engine/process`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.conversation import Kept
from fleet.usage import Usage


class SharedText(Protocol):
    """The documents that a task names, as they stand in its prompt."""

    @property
    def text(self) -> str:
        """What they say."""

    @property
    def tokens(self) -> int:
        """Of it, by estimate."""


class Contexts(Protocol):
    """The documents that tasks share."""

    async def opened(self, ids: Sequence[str], tenant: str) -> SharedText:
        """Return the documents that a task of a tenant names.

        Raises:
            NotStored: One is not there.
            InvalidTask: One is another tenant's.
            StoreUnavailable: Redis does not answer.
        """
        ...

    def limits(self, prefix: str, who: str) -> tuple[str, ...]:
        """Return the limits whose keys' caches have a beginning, as far as is known here, for a task's next call."""
        ...

    def is_first(self, prefix: str, who: str) -> bool:
        """True for the task for the beginning of whose answer others wait."""
        ...

    def keeps(self, prefix: str, limit: str) -> Kept | None:
        """Return how long a provider is to keep a beginning where that costs more than to read it; None: not at all."""
        ...

    def begun(self, prefix: str, limit: str, who: str) -> None:
        """Note that an answer to a prompt that begins so has begun, under a limit. Never waits."""
        ...

    def came(self, prefix: str, limit: str, who: str, usage: Usage, tier: str | None) -> None:
        """Note a whole answer: what its call has read from the provider's cache, and the tier. Never waits."""
        ...
