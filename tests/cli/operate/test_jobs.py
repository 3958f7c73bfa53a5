"""`fleet job`, and what `fleet why` says of a member, on a real Redis."""

from __future__ import annotations

import json

import redis

from fleet.engine.jobs.job import FleetJob, open_job, submit_job
from fleet.errors import GiveUp
from tests.cli.operate.test_dead import client, fleet

__all__ = ["client"]


def jobs() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(fleet("job", "--json").stdout)["jobs"]
    return found


def test_jobs_are_listed_the_newest_first_and_shown_by_key_or_id(client: redis.Redis) -> None:
    assert "no job is known" in fleet("job").stdout
    first = submit_job(["a", "b"], key="first", then="report")
    second = open_job(key="second")
    second.add(["c"])
    assert [(row["key"], row["state"], row["queued"], row["total"]) for row in jobs()] == [
        ("second", "open", 1, None),
        ("first", "sealed", 2, 2),
    ]
    assert "0 of 2" in fleet("job", "list").stdout
    shown = json.loads(fleet("job", "show", "first", "--json").stdout)
    assert (shown["id"], shown["then_id"]) == (first.id, first.then_id)
    assert "0 of 1 so far ended" in fleet("job", "show", second.id).stdout
    assert "report" not in fleet("job", "show", "first").stdout


def test_a_job_is_cancelled_and_an_unknown_one_is_told(client: redis.Redis) -> None:
    job = submit_job(["a", "b"], key="first")
    fleet("job", "cancel", "first", code=2)
    assert json.loads(fleet("job", "cancel", "first", "--yes", "--json").stdout)["waiting"] == 2
    assert (job.state.word, job.state.cancelled) == ("cancelled", 2)
    assert "2 cancelled" in fleet("job", "show", "first").stdout
    try:
        fleet("job", "show", "unheard of", code=1)
    except GiveUp as error:
        assert "fleet job list" in str(error)


def test_an_open_job_is_sealed_and_its_first_members_are_named(client: redis.Redis) -> None:
    job = open_job(key="crawl")
    job.add(["a", "b"])
    assert json.loads(fleet("job", "seal", "crawl", "--json").stdout) == {"job": job.id, "state": "sealed", "total": 2}
    shown = json.loads(fleet("job", "show", "crawl", "--json").stdout)
    assert shown["first"] == {"failed": [], "pending": [job.task_id(0), job.task_id(1)]}
    assert job.task_id(0) in fleet("job", "show", "crawl").stdout


def test_top_has_a_line_about_what_is_under_way(client: redis.Redis) -> None:
    assert "ended" not in fleet("top", "--once").stdout
    submit_job(["a", "b"], key="first")
    open_job(key="second")
    assert "job first: 0 of 2 ended; 1 more job" in fleet("top", "--once").stdout


def test_why_tells_the_job_of_a_task(client: redis.Redis) -> None:
    job: FleetJob = submit_job(["a", "b"], key="first")
    story = json.loads(fleet("why", job.task_id(1), "--json").stdout)
    assert (story["state"], story["job"]) == ("queued", job.id)
    assert f"task 1 of job {job.id}" in story["lines"][0]
