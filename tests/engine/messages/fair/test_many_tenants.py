"""Who waits where there are thousands of tenants, and where what waits is long: no step of Redis grows with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from fleet import config
from fleet.engine.messages.broker import enqueue
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.fair.waiting import (
    BYTES_AT_ONCE,
    FLOWS_AT_ONCE,
    FLOWS_MOST,
    TAIL_BYTES,
    read_heads,
    read_waiting,
    shared_out,
    takes_for_one,
)
from fleet.engine.messages.producer import message_of
from fleet.engine.messages.queues import list_key
from fleet.engine.operations.tenants import board
from fleet.engine.operations.tenants.board import SHOWN, TenantBoard, tenants_view
from fleet.models import BotTask
from fleet.store import flow_keys
from fleet.store.client import connect
from tests.engine.messages.fair.line import PLACE, QUEUE, SETTINGS, put
from tests.engine.messages.fair.test_waiting import SETTINGS as TOML

MANY, FEW = FLOWS_MOST + 500, 3
LONG = 1_000_000  # bytes of a prompt


@pytest.fixture
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    Path("fleet.toml").write_text(TOML)
    config.current.cache_clear()
    with connect(redis_url) as client:
        yield client


def put_one_of_each(client: redis.Redis, pool: str, tenants: int, prompt: str = "x") -> None:
    tasks = [BotTask(prompt=prompt, tenant=f"{pool}{number}", pool=pool) for number in range(tenants)]
    enqueue(client, [part for task in tasks for part in message_of(task, pool, None, 1.0)[1]], SETTINGS)


def calls_of(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_of_thousands_so_many_are_looked_at_in_steps_and_the_others_are_a_number(client: redis.Redis) -> None:
    put_one_of_each(client, "research", MANY)
    put_one_of_each(client, "other", FEW)
    client.config_resetstat()
    view = TenantBoard().read(client, config.current())
    assert view.by_pool == {"research": MANY, "other": FEW}
    assert (len(view.rows), view.others) == (SHOWN, MANY + FEW - SHOWN)
    assert sum(row.waiting for row in view.rows) + view.others_waiting == MANY + FEW
    assert calls_of(client, "lrange") == calls_of(client, "lindex") - SHOWN == 0
    assert FLOWS_MOST < calls_of(client, "llen") < 2 * FLOWS_MOST + 100
    assert calls_of(client, "evalsha") + calls_of(client, "eval") > FLOWS_MOST / FLOWS_AT_ONCE
    shares = {row.pool: row.share for row in tenants_view(client, config.current(), ["research"]).rows}
    assert shares == {"research": 1 / MANY}
    assert takes_for_one(client, flow_keys.flow(flow_of("research7"), PLACE)) == MANY


def test_a_page_that_is_read_each_second_looks_at_much_only_now_and_then(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, settings = TenantBoard(), config.current()
    put_one_of_each(client, "other", FEW)
    assert page.read(client, settings).by_pool == {"other": FEW}
    put_one_of_each(client, "research", FLOWS_AT_ONCE)
    told = page.read(client, settings)
    assert told.by_pool == {"other": FEW, "research": FLOWS_AT_ONCE}
    put(client, "more", tenant="more")
    client.config_resetstat()
    assert page.read(client, settings) is told
    assert calls_of(client, "mget") == 0
    monkeypatch.setattr(board, "KEPT_S", 0.0)
    assert page.read(client, settings).by_pool == {"other": FEW, "research": FLOWS_AT_ONCE + 1}


def test_of_long_messages_only_the_ends_come_and_they_tell_who_and_since_when(client: redis.Redis) -> None:
    count = 2 * BYTES_AT_ONCE // LONG
    put_one_of_each(client, "research", count, prompt="x" * LONG)
    before = client.info("stats")["total_net_output_bytes"]
    client.config_resetstat()
    rows = tenants_view(client, config.current()).rows
    assert {row.tenant for row in rows} == {f"research{number}" for number in range(count)}
    assert {row.since for row in rows} == {1.0}
    assert calls_of(client, "evalsha") + calls_of(client, "eval") >= 3  # who waits, and heads in two steps
    assert client.info("stats")["total_net_output_bytes"] - before < count * (TAIL_BYTES + 1000) + 100_000
    page = TenantBoard()
    assert page.read(client, config.current()) is page.read(client, config.current())


def test_what_would_take_seconds_to_decode_is_not_decoded_and_a_name_is_believed_by_its_digest(
    client: redis.Redis,
) -> None:
    put(client, "a0", "a1", tenant="a")
    put(client, "b0", tenant="b")
    forged = message_of(BotTask(prompt="x", tenant="b", pool="research"), "research", None, 5.0)[1][2]
    client.lset(flow_keys.flow(flow_of("a"), PLACE), -1, b"[" * 3_000_000 + forged)
    client.lset(flow_keys.flow(flow_of("b"), PLACE), -1, b'"' * 3_000_000)
    first, second = read_heads(client, read_waiting(client, [QUEUE]).flows)
    assert (first.tenant, first.queued_at) == ("", 5.0)
    assert (second.tenant, second.queued_at) == ("", None)


def test_a_list_without_its_flows_is_no_list_that_waits(client: redis.Redis) -> None:
    client.set(flow_keys.has(list_key(QUEUE, 0)), "even")
    assert tenants_view(client, config.current()).rows == ()


@given(st.dictionaries(st.text(), st.integers(0, 50), max_size=9), st.integers(0, 200))
def test_shares_are_as_even_as_what_is_wanted_lets_them_be(wanted: dict[str, int], most: int) -> None:
    shares = shared_out(wanted, most)
    assert sum(shares.values()) <= most
    assert {name: share for name, share in shares.items() if share > wanted[name]} == {}
    least_cut = min((share for name, share in shares.items() if share < wanted[name]), default=50)
    assert max(shares.values(), default=0) <= least_cut + 1
    if least_cut < 50:
        assert sum(shares.values()) == most
