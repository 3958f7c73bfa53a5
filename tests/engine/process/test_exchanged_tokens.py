"""Tokens that expire in a real worker: whatever their endpoint does, no task fails for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import config
from tests.engine.conftest import StartWorker
from tests.engine.load import Load
from tests.engine.process.test_keys import WAIT_S, fleet
from tests.every import every
from tests.vault.token_server import TokenServer, token_server
from tests.waiting import wait_until

IDENTITY = "header.canary-identity.signature"


@pytest.fixture
def served(tmp_path: Path, fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    """A vendor that exchanges tokens, and a pool that calls it."""
    (tmp_path / "token").write_text(IDENTITY)
    with token_server(IDENTITY) as server:
        (tmp_path / "fleet.toml").write_text(
            f'[providers.acme]\nkind = "anthropic"\nbase_url = "{server.url}"\ntimeout_s = 5\n'
            f'[providers.acme.exchange]\ngrant = "anthropic"\nurl = "{server.url}/v1/oauth/token"\n'
            f'token_file = "{tmp_path / "token"}"\nfederation_rule_id = "fdrl_1"\norganization_id = "org-1"\n'
            'service_account_id = "svac_1"\n'
            '[pools.research]\nbots = 20\nprovider = "acme"\nmodel = "m"\n[limits."acme/m"]\nrpm = 60000\n'
        )
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        yield server
    config.current.cache_clear()


def test_no_call_fails_over_many_expiries_and_tasks_wait_where_there_is_no_token(
    served: TokenServer, start_worker: StartWorker, redis_url: str
) -> None:
    served.lives_s = 4.0
    worker = start_worker()
    stream = Load("research", every_s=0.01)

    def tokens() -> set[str]:
        return {token for _, token, status in list(served.calls) if status == 200}

    wait_until(lambda: len(tokens()) >= 5, WAIT_S, lambda: f"calls with five tokens, got {len(tokens())}; {worker.log}")
    # An endpoint that lies: tokens die long before they should, and each costs its calls one more request.
    served.lives_s, served.told = 1.5, 3600
    before = len(served.exchanges)
    wait_until(lambda: len(served.exchanges) > before + 3, WAIT_S, lambda: f"exchanges for 401s; log:\n{worker.log}")
    assert "token_refused key=acme" in worker.log and "breaker_opened" not in worker.log
    # One that fails while the last token expires: all wait, and say for what.
    served.lives_s, served.told = 2.0, None
    before = len(served.exchanges)
    wait_until(lambda: len(served.exchanges) > before + 1, WAIT_S, lambda: "tokens that say when they expire")
    served.fault = 400, {"error": "invalid_grant", "error_description": f"no rule for {IDENTITY}"}
    wait_until(lambda: "key_waits" in worker.log, WAIT_S, lambda: f"calls that wait; log:\n{worker.log}")
    wait_until(lambda: "hold_put" in worker.log, WAIT_S, lambda: f"the pool waits; log:\n{worker.log}")

    told = ""

    def is_told() -> bool:  # of the last one: those before it may have ended under the last token
        nonlocal told
        told = json.dumps(json.loads(fleet("why", stream.handles[-1].id, "--json")))
        return "invalid_grant" in told and "federation_rule_id fdrl_1" in told

    wait_until(is_told, WAIT_S, lambda: f"why it waits; log:\n{worker.log}")
    served.fault = 500, b"oops"
    served.lives_s = 3600.0
    served.fault = None
    results = stream.results()
    assert every(one.status == "ok" and one.attempts <= 2 for one in results) and len(results) > 200
    assert served.most_under_way == 1, "one exchange at a time"
    assert "canary" not in worker.log and "canary" not in told
