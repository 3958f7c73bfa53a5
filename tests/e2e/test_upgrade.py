"""A rolling upgrade from the first release with tasks of every kind in flight: docs/upgrading.md."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.store import keys
from tests.counted import all_counted
from tests.e2e.releases.first import SLOW_S, install_first
from tests.e2e.releases.site import Site
from tests.every import every
from tests.redis_server import RedisServer
from tests.waiting import wait_until


@pytest.fixture
def site(tmp_path: Path, own_redis: RedisServer) -> Iterator[Site]:
    (tmp_path / "first").mkdir()
    site = Site(tmp_path, own_redis, install_first(tmp_path / "first"))
    yield site
    site.end()


def test_a_fleet_is_upgraded_while_both_releases_work_submit_and_one_worker_dies(site: Site) -> None:
    site.simulate()
    first, second = site.worker("old", "old1"), site.worker("old", "old2")
    site.ready("old1")
    site.ready("old2")
    site.fleet("old", "pools", "pause", "shut")
    site.fleet("old", "bots", "quarantine", "shared-003")
    site.submit("old", "a", "many", "tenants", "held", "revoked", "long", "fails", "eta", "keys", "canvas")

    site.worker("new", "new1")
    site.ready("new1")
    site.submit("new", "b", "many", "tenants", "held", "long", "fails", "eta", "keys", "canvas")
    assert "0.2 or before (old1@h, old2@h)" in site.releases()
    for release in ("old", "new"):  # either shows the workers of both
        workers = json.loads(site.fleet(release, "stats", "--json"))["resources"]["workers"]
        assert sorted(worker["name"] for worker in workers) == ["new1@h", "old1@h", "old2@h"]
    first.kill()
    site.submit("old", "c", "many", "keys", "canvas")
    second.terminate()
    assert second.wait(SLOW_S) == 0
    site.submit("old", "d", "many", "tenants", "keys", "revoked")
    site.fleet("new", "pools", "resume", "shut")

    wait_until(lambda: len(site.results()) == len(site.tasks), SLOW_S, lambda: _missing(site))
    _check_results(site, killed=str(first.pid))
    _check_counts(site)
    wait_until(lambda: site.releases() == "one", SLOW_S, "the killed worker is no more")


def _missing(site: Site) -> str:
    return f"without a result: {[task for task_id, task in site.tasks.items() if task_id not in site.results()]}"


def _check_results(site: Site, *, killed: str) -> None:
    """Each task has ended as it should, once; what a killed worker had begun has begun twice, and nothing else."""
    results = site.results()
    for task_id, task in site.tasks.items():
        got, value = results[task_id]["status"], results[task_id]["result"]
        if task["kind"] == "revoked":
            assert got == "REVOKED", task
        else:
            assert value["status"] == ("failed" if task["kind"] == "fails" else "ok"), (task, value)
    begins, ends = site.ledger("begins"), site.ledger("ends")
    assert not [n for n, count in ends.items() if count > 1]
    again = {n for n, count in begins.items() if count > 1}
    lines = (site.folder / "ledger").read_text().splitlines()
    assert again <= {line.split()[1] for line in lines if line.endswith(f" {killed}")}
    assert not [task for task in site.tasks.values() if task["kind"] == "revoked" and task["n"] in begins]


def _check_counts(site: Site) -> None:
    """Totals, dead letters, quarantines and limits are those of both releases together."""
    totals = all_counted(site.client)
    failed = sum(task["kind"] == "fails" for task in site.tasks.values())
    ended = len(set(site.ledger("ends"))) + failed
    assert (totals["completions"], totals["failed"]) == (ended, failed)
    with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/ledger") as reply:
        served = json.load(reply)["total"]
    assert served["refused_429"] == 0 and ended - failed <= served["served"] <= ended - failed + 10
    letters = json.loads(site.fleet("new", "dead", "list", "--json"))["letters"]
    assert len(letters) == failed
    site.fleet("new", "dead", "replay", "--all", "--yes")
    wait_until(lambda: {count for n, count in site.ledger("begins").items() if "-fails-" in n} == {2}, SLOW_S, "again")
    wait_until(lambda: site.client.hlen(keys.unacked()) == 0, SLOW_S, "nothing is held")
    bots = {row["name"]: row for row in json.loads(site.fleet("new", "bots", "list", "--json"))["bots"]}
    assert bots["shared-003"]["state"] == "quarantined"
    assert every(row["load"] == 0 for row in bots.values())
    assert not site.client.exists(keys.suspects(), keys.parked(), keys.poison())
    calls = site.client.get(keys.limit("sim/m/default"))
    assert calls is not None and len(calls) == 39 * 8
