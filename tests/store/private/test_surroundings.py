"""The servers that Fleet starts get none of the keys that this process was given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from fleet import config
from fleet.engine.local_simulator import ensure_simulator
from fleet.store.private.embedded import broker_url
from fleet.store.private.surroundings import handed_on
from tests.every import every
from tests.stack_processes import processes_of


def test_only_what_programs_need_is_handed_on() -> None:
    given = {
        "PATH": "/bin", "LC_ALL": "C", "LD_PRELOAD": "x", "PYTHONPATH": "p", "FLEET_HOME": "h",
        "OPENAI_API_KEY": "k", "FLEET_REDIS__URL": "u", "VAULT_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "a", "MY_OWN": "m",
    }  # fmt: skip
    assert set(handed_on(given)) == {"PATH", "LC_ALL", "LD_PRELOAD", "PYTHONPATH", "FLEET_HOME"}


def test_a_private_redis_and_simulator_have_no_key_in_their_environment(
    fleet_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-canary-0123456789")
    settings = config.current()
    broker_url(settings)
    ensure_simulator(settings, fleet_home)
    servers = processes_of(fleet_home)
    assert len(servers) >= 2
    assert every("A_KEY" not in one.environ() for one in servers if one != psutil.Process())
