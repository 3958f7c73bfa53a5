"""python -m benchmarks.start.inside WHAT: what a fresh process measures of itself, as one line of JSON."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.start.workers import peak_mb


def _ms(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return 1000 * (time.perf_counter() - began), found


def page() -> dict[str, float]:
    """Read the fleet for the page three times: the first is a page that opens, the last one that is open."""
    from fleet import config
    from fleet.dashboard.frames import frame_of
    from fleet.engine.operations.overview import open_overview

    with open_overview(config.current()) as overview:
        first_ms, frame = _ms(lambda: frame_of(overview.read(), "1"))
        whole = frame.whole()
        old = frame_of(overview.read(), "2")
        cpu_s = time.process_time()
        again_ms, new = _ms(lambda: frame_of(overview.read(), "3"))
        return {
            "first_ms": first_ms, "again_ms": again_ms, "again_cpu_ms": 1000 * (time.process_time() - cpu_s),
            "bytes": len(whole), "gzip_bytes": len(gzip.compress(whole.encode(), 1)),
            "changed_bytes": len(new.since(old)),
        }  # fmt: skip


def delay(pool: str) -> dict[str, float]:
    """Submit tasks: the first call imports and connects; `any` lets Fleet choose the pool."""
    first_ms, submit_task = _ms(_fleets_task)
    call_ms, _ = _ms(lambda: submit_task.delay("What is 1 + 2?", pool=pool))
    again_ms = min(_ms(lambda: submit_task.delay("What is 1 + 2?", pool=pool))[0] for _ in range(20))
    any_ms = min(_ms(lambda: submit_task.delay("What is 1 + 2?"))[0] for _ in range(20))
    return {"first_ms": first_ms + call_ms, "again_ms": again_ms, "any_ms": any_ms}


def _fleets_task() -> Any:
    from fleet import submit_task

    return submit_task


def bare() -> dict[str, float]:
    """Submit tasks with bare Celery."""
    first_ms, stock = _ms(_stock_app)
    call_ms, _ = _ms(lambda: stock.noop.delay("What is 1 + 2?"))
    again_ms = min(_ms(lambda: stock.noop.delay("What is 1 + 2?"))[0] for _ in range(20))
    return {"first_ms": first_ms + call_ms, "again_ms": again_ms}


def _stock_app() -> Any:
    from benchmarks import stock_app

    return stock_app


def main() -> None:
    """Measure one thing."""
    what, *arguments = sys.argv[1:]
    found = {"page": page, "delay": delay, "bare": bare}[what](*arguments)  # type: ignore[operator]
    found["peak_mb"] = peak_mb(os.getpid())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
