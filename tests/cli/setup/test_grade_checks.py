"""What doctor and metrics say of the record of right and wrong answers, on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from fleet import config
from fleet.cli.setup.grade_checks import grade_checks
from fleet.roster.graded import GradeFacts, read_graded
from fleet.store.client import connect
from tests.roster.test_grading import Pool


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


def settings_of(**kind: object) -> config.Settings:
    return config.Settings.model_validate({"pools": {"p": {"bots": 12}}, "kinds": {"sums": kind}})


def said(settings: config.Settings, facts: GradeFacts) -> dict[str, tuple[str, str]]:
    return {one.name: (one.level, one.found) for one in grade_checks(settings, facts)}


def test_a_kind_that_lives_by_grades_and_has_none_is_told(client: redis.Redis) -> None:
    found = said(settings_of(good_enough=0.9), read_graded(client, ["p"]))
    assert found["kinds.sums: good_enough"][1] == "nobody has graded an answer of this kind: bots ask their own models"
    assert "several persona.models" in found["kinds.sums: models"][1]
    assert said(settings_of(), GradeFacts()) == {}


def test_a_thin_record_is_told_until_it_is_enough_and_so_is_a_bot_that_is_out(client: redis.Redis) -> None:
    pool = Pool(client, 12)
    pool.play(20, lambda bot: False)
    thin = said(settings_of(good_enough=0.9), read_graded(client, ["p"]))
    assert thin["grades: p, sums"] == ("warn", "24 grades: too few to test a bot by, 30 are enough")
    assert "kinds.sums: good_enough" not in thin
    pool.play(1200, lambda bot: bot == "p-003")
    found = said(settings_of(), read_graded(client, ["p"]))
    assert found["grades: p, sums"][0] == "ok" and "are right" in found["grades: p, sums"][1]
    assert found["grades: p-003"][0] == "warn" and "out: wrong answers: " in found["grades: p-003"][1]
    assert len([name for name in found if name.startswith("grades: p-")]) == 1
