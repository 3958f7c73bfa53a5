"""Jobs and schedules on the Fleet tab, in a real browser: how far they are, what failed, and what can be done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fleet import config
from fleet.engine.asking.recent import RecentAsk, RecentMember
from fleet.engine.jobs.job import find_job, open_job, submit_job
from fleet.engine.outcomes.completion import Finish
from fleet.models import BotResult, TaskError
from fleet.rollouts import Rollout, end, read_rollouts, start
from fleet.store import answer_keys, keys
from fleet.store.client import connect
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running
from tests.engine.jobs.test_counting import finish_result

ASK = RecentAsk(
    ask_id="0123456789ab", at=time.time(), kind="sums", status="ok", aggregate="majority", why_over="fixed", n=4,
    asked=3, answered=2, replaced=1, agreed=2, took_ms=1200,
    members=(
        RecentMember(task_id="a", status="failed", error="BadAnswer", bot="research-001"),
        RecentMember(task_id="b", status="ok", side=0, bot="research-002"),
        RecentMember(task_id="c", status="ok", side=0, bot="research-003"),
    ),
)  # fmt: skip
CONTRAST = Path(__file__).with_name("contrast.js")
TOML = """\
[pools.research]
bots = 5

[schedules.prices]
every_s = 900
task = { prompt = "What do they cost?" }
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def page(tmp_path: Path, redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browser]:
    """The page over a fleet with a job of which three have ended, one that is open for hours, and a schedule."""
    (tmp_path / "fleet.toml").write_text(TOML)
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    config.current.cache_clear()
    job = submit_job([f"question {number}" for number in range(8)], key="nightly", then="report")
    for position, error in enumerate((None, None, TaskError(type="BadAnswer", message="it is no number"))):
        status = "failed" if error else "ok"
        result = BotResult(
            task_id=job.task_id(position), status=status, error=error, answer=None if error else "7", finished_at=1.0
        )
        finish_result(config.current(), Finish(result))
    crawl = open_job(key="crawl <b>")
    crawl.add(["one", "two"])
    client.hset(f"{keys.TAG}:job:{crawl.id}", mapping={"queued_at": time.time() - 7200, "made": time.time() - 7200})
    client.lpush(answer_keys.recent_asks(), ASK.model_dump_json())
    tried = Rollout(id="0" * 12, pool="research", persona="creative", share=0.05, since=time.time(), by="ann")
    start(client, tried)
    sums = {
        "new_tasks:0": 20,
        "new_failed:0": 1,
        "new_begun:0": 20,
        "old_tasks:0": 380,
        "old_failed:0": 38,
        "old_begun:0": 380,
    }
    client.hset(answer_keys.rollout(tried.id), mapping=sums)
    driver = start_chromium()
    try:
        with running(tmp_path, redis_url, env={"FLEET_HOME": str(tmp_path)}) as flower:
            browser = Browser(driver)
            browser.look()
            browser.open(flower.url, f"fleet:{(tmp_path / 'flower.password').read_text().strip()}")
            yield browser
            assert browser.complaints() == []
    finally:
        driver.quit()


def test_jobs_and_schedules_are_told_and_jobs_are_sealed_replayed_and_cancelled(
    page: Browser, client: redis.Redis
) -> None:
    _an_open_page_asks_once_a_second_for_everything(page)
    nightly = find_job("nightly")
    of = f'#jobs > [data-key="{nightly.id}"]'
    assert page.text("#jobs-note") == "2 under way"
    assert page.text(f"{of} .line .pill") == "sealed"
    assert page.text(f"{of} p.muted").startswith("3 of 8 tasks · 1 failed · ")
    assert page.find(f"{of} .share").get_attribute("aria-label") == "3 of 8 ended"
    _a_job_without_its_producer_is_told_and_sealed(page)
    page.click(f"{of} .link")
    page.wait(lambda: "Not ended yet" in page.text(f"{of} .members"), "its members are listed")
    failed = page.script("return document.querySelector(arguments[0]).dataset.task", f"{of} .members [data-task]")
    assert failed == nightly.task_id(2)
    _a_task_leads_to_its_job(page, nightly.task_id(4), nightly.id)
    for name, width, theme in (("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
        page.picture(f"jobs-{name}")
    page.look()
    page.click(f'{of} [data-deed="replay"]')
    assert "Queue 1 failed task again?" in page.text(f"{of} .asked")
    page.click(f"{of} .asked .action")
    page.wait(lambda: "unknown" in page.text("#toast"), "it has no dead letter: that is said")
    page.click(f'{of} [data-deed="cancel"]')
    page.click(f"{of} .asked .action")
    page.wait(lambda: page.text(f"{of} .line .pill") == "cancelled", "it is cancelled")
    page.wait(lambda: nightly.state.cancelled == 5, "its members are, too")
    page.wait(
        lambda: {b"job_sealed", b"job_cancelled"} <= {event[b"event"] for _, event in client.xrange(keys.events())},
        "who did it is recorded",
    )
    _asks_are_told_with_their_members(page)
    _what_is_tried_is_told(page, client)
    page.wait(lambda: "prices" in page.text("#schedules"), "schedules are told")
    assert "every 900 s · next in" in page.text("#schedules")
    assert "no beat" in page.text("#schedules-trouble")


def _an_open_page_asks_once_a_second_for_everything(page: Browser) -> None:
    asked = "return performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch')"
    page.wait(lambda: len(page.script(asked)) >= 3, "it has asked three times")
    assert {one["name"].partition("?")[0].rpartition("/fleet/")[2] for one in page.script(asked)} == {"state"}
    assert "also=asks" in page.script(asked)[0]["name"] and "also=" not in page.script(asked)[1]["name"]


def _a_job_without_its_producer_is_told_and_sealed(page: Browser) -> None:
    crawl = find_job("crawl <b>")
    of = f'#jobs > [data-key="{crawl.id}"]'
    assert page.text(f"{of} .link") == "crawl <b>"
    assert "has got no task for 2 h" in page.text(f"{of} .trouble")
    assert "1 job stands still" in page.text("#findings")
    page.click(f'{of} [data-deed="seal"]')
    page.click(f"{of} .asked .action")
    page.wait(lambda: page.text(f"{of} .line .pill") == "sealed", "it is sealed")
    assert crawl.state.total == 2


def _asks_are_told_with_their_members(page: Browser) -> None:
    page.wait(lambda: "2 of 2 agree, asked 3 of 4, 1 replaced" in page.text("#asks"), "asks are told")
    assert page.text("#asks-note") == "the newest 1; 1 member never asked"
    page.click("#asks .link")
    told = page.text("#asks .letters")
    assert "answer 1" in told and "BadAnswer" in told and "research-002" in told


def _what_is_tried_is_told(page: Browser, client: redis.Redis) -> None:
    told = page.text("#rollouts")
    assert "persona creative" in told and "5% of the tasks of research" in told
    assert "20 tasks under it, 380 others; good 95.0% beside 90.0%" in told
    (state,) = read_rollouts(client)
    end(client, state.rollout, state.rollout.over("back", at=time.time(), why="its answers are 90% alike"))
    page.wait(lambda: "went back" in page.text("#rollouts"), "it went back")
    assert "its answers are 90% alike" in page.text("#rollouts .trouble")


def _a_task_leads_to_its_job(page: Browser, task_id: str, job_id: str) -> None:
    page.script("location.hash = '#task=' + arguments[0]", task_id)
    page.wait(lambda: job_id in page.text("#task"), "the task names its job")
    code = "[...document.querySelectorAll('#task button')].find((one) => one.textContent === arguments[0]).click()"
    page.script(code, job_id)
    page.wait(lambda: not page.script("return document.getElementById('task').open"), "the job is shown")
