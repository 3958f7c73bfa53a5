"""Tool APIs in real workers: one limit for the fleet, a tool that is down and comes back, what is billed and told."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.engine.messages.producer import submit_many
from fleet.engine.operations.overview import open_overview
from fleet.engine.outcomes.stored import read_result
from fleet.models import BotResult
from fleet.signals.metrics import exposition
from fleet.store import keys
from fleet.store.client import connect
from tests.every import every
from tests.tool_server import Reply, ToolServer, tool_server
from tests.waiting import wait_until
from tests.worker_process import WorkerProcess

WAIT_S = 60
BOT = """
import httpx

async def looks_up(task, bot):
    async with bot.tool_client("shop") as shop:
        found = await shop.get("/stock", params={"item": task.prompt})
        found.raise_for_status()
    return found.text

def orders(task, bot):
    with bot.tool_client("shop", kind="httpx2") as shop:
        shop.post("/orders", json={"item": task.prompt}).raise_for_status()
    return "ordered"
"""


@contextmanager
def workers(folder: Path, count: int) -> Iterator[list[WorkerProcess]]:
    started = [WorkerProcess(folder, env={"SHOP_KEY": "shop-secret-123"}) for _ in range(count)]
    try:
        yield [worker.wait_ready() for worker in started]
    finally:
        for worker in started:
            worker.kill()


def write(folder: Path, redis_url: str, shop_url: str, limits: str = "") -> None:
    (folder / "my_bots.py").write_text(BOT)
    (folder / "fleet.toml").write_text(f"""
[redis]
url = "{redis_url}"
[worker]
slots = 20
[pools.stock]
bots = 10
function = "my_bots:looks_up"
[pools.orders]
bots = 4
function = "my_bots:orders"
[tools.shop]
base_url = "{shop_url}/v1"
api_key_env = "SHOP_KEY"
key_header = "X-Shop-Key"
usd_per_call = 0.002
{limits}
""")
    config.current.cache_clear()


def results(redis_url: str, ids: list[str]) -> list[BotResult]:
    with connect(redis_url, timeout_s=5) as client:
        raws = client.mget([keys.result(one) for one in ids])
    return [found for raw in raws if raw is not None and (found := read_result(raw)) is not None]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code in (0, 1), done.output
    return done.stdout


def billed() -> dict[str, Any]:
    """Return the line of the bill of the tool."""
    lines = json.loads(run("bill", "--by", "provider,model", "--json"))["lines"]
    return next(line for line in [*lines, {"calls": 0, "provider": "tools"}] if line["provider"] == "tools")


def stats_of_waits() -> list[dict[str, Any]]:
    return list(json.loads(run("stats", "--json"))["waits"])


def most_at_once(server: ToolServer, window_s: float) -> int:
    times = sorted(one.at for one in server.asked)
    return max(sum(at <= other < at + window_s for other in times) for at in times)


def test_two_workers_share_one_limit_of_a_tool_and_its_money(tmp_path: Path, redis_url: str) -> None:
    with tool_server() as shop:
        write(tmp_path, redis_url, shop.url, 'rpm = 120\nwindow_s = 2\ncounting = "window"')
        with workers(tmp_path, 2):
            ids = [*submit_many([{"prompt": f"item {n}", "pool": "stock"} for n in range(12)])]
            wait_until(lambda: len(results(redis_url, ids)) == 12, WAIT_S, "all tasks are done")
            wait_until(lambda: billed()["calls"] == 12, WAIT_S, "all requests are in the bill")
        assert len(shop.asked) == 12
        assert every(one.headers["x-shop-key"] == "shop-secret-123" for one in shop.asked)
        assert most_at_once(shop, 1.9) <= 4, "120 a minute are 4 in 2 s"
        done = results(redis_url, ids)
    assert every(one.status == "ok" and one.cost_usd_micros == 2000 and one.attempts == 0 for one in done)
    line = billed()
    assert (line["provider"], line["model"], float(line["usd"])) == ("tools", "tools/shop", 0.024)
    assert "tools/shop/default" in run("limits")


def test_tool_that_is_down_makes_tasks_wait_and_blames_no_bot(tmp_path: Path, redis_url: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write(tmp_path, redis_url, f"http://127.0.0.1:{port}")
    with workers(tmp_path, 1), tool_server(Reply(500, b"broken"), port=port) as shop:
        ids = [*submit_many([{"prompt": f"item {n}", "pool": "stock"} for n in range(8)])]
        wait_until(lambda: "tools/shop" in run("breakers"), WAIT_S, "the breaker of the tool is open")
        wait_until(lambda: "The tool shop is down" in run("stats"), WAIT_S, lambda: run("stats"))
        stats = json.loads(run("stats", "--json"))
        rows = [row for row in stats["errors"]["rows"] if row["api"] == "tools/shop"]
        assert {row["type"] for row in rows} == {"ProviderUnavailable"} and sum(row["calls"] for row in rows) > 0
        with open_overview(config.current()) as overview:
            view = overview.read()
        (told,) = view.tools
        assert (told.tool, {*told.types}) == ("tools/shop", {"ProviderUnavailable"})
        assert told.failed >= sum(row["calls"] for row in rows)
        assert 'fleet_tool_errors_total{tool="tools/shop",type="ProviderUnavailable"}' in exposition(view).decode()
        assert results(redis_url, ids) == []
        told_of_pool = (
            r"stock: \d tasks? in hand waits?: the tool shop: the provider fails or does not answer, so calls wait"
        )
        wait_until(lambda: re.search(told_of_pool, run("pools")) is not None, WAIT_S, lambda: run("pools"))
        assert re.search(r"(?m)^stock .* tool shop$", run("pools")), "the gate says so"
        assert re.search(r"The tool shop is down since [^,]*, \d tasks? wait", run("stats"))
        assert any(line["in_slots"] and line["about"] == "tools/shop/default" for line in stats_of_waits())
        shop.replies = [Reply(body=b"7 left")]
        wait_until(lambda: len(results(redis_url, ids)) == 8, WAIT_S, "all tasks are done")
        wait_until(lambda: "the tool shop" not in run("pools"), WAIT_S, "nobody waits any more")
    done = results(redis_url, ids)
    assert every(one.status == "ok" and one.answer == "7 left" for one in done)


def test_order_that_may_have_been_made_is_made_once(tmp_path: Path, redis_url: str) -> None:
    with tool_server(Reply(breaks=True), Reply()) as shop:
        write(tmp_path, redis_url, shop.url)
        with workers(tmp_path, 1):
            ids = [*submit_many([{"prompt": "a lamp", "pool": "orders"}])]
            wait_until(lambda: len(results(redis_url, ids)) == 1, WAIT_S, "the task is done")
        (done,) = results(redis_url, ids)
        assert len(shop.asked) == 1 and json.loads(shop.asked[0].body) == {"item": "a lamp"}
    assert done.error is not None and done.error.type == "ToolFailed"
    assert "ToolFailed" in run("dead", "reasons")


def test_doctor_says_that_a_tools_key_is_not_set(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, redis_url, "http://shop.example.com")
    told = run("doctor")
    assert "tool shop: key" in told and "variable SHOP_KEY is not set" in told and "without TLS" in told
    monkeypatch.setenv("SHOP_KEY", "shop-secret-123")
    assert "variable SHOP_KEY is set" in run("doctor", "--all")
    assert "frameworks: reports" in run("doctor", "--all")
