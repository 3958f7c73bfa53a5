"""The local simulator as a service: found again, restarted when its settings change, ended for good."""

from __future__ import annotations

import json
import shutil
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest

from fleet import config
from fleet.engine import local_simulator
from fleet.engine.local_simulator import ensure_simulator, stop_simulator
from fleet.errors import ConfigurationError
from tests.stack_processes import has_ended
from tests.waiting import wait_until


def test_the_simulator_is_started_once_and_restarted_when_its_settings_change(
    fleet_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config.load(simulator={"rpm": 123, "latency_ms": 1.5})
    found = ensure_simulator(settings, fleet_home)
    assert capsys.readouterr().err.startswith("fleet: started the simulator on 127.0.0.1:")
    assert ensure_simulator(settings, fleet_home) == found
    assert capsys.readouterr().err == ""
    assert "123" in command_line(fleet_home)
    assert is_healthy(found.url)

    changed = ensure_simulator(config.load(simulator={"rpm": 456}), fleet_home)
    assert "started the simulator" in capsys.readouterr().err
    assert "456" in command_line(fleet_home)
    assert is_healthy(changed.url)

    assert stop_simulator(fleet_home) is True
    assert stop_simulator(fleet_home) is False


def test_a_simulator_that_does_not_start_is_an_error_with_its_last_words(
    fleet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_simulator, "_options", lambda simulator: ("--no-such-option", "1"))
    with pytest.raises(ConfigurationError, match=r"no-such-option.*simulator\.log.*\[simulator\]"):
        ensure_simulator(config.load(), fleet_home)


def test_the_simulator_ends_when_its_folder_is_gone(fleet_home: Path) -> None:
    ensure_simulator(config.load(), fleet_home)
    process = psutil.Process(json.loads((fleet_home / "simulator.json").read_text())["pid"])
    shutil.rmtree(fleet_home)
    wait_until(lambda: has_ended(process), what="it has ended")


def command_line(home: Path) -> list[str]:
    return psutil.Process(json.loads((home / "simulator.json").read_text())["pid"]).cmdline()


def is_healthy(url: str) -> bool:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=5)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    connection.close()
    return status == 200
