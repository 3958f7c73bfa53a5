"""A message as it lies in Redis, and as Celery gets it."""

from __future__ import annotations

from typing import Any

from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from fleet.engine.messages.envelope import from_plain_json

JSON = "application/json"


class LazyMessage(virtual.Message):
    """A message as Celery gets it."""

    def _decode(self) -> Any:
        if self.content_type == JSON and (self.accept is None or JSON in self.accept):
            try:
                return from_plain_json(self.body)
            except (ValueError, TypeError):
                pass  # kombu decodes what is not plain, and has its own error if it isn't JSON
        return super()._decode()


def decoded(raw: bytes) -> Any:
    """Return what was published.

    Raises:
        ValueError: When it isn't JSON.
    """
    try:
        return from_plain_json(raw)
    except ValueError:
        return loads(bytes_to_str(raw))
