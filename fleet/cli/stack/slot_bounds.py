"""`--autoscale MIN:MAX`: how many slots the workers of a stack have together, at least and at most."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import click

from fleet.errors import ConfigurationError
from fleet.quoting import quote

#: Slots of one worker process at most, as `worker.slots` has it.
MOST_SLOTS_OF_A_PROCESS = 2000


@dataclass(frozen=True, slots=True)
class SlotBounds:
    """Slots of all workers of a stack."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}:{self.most}"

    def check(self, processes: int) -> None:
        """Refuse bounds that so many worker processes cannot keep.

        Raises:
            ConfigurationError: Each process has a slot at least, and `MOST_SLOTS_OF_A_PROCESS` at most.
        """
        most = processes * MOST_SLOTS_OF_A_PROCESS
        if not (processes <= self.least and self.most <= most):
            raise ConfigurationError(
                f"--autoscale: expected {processes} <= MIN <= MAX <= {most:,} for worker.processes = {processes}, got "
                f"{self}; or change --workers"
            )

    def each(self, processes: int) -> str:
        """Return the bounds of one of so many processes as Celery takes them: `MAX,MIN`.

        All are the same, so a MAX that cannot be divided is rounded down. It is never exceeded; MIN may be missed then.
        """
        most = self.most // processes
        return f"{most},{min(-(-self.least // processes), most)}"


class _SlotBoundsType(click.ParamType[SlotBounds]):
    name = "MIN:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> SlotBounds:
        if isinstance(value, SlotBounds):
            return value
        least, _, most = str(value).partition(":")
        are_numbers = re.fullmatch(r"[0-9]{1,6}", least) and re.fullmatch(r"[0-9]{1,6}", most)
        if not are_numbers or not 1 <= int(least) <= int(most):
            self.fail(f"expected MIN:MAX, two numbers of slots such as 8:200, got {quote(value)}", param, ctx)
        return SlotBounds(int(least), int(most))


SLOT_BOUNDS = _SlotBoundsType()
