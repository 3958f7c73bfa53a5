"""Each call as a line of JSON, in files of bounded size and count that several processes write."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.config import BillSettings
from fleet.economy.bill import export as module
from fleet.economy.bill.export import Export, export_of, file_of, trouble_of
from fleet.economy.bill.writer import Writer
from fleet.store.client import Store
from tests.economy.bill.calls import entry, in_store, total


def ids(folder: Path) -> list[str]:
    """Return the ids of all lines of all files."""
    return [json.loads(line)["id"] for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def test_it_is_off_by_default_and_takes_a_folder_or_a_file(tmp_path: Path) -> None:
    assert export_of(BillSettings()) is None
    (tmp_path / "calls").touch()
    places = {"out": "out/calls.jsonl", "out/calls.jsonl": "out/calls.jsonl", "calls": "calls", ".": "calls.jsonl"}
    assert trouble_of(tmp_path / "to" / "be" / "made") is None and trouble_of(tmp_path / "calls" / "x") is not None
    assert {name: file_of(tmp_path / name) for name in places} == {name: tmp_path / to for name, to in places.items()}


def test_what_a_writer_enters_is_exported_with_all_of_its_fields_and_no_text(tmp_path: Path, redis_url: str) -> None:
    async def body(store: Store) -> None:
        writer = Writer(store, export=export_of(BillSettings(export=tmp_path / "out")))
        for number in range(3):
            writer.enter(entry(number, tenant="acme", tier="flex"))
        await writer.close()

    in_store(redis_url, body)
    first, *_ = (tmp_path / "out" / "calls.jsonl").read_text().splitlines()
    fields = json.loads(first)
    assert fields["usd_picos"] == 420_000 and fields["usage"] == {"input_tokens": 20, "output_tokens": 1}
    assert set(fields) == {"id", "task", "pool", "bot", "tenant", "kind", "run", "limit", "tier", "usage", "usd_picos",
                           "state", "at_s", "reservation"}  # fmt: skip
    assert ids(tmp_path / "out") == ["t-0", "t-1", "t-2"]


def test_files_are_bounded_in_size_and_count_and_lose_the_oldest_only(tmp_path: Path) -> None:
    export = Export(tmp_path / "calls.jsonl", most_bytes=1200, files=3)
    for number in range(30):
        export.write([entry(number)])
    files = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(files) == {"calls.jsonl", "calls.jsonl.1", "calls.jsonl.2"} and max(files.values()) <= 1200
    kept = sorted(int(name[2:]) for name in ids(tmp_path))
    assert kept == list(range(30 - len(kept), 30)) and len(kept) > 6


def test_several_writers_share_a_file_and_tear_no_line(tmp_path: Path) -> None:
    def write(who: int) -> None:
        export = Export(tmp_path, most_bytes=20_000, files=100)
        for number in range(40):
            export.write([entry(who * 1000 + number), entry(who * 1000 + 500 + number)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(set(ids(tmp_path))) == len(ids(tmp_path)) == 4 * 80


def test_a_full_disk_is_said_once_and_tears_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    export = Export(tmp_path, most_bytes=10**6, files=2)
    export.write([entry(1)])
    true = os.write

    def full(descriptor: int, lines: bytes) -> int:
        if len(lines) < 50:
            raise OSError(28, "No space left on device")
        return true(descriptor, lines[: len(lines) // 2])

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="fleet.bill"):
        patch.setattr(module.os, "write", full)
        for number in range(2, 5):
            export.write([entry(number)])
        (line,) = caplog.messages
        assert "No space left" in line and str(tmp_path) in line
    export.write([entry(5)])
    assert ids(tmp_path) == ["t-1", "t-5"]


def test_a_place_that_cannot_be_written_harms_nothing(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "file").touch()

    async def body(store: Store) -> None:
        writer = Writer(store, export=Export(tmp_path / "file" / "out", most_bytes=10**6, files=2))
        writer.enter(entry())
        await writer.close()

    in_store(redis_url, body)
    assert total(redis_url).calls == 1
