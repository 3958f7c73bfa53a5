"""Numbers of the command line: click takes `nan` and `inf` for numbers in any range."""

from __future__ import annotations

import math
from typing import Any

import click

from fleet.quoting import quote


class FiniteRange(click.FloatRange):
    """A number between two bounds, either of which may be left out; `nan` and `inf` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number.

        Args:
            value: As it was given.
            param: Whose.
            ctx: Of the command.

        Raises:
            click.BadParameter: When it is none, or out of bounds.
        """
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"expected a finite number, got {quote(value)}", param, ctx)
        return found
