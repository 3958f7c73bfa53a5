"""`fleet diversity` as a shell sees it: how each class stands, and learning it anew."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.diversity import ClassState
from fleet.models import Remedy
from fleet.store.client import connect
from tests.engine.operations.test_bad_bots import FALLEN, TRIAL, remember


def fleet(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="fleet")


def test_a_class_is_told_in_lines_and_in_json_and_relearnt(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    config.current.cache_clear()
    assert fleet("diversity").stdout == "no answers yet that are long enough to compare (8 words)\n"
    state = ClassState(
        pool="research", kind="chat", phase="treating", alarm=True, alarm_at=50.0, flagged=(1, 2, 3), readings=FALLEN,
        remedies={1: Remedy(rung=2, generation=1), 2: Remedy(rung=2, generation=1)}, trial=TRIAL,
    )  # fmt: skip
    with connect(redis_url) as client:
        remember(client, state, 1000)
    text = fleet("diversity").stdout
    assert text.startswith("research chat  ALARM\n  treating  1,000 answers so far\n")
    assert (
        "  now       3 bots answer alike: 2 get remedy 2, persona drawn anew, 1 is left as it is, to compare\n" in text
    )
    assert "  alike     3 bots: research-001, research-002, research-003\n" in text
    (row,) = json.loads(fleet("diversity", "--json").stdout)["classes"]
    assert (row["alarm_at"], row["control"], row["remedies"]) == (
        50.0, ["research-003"], {"research-001": 2, "research-002": 2},
    )  # fmt: skip
    wrong = fleet("diversity", "relearn", "research", "chta")
    assert wrong.exit_code != 0
    told = json.loads(fleet("diversity", "relearn", "research", "chat", "--json").stdout)
    assert told == {"pool": "research", "kind": "chat", "phase": "learning"}
    done = fleet("diversity", "relearn", "research", "chat")
    assert done.stdout == "research chat: learning anew, its remedies end\n"
    assert "  now       learning what is usual: 1,000 answers so far\n" in fleet("diversity").stdout
