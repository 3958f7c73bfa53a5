"""Bad bots and sameness on the Fleet tab, in a real browser: what is painted, listed, sorted and relearnt is true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from selenium.webdriver.common.keys import Keys

from fleet.config import PoolSettings, Settings
from fleet.diversity import ClassState
from fleet.diversity.state import Pairs, Reading, Trial
from fleet.models import Remedy
from fleet.roster import quarantine
from fleet.signals.unusual.alarms import Alarm, read_alarms, swap
from fleet.store import keys
from fleet.store.client import connect
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.engine.operations.test_bad_bots import judged, remember
from tests.signals.working_fleet import WorkingFleet

CONTRAST = Path(__file__).with_name("contrast.js")
SETTINGS = Settings(pools={"good": PoolSettings(bots=40), "slow": PoolSettings(bots=10)})
#: Returns the colour in the corner of the cell of a bot, beside its cross, and that of a name of the style sheet.
PAINTED = """const [place, ink] = arguments, heat = document.getElementById("heat"), cell = Number(heat.dataset.cell);
  const [x, y] = [(place + 0.5) * cell - 1, Number(heat.dataset.head) + 4];
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  probe.drawImage(document.getElementById("cells"), x, y, 1, 1, 0, 0, 1, 1);
  probe.fillStyle = getComputedStyle(heat).getPropertyValue(ink).trim();
  probe.fillRect(1, 0, 1, 1);
  return [0, 1].map((k) => [...probe.getImageData(k, 0, 1, 1).data].join())"""
ROWS = """return [...document.querySelectorAll("#bot-table tbody tr")].map((row) => row.cells[0].textContent)"""
COLLAPSED = ClassState(
    pool="good", kind="chat", phase="treating", alarm=True, alarm_at=1.0, flagged=(5, 6, 7, 8),
    remedies={5: Remedy(rung=1, generation=1), 6: Remedy(rung=1, generation=1)},
    readings={
        "across": Reading(score=9.0, near_share=0.6, usual_score=180.0, usual_near_share=0.01, fallen=True),
        "within": Reading(score=100.0, near_share=0.1, usual_score=110.0, usual_near_share=0.1),
    },
    trial=Trial(
        aspect="across", rung=1, since=9, counted=9, treated=(5, 6), control=(7, 8), alike=0.4,
        treated_pairs=Pairs(total=4.0, count=100), control_pairs=Pairs(total=39.0, count=100),
    ),
    verdict="remedy 1: did not help",
)  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def page(tmp_path: Path, redis_url: str, client: redis.Redis) -> Iterator[Browser]:
    """The page over a fleet whose provider failed, with bad, alike and innocent bots; nothing works there now."""
    fleet = WorkingFleet(redis_url, client, SETTINGS)
    fleet.seed()
    fleet.finish(30, pool="good", bot=1, error="ProviderUnavailable", calls={"ProviderUnavailable": 3})
    judged(client, "good-002", 5.5, 0, 0, rates=(115, 0, 0))
    judged(client, "good-003", 0, 3.2, 0, rates=(0, 26, 0))
    judged(client, "slow-002", 0, 0, 4.7, rates=(0, 0, 90))
    client.zadd(keys.probation("slow"), {"slow-002": 8})
    quarantine(
        client, "good", "good-004", by="health", reason="bad answers: 45% of its last tasks, 5% is usual", for_s=900
    )
    quarantine(client, "slow", "slow-001", by="ann", reason="<i>odd</i>")
    remember(client, COLLAPSED, 1000)
    remember(client, ClassState(pool="slow", kind="default"), 12)
    env = {"FLEET_POOLS": '{"good": {"bots": 40}, "slow": {"bots": 10}}', "FLEET_HOME": str(tmp_path)}
    driver = start_chromium()
    try:
        with running(tmp_path, redis_url, env=env) as flower:
            browser = Browser(driver)
            browser.look()
            browser.open(flower.url, f"fleet:{(tmp_path / 'flower.password').read_text().strip()}")
            yield browser
            assert browser.complaints() == []
    finally:
        driver.quit()


def test_the_page_shows_who_is_bad_who_is_out_who_is_alike_and_nobody_else(page: Browser, client: redis.Redis) -> None:
    _the_map_accuses_the_bad_ones_only(page)
    _the_worst_are_listed_with_reason_and_until(page)
    _the_table_sorts_on_every_column_both_ways(page)
    _a_press_opens_the_bot_that_was_there_when_it_began_and_a_key_the_one_that_is(page)
    for name, width, theme in (("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"health-{name}")
    page.look()
    _the_panel_of_diversity_tells_and_relearns(page, client)
    _unusual_use_is_told_and_resumed(page, client)


def choose(page: Browser, control: str, value: str) -> None:
    code = """const it = document.getElementById(arguments[0]);
        it.value = arguments[1]; it.dispatchEvent(new Event("change"))"""
    page.script(code, control, value)


def _the_map_accuses_the_bad_ones_only(page: Browser) -> None:
    assert page.find("#colour").get_attribute("value") == "health"
    inks = {0: "--bad-0", 3: "--out", 4: "--bad-0"}  # one with failed calls of its provider, one out, one innocent
    for place, ink in inks.items():
        painted, wanted = page.script(PAINTED, place, ink)
        assert painted == wanted, f"bot {place + 1}: expected {ink}"
    painted, clean = page.script(PAINTED, 1, "--bad-0")
    assert painted != clean
    legend = page.text("#heat-legend")
    assert "× quarantined 2" in legend and "? probation 1" in legend and "▢ alike 4" in legend
    page.script("document.getElementById('heat').focus()")
    page.press(Keys.HOME, *[Keys.ARROW_RIGHT] * 3)
    assert "bad answers: 45% of its last tasks, 5% is usual" in page.text("#bot-under")
    for colour in page.script("return [...document.getElementById('colour').options].map((one) => one.value)"):
        choose(page, "colour", colour)
        assert page.text("#heat-legend")
    choose(page, "colour", "health")


def _the_worst_are_listed_with_reason_and_until(page: Browser) -> None:
    lines = page.texts("#worst li")
    assert [line.split("-")[0] + line.split("-")[1][:3] for line in lines] == [
        "slow002", "slow001", "good004", "good002", "good003",
    ]  # fmt: skip
    assert "<i>odd</i>, by ann" in lines[1] and lines[1].endswith("until it is released")
    assert "bad answers: 45% of its last tasks, 5% is usual" in lines[2] and "in 15 min" in lines[2]
    page.look(width=360)
    lines_high = "return [...document.querySelectorAll('#worst .link')].map((one) => one.getClientRects().length)"
    assert page.script(lines_high) == [1] * 5, "on a phone each name stands on one line"
    narrowest = "return Math.min(...[...document.querySelectorAll('#worst .why')].map((one) => one.clientWidth))"
    assert page.script(narrowest) > 200
    page.look()
    assert lines[0].endswith("evidence 4.7 of 4.6") and lines[3].endswith("evidence 5.5 of 9.2")
    assert page.text("#worst-note") == (
        "2 bots out, 3 bots suspected, slow: 1 bad bot at work, since at most 3 of 10 may be out"
    )


def _the_table_sorts_on_every_column_both_ways(page: Browser) -> None:
    page.click("#as-table")
    for width in (1440, 1800):  # below 1100 it scrolls sideways, for it has seventeen columns
        page.look(width=width)
        assert page.script("const it = document.getElementById('bot-table'); return it.scrollWidth <= it.clientWidth")
    page.look()
    heads = "#bot-table thead th"
    for column in range(len(page.texts(heads))):
        click = f"{heads}:nth-child({column + 1}) button"
        firsts = []
        for _ in range(2):
            page.script("document.querySelector(arguments[0]).focus()", click)
            page.press(Keys.ENTER)
            sorts: list[Any] = page.script(f"return [...document.querySelectorAll('{heads}')].map((it) => it.ariaSort)")
            assert sorts[column] in ("ascending", "descending") and sorts.count("none") == len(sorts) - 1
            firsts.append((sorts[column], page.script(ROWS)))
        assert {direction for direction, _ in firsts} == {"ascending", "descending"}, page.texts(heads)[column]
    page.click(f"{heads}:nth-child(3) button")
    assert page.script(ROWS)[:5] == ["good-004", "slow-001", "slow-002", "good-002", "good-003"]
    page.click("#direction")
    assert page.script(ROWS)[-2:] == ["slow-001", "good-004"]
    cells = dict(zip(page.texts(heads), page.texts("#bot-table tbody tr:first-child > *"), strict=True))
    assert (cells["evidence"], cells["reason"], cells["out until (UTC)"]) == ("–", "–", "–")
    choose(page, "sort", "until")
    assert page.script(ROWS)[:2] == ["slow-001", "good-004"]
    page.picture("health-table")
    page.click("#as-table")


def _a_press_opens_the_bot_that_was_there_when_it_began_and_a_key_the_one_that_is(page: Browser) -> None:
    page.click("#as-table")
    first = "#bot-table tbody tr:first-child button"
    # Told to the button by its events: under a real pointer the row may move away when a line above it comes or goes.
    press = "document.querySelector(arguments[0]).dispatchEvent(new PointerEvent('pointerdown', {bubbles: true}))"
    click = "document.querySelector(arguments[0]).dispatchEvent(new MouseEvent('click', {bubbles: true, detail: 1}))"
    pressed = page.script(f"{press}; {ROWS}", first)[0]
    page.script("document.getElementById('direction').click()")  # all bots change places under the pointer
    page.wait(lambda: page.script(ROWS)[0] != pressed, "another bot's row is there")
    page.script(click, first)
    page.wait(lambda: page.text("#bot-name") == pressed, "the bot that was meant is open")
    page.press(Keys.ESCAPE)
    shown = page.script(ROWS)[0]
    page.script("document.querySelector(arguments[0]).focus()", first)
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#bot-name") == shown, "a key opens the bot that is there")
    page.press(Keys.ESCAPE)
    page.click("#direction")
    page.click("#as-table")


def _the_panel_of_diversity_tells_and_relearns(page: Browser, client: redis.Redis) -> None:
    chat = '#diversity li[data-key="good chat"]'
    assert page.text("#diversity-note") == "2 classes of tasks, 1 alarm, by their last answers"
    told = page.text(chat)
    assert "4 bots answer alike: 2 get remedy 1, context reshuffled, 2 are left as they are, to compare" in told
    assert "9 of usually 180; near 60%, usually 1%" in told and "Alike: good-005, good-006, good-007, good-008" in told
    assert "2 bots, 10% of the likeness left" in told and "2 bots, 98% of the likeness left" in told
    assert "Last verdict: remedy 1: did not help." in told
    assert "Learning what is usual: 12 answers so far" in page.text('#diversity li[data-key="slow default"]')
    page.click(f"{chat} button.end")
    assert page.text(f"{chat} button.end") == "Relearn: sure?"
    assert client.hexists(keys.diversity_states(), "good|chat")
    page.click(f"{chat} button.end")
    page.wait(lambda: "Learning what is usual: 1,000 answers" in page.text(chat), "the class is learnt anew")
    assert not client.hexists(keys.diversity_states(), "good|chat")
    page.wait(lambda: "▢ alike" not in page.text("#heat-legend"), "nobody is alike any more")
    page.wait(lambda: any("diversity relearnt" in event for event in page.texts("#events li")), "the event tells it")


def _unusual_use_is_told_and_resumed(page: Browser, client: redis.Redis) -> None:
    alarm = Alarm("key", "simulator", time.time() - 90, 72, 720, stage="suspended")
    assert swap(client, alarm.field_name, b"", alarm)
    said = "#findings li.critical .said"
    page.wait(lambda: "Key simulator is used far more than usual" in page.text(said), "the finding tells it")
    assert "720 requests a minute, 72 are usual; its calls wait until it is resumed" in page.text(said)
    page.picture("unusual-use")
    page.click('#findings button.does[aria-label="Resume simulator"]')
    page.wait(lambda: "far more than usual" not in page.text("#findings"), "the finding goes")
    assert not read_alarms(client)
    page.wait(lambda: any("use usual" in event for event in page.texts("#events li")), "the event tells it")
