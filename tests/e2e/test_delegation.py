"""Delegated pools in real workers: signed tasks are answered however they are submitted, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.store import keys
from tests.every import every
from tests.keys.unsigned import Siege
from tests.redis_server import RedisServer


@pytest.fixture
def siege(tmp_path: Path, own_redis: RedisServer) -> Iterator[Siege]:
    one = Siege(tmp_path, own_redis.url)
    try:
        one.worker.wait_ready()
        yield one
    finally:
        one.close()


def test_signed_tasks_are_answered_however_they_are_submitted_and_whatever_follows_them(siege: Siege) -> None:
    done = siege.produce(siege.token)
    assert done.returncode == 0, done.stderr
    found = siege.results(json.loads(done.stdout))
    assert every(one.status == "ok" for one in found.values()), {k: v.error for k, v in found.items()}
    handed_on = siege.token.delegate("night-job", siege.token.scope, siege.until)
    done = siege.produce(handed_on, 'from fleet import submit_task; print(submit_task.delay("x", pool="research").id)')
    (one,) = siege.results([done.stdout.strip()]).values()
    assert one.status == "ok"
    for token, told in ((None, "got none: ask for one"), (siege.token_for("writing"), "for others")):
        done = siege.produce(token, 'from fleet import submit_task; submit_task.delay("x", pool="research")')
        assert "NotDelegated" in done.stderr and told in done.stderr, done.stderr


def test_a_client_of_redis_without_a_delegation_gets_no_answer_and_fills_no_dead_letters_but_its_own_share(
    siege: Siege,
) -> None:
    found = siege.results(list(siege.attacks()))
    assert len(found) >= 20
    assert every(one.status == "failed" and one.attempts == 0 for one in found.values())
    errors = {one.error.type for one in found.values() if one.error is not None}
    assert errors == {"NotDelegated"}, {one.error for one in found.values()}
    assert siege.client.hlen(keys.dead_letters()) >= len(found)
