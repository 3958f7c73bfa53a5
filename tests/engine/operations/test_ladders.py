"""Who of a fallback ladder serves a pool: counted by the real script on a real Redis, and told alike everywhere."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
import redis
from click.testing import CliRunner
from rich.console import Console

from fleet import config
from fleet.cli.main import main
from fleet.cli.operate.top_view import frame
from fleet.config import PoolSettings, RungSettings, Settings
from fleet.engine.operations.ladders import told_ladder, told_rung
from fleet.engine.operations.overview import Overview
from fleet.engine.operations.waits import look
from fleet.signals.metrics import exposition
from fleet.signals.rungs import BACK_AFTER_S, RUNGS, LadderView, RungsAt
from fleet.signals.view import PoolView
from fleet.signals.windows import RUNGS_START
from fleet.store import keys
from tests.engine.operations.test_waits import open_breaker, queue, serve
from tests.signals.working_fleet import WorkingFleet

#: A pool with a ladder of a smaller model and a text, and one without a ladder.
SETTINGS = Settings(
    pools={
        "a": PoolSettings(
            bots=3,
            model="m1",
            fallback=(
                RungSettings(model="small", when=("outage", "key")),
                RungSettings(answer="Later.", when=("outage",)),
            ),
        ),
        "b": PoolSettings(bots=3, model="m2"),
    },
)


@pytest.fixture
def fleet(redis_url: str, client: redis.Redis) -> WorkingFleet:
    made = WorkingFleet(redis_url, client, SETTINGS)
    made.seed()
    return made


def ladder_in(client: redis.Redis) -> LadderView:
    pool = pool_in(client)
    assert pool.ladder is not None
    return pool.ladder


def pool_in(client: redis.Redis) -> PoolView:
    return Overview(SETTINGS, state=client, broker=client).read().pools[0]


def age(client: redis.Redis, seconds: float) -> None:
    """Let that many seconds pass since the ladder was counted last."""
    raw = client.getrange(keys.sketch("a"), RUNGS_START, -1)
    told = list(RUNGS.unpack(raw)[1:])  # type: ignore[arg-type]
    for place in (RungsAt.SINCE, RungsAt.LAST_AT):
        told[place - 1] -= seconds
    client.setrange(keys.sketch("a"), RUNGS_START, RUNGS.struct.pack(*told))


def test_the_rung_that_serves_is_told_with_its_time_and_each_ones_share(
    fleet: WorkingFleet, client: redis.Redis
) -> None:
    assert (ladder_in(client).rung, ladder_in(client).served) == (None, (0, 0, 0))
    fleet.finish(6, pool="a", bot=1, served_by="call")
    assert (ladder_in(client).rung, told_ladder(ladder_in(client), 0.0)) == (0, "")
    fleet.finish(2, pool="a", bot=1, served_by="fallback 1", model="small")
    fleet.finish(1, pool="a", bot=1, served_by="none", error="Expired")
    fleet.finish(4, pool="b", bot=1, served_by="call")
    found = ladder_in(client)
    assert (found.apis, found.rung, found.served) == (("simulator/m1", "simulator/small", "text"), 1, (6, 2, 0))
    assert found.since is not None and found.last_at is not None
    assert told_rung(found, found.since + 720).startswith("fallback 1, 12 min ago")
    assert told_rung(found.model_copy(update={"last_at": found.since + 719}), found.since + 720) == "fallback 1, 12 min"
    assert told_ladder(found, found.since + 30) == (
        "fallback 1 (simulator/small) has served it for 30 s; of the last hour's answers own 75%, fallback 1 25%"
    )
    assert pool_in(client).by_rung == {1: 2, 2: 0}
    assert client.strlen(keys.sketch("b")) <= RUNGS_START, "a pool without a ladder counts nothing of it"


def test_an_own_answer_counts_as_a_return_once_the_fallback_has_rested(
    fleet: WorkingFleet, client: redis.Redis
) -> None:
    fleet.finish(1, pool="a", bot=1, served_by="fallback 2", status="degraded")
    fleet.finish(1, pool="a", bot=1, served_by="call")  # it began before the fall
    fleet.finish(1, pool="a", bot=1, served_by="fallback 1")  # and so did this one
    first = ladder_in(client)
    assert (first.rung, first.served) == (2, (1, 1, 1))
    age(client, BACK_AFTER_S + 600)
    fleet.finish(1, pool="a", bot=1, served_by="fallback 1")
    assert ladder_in(client).rung == 1
    age(client, BACK_AFTER_S)
    fleet.finish(1, pool="a", bot=1, served_by="call")
    found = ladder_in(client)
    assert (found.rung, found.served) == (0, (2, 2, 1))
    assert found.since is not None and first.since is not None and found.since >= first.since


def test_all_surfaces_say_which_fallback_serves(
    fleet: WorkingFleet, client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(client, "fleet.a", "fleet.b", "celery")
    fleet.finish(3, pool="a", bot=1, served_by="fallback 1", model="small")
    pools = SETTINGS.model_dump(mode="json", include={"pools"}, exclude_none=True)["pools"]
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)
    monkeypatch.setenv("FLEET_POOLS", json.dumps(pools))
    config.current.cache_clear()
    shown = CliRunner().invoke(main, ["pools"]).stdout
    assert "SERVED BY" in shown and "a: fallback 1 (simulator/small) has served it for" in shown
    row, other = json.loads(CliRunner().invoke(main, ["pools", "--json"]).stdout)["pools"][:2]
    assert (row["ladder"]["rung"], row["ladder"]["served"], other["ladder"]) == (1, [0, 3, 0], None)
    view = Overview(SETTINGS, state=client, broker=client).read()
    for width in (60, 120):
        console = Console(width=width, height=24, record=True, file=io.StringIO())
        console.print(frame(view, width=width, height=24, sort="per_hour", pool=0))
        (line,) = (line for line in console.export_text().splitlines() if line.startswith("a "))
        assert "fallback 1" in line
    assert 'fleet_pool_rung{pool="a"} 1.0' in exposition(view).decode()


def test_tasks_that_a_fallback_serves_do_not_wait_for_their_pools_own_api(
    fleet: WorkingFleet, client: redis.Redis, redis_url: str
) -> None:
    serve(client, "fleet.a", "fleet.b", "celery")
    queue(client, 4)
    asyncio.run(open_breaker(redis_url))
    assert look(client, client, SETTINGS).lines == ()
    asyncio.run(open_breaker(redis_url, "simulator/small/default"))
    (line,) = look(client, client, SETTINGS).lines
    assert (line.cause, line.about, line.tasks) == ("key", "simulator/m1/default", 4)
