"""Who waits, as people see it: `fleet tenants`, the page, metrics and `fleet why`."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.place_checks import tenant_checks
from fleet.engine.messages.fair.flows import flow_of
from fleet.engine.messages.fair.waiting import read_heads, read_waiting
from fleet.engine.operations.tenants.board import TenantBoard, read_tenants, tenants_view
from fleet.engine.transport.withdrawal.message_search import find_queued
from fleet.signals.tenants.metrics import AGE, TASKS, WAITING, tenants
from fleet.signals.tenants.view import TenantsView
from fleet.store import flow_keys
from fleet.store.client import connect
from fleet.store.private.two_redis import two_redis
from tests.engine.messages.fair.line import PLACE, QUEUE, put, put_plainly, restore, take, weigh
from tests.every import every

SETTINGS = """
[pools.research]
bots = 4
provider = "simulator"
[pools.other]
bots = 1
provider = "simulator"
[tenants.heavy]
weight = 3
[tenants.gone]
weight = 2
"""


@pytest.fixture
def client(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    Path("fleet.toml").write_text(SETTINGS)
    config.current.cache_clear()
    with connect(redis_url) as client:
        yield client


def test_who_waits_is_told_with_shares_by_weight(client: redis.Redis) -> None:
    weigh(client, heavy=3.0)
    put(client, *(f"a{n}" for n in range(20)), tenant="a")
    put(client, *(f"h{n}" for n in range(10)), tenant="heavy")
    put(client, "n0", "n1")
    view = tenants_view(client, config.current())
    assert [(row.tenant, row.pool, row.waiting, row.weight) for row in view.rows] == [
        ("a", "research", 20, 1.0), ("heavy", "research", 10, 3.0), ("no tenant", "research", 2, 1.0)
    ]  # fmt: skip
    assert [round(row.share, 2) for row in view.rows] == [0.2, 0.6, 0.2]
    assert [row.since for row in view.rows] == [1.0, 1.0, 1.0]  # as `line.py` says
    assert view.by_pool == {"research": 2}


def test_what_a_take_has_met_in_the_list_is_counted_and_who_has_nothing_left_is_not(client: redis.Redis) -> None:
    put_plainly(client, "b0", tenant="b")
    put_plainly(client, "b1", tenant="b")
    put(client, "a0", "a1", tenant="a")
    assert len(take(client, 2)) == 2
    told = {one.flow: one.count for one in read_waiting(client, [QUEUE]).flows}
    assert sum(told.values()) == client.llen(PLACE) == 2
    assert every(told.values()) and set(told) <= {flow_of("a"), flow_of("b")}


def test_a_name_that_cannot_be_read_is_a_digest_and_hides_nothing_else(client: redis.Redis) -> None:
    put(client, "a0", tenant="a")
    put(client, "h0", tenant="heavy")
    for tenant in ("a", "heavy"):
        client.lset(flow_keys.flow(flow_of(tenant), PLACE), -1, b'{"headers": {"fleet_flow": "x"}, "body": "sealed"}')
    rows = {row.flow: row for row in tenants_view(client, config.current()).rows}
    assert rows[flow_of("a")].tenant == flow_of("a")
    assert rows[flow_of("heavy")].tenant == "heavy"  # fleet.toml names it
    assert rows[flow_of("a")].since is None
    client.lset(flow_keys.flow(flow_of("a"), PLACE), -1, b"[]")
    assert read_heads(client, read_waiting(client, [QUEUE]).flows)[0].queued_at is None


def test_where_nobody_waits_one_round_trip_tells_it(client: redis.Redis) -> None:
    put(client, "n0")
    before = client.info("stats")["total_commands_processed"]
    assert tenants_view(client, config.current()) == TenantsView()
    assert client.info("stats")["total_commands_processed"] - before <= 2  # and the INFO itself


def test_metrics_have_a_fixed_number_of_series_and_name_nobody(client: redis.Redis) -> None:
    for n in range(30):
        put(client, *(f"{n}.{k}" for k in range(n + 1)), tenant=f"customer{n}")
    view = TenantBoard().read(client, config.current())
    assert (len(view.rows), view.others) == (10, 20)

    class View:
        at, tenants = time.time(), view

    told = {metric: list(samples) for metric, samples in tenants(View)}  # type: ignore[arg-type]
    assert told[WAITING] == [(("research",), 30)]
    assert [labels for labels, _ in told[TASKS]] == [("1",), ("2",), ("3",), ("4",), ("5",), ("other",)]
    assert sum(value for _, value in told[TASKS]) == client.llen(PLACE)
    assert len(told[AGE]) == 5


def test_the_command_lists_them_and_why_says_how_often_its_turn_comes(client: redis.Redis) -> None:
    weigh(client, heavy=3.0)
    put(client, *(f"a{n}" for n in range(20)), tenant="a")
    put(client, *(f"h{n}" for n in range(10)), tenant="heavy")
    run = CliRunner().invoke
    told = json.loads(run(main, ["tenants", "--json"]).stdout)
    assert [(row["tenant"], row["waiting"]) for row in told["tenants"]] == [("a", 20), ("heavy", 10)]
    lines = run(main, ["tenants", "--pool", "research"]).stdout.splitlines()
    assert lines[0].split() == ["TENANT", "POOL", "WAITING", "NEXT", "WAITS", "WEIGHT", "SHARE"]
    assert [line.split()[0] for line in lines[1:]] == ["a", "heavy"] and lines[1].endswith("25.0%")
    assert "no task of a tenant" in run(main, ["tenants", "--pool", "other"]).stderr
    wrong = run(main, ["tenants", "--pool", "reserch"])
    assert wrong.exit_code != 0
    message = client.lindex(flow_keys.flow(flow_of("a"), PLACE), 0) or b""
    task_id = json.loads(message)["headers"]["id"]
    found = find_queued(client, task_id, config.current()).found
    assert found is not None and (found.place, found.others, found.every) == (19, 10, 4.0)
    said = run(main, ["why", task_id])
    assert "behind 19 of its tenant, in turns with 10 of others: its tenant has one of about 4 takes" in said.stdout


def test_doctor_finds_a_weight_that_nobody_uses_and_who_gets_next_to_nothing(client: redis.Redis) -> None:
    weigh(client, heavy=3.0, a=0.01)
    put(client, "a0", tenant="a")
    put(client, "h0", tenant="heavy")
    with two_redis(config.current()) as both:
        view = read_tenants(both, config.current())
    assert view.unused == ("gone",)
    weight, turns = tenant_checks(view, time.time())
    assert "gone" in weight.name and "spell it as tasks do" in weight.advice
    assert "0.33% of the takes" in turns.found and "tenant 'a'" in turns.name
    assert not list(tenant_checks(view.model_copy(update={"unused": ()}), 2.0))  # it has not waited for long


def test_who_looks_for_who_waits_while_a_task_is_put_back_loses_nothing(client: redis.Redis) -> None:
    """Given a worker that died with a task in hand, it is not told as waiting until it is back, then it is."""
    put(client, "a0", "a1", tenant="a")
    held = take(client, 1)
    assert [row.waiting for row in tenants_view(client, config.current()).rows] == [1]
    restore(client, [tag for tag, _ in held])
    assert [row.waiting for row in tenants_view(client, config.current()).rows] == [2]


def test_a_name_that_no_task_may_have_is_not_printed(client: redis.Redis) -> None:
    name = "\x1b[31mred"
    body = base64.b64encode(json.dumps([[], {"tenant": name}, {}]).encode()).decode()
    put(client, "a0", tenant="a")
    key = flow_keys.flow(flow_of("a"), PLACE)
    client.lset(key, -1, json.dumps({"headers": {"queued_at": 5.0}, "body": body}))
    (row,) = tenants_view(client, config.current()).rows
    assert (row.tenant, row.since) == (flow_of("a"), 5.0)
