"""The tables [results] and [dead_letters] in fleet.toml: how long what became of tasks is kept."""

from __future__ import annotations

from pydantic import Field

from fleet.config.sections import Section


class ResultSettings(Section):
    """How long results stay, and what a failed one is to Celery."""

    expires_s: int = Field(86_400, ge=60, description="Seconds until a result is deleted.")
    strict: bool = Field(
        False, description="True: a failed result has Celery's state FAILURE, and `get()` raises its error."
    )


class DeadLetterSettings(Section):
    """Tasks that failed for good, kept to be looked at and queued again: `fleet dead`."""

    max_letters: int = Field(10_000, ge=1, description="Dead letters kept; the oldest make room.")
    max_refused: int = Field(
        1000, ge=1, description="Refused messages (InvalidTask) kept beside those; they make room for each other only."
    )
    max_mb: int = Field(256, ge=1, description="MiB of Redis memory for them; the oldest make room.")
    expires_s: int = Field(604_800, ge=60, description="Seconds until a dead letter is deleted.")
