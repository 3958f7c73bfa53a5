"""What stands for an API that this process cannot call: it has no key, no address, or no SDK for it."""

from __future__ import annotations

from fleet.errors import ConfigurationError
from fleet.workers.calls import Call, Completion


class Unusable:
    """A `fleet.workers.ports.Provider` whose every call raises why there is none.

    Args:
        error: Why.
    """

    def __init__(self, error: ConfigurationError) -> None:
        self._error = error

    async def complete(self, call: Call, *, api_key: str) -> Completion:
        """Send nothing.

        Raises:
            ConfigurationError: Why.
        """
        raise type(self._error)(str(self._error))

    async def close(self) -> None:
        """Do nothing: there are no connections."""
