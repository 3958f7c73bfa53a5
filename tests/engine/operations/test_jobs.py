"""How jobs stand, as people see it: their pace, what is left, and which of them stand still and why."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from fleet import config
from fleet.config import Settings
from fleet.engine.jobs.job import FleetJob, open_job, submit_job
from fleet.engine.operations.jobs.board import OPEN_S, PACE_S, STILL_S, members_of, read_job, read_jobs
from fleet.engine.operations.overview import open_overview
from fleet.engine.outcomes.completion import Finish
from fleet.models import BotResult
from fleet.signals.jobs.view import JobView
from fleet.signals.metrics import exposition
from fleet.store import job_keys
from fleet.store.client import connect
from tests.engine.jobs.test_counting import finish_result


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, timeout_s=5) as one:
        yield one


@pytest.fixture(autouse=True)
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    return config.current()


def finish(job: FleetJob, *positions: int, status: str = "ok") -> None:
    for position in positions:
        result = BotResult(task_id=job.task_id(position), status=status, answer="a", finished_at=1.0)  # type: ignore[arg-type]
        finish_result(config.current(), Finish(result))


def seen(client: redis.Redis, job: FleetJob, *, in_s: float = 0.0) -> JobView:
    """Return how a job stands, as if it were so many seconds later."""
    view = read_job(client, job.id, time.time() + in_s)
    assert view is not None
    return view


def test_a_fleet_without_jobs_pays_one_look(client: redis.Redis) -> None:
    assert read_jobs(client, time.time()).live == 0
    before = client.info("stats")["total_commands_processed"]
    read_jobs(client, time.time())
    assert client.info("stats")["total_commands_processed"] - before <= 3


def test_the_pace_and_what_is_left_are_told_by_the_last_ends(client: redis.Redis) -> None:
    job = submit_job(["a"] * 100)
    assert (seen(client, job).per_minute, seen(client, job).left_s) == (None, None)
    finish(job, *range(20))
    view = seen(client, job, in_s=60)
    assert view.per_minute == pytest.approx(20, rel=0.1)
    assert view.left_s == pytest.approx(240, rel=0.1)
    assert view.line.startswith("20 of 100 ended, 4 min left")
    assert seen(client, job, in_s=PACE_S + 60).left_s is None
    finish(job, *range(20, 100))
    assert (seen(client, job).left_s, seen(client, job).is_live) == (None, False)


def test_jobs_that_are_not_over_come_first_however_old(client: redis.Redis) -> None:
    old = submit_job(["a"], key="old")
    for number in range(4):
        finish(submit_job(["a"], key=f"new {number}"), 0)
    found = read_jobs(client, time.time(), count=3)
    assert (found.live, [job.key for job in found.jobs]) == (1, ["old", "new 3", "new 2"])
    assert found.headline == "job old: 0 of 1 ended"
    finish(old, 0)
    found = read_jobs(client, time.time(), count=3)
    assert (found.live, found.headline, client.zcard(job_keys.live())) == (0, "", 0)


def test_members_are_named_by_how_they_ended(client: redis.Redis) -> None:
    job = submit_job(["a"] * 10)
    finish(job, 1, 2)
    finish(job, 4, 5, status="failed")
    view = seen(client, job)
    assert members_of(client, view, "failed", 5) == [job.task_id(4), job.task_id(5)]
    assert members_of(client, view, "pending", 3) == [job.task_id(position) for position in (0, 3, 6)]
    assert members_of(client, view, "cancelled", 3) == []


def test_a_job_that_nobody_seals_or_ends_or_follows_stands_still(client: redis.Redis) -> None:
    crawl = open_job(key="crawl")
    crawl.add(["a"])
    assert seen(client, crawl, in_s=OPEN_S - 60).trouble == ""
    assert "has got no task for 61 min" in seen(client, crawl, in_s=OPEN_S + 60).trouble
    crawl.seal()
    assert seen(client, crawl, in_s=OPEN_S + 60).trouble == ""
    assert f"`fleet why {crawl.task_id(0)}`" in seen(client, crawl, in_s=STILL_S + 60).trouble
    report = submit_job(["a"], key="report", then="all")
    finish(report, 0)
    assert seen(client, report).trouble == ""
    assert "what follows it is not queued" in seen(client, report, in_s=120).trouble


def test_one_that_stands_still_is_a_finding_and_in_the_metrics(client: redis.Redis, settings: Settings) -> None:
    crawl = open_job(key="crawl")
    crawl.add(["a", "b"])
    client.hset(job_keys.job(crawl.id), mapping={"queued_at": time.time() - 7200, "made": time.time() - 7200})
    with open_overview(settings) as overview:
        view = overview.read()
    [finding] = [one for one in view.diagnoses if one.kind == "job_stands"]
    assert (finding.about, finding.tasks) == ("crawl", 2)
    assert finding.sentence.startswith("1 job stands still, 2 tasks wait: crawl: it is open")
    told = exposition(view).decode()
    assert "fleet_jobs 1.0" in told and 'fleet_job_tasks{state="pending"} 2.0' in told
    assert "fleet_jobs_standing 1.0" in told
