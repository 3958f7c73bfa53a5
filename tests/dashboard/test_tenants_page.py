"""Who waits by tenant on the Fleet tab, in a real browser."""

from __future__ import annotations

from pathlib import Path

import redis

from fleet.store.client import connect
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.engine.messages.fair.line import put, take, weigh


def test_the_panel_shows_who_waits_while_somebody_does(tmp_path: Path, redis_url: str) -> None:
    with connect(redis_url) as client:
        client.flushdb()
        weigh(client, heavy=3.0)
        put(client, *(f"h{n}" for n in range(12)), tenant="heavy")
        put(client, "a0", "a1", tenant="a")
        env = {"FLEET_POOLS": '{"research": {"bots": 4}}', "FLEET_HOME": str(tmp_path)}
        driver = start_chromium()
        try:
            with running(tmp_path, redis_url, env=env) as flower:
                page = Browser(driver)
                page.look()
                page.open(flower.url, f"fleet:{(tmp_path / 'flower.password').read_text().strip()}")
                _is_true(page, client)
        finally:
            driver.quit()


def _is_true(page: Browser, client: redis.Redis) -> None:
    page.wait(lambda: page.texts("#tenants b") == ["heavy", "a"], "both are listed")
    assert page.texts("#tenants p") == [
        "12 waiting, 75% of the takes, weight 3", "2 waiting, 25% of the takes, weight 1"
    ]  # fmt: skip
    assert page.complaints() == []
    take(client, 20)
    page.wait(lambda: not page.find("#tenants-panel").is_displayed(), "nobody waits")
