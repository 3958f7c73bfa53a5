"""The page docs/judging.md, carried out: its code and its fleet.toml."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fleet import config
from fleet.faults import Fault
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.workers.agent import Agent
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, a_gateway

PAGE = (Path(__file__).parents[2] / "docs" / "judging.md").read_text()
OFFERS, CHECKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(TOML,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working folder as the page describes it."""
    (tmp_path / "fleet.toml").write_text(TOML)
    (tmp_path / "offers.py").write_text(OFFERS)
    (tmp_path / "checks.py").write_text(CHECKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    for name in ("offers", "checks"):
        sys.modules.pop(name, None)


def work(answer: str, **task: Any) -> Outcome:
    async def run() -> Outcome:
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider([answer])), config.load())
        return await agent.run(BotTask.parse("?", **task), a_bot(), task_id="t1", deadline_s_left=10)

    return asyncio.run(run())


def test_the_validator_takes_and_rejects_as_it_says() -> None:
    assert work("The tide is the moon's, http://example.com", kind="facts").status == "ok"
    assert work("The tide is the moon's", kind="poems").status == "ok"
    outcome = work("The tide is the moon's", kind="facts")
    assert outcome.fault is Fault.REJECTED and "names no source" in str(outcome.error)


def test_the_schema_of_the_example_gives_an_offer_back() -> None:
    offers = import_module("offers")
    outcome = work('```json\n{"product": "lamp", "price": 12.5}\n```', answer_schema=offers.Offer)
    assert offers.offer_of(outcome) == offers.Offer(product="lamp", price=12.5)
    assert work('{"product": "lamp"}', answer_schema=offers.Offer).fault is Fault.SCHEMA


def test_the_page_names_every_fault() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(Fault)
