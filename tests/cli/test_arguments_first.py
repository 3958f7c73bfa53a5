"""What is wrong with a command line is said before any Redis is asked, or started for it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main

#: A command line that is wrong -> what says so.
WRONG = {
    "budgets set nonsense --usd-per-day 1": "SCOPE: expected a scope of fleet, pool:NAME",
    "budgets set pool:nope --usd-per-day 1": "SCOPE: expected a pool that there is, got 'nope'",
    "budgets set fleet --usd-per-day 0.0000001": "usd_per_day: expected 0, for not limited, or $0.000001",
    "budgets set fleet": "expected at least one amount to set",
    "budgets show nonsense": "SCOPE: expected a scope of fleet, pool:NAME",
    "budgets show nope/model": "expected one of",
    "budgets reset pool:nope": "SCOPE: expected a pool that there is, got 'nope'",
    "bots show nope-001": "got 'nope-001'",
    "bots quarantine nope-001": "bot: expected POOL-NUMBER with a pool of",
    "bots release nope-001": "bot: expected POOL-NUMBER with a pool of",
    "bots list --pool nope": "--pool: expected one of",
    "diversity show nope default": "POOL: expected one of",
    "diversity relearn nope default": "POOL: expected one of",
    "lessons show nope": "got 'nope'",
    "limits forget nope": "got 'nope'",
    "limits set nope/model --rpm 5": "got 'nope/model'",
    "limits release nope/model": "got 'nope/model'",
    "breakers show nope/model": "got 'nope/model'",
    "breakers reset nope/model": "got 'nope/model'",
    "pools show nope": "pool: expected one of",
    "pools pause nope": "pool: expected one of",
    "tasks --pool nope": "--pool: expected one of",
    "cancel": "expected either task ids",
    "cancel one --dry-run": "--dry-run: expected --pool, --tenant or --metadata",
    "forget": "expected one of --tenant, --task and --metadata",
    "forget --tenant a:b": "--tenant: expected 1 to 64 letters",
    "dead replay": "expected one of: task ids, --pool and/or --reason, --all",
    "dead replay one --dry-run": "--dry-run: expected --pool, --reason or --all",
    "dead purge one --all": "expected one of: task ids, --pool and/or --reason, --all",
    "dead list --pool nope": "--pool: expected one of",
    "events --name nope": "expected one of",
    "alerts show nope": "expected one of",
    "alerts test": "alerts.webhook_env: expected",
    "bill --by nope": "expected some of pool",
    "bill --since 2d --until 3d": "expected --since before --until",
    "submit hello --pool nope": "--pool: expected one of",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_line_is_refused_before_redis_is_asked_or_started(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLEET_REDIS__URL", "redis://127.0.0.1:1/0")  # nobody is there: who asks it says so
    config.current.cache_clear()
    done = CliRunner().invoke(main, shlex.split(line))
    assert (done.exit_code, WRONG[line] in " ".join(done.output.split())) == (2, True), done.output
    assert not (tmp_path / "home").exists()
