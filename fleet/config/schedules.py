"""[schedules.NAME]: tasks that are submitted by the clock: docs/schedules.md."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from fleet.config.sections import Section
from fleet.quoting import quote


class ScheduleSettings(Section):
    """Tasks that `celery -A fleet beat` submits by the clock, which `fleet up` runs: see docs/schedules.md."""

    cron: str | None = Field(None, description='When, as five fields of cron: "0 7 * * mon-fri".')
    every_s: int | None = Field(
        None, ge=1, le=366 * 86_400, description="When, as whole seconds between two times, counted from 1970 in UTC."
    )
    timezone: str = Field("UTC", description='Where `cron` is read: a name of the IANA database, "Europe/Berlin".')
    missed: Literal["once", "all", "skip"] = Field(
        "once",
        description="What is done about times at which no beat ran: submit the last, all (1,000 at most), none.",
    )
    expires_s: float | None = Field(
        None, gt=0, description="Seconds after its time from which a task that hasn't begun is dropped. Not set: never."
    )
    task: dict[str, JsonValue] | None = Field(None, description="The task: what `submit_task` takes.")
    tasks: Path | None = Field(
        None, description="Or a JSONL file with a task a line as `submit_task` takes it, read at each time."
    )

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, OSError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError; OSError: a folder
            raise ValueError(
                f'expected a name of the IANA database such as "Europe/Berlin", got {quote(name)}'
            ) from error
        return name

    @model_validator(mode="after")
    def _says_when_and_what(self) -> Self:
        if (self.cron is None) == (self.every_s is None):
            raise ValueError(f"expected either cron or every_s, got {'none' if self.cron is None else 'both'} of them")
        if (self.task is None) == (self.tasks is None):
            raise ValueError(f"expected either task or tasks, got {'none' if self.task is None else 'both'} of them")
        if self.cron is not None:
            _check_cron(self.cron)
        return self


def _check_cron(expression: str) -> None:
    from cronsim import CronSim, CronSimError  # loaded with the first schedule

    wanted = f"cron: expected five fields (minute hour day month weekday), got {quote(expression)}"
    if len(expression.split()) != 5:
        raise ValueError(wanted)
    try:
        next(CronSim(expression, datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"{wanted}: {error}") from error
    except StopIteration as error:
        raise ValueError(f"cron: expected a time that comes, got {quote(expression)}") from error


def _check_names(schedules: dict[str, ScheduleSettings]) -> dict[str, ScheduleSettings]:
    for name in schedules:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise ValueError(f"schedules: expected a name of letters, digits, - and _, got {quote(name)}")
    return schedules


#: The schedules of fleet.toml by name.
Schedules = Annotated[dict[str, ScheduleSettings], AfterValidator(_check_names)]
