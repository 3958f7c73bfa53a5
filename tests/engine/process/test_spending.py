"""Budgets in real workers: who waits when one is used up, who goes on, what is lost when a worker dies. To the pico."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from fleet import config, submit_many
from fleet.cli.main import main
from fleet.cli.run import purse
from fleet.config import BudgetSettings, PoolSettings, Settings
from fleet.economy.bill import sweep
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.budgets import BudgetReading, read_budgets
from fleet.engine.admission.holds import PUT_HOLD, hold_call
from fleet.engine.process import spending
from fleet.errors import NotSoon
from fleet.grants import Caller
from fleet.models import BotResult, Priority
from fleet.store import bill_keys, keys
from fleet.store.client import Store, connect
from fleet.waits import Wait
from tests.engine.conftest import StartWorker
from tests.http_server import Handler, serving
from tests.redis_server import RedisServer
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES

#: What one call costs: 21 tokens at a dollar a million, in 10^-12 dollars.
CALL = 21 * 10**6
#: The most that a call of these tests may cost, as it is estimated before anything is learnt, in dollars.
MOST_USD = 0.0002


class Billing(Handler):
    """Answers every call alike; while `held` is not set, none."""

    held = threading.Event()
    calls = 0

    def do_POST(self) -> None:
        self.body()
        type(self).calls += 1
        self.held.wait(60)
        choice = {"message": {"role": "assistant", "content": "It is forty-two."}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21}
        self.send(200, {"choices": [choice], "usage": usage})


@pytest.fixture
def fleet_of(fleet_env: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what sets budgets for this process and its workers; the provider answers until it is held."""
    Billing.held.set()
    Billing.calls = 0
    with serving(Billing) as url:

        def configure(**budgets: Any) -> None:
            pool = {"bots": 3, "provider": "proxy", "model": "m", "max_output_tokens": 4}
            tables = {
                "PROVIDERS": {"proxy": {"kind": "openai", "base_url": f"{url}/v1"}},
                "POOLS": dict.fromkeys("abc", pool),
                "PRICES": {"proxy/m": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}},
                "BUDGETS": {scope.replace("_", ":"): amounts for scope, amounts in budgets.items()},
                "HEALTH": {"watch": False},
                "DIVERSITY": {"watch": False},
            }
            for name, table in tables.items():
                monkeypatch.setenv(f"FLEET_{name}", json.dumps(table))
            config.current.cache_clear()

        yield configure
        Billing.held.set()


def fleet(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, done.output
    return done.output if code else done.stdout


def readings(client: redis.Redis) -> dict[str, BudgetReading]:
    return {one.scope: one for one in read_budgets(client, config.current().budgets)}


def spent(client: redis.Redis, scope: str) -> int:
    found = readings(client).get(scope)
    return found.amounts[0].spent_picos if found is not None else 0


def results(client: redis.Redis, ids: list[str]) -> list[BotResult]:
    raw: Any = client.mget([keys.result(one) for one in ids])
    return [BotResult.model_validate(json.loads(one)["result"]) for one in raw if one is not None]


def reserved(client: redis.Redis) -> int:
    count: Any = client.hlen(bill_keys.reservations())
    return int(count)


def test_whose_money_is_used_up_waits_and_all_others_go_on_until_it_is_raised(
    start_worker: StartWorker, fleet_of: Any, redis_url: str
) -> None:
    fleet_of(
        **{"tenant_ann": {"usd_in_all": 0.0006}, "bot_*": {"usd_per_day": 0.0006}, "pool_c": {"usd_per_month": 0.0006}}
    )
    start_worker()
    with connect(redis_url) as client:
        everyone = list(submit_many([{"prompt": f"Other {n}", "pool": "a"} for n in range(20)]))
        anns = list(submit_many([{"prompt": f"Ann {n}", "pool": "a", "tenant": "ann"} for n in range(50)]))
        of_pool = list(submit_many([{"prompt": f"Pool {n}", "pool": "c"} for n in range(50)]))

        # The tenant's tasks are parked alone, those of the pool stay in its queue; nobody waits for them, none fails.
        wait_until(lambda: len(results(client, everyone)) == 20, 30)
        wait_until(lambda: waits("a") == {("budget", "budget tenant:ann, in all")}, 30)
        wait_until(lambda: waits("c") == {("money", "budget pool:c, a month")}, 30)
        wait_until(lambda: reserved(client) == 0, 10)
        for scope, ids in (("tenant:ann", anns), ("pool:c", of_pool)):
            done = results(client, ids)
            assert {one.status for one in done} == {"ok"}
            assert spent(client, scope) == len(done) * CALL <= 600_000_000
            assert 600_000_000 - spent(client, scope) < MOST_USD * 10**12  # no false block: the next did not fit
        left = next(one for one in anns if not results(client, [one]))
        story = " ".join(fleet("why", left).split())
        assert "budget tenant:ann, in all: the money is used up that it may spend in all" in story
        assert "`fleet budgets set tenant:ann --usd-in-all USD`" in story
        assert "fleet budgets set pool:c" in json.dumps(json.loads(fleet("pools", "--json")))

        # What is raised goes on at once, and every task is answered once, and paid once.
        shown = json.loads(fleet("budgets", "set", "tenant:ann", "--usd-in-all", "1", "--json"))["budgets"]
        assert [(one["scope"], one["usd_in_all"], one["is_live"]) for one in shown] == [("tenant:ann", 1.0, True)]
        fleet("budgets", "set", "pool:c", "--usd-per-month", "1")
        fleet("budgets", "set", "bot:*", "--usd-per-day", "1")
        wait_until(lambda: len(results(client, [*anns, *of_pool])) == 100, 30)
        wait_until(lambda: reserved(client) == 0, 10)
        assert (spent(client, "tenant:ann"), spent(client, "pool:c")) == (50 * CALL, 50 * CALL)
        bots = {scope: spent(client, scope) for scope in readings(client) if scope.startswith("bot:")}
        assert sum(bots.values()) == Billing.calls * CALL == 120 * CALL

        # A bot without money is not chosen; the others have its tasks until all are out, and the pool waits.
        fleet("budgets", "set", "bot:*", "--usd-per-day", "0.0006")
        of_bots = list(submit_many([{"prompt": f"Bots {n}", "pool": "b"} for n in range(100)]))
        wait_until(lambda: waits("b") and reserved(client) == 0 and len(results(client, of_bots)) > 60, 30)
        done_by = Counter(one.bot for one in results(client, of_bots))
        assert set(done_by) == {"b-001", "b-002", "b-003"}
        for bot, done_tasks in done_by.items():
            assert spent(client, f"bot:{bot}") == done_tasks * CALL <= 600_000_000
            assert 600_000_000 - done_tasks * CALL < MOST_USD * 10**12
        wait_until(lambda: (hold_of(client, "b").opens_at or 0) > time.time() + 5, 30)  # nothing is in flight any more
        assert waits("b") == {("money", "budget bot:*, pool b")}
        hold = Wait.from_json(client.get(keys.hold(keys.queue("b"))) or b"")
        assert (hold.opens_at or 0) < time.time() + 61  # a bot may be back from its quarantine before the day ends
        fleet("budgets", "set", "bot:b-001", "--usd-per-day", "1")
        wait_until(lambda: len(results(client, of_bots)) == 100, 30)
        assert Billing.calls == 220


def hold_of(client: redis.Redis, pool: str) -> Wait:
    raw: Any = client.get(keys.hold(keys.queue(pool)))
    return Wait.from_json(raw or b'{"cause": "time"}')


def test_bulk_tasks_use_every_bot_to_80_percent_and_leave_the_rest_to_urgent_ones(
    start_worker: StartWorker, fleet_of: Any, redis_url: str
) -> None:
    fleet_of(**{"bot_*": {"usd_per_day": 0.001, "when_full": "stop bulk"}})
    start_worker()
    with connect(redis_url) as client:
        bulk = list(submit_many([{"prompt": f"Bulk {n}", "pool": "a", "priority": "bulk"} for n in range(150)]))

        def done_by() -> Counter[str]:
            return Counter(one.bot for one in results(client, bulk))

        # Each of the three, until what is left below 80% does not pay for one more.
        wait_until(lambda: sum(800_000_000 - n * CALL < MOST_USD * 10**12 for n in done_by().values()) == 3, 30)
        wait_until(lambda: waits("a") == {("money", "budget bot:*, pool a")} and reserved(client) == 0, 30)
        for count in done_by().values():
            assert count * CALL <= 800_000_000
        wait_until(lambda: (hold_of(client, "a").opens_at or 0) > time.time() + 5, 30)  # nothing is in flight any more
        assert (wait := hold_of(client, "a")).lowest == Priority.NORMAL.value
        assert "for more urgent tasks" in wait.told

        before = len(results(client, bulk))
        urgent = list(submit_many([{"prompt": f"Now {n}", "pool": "a"} for n in range(6)]))
        wait_until(lambda: len(results(client, urgent)) == 6, 20)
        assert len(results(client, bulk)) == before


def pools() -> dict[str, Any]:
    return {pool["pool"]: pool for pool in json.loads(fleet("pools", "--json"))["pools"]}


def waits(pool: str) -> set[tuple[str, str]]:
    told = pools()[pool]["waits"]
    return {(one["cause"], one["about"]) for one in told if one["tasks"]}


def test_what_a_killed_worker_had_reserved_is_charged_as_the_bill_has_it_and_its_tasks_go_on(
    start_worker: StartWorker, fleet_of: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet_of(fleet={"usd_in_all": 1.0})
    worker = start_worker(app=QUICK_LEASES)
    Billing.held.clear()

    async def end() -> int:
        store = Store(redis_url)
        try:
            return await spending.end_the_dead(store)
        finally:
            await store.close()

    async def enter() -> None:
        store = Store(redis_url)
        try:
            await spending.Spending(store, config.current(), process="p").sweeper([], frozenset, None).sweep([])
        finally:
            await store.close()

    with connect(redis_url) as client:
        ids = list(submit_many([{"prompt": f"Slow {n}", "pool": "a"} for n in range(3)]))
        wait_until(lambda: Billing.calls == 3, 20)
        worker.kill()
        assert readings(client)["fleet"].reserved_usd > 0 and reserved(client) == 3
        client.delete(keys.workers())
        for grace_s, age_s, left in ((sweep.GRACE_S, spending.DEAD_S, 3), (-1.0, -1.0, 0)):  # who is new may be slow
            monkeypatch.setattr(sweep, "GRACE_S", grace_s)
            monkeypatch.setattr(spending, "DEAD_S", age_s)
            assert asyncio.run(end()) == 0  # their calls had their grants: they may have been served
            asyncio.run(enter())
            assert reserved(client) == left
        unknown = sum(one.entry.usd_picos or 0 for one in read_unknown(client))
        after = readings(client)["fleet"]
        assert (after.reserved_usd, after.amounts[0].spent_picos) == (0.0, unknown)
        assert unknown > 0 and not results(client, ids)

        Billing.held.set()
        start_worker(app=QUICK_LEASES)
        wait_until(lambda: len(results(client, ids)) == 3, 60)
        wait_until(lambda: reserved(client) == 0, 10)
        assert spent(client, "fleet") == unknown + 3 * CALL


def test_a_budget_that_fleet_toml_has_changed_lets_what_waits_for_money_ask_again_once(redis_url: str) -> None:
    queue, wait = keys.queue("a"), Wait("budget", None, "budget fleet, in all")

    def settings(usd: float) -> config.Settings:
        return config.Settings.model_validate({"pools": {"a": {}}, "budgets": {"fleet": {"usd_in_all": usd}}})

    async def is_held_after(*budgets: float) -> bool:
        store = Store(redis_url)
        try:
            for usd in budgets:
                await store.run(PUT_HOLD, *hold_call(queue, wait))
                await spending.Spending(store, settings(usd), process="p").load(store)
            return await store.command("EXISTS", keys.hold(queue)) == 1
        finally:
            await store.close()

    assert [asyncio.run(is_held_after(*budgets)) for budgets in ((1.0, 1.0), (2.0,), (2.0,))] == [True, False, True]


def test_a_run_spends_no_more_than_it_may_says_so_and_goes_on_with_more(
    start_worker: StartWorker, fleet_of: Any, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet_of()
    start_worker()
    asked, answers = tmp_path / "asked.jsonl", tmp_path / "answers.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"How much is {n}?"}) + "\n" for n in range(60)))
    command = ("run", str(asked), "-o", str(answers), "--quiet", "--max-usd")

    began = time.monotonic()
    told = " ".join(fleet(*command, "0.0006", code=3).split())
    assert time.monotonic() - began < 30
    answered = answers.read_text().count("\n")
    assert f"budget ${answered * CALL / 10**12:,.6f} of $0.000600 spent by this run (--max-usd)" in told
    assert "with more money: run the same command again with a higher --max-usd" in told
    assert answered * CALL <= 600_000_000 and 600_000_000 - answered * CALL < MOST_USD * 10**12

    # Stopped between setting the budget and opening what waits for it: the same command opens that.
    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(purse, "let_go", stopped)
        fleet(*command, "1", code=130)
    assert len(answers.read_text().splitlines()) == answered
    sums = json.loads(fleet(*command, "1", "--json"))
    assert (sums["ok"], sums["max_usd"], sums["spent_usd"]) == (60, 1.0, pytest.approx(60 * CALL / 10**12))
    assert Billing.calls == 60
    with connect(redis_url) as client:
        assert [scope for scope in readings(client) if scope.startswith("run:")] == []  # it is done

    # Lines that the same command asks again spend the same money.
    with asked.open("a") as lines:
        lines.write(json.dumps({"prompt": "How much is 61?"}) + "\n" + json.dumps({"text": "no prompt"}) + "\n")
    sums = json.loads(CliRunner().invoke(main, [*command, "1", "--json", "--retry-failed"]).stdout)
    assert (sums["ok"], sums["failed"], sums["spent_usd"]) == (61, 1, pytest.approx(CALL / 10**12))


def test_a_pool_whose_bots_lack_money_or_are_quarantined_looks_again_when_the_first_may_be_back(redis_url: str) -> None:
    settings = Settings(pools={"a": PoolSettings(bots=2)}, budgets={"bot:*": BudgetSettings(usd_per_month=0.0001)})

    async def body() -> None:
        store = Store(redis_url)
        try:
            its = spending.Spending(store, settings, process="p")
            now_s = time.time()
            assert its.wait_for_bots("a", 4, now_s + 30) is None
            caller = Caller(bot="a-001")
            scopes = its.keeper.counting("a", caller)
            its.keeper.settle(await its.keeper.reserve(scopes, 100, priority=caller.priority), 100_000_000)
            await its.keeper.close()
            with pytest.raises(NotSoon):
                await its.keeper.reserve(scopes, 100, priority=caller.priority)
            first, later, none_out = (its.wait_for_bots("a", 2, at) for at in (now_s + 30, None, 0.0))
            assert (
                first is not None
                and first.opens_at == now_s + 30
                and "is back at " in first.told
                and first.told.endswith(" UTC")
            )
            assert later is not None and (later.opens_at or 0) < now_s + 90  # the month's end is too far away
            assert none_out is not None and (none_out.opens_at or 0) > now_s + 30 and "1970" not in none_out.told
        finally:
            await store.close()

    asyncio.run(body())


def test_a_hundred_callers_in_two_workers_keep_one_budget_to_the_pico_though_redis_stands_for_a_while(
    start_worker: StartWorker, fleet_of: Any, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", own_redis.url)
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "50")
    fleet_of(pool_a={"usd_in_all": 0.004})
    start_worker()
    start_worker()
    with connect(own_redis.url) as client:
        ids = list(submit_many([{"prompt": f"Mine {n}", "pool": "a"} for n in range(250)]))
        wait_until(lambda: Billing.calls > 20, 30)
        own_redis.freeze()
        time.sleep(1.5)  # how long it stands: nothing is waited for
        own_redis.thaw()

        # What is left does not pay for one more, and nothing beyond what was in flight is overspent.
        wait_until(lambda: waits("a") == {("budget", "budget pool:a, in all")} and reserved(client) == 0, 60)
        assert spent(client, "pool:a") == Billing.calls * CALL <= 4 * 10**9 + 100 * CALL
        assert 4 * 10**9 - spent(client, "pool:a") < MOST_USD * 10**12
        fleet("budgets", "set", "pool:a", "--usd-in-all", "1")
        wait_until(lambda: len(results(client, ids)) == 250, 60)
        wait_until(lambda: reserved(client) == 0, 10)
        assert {one.status for one in results(client, ids)} == {"ok"}
        assert spent(client, "pool:a") == Billing.calls * CALL == 250 * CALL
