"""What idle slots cost: in the view, in the metrics, and in a bill's line, out of what workers have reported."""

from __future__ import annotations

import pytest
import redis

from fleet.config import Settings, WorkerSettings
from fleet.engine.operations.idle import bill_line, compute_view, read_compute
from fleet.signals.windows import MINUTES, RESOURCE, ResourcePeriod
from fleet.store import keys

#: An hour of 2027.
HOUR = 500_000
PRICED = Settings(worker=WorkerSettings(slots=10, usd_per_hour=0.5))


def reported(*hours: ResourcePeriod) -> bytes:
    """Return what Redis has of these hours."""
    return bytes(MINUTES * RESOURCE.struct.size) + b"".join(RESOURCE.struct.pack(*hour) for hour in hours)


RAW = reported(*(ResourcePeriod(HOUR - back, 0, 0, 9_000, 36_000) for back in (0, 1, 30)))


def test_the_last_day_is_shown_with_its_dollars() -> None:
    view = compute_view(RAW, PRICED, HOUR * 3600.0)
    assert view is not None
    assert (view.busy_slot_hours, view.idle_slot_hours) == (5.0, 15.0)  # of 20, of which a process has 10 an hour
    assert (view.usd_micros, view.idle_usd_micros) == (1_000_000, 750_000)
    bare = compute_view(RAW, Settings(), HOUR * 3600.0)
    assert bare is not None and (bare.usd_micros, bare.line) == (None, "20.0 slot-hours, 75% idle")
    assert compute_view(b"", PRICED, HOUR * 3600.0) is None


def told_of(client: redis.Redis, settings: Settings, since_s: float, until_s: float) -> str | None:
    found = read_compute(client, settings, since_s=since_s, until_s=until_s)
    return None if found is None else bill_line(found, since_s=since_s, until_s=until_s)


def test_a_bill_has_the_hours_of_its_time(redis_url: str) -> None:
    now_s = (HOUR + 1) * 3600.0
    with redis.Redis.from_url(redis_url) as client:
        client.set(keys.resources(), RAW)
        try:
            line = told_of(client, PRICED, now_s - 7200, now_s)
            assert line == "compute: 20.0 slot-hours, 75% idle: $1.00, of which $0.75 idle"
            long = told_of(client, Settings(), 0, now_s)
            assert long is not None
            assert "of the last 48 hours" in long and "set usd_per_hour in [worker]" in long
            assert told_of(client, PRICED, 0, 3600) is None
        finally:
            client.delete(keys.resources())


def test_the_table_is_called_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet import config
    from fleet.errors import ConfigurationError

    monkeypatch.setenv("FLEET_WORKERS__USD_PER_HOUR", "1")
    with pytest.raises(ConfigurationError, match="FLEET_WORKER"):
        config.load()
    with pytest.raises(ConfigurationError, match="workers: unknown key, the nearest known one is `worker`"):
        monkeypatch.delenv("FLEET_WORKERS__USD_PER_HOUR")
        config.load(workers={"usd_per_hour": 1})
