"""python -m benchmarks.picture: the picture of the Fleet tab in docs/dashboard.md, of a fleet that works.

Five pools over three simulated models: plain chats, a pydantic-ai agent, a function over a tool API that fails now and
then and one that is down, and agents that go in circles. Needs the dev extra, chromium and chromium-driver.
"""

from __future__ import annotations

import base64
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from benchmarks.bench import flower, private_home, until, worker
from benchmarks.page import chromium

#: Tasks a second by pool, and for how many seconds they come before the picture is taken.
PER_S = {"research": 6.0, "writing": 4.0, "triage": 3.0, "lookups": 4.0, "couriers": 0.2, "explorers": 0.3}
#: Width of the picture in CSS pixels; its height is the page's.
WIDTH = 1800
SETTINGS = """
[worker]
slots = 40
[limits."simulator/chat-1"]
rpm = 900
tpm = 400_000
[limits."simulator/agent-2"]
rpm = 1200
[limits."simulator/agent-loop"]
rpm = 300
[budgets.fleet]
usd_per_day = 5
[pools.research]
bots = 30
model = "chat-1"
[pools.writing]
bots = 30
model = "chat-1"
[pools.triage]
bots = 20
model = "agent-2"
agent = "picture_bots:agent"
[pools.lookups]
bots = 15
model = "chat-1"
function = "picture_bots:look_up"
[pools.couriers]
bots = 5
model = "chat-1"
function = "picture_bots:ship"
[pools.explorers]
bots = 10
model = "agent-loop"
agent = "picture_bots:agent"
[tools.stock]
base_url = "{stock}"
rpm = 600
[tools.shipping]
base_url = "http://127.0.0.1:9"
"""
BOTS = '''
from pydantic_ai import Agent

agent = Agent(instructions="Say which team answers this mail.")


@agent.tool_plain
def past_mails(customer: str) -> list[str]:
    """Return what a customer has written before."""
    return []


async def look_up(task, bot):
    async with bot.tool_client("stock") as stock:
        found = (await stock.get("/items")).text
    return await bot.chat(f"{task.prompt} In stock: {found}")


async def ship(task, bot):
    async with bot.tool_client("shipping") as shipping:
        return (await shipping.get("/slots")).text
'''


@click.command()
@click.option("--seconds", default=100, show_default=True, help="How long the fleet works before the picture.")
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False), default="docs/dashboard.png")
def main(seconds: int, picture: Path) -> None:
    """Take the picture."""
    place = picture.resolve()
    with private_home() as home, ExitStack() as stack:
        stock = stack.enter_context(_stock())
        (home / "fleet.toml").write_text(SETTINGS.format(stock=stock))
        (home / "picture_bots.py").write_text(BOTS)
        os.environ["FLEET_CONFIG"] = str(home / "fleet.toml")
        for name in ("w1", "w2"):
            stack.enter_context(worker("fleet", "-n", f"{name}@fleet", log=home / f"{name}.log"))
        address, login = stack.enter_context(flower(home))
        _work(seconds)
        place.write_bytes(_taken(address, login))
    click.echo(f"{place}: {place.stat().st_size:,} bytes")


def _work(seconds: int) -> None:
    """Submit tasks for so long, at a rate that swings a little, as people's do."""
    from fleet import submit_many

    rng, end, number = random.Random(18), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for pool, per_s in PER_S.items():
            for _ in range(int(per_s / 2 * rng.uniform(0.4, 1.6) + rng.random())):
                number += 1
                priority = rng.choice(["critical", "high", "normal", "normal", "low", "bulk"])
                task = {"prompt": f"What is {number} + {rng.randint(1, 99)}?", "pool": pool, "priority": priority}
                list(submit_many([task]))
        time.sleep(0.5)


def _taken(address: str, login: str) -> bytes:
    header = f"Basic {base64.b64encode(login.encode()).decode()}"
    with chromium() as chrome:
        chrome.execute_cdp_cmd("Network.enable", {})
        chrome.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
        size = {"width": WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        light = {"name": "prefers-color-scheme", "value": "light"}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [light]})
        chrome.get(f"{address}/fleet")
        until(lambda: bool(chrome.execute_script("return document.body.dataset.version")), "the page", every_s=0.2)
        time.sleep(3)
        height = chrome.execute_script("return document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
        taken = chrome.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
        )
    return base64.b64decode(taken["data"])


@contextmanager
def _stock() -> Iterator[str]:
    """Serve a tool API that refuses one request in eight."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(0.05)
            self.send_response(503 if random.random() < 0.125 else 200)
            self.send_header("Content-Length", "7")
            self.end_headers()
            self.wfile.write(b"7 lamps")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


if __name__ == "__main__":
    main()
