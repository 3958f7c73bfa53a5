"""`fleet health`: a probe that tells a worker which works from one that hangs, and blames none for Redis."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.stack.health import judge
from fleet.signals.recorder import WorkerReport
from fleet.store import keys
from fleet.store.client import connect
from fleet.store.private.service import free_port

NOW = 1_800_000_000.0


def report(**changed: Any) -> WorkerReport:
    return WorkerReport(
        **{"name": "w1@h", "pid": 1, "cpu_percent": 0, "rss_mb": 1, "slots": 4, "busy": 2, "at": NOW - 2,
           "beat_at": NOW - 3, **changed}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reports", "is_well", "says"),
    [
        ([report()], True, "w1@h works: 2 of 4 slots busy"),
        ([], False, "expected a worker w1@h that reports, got none"),
        ([report(name="w2@h")], False, "expected a worker w1@h that reports, got none"),
        ([report(at=NOW - 90)], False, "has reported nothing for 90 s"),
        ([report(beat_at=NOW - 200)], False, "its main thread has stood still"),
        ([report(beat_at=NOW - 100)], True, "works"),
        ([report(beat_at=None)], True, "works"),
        ([report(at=NOW - 90, process="before"), report(process="now")], True, "works"),
    ],
)
def test_a_worker_that_hangs_is_told_from_one_that_works(reports: list[WorkerReport], is_well: bool, says: str) -> None:
    found = judge("w1@h", reports, NOW, 60.0)
    assert found.is_well is is_well and says in found.line


def test_the_probe_exits_with_what_it_says(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    with connect(redis_url) as client:
        client.hset(keys.workers(), "w1@h", report(at=time.time()).model_dump_json())
    well, lost = (CliRunner().invoke(main, ["health", "--worker", name]) for name in ("w1@h", "w9@h"))
    assert (well.exit_code, lost.exit_code) == (0, 4)
    assert "works" in well.output and "got none" in lost.output


def test_a_patient_probe_waits_for_a_worker_that_starts_or_comes_back_and_no_longer_than_it_may_hang(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_WORKER__HANG_S", "5")
    config.current.cache_clear()
    asked = list[float]()

    def comes_back(seconds: float) -> None:
        asked.append(seconds)
        with connect(redis_url) as client:
            client.hset(keys.workers(), "w1@h", report(at=time.time()).model_dump_json())

    monkeypatch.setattr("fleet.cli.stack.health.time.sleep", comes_back)
    back = CliRunner().invoke(main, ["health", "--patient", "--worker", "w1@h"])
    assert (back.exit_code, len(asked)) == (0, 1) and "works" in back.output
    monkeypatch.undo()
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_WORKER__HANG_S", "5")
    config.current.cache_clear()
    began = time.monotonic()
    lost = CliRunner().invoke(main, ["health", "--patient", "--worker", "w9@h"])
    assert lost.exit_code == 4 and 5 <= time.monotonic() - began < 30


def test_a_probe_that_cannot_ask_says_so_by_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet.toml").write_text("[worker]\nslotz = 3\n", encoding="utf-8")
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    config.current.cache_clear()
    assert CliRunner().invoke(main, ["health", "--worker", "w1@h"]).exit_code not in (0, 4)


def test_no_worker_is_blamed_while_redis_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"redis://127.0.0.1:{free_port()}/0", None):
        if url is not None:
            monkeypatch.setenv("FLEET_REDIS__URL", url)
        else:
            monkeypatch.delenv("FLEET_REDIS__URL")
        config.current.cache_clear()
        found = CliRunner().invoke(main, ["health", "--worker", "w1@h"])
        assert found.exit_code == 0 and "w1@h is not judged" in found.output
