"""A real headless Chromium for tests: logs in to Flower, reads and clicks as a user does, and takes pictures."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.waiting import wait_until
from tests.worker_process import REPO

#: Pictures of every look of the page, kept for people: git ignores `build/`.
SCREENSHOTS = REPO / "build" / "screenshots"
#: Until what was written is laid out.
FRAMES = "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
#: Pictures that are taken until one is of a page that did not change meanwhile (count).
PICTURES = 5
#: Seconds until a page shows what it should on a busy machine.
SHOWN_S = 20.0


def start_chromium() -> webdriver.Chrome:
    """Start Debian's Chromium. Skips the test where there is none, but never in CI."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("CI"):
            pytest.fail("expected chromium and chromedriver in CI: .ci/run installs them")
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument("--window-size=1440,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, Service(driver))


class Browser:
    """One browser window."""

    def __init__(self, chrome: webdriver.Chrome) -> None:
        self.chrome = chrome

    def open(self, url: str, login: str) -> None:
        """Open the Fleet page of a Flower and wait until it has drawn a reading."""
        header = f"Basic {base64.b64encode(login.encode()).decode()}"
        self.chrome.execute_cdp_cmd("Network.enable", {})
        self.chrome.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Authorization": header}})
        self.chrome.get(f"{url}/fleet")
        self.wait(lambda: self.version, "the page has drawn the fleet")

    @property
    def version(self) -> str | None:
        """The reading that is drawn."""
        return self.script("return document.body.dataset.version")  # type: ignore[no-any-return]

    def script(self, code: str, *args: Any) -> Any:
        return self.chrome.execute_script(code, *args)

    def text(self, selector: str) -> str:
        """Return the text of an element, '' while there is none."""
        found = self.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)
        return " ".join(str(found).split())

    def texts(self, selector: str) -> list[str]:
        code = "return [...document.querySelectorAll(arguments[0])].map((node) => node.textContent)"
        return list(self.script(code, selector))

    def find(self, selector: str) -> WebElement:
        return self.chrome.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        """Click an element, found anew when the page has just redrawn it."""

        def clicked() -> bool:
            try:
                node = self.find(selector)
                self.script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", node)
                node.click()
            except StaleElementReferenceException:
                return False
            return True

        self.wait(clicked, f"{selector} is clicked")

    def click_cell(self, place: int) -> None:
        """Click the cell of the heat map at a place of its first row."""
        heat = self.find("#heat")
        self.script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", heat)
        cell, head = (int(heat.get_attribute(f"data-{name}") or 0) for name in ("cell", "head"))
        left, top = (place + 0.5) * cell - heat.size["width"] / 2, 2 + head + cell / 2 - heat.size["height"] / 2
        ActionChains(self.chrome).move_to_element_with_offset(heat, round(left), round(top)).click().perform()

    def press(self, *keys: str) -> None:
        ActionChains(self.chrome).send_keys(*keys).perform()

    def wait(self, predicate: Callable[[], object], what: str, timeout_s: float = SHOWN_S) -> None:
        try:
            wait_until(predicate, timeout_s, what)
        except AssertionError as error:
            self.picture("failure")
            raise AssertionError(f"{error}; the page says: {self.complaints()}") from None

    def complaints(self) -> list[str]:
        """Return what the browser has complained about since the last call: errors of scripts, blocked files."""
        lines = self.chrome.get_log("browser")  # type: ignore[no-untyped-call]
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    def look(self, *, width: int = 1440, height: int = 1000, theme: str = "light") -> None:
        """Change the size of the window and the theme that the system asks for."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.script(FRAMES)

    def picture(self, name: str) -> Path:
        """Keep a picture of the whole page, once it is as high as it was before: what stands in it may just change."""
        measure = "const e = document.documentElement; return [e.clientWidth, e.scrollHeight]"
        for _ in range(PICTURES):
            width, height = self.script(measure)
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
            picture = self.chrome.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
            if self.script(measure) == [width, height]:
                break
            self.script(FRAMES)
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(base64.b64decode(picture))
        return path
