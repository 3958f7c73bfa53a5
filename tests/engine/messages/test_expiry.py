"""Until when a task's answer is wanted: what producers say, and what the message then holds."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages import queues
from fleet.engine.messages.envelope import EXPIRES
from fleet.engine.messages.expiry import check_expiry, end_in, end_of, said_end, with_end
from fleet.engine.messages.inbox import Inbox
from fleet.engine.messages.producer import submit_many
from fleet.errors import Expired, InvalidTask
from fleet.models import BotTask
from fleet.store import keys
from fleet.store.client import Store, connect

NOW = 1_800_000_000.0


def test_of_what_a_producer_says_the_sooner_end_counts_and_the_pools_only_when_it_says_nothing() -> None:
    later = datetime.fromtimestamp(NOW + 90, UTC)
    assert end_of(None, None, None, NOW) is None
    assert end_of(None, None, 60, NOW) == NOW + 60
    assert end_of(NOW + 600, None, 60, NOW) == NOW + 600
    assert end_of(NOW + 600, 30, 60, NOW) == NOW + 30
    for said in (90, later, later.isoformat(), later.replace(tzinfo=None), later.replace(tzinfo=None).isoformat()):
        assert end_of(None, said, None, NOW) == NOW + 90
    assert end_of(None, "soon", 60, NOW) == NOW + 60


@pytest.mark.parametrize("odd", [True, "5", None, [], 10**400, float("nan"), float("inf"), {"x": 1}])
def test_a_foreign_clients_odd_header_is_no_end(odd: Any) -> None:
    assert end_in({EXPIRES: odd, "expires": odd}) is None
    check_expiry({EXPIRES: odd, "expires": odd}, None, NOW)


@pytest.mark.parametrize(
    ("headers", "said_at"),
    [
        ({EXPIRES: NOW - 60}, None),
        ({EXPIRES: -1e300}, None),
        ({"expires": datetime.fromtimestamp(NOW - 60, UTC).isoformat()}, None),
        ({"expires": datetime.fromtimestamp(NOW - 60, UTC).replace(tzinfo=None).isoformat()}, NOW + 60),
        ({EXPIRES: NOW + 60}, NOW - 60),
    ],
)
def test_a_task_whose_end_has_passed_is_refused_in_words(headers: dict[str, Any], said_at: float | None) -> None:
    with pytest.raises(Expired, match=r"expected a worker before .* give the task more time"):
        check_expiry(headers, said_at, NOW)
    check_expiry({EXPIRES: NOW + 1, "expires": None}, NOW + 2, NOW)


def test_the_end_in_a_body_is_found_and_changed_wherever_a_producer_wrote_it() -> None:
    ours = b'[[],{"prompt":"x","expires_at":5.0},{}]'
    plain = b'[[{"prompt": "x", "expires_at": 7}], {}, {}]'
    assert (said_end(ours), said_end(plain), said_end(b'[["expires_at"],{},{}]'), said_end(b"expires_at")) == (
        5.0, 7.0, None, None,
    )  # fmt: skip
    assert json.loads(with_end(ours, 9.0))[1]["expires_at"] == 9.0
    assert json.loads(with_end(plain, 9.0))[0][0]["expires_at"] == 9.0
    assert with_end(b'[["x"],{},{}]', 9.0) == b'[["x"],{},{}]'


def test_a_time_in_milliseconds_is_refused_where_it_is_submitted() -> None:
    with pytest.raises(InvalidTask, match="expires_at: input should be less than or equal to"):
        BotTask.parse("x", expires_at=time.time() * 1000)


@pytest.fixture
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    (tmp_path / "fleet.toml").write_text("[pools.research]\n[pools.brief]\nexpires_s = 60\n")
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    config.current.cache_clear()
    return connect(redis_url)


def ends_in(client: redis.Redis, pool: str) -> list[float | None]:
    """Return the ends in a pool's messages, the oldest first, with how long they last from when they were queued."""
    messages = [json.loads(text) for text in client.lrange(queues.list_key(keys.queue(pool), 2), 0, -1)]  # type: ignore[union-attr]
    found = [headers.get(EXPIRES) for headers in (message["headers"] for message in reversed(messages))]
    client.delete(queues.list_key(keys.queue(pool), 2))
    return found


def test_every_way_to_submit_writes_the_end_where_scripts_find_it(client: redis.Redis) -> None:
    from fleet.engine.tasks import submit_task

    end = round(time.time() + 600, 3)
    list(submit_many([BotTask(prompt="x", pool="research", expires_at=end), BotTask(prompt="x", pool="research")]))
    submit_task.delay("x", pool="research", expires_at=end)
    submit_task.apply_async(("x",), {"pool": "research"}, expires=datetime.fromtimestamp(end, UTC))
    submit_task.delay("x", pool="research", expires_at=end, idempotency_key="k")
    submit_task.delay("x", pool="research")
    assert ends_in(client, "research") == [end, None, end, end, end, None]
    before = time.time()
    list(submit_many([{"prompt": "x", "pool": "brief"}]))
    submit_task.delay("x", pool="brief")
    submit_task.delay("x", pool="brief", expires_at=end)
    first, second, third = ends_in(client, "brief")
    assert third == end
    assert first is not None and second is not None
    assert before + 59 < first <= second < before + 60 + 30


def test_a_shell_names_an_end_in_seconds_or_as_a_time(client: redis.Redis) -> None:
    def submit(*options: str) -> int:
        return CliRunner().invoke(main, ["submit", "x", "--pool", "research", "--no-wait", *options]).exit_code

    assert submit("--expires-in", "600") == submit("--expires", "2090-01-01T00:00:00") == 0
    assert submit("--expires", "3786912000.5") == 0
    first, second, third = ends_in(client, "research")
    assert first == pytest.approx(time.time() + 600, abs=60)
    assert (second, third) == (3786912000.0, 3786912000.5)
    assert client.zscore(keys.ends(), keys.queue("research")) == first
    for wrong in (("--expires", "soon"), ("--expires", "1", "--expires-in", "1"), ("--expires-in", "0")):
        assert submit(*wrong) != 0
    assert ends_in(client, "research") == []


def test_a_plain_clients_end_is_kept_when_its_message_is_passed_on(client: redis.Redis, redis_url: str) -> None:
    async def pass_on(request: dict[str, Any], pool: str, said_at: float | None) -> None:
        store = Store(redis_url, timeout_s=5)
        try:
            inbox = Inbox(store, config.current())
            await inbox.pass_on(request["id"], BotTask(prompt="x", pool=pool, expires_at=said_at), request)
        finally:
            await store.close()

    end = round(time.time() + 600, 3)
    asyncio.run(pass_on({"id": "a", "expires": datetime.fromtimestamp(end, UTC).isoformat()}, "research", None))
    asyncio.run(pass_on({"id": "b", "expires": None}, "research", end))
    asyncio.run(pass_on({"id": "c"}, "research", None))
    assert ends_in(client, "research") == [end, end, None]
    asyncio.run(pass_on({"id": "d"}, "brief", None))
    assert ends_in(client, "brief") == [pytest.approx(time.time() + 60, abs=30)]
