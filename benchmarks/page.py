"""python -m benchmarks.page: the Fleet tab in a real Chromium over a real Flower, with 10,000 bots that work.

How soon it is painted, what an update takes, how often it asks, and whether its heap stays flat. Needs the dev extra,
chromium and chromium-driver.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from benchmarks.bench import flower, print_table, private_home, until

#: Pools of the fleet, each with the same number of bots.
POOLS = 4
#: Seconds until the heap is read first: what is loaded once is loaded by then.
WARM_S = 20.0
#: Runs in the page before its own scripts: notes when it has drawn, what that took, and what it asks for.
WATCH = """
window.drawn = []; window.asked = [];
const real = window.fetch;
window.fetch = (...args) => { window.asked.push(performance.now()); return real(...args); };
const all = (body) => { // as if every bot had worked and some had erred since the last answer
  const of = body.view?.changed, n = BOTS;
  if (!of) return body;
  const any = (most) => Array.from({ length: n }, () => Math.floor(Math.random() * most));
  of.rows = any(1).map((_, row) => row);
  const most = (k) => k === 0 ? 2 : [11, 15, 16].includes(k) ? 1 : k === 10 ? 60 : 1000;
  of.columns = of.columns.map((_, k) => any(most(k)));
  return body;
};
const json = Response.prototype.json;
if (ALL) Response.prototype.json = function () { return json.call(this).then(all); };
new MutationObserver(() => window.drawn.push([performance.now(), Number(document.body.dataset.drawnMs)])
).observe(document, { subtree: true, attributeFilter: ["data-version"] });  // it may draw before all is loaded
"""
FIRST_PAINT = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"

#: Shows the table, sorted by evidence.
SHOW_TABLE = """document.getElementById("as-table").click();
  const sort = document.getElementById("sort"); sort.value = "health"; sort.dispatchEvent(new Event("change"))"""


@click.command()
@click.option("--bots", default=10_000, show_default=True)
@click.option("--seconds", default=300, show_default=True, help="How long the page is watched.")
@click.option("--per-s", default=200, show_default=True, help="Tasks that are finished a second meanwhile.")
@click.option("--table", is_flag=True, help="Show the bots as a table, sorted by evidence.")
@click.option("--all-change", is_flag=True, help="Let every figure of every bot change with each update.")
def main(bots: int, seconds: int, per_s: int, table: bool, all_change: bool) -> None:
    """Measure the page."""
    watch = WATCH.replace("BOTS", str(bots)).replace("ALL", "true" if all_change else "false")
    os.environ |= {f"FLEET_POOLS__P{n}__BOTS": str(bots // POOLS) for n in range(1, POOLS + 1)}
    with private_home() as home, flower(home) as (address, login), _finishing(per_s), chromium() as chrome:
        rows = list(_measured(chrome, address, login, seconds, watch, is_table=table))
    columns = ["what", "measured", "wanted"]
    print_table(f"The Fleet tab with {bots:,} bots, {per_s:,} tasks/s, {seconds:,} s", columns, rows)


def _measured(
    chrome: webdriver.Chrome, address: str, login: str, seconds: int, watch: str, *, is_table: bool
) -> Iterator[list[str]]:
    header = f"Basic {base64.b64encode(login.encode()).decode()}"
    chrome.execute_cdp_cmd("Network.enable", {})
    chrome.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    chrome.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
    chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
    chrome.get(f"{address}/fleet")
    until(lambda: bool(chrome.execute_script("return window.drawn.length")), "the page has drawn", every_s=0.2)
    yield ["first paint, ms", f"{chrome.execute_script(FIRST_PAINT):.0f}", "< 1,000"]
    yield ["first figures drawn, ms", f"{chrome.execute_script('return window.drawn[0][0]'):.0f}", "< 1,000"]
    if is_table:
        chrome.execute_script(SHOW_TABLE)
    time.sleep(min(WARM_S, seconds / 2))
    began, asked, drawn = time.monotonic(), *_counts(chrome)
    first_mb, was = _heap_mb(chrome), _busy_s(chrome)
    time.sleep(max(1.0, seconds - WARM_S))
    took_s, (now_asked, now_drawn) = time.monotonic() - began, _counts(chrome)
    times = sorted(ms for _, ms in chrome.execute_script("return window.drawn.slice(arguments[0])", drawn))
    yield ["an update, p50 ms", f"{times[len(times) // 2]:.1f}", "< 20"]
    yield ["an update, p99 ms", f"{times[int(len(times) * 0.99)]:.1f}", ""]
    busy = {name: value - was[name] for name, value in _busy_s(chrome).items()}
    yield ["of a second, busy with", ", ".join(f"{name} {1000 * s / took_s:.0f} ms" for name, s in busy.items()), ""]
    yield ["requests a second", f"{(now_asked - asked) / took_s:.2f}", "<= 1"]
    yield ["updates a second", f"{(now_drawn - drawn) / took_s:.2f}", ""]
    last_mb = _heap_mb(chrome)
    yield ["heap after garbage collection, MB", f"{first_mb:.1f} then {last_mb:.1f}", "flat"]


def _counts(chrome: webdriver.Chrome) -> tuple[int, int]:
    asked, drawn = chrome.execute_script("return [window.asked.length, window.drawn.length]")
    return int(asked), int(drawn)


def _heap_mb(chrome: webdriver.Chrome) -> float:
    chrome.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    return float(chrome.execute_cdp_cmd("Runtime.getHeapUsage", {})["usedSize"]) / 1e6


def _busy_s(chrome: webdriver.Chrome) -> dict[str, float]:
    """Return the CPU seconds of the page's main thread so far: scripts, styles, layout, and everything."""
    found = {one["name"]: one["value"] for one in chrome.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    names = {
        "ScriptDuration": "scripts",
        "RecalcStyleDuration": "styles",
        "LayoutDuration": "layout",
        "TaskDuration": "all",
    }
    return {told: float(found[name]) for name, told in names.items()}


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise click.ClickException("expected chromium and chromedriver, got neither or one; install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--window-size=1440,1000")
    chrome = webdriver.Chrome(options, Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@contextmanager
def _finishing(per_s: int) -> Iterator[None]:
    """Finish so many tasks a second, as workers do, until the block ends."""
    over = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_finish(per_s, over)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


async def _finish(per_s: int, over: threading.Event) -> None:
    from fleet import config
    from fleet.engine.outcomes.completion import Finisher
    from fleet.store.client import Store
    from fleet.store.private.embedded import state_url

    settings = config.current()
    pools = {name: pool.bots for name, pool in settings.pools.items() if name.startswith("p")}
    store = Store(state_url(settings))
    try:
        finisher, number, chance = Finisher(store, settings), 0, random.Random(1)
        while not over.is_set():
            began_s = time.monotonic()
            await asyncio.gather(*(finisher.finish(_task(number + n, pools, chance)) for n in range(per_s)))
            number += per_s
            await asyncio.sleep(max(0.0, began_s + 1 - time.monotonic()))
    finally:
        await store.close()


def _task(number: int, pools: dict[str, int], chance: random.Random) -> Any:
    from fleet.engine.outcomes.completion import Finish
    from fleet.models import BotResult, bot_name
    from fleet.roster import Checkout
    from fleet.usage import Usage

    pool = chance.choice(list(pools))
    bot = bot_name(pool, chance.randint(1, pools[pool]))
    result = BotResult(
        task_id=f"page-{number}", status="ok", bot=bot, pool=pool, provider="simulator", model="simulated-1",
        served_by="call", usage=Usage(input_tokens=100, output_tokens=20), attempts=1,
        ran_ms=chance.randint(100, 2000), finished_at=time.time(),
    )  # fmt: skip
    return Finish(result, checkout=Checkout(result.task_id, pool, bot, f"page-k{number}"))


if __name__ == "__main__":
    main()
