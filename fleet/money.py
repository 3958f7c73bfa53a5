"""Money is a whole number of 10^-12 US dollars, "picos": a million of the cheapest calls are right to a cent.

People and JSON get micro-dollars, rounded from the exact figure only where it is shown.
"""

from __future__ import annotations

from math import floor

#: Picos in a dollar, and in a micro-dollar.
PICOS, PICOS_PER_MICRO = 10**12, 10**6


def micros_of(picos: int) -> int:
    """Return picos as micro-dollars, rounded to the nearest one (half up)."""
    return (picos + PICOS_PER_MICRO // 2) // PICOS_PER_MICRO


def whole_micros(micros: float) -> int:
    """Return micro-dollars with parts as a whole number, rounded as `micros_of` does: 436.5 is the same everywhere."""
    return floor(micros + 0.5)


def dollars_of(picos: int) -> float:
    """Return picos as US dollars, for a face that shows a float."""
    return picos / PICOS


def dollars_in_full(picos: int) -> str:
    """Return picos as US dollars with every digit that is not zero, two at least: `0.42`, `0.00000042`."""
    whole, rest = divmod(abs(picos), PICOS)
    digits = f"{rest:012d}".rstrip("0").ljust(2, "0")
    return f"{'-' if picos < 0 else ''}{whole}.{digits}"
