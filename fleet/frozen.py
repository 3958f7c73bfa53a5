"""The base of all models that cross a process boundary as JSON."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Base of all models: immutable, unknown fields refused; no error quotes what a user wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def __json__(self) -> dict[str, Any]:
        """What kombu writes into a message or a result where it meets a model: an argument, a value handed on."""
        return self.model_dump(mode="json")

    def __getitem__(self, field: str) -> Any:
        """Return a field by its name, as in the dict that a worker hands to a task of your own.

        Raises:
            KeyError: When there is no such field.
        """
        if field not in type(self).model_fields:
            raise KeyError(field)
        return getattr(self, field)


class Lasting(Frozen):
    """Base of what lies in Redis, where several releases meet while a fleet is upgraded: fields that a later one has
    added are left out, not refused.
    """

    model_config = ConfigDict(extra="ignore")
