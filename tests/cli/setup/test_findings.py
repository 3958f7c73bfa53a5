"""What is found out about this machine, on any system."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from fleet.cli.setup.findings import host_facts
from fleet.config import load


class Mount(NamedTuple):
    """What we read of one of psutil's partitions."""

    mountpoint: str
    fstype: str


def test_the_state_folder_lies_on_the_longest_mount_point_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = f"{tmp_path}-beside"
    mounts = [Mount("/", "apfs"), Mount(str(tmp_path), "smbfs"), Mount(str(tmp_path.parent), "hfs"), Mount(beside, "x")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "state"))
    assert host_facts(load()).home_filesystem == "smbfs"


def test_a_machine_that_hides_its_mounts_has_an_unknown_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(all: bool) -> list[Mount]:
        raise PermissionError("no /proc here")

    monkeypatch.setattr(psutil, "disk_partitions", hidden)
    assert host_facts(load()).home_filesystem is None
