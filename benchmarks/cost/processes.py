"""Processes of their own for runs in virtual time, so that both cores are used."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.cost.world import share_counts


def processes(most: int = 2) -> ProcessPoolExecutor:
    """Return so many processes at most."""
    return ProcessPoolExecutor(min(most, os.cpu_count() or 1), get_context("spawn"), _begin)


def _begin() -> None:
    """Count equal texts once, and collect garbage seldom, as hardly any of what lives is in a cycle."""
    share_counts()
    gc.set_threshold(100_000, 50, 50)
