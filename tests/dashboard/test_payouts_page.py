"""Payouts on the Fleet tab, in a real browser: what is not paid, where the last payout stands, and what will change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.payouts.conftest import place
from tests.payouts.evm_place import Place
from tests.payouts.purse import fleet

__all__ = ["place"]
CONTRAST = Path(__file__).with_name("contrast.js")


@pytest.fixture
def page(place: Place, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The page over a fleet with a payout under way, and earnings that are in none."""
    place.earn()
    place.prepared()
    place.earn(6, prefix="later")
    place.configure(address_wait_hours=24)
    fleet("due")
    monkeypatch.chdir(place.folder)
    driver = start_chromium()
    try:
        with running(place.folder, redis_url, env={"FLEET_HOME": str(place.folder)}) as flower:
            browser = Browser(driver)
            browser.look()
            browser.open(flower.url, f"fleet:{(place.folder / 'flower.password').read_text().strip()}")
            yield browser
            assert browser.complaints() == []
    finally:
        driver.quit()


def test_a_payout_is_followed_on_the_page_and_no_payee_is_named(page: Browser, place: Place) -> None:
    page.wait(lambda: page.text("#payouts-note") != "", "the panel is drawn")
    assert page.text("#payouts-note") == "0.36 earned by 36 tasks on test, 0.06 in no payout yet"
    assert page.text("#payouts-guards").startswith("3 new addresses on test, paid from 20")
    (row,) = page.texts("#payouts-rows > li")
    assert "0.3 to 3 payees: 1 prepared, under way since 20" in row and ", expires 20" in row
    for name, width, theme in (("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"payouts-{name}")
    page.look()
    fleet("send", place.signed())
    place.chain.mine(4)
    assert place.check() == ["settled"]
    page.wait(lambda: "1 settled, ended 20" in page.texts("#payouts-rows > li")[0], "its end is shown")
    assert "p001" not in page.text("#payouts-panel")
