"""What documents save, on all faces: a real worker asks about one, and page, metric, shell and doctor say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.cli.setup.context_checks import context_checks, read_documents
from fleet.economy.contexts.told import ContextBoard, DocumentReads, Reads
from fleet.economy.prices import PriceList
from fleet.engine.operations.overview import open_overview
from fleet.models import BotResult
from fleet.money import PICOS
from fleet.signals.metrics import exposition
from tests.dashboard.browser import Browser, start_chromium
from tests.dashboard.flower_process import running as flower_running
from tests.engine.conftest import StartWorker
from tests.waiting import wait_until
from tests.workers.simulator.running import running, total

CONTRAST = Path(__file__).parents[2] / "dashboard" / "contrast.js"
CONFIG = """
[providers.api]
kind = "openai"
base_url = "{url}/v1"
api_key_env = "CONTEXT_KEY"

[pools.research]
bots = 10
provider = "api"
model = "simulated-1"

[limits."api/simulated-1"]
rpm = 1000000

[prices."api/simulated-1"]
input_usd_per_mtok = 1.0
cached_usd_per_mtok = 0.1
output_usd_per_mtok = 4.0
"""
TASKS = 20


@pytest.fixture
def page(tmp_path: Path, redis_url: str) -> Iterator[Browser]:
    driver = start_chromium()
    try:
        with flower_running(tmp_path, redis_url) as flower:
            browser = Browser(driver)
            browser.look()
            browser.open(flower.url, f"fleet:{next(tmp_path.rglob('flower.password')).read_text().strip()}")
            yield browser
            assert browser.complaints() == []
    finally:
        driver.quit()


@pytest.fixture
def asked(
    fleet_home: Path, tmp_path: Path, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[BotResult]]:
    """Results of tasks about one document of 5,000 tokens and more; another one is stored."""
    monkeypatch.setenv("CONTEXT_KEY", "test-key")
    prices = {"input_usd_per_mtok": 1.0, "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": 4.0}
    with running(**prices) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(url=url))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        handbook = stored(tmp_path, "handbook.md", "The harbour has nine cranes. " * 900)
        stored(tmp_path, "rules.md", "Nobody may swim. " * 900)
        start_worker()
        from fleet.engine.tasks import submit_task

        handles = [submit_task.delay(f"What is {n}+{n}?", pool="research", context=[handbook]) for n in range(TASKS)]
        found = [handle.get(timeout=60) for handle in handles]
        paid = sum(one.cost_usd_picos or 0 for one in found)
        assert total(url)["billed_usd_picos"] == pytest.approx(paid, rel=1e-6)
        yield found
    config.current.cache_clear()


def test_page_metric_shell_and_doctor_tell_what_documents_have_saved(asked: list[BotResult], page: Browser) -> None:
    price = PriceList(config.current())
    without = [one.usage.model_copy(update={"cached_tokens": 0}) for one in asked]
    whole = sum(price("api/simulated-1", usage) or 0 for usage in without)
    saved = whole - sum(one.cost_usd_picos or 0 for one in asked)
    tokens = sum(one.usage.cached_tokens for one in asked)
    assert saved > 0
    with open_overview(config.current()) as overview:
        wait_until(lambda: overview.read().bill.contexts.ever.read_tokens == tokens, 20, "all calls are counted")
        view = overview.read()
    contexts = view.bill.contexts
    assert (contexts.stored, contexts.ever.saved_picos, contexts.lately) == (2, saved, contexts.ever)
    ((name, reads),) = [(row.name, row.reads) for row in contexts.rows]
    assert (name, reads.hit + reads.cold + reads.missed, reads.hit >= TASKS - 2) == ("handbook.md", TASKS, True)

    lines = exposition(view).decode().splitlines()
    assert f'fleet_context_calls_total{{what="hit"}} {float(reads.hit)}' in lines
    assert f"fleet_context_read_tokens_total {float(tokens)}" in lines
    assert f"fleet_context_saved_usd {saved / PICOS}" in lines
    rows = json.loads(told("context", "--json"))["contexts"]
    assert [(row["name"], row["reads"]["saved_picos"]) for row in rows] == [("handbook.md", saved), ("rules.md", 0)]
    share = f"{reads.hit / TASKS:.0%}"
    assert share in told("context") and f"{share} of {TASKS} calls of late have read their documents" in told("stats")
    (check,) = context_checks(read_documents(config.current()))
    assert check.level == "ok" and f"{share} of {TASKS} calls of late" in check.found

    page.wait(lambda: f"{share} of {TASKS} read it" in page.text("#contexts-rows li b"), "the panel has every call")
    assert page.text("#contexts-note").startswith(f"2 documents stored · {share} of {TASKS} calls read from a cache")
    for width, theme in ((1440, "light"), (1440, "dark"), (360, "light")):
        page.look(width=width, height=900, theme=theme)
        assert page.script("return document.documentElement.scrollWidth") <= width
        assert page.script(CONTRAST.read_text()) == []
    page.picture("contexts")


def test_doctor_warns_where_caches_cost_more_than_none_and_says_nothing_without_documents() -> None:
    assert list(context_checks(ContextBoard())) == list(context_checks(None)) == []
    (idle,) = context_checks(ContextBoard(stored=1))
    assert idle.level == "ok" and "none was asked about" in idle.found
    dear = DocumentReads("ctx-1", "a.md", Reads(cold=9, saved_picos=-2 * PICOS))
    (check,) = context_checks(ContextBoard(1, (dear,)))
    assert check.level == "warn" and "cost $2.0000 more than none" in check.found


def told(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def stored(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return told("context", "add", str(folder / name)).split()[-1]
