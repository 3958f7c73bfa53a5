"""What is wrong with the workers as a crew, out of their own reports; whose rows stay when processes come and go."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from typing import Any

from fleet import config
from fleet.config.fingerprint import fingerprint
from fleet.signals.crew import stray, troubles_of, why_shut
from fleet.signals.recorder import Recorder, WorkerReport, report_worker, split_reports
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.waits import Wait
from tests.every import every

SETTINGS = config.load()
ALL = ("celery", "fleet.research", "fleet.writing", "fleet.review")
NOW_S = 1000.0


def worker(name: str = "w1@h", **changes: Any) -> WorkerReport:
    facts: dict[str, Any] = {
        "name": name, "pid": 1, "process": f"{name} of {changes}", "cpu_percent": 1, "rss_mb": 1, "slots": 1,
        "busy": 0, "at": NOW_S - 1, "queues": ALL, "settings": fingerprint(SETTINGS),
    }  # fmt: skip
    return WorkerReport.model_validate(facts | changes)


def lines(*workers: WorkerReport, settings: config.Settings = SETTINGS) -> list[str]:
    return [trouble.line for trouble in troubles_of(workers, settings, now_s=NOW_S)]


def test_nothing_is_wrong_with_nobody_nor_with_workers_that_share_the_work() -> None:
    assert lines() == []
    assert lines(worker("a@h", queues=ALL[:2]), worker("b@h", queues=ALL[2:])) == []
    assert lines(worker(queues=None, settings={})) == []  # an earlier release, which does not say


def test_workers_of_several_releases_are_told_with_who_runs_which() -> None:
    newer = worker("new@h", release="0.3.0")
    (found,) = troubles_of([worker("a@h"), newer, worker("b@h")], SETTINGS, now_s=NOW_S)
    told = "workers of 2 releases are at work: 0.2 or before (a@h, b@h), 0.3.0 (new@h); end the upgrade soon"
    assert found.about == "releases" and found.line.startswith(told)
    silent = worker("a@h", at=NOW_S - 11)
    assert not [one for one in troubles_of([silent, newer], SETTINGS, now_s=NOW_S) if one.about == "releases"]
    assert lines(newer, worker("other@h", release="0.3.0")) == lines(worker("a@h"), worker("b@h")) == []


def test_a_row_is_one_that_0_2_can_read_and_fields_of_a_later_release_are_left_out() -> None:
    report = worker(release="0.3.0", shut={"why": ("research",)}, beat_at=3.5)
    by_0_2 = dict(json.loads(report.text()))  # it takes the second of two fields of one name, as all JSON readers here
    wanted = {"name": "w1@h", "pid": 1, "cpu_percent": 1, "rss_mb": 1, "slots": 1, "busy": 0, "at": 999, "beat_at": 3.5}
    assert by_0_2 == wanted
    assert WorkerReport.read(report.text().encode()) == report
    assert WorkerReport.read(report.model_dump_json()) == report == WorkerReport.read(json.dumps(
        report.model_dump() | {"of_a_later_release": [1]}
    ))  # fmt: skip
    assert split_reports({b"a": b"[]", b"b": b'{"name":"{","name":"x"}', b"c": b"{"}, now_s=NOW_S) == (
        [],
        [b"a", b"b", b"c"],
    )


def test_pools_that_no_worker_serves_are_named_and_many_are_counted() -> None:
    (found,) = troubles_of([worker(queues=ALL[:3])], SETTINGS, now_s=NOW_S)
    assert found.line.startswith("no live worker serves pool review: its tasks wait; ")
    assert "-Q and fleet.review" in found.line
    assert (found.told_of("review"), found.told_of("research"), found.told_of(None)) == (found.line, None, None)
    many = config.load(pools={f"p{n}": {} for n in range(9)})
    (line,) = lines(worker(queues=("celery",), settings={}), settings=many)
    assert "pools p0, p1, p2, p3, p4 and 4 more: their tasks wait" in line
    (inbox,) = troubles_of([worker(queues=ALL[1:])], SETTINGS, now_s=NOW_S)
    assert inbox.line.startswith("no live worker serves the inbox celery")
    assert inbox.told_of(None)
    assert inbox.told_of("review") is None


def test_pools_that_a_worker_cannot_serve_are_told_with_why_also_while_another_one_serves_them() -> None:
    why = Wait("key", None, "a/m/default", "variable X is not set; set it")
    shut = {why.to_json(): ("writing", "review"), '{"cause": "of a later release"}': ("research",)}
    lame = worker("lame@h", queues=ALL[:2], shut=shut)
    for workers in ([lame], [lame, worker("fine@h")]):
        (found,) = troubles_of(workers, SETTINGS, now_s=NOW_S)
        assert found.line.startswith("lame@h cannot serve pools writing, review: a/m/default: there is no key that ")
        assert found.line.endswith("(variable X is not set, set it); mend that where it runs, and start it again")
        assert (found.told_of("review"), found.told_of("research"), found.told_of(None)) == (found.line, None, None)
    assert (why_shut([lame], "review"), why_shut([lame], "research")) == (why, None)


def test_two_workers_of_one_name_are_told_apart_by_their_processes_unless_one_is_silent() -> None:
    (line,) = lines(worker(pid=7), worker(pid=8))
    assert line.startswith("2 workers have the same name, w1@h (pid 7, pid 8): ")
    assert lines(worker(pid=7, at=NOW_S - 6), worker(pid=8)) == []


def test_tables_that_differ_are_named_between_workers_and_against_who_asks() -> None:
    other = config.load(health={"opinions": 2}, results={"expires_s": 99})
    (line,) = lines(worker("a@h"), worker("b@h", settings=fingerprint(other)))
    assert line.startswith("workers a@h and b@h run with different settings in [results], [health]: ")
    (line,) = lines(worker(), settings=other)
    assert line.startswith("the settings here and those of the worker differ in [results], [health]: ")


def test_a_fingerprint_tells_neither_secrets_nor_what_differs_from_host_to_host() -> None:
    base = {"kind": "openai", "base_url": "http://ann:s3cret@h/v1", "api_key_env": "A"}
    one = config.load(providers={"p": base}, worker={"slots": 5}, redis={"url": "redis://:s3cret@a"})
    same = {**base, "base_url": "http://bob:other@h/v1", "api_key_env": "B"}
    assert fingerprint(one) == fingerprint(config.load(providers={"p": same}, worker={"slots": 9}))
    assert fingerprint(one) != fingerprint(config.load(providers={"p": {**base, "base_url": "http://i/v1"}}))
    assert every(len(digest) == 12 for digest in fingerprint(one).values())


def test_a_queue_with_a_pools_bare_name_is_astray_unless_somebody_takes_from_it() -> None:
    found = stray("writing", [worker()], SETTINGS)
    assert found
    assert "its client means fleet.writing" in found.line
    assert stray("writing", [worker(queues=("writing",))], SETTINGS) is None
    assert stray("fleet.writing", [worker()], SETTINGS) is None


def test_workers_of_one_name_have_rows_of_their_own_and_a_successor_takes_over_that_of_a_dead_process(
    redis_url: str,
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = {"name": "w", "host": socket.gethostname(), "at": 4e9}

    async def work() -> None:
        store = Store(redis_url)
        for process, pid in (("lives", os.getppid()), ("died", gone.pid), ("had my pid", os.getpid())):
            await report_worker(store, worker(**{**here, "process": process, "pid": pid}))
        await report_worker(store, worker(**{**here, "host": "elsewhere", "process": "far", "pid": gone.pid}))
        mine = Recorder(store, name="w", process="mine")
        await mine.report(slots=1, busy=0, queues=ALL)
        assert {report.process for report in mine.living} == {"lives", "far", "mine"}
        await mine.leave()
        await store.close()

    asyncio.run(work())
    with connect(redis_url) as client:
        rows: Any = client.hgetall(keys.workers())
    assert {report.process for report in split_reports(rows, now_s=4e9)[0]} == {"lives", "far"}
