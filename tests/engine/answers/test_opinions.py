"""Second opinions: whose answer stands, who is accused, and what is paid for; on a real roster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet.config import HealthSettings, PoolSettings, Settings
from fleet.engine.answers.choices import ModelChoices
from fleet.engine.answers.opinions import Opinions, Panel
from fleet.engine.answers.rollouts import Rollouts
from fleet.engine.outcomes.completion import Finish, Finisher
from fleet.errors import BadAnswer, FleetError, HeldUp, ProviderUnavailable
from fleet.faults import Fault
from fleet.models import Bot, BotResult, BotTask, Persona
from fleet.outcome import NOTHING_BEFORE, Before, Outcome, Parking
from fleet.roster import Checkout, Deed, Roster, bot_health_of, quarantine
from fleet.roster.health import norm_of, row_of
from fleet.signals.windows import bot_rows_of
from fleet.store import keys
from fleet.store.client import Store, connect
from fleet.usage import Usage
from fleet.waits import Wait

TASK = BotTask(prompt="What is 2+2?", kind="sums")
PERSONA = Persona(archetype="analytical", system_prompt="Answer.", temperature=0.5, context_window_tokens=2048)


def outcome(answer: str | None = "four", fault: Fault | None = None, **fields: Any) -> Outcome:
    failed = {"status": "failed", "error": BadAnswer("expected an answer, got none")}
    told: dict[str, Any] = {
        "status": "ok", "error": None, "answer": answer, "usage": Usage(input_tokens=10, output_tokens=5),
        "cost_usd_picos": 7_000_000, "attempts": 1, "provider_errors": {}, "limited_ms": 3, "ran_ms": 200,
        "provider": "a", "model": "b", "simulated": True, "fault": fault,
        **(failed if answer is None else {}), **fields,
    }  # fmt: skip
    return Outcome(**told)


GOOD = outcome()
EMPTY = outcome(None, Fault.EMPTY, bad_answers=1)
SHORT = outcome("4", Fault.TOO_SHORT)
UNAVAILABLE = outcome(None, error=ProviderUnavailable("down"), provider_errors={"ProviderUnavailable": 4})


def waiting(parking: Parking) -> Outcome:
    return outcome(None, error=None, parking=parking)


class Scripted:
    """An agent that comes back with given outcomes, one per bot asked; what is None works until it is stopped."""

    def __init__(self, *outcomes: Outcome | HeldUp | None) -> None:
        self._outcomes = list(outcomes)
        self.bots: list[str] = []
        self.may_park: list[bool] = []
        self.left_s: list[float | None] = []
        self.spent: list[int] = []

    async def run(
        self,
        task: BotTask,
        bot: Bot,
        *,
        stop: asyncio.Event | None = None,
        before: Before | None = None,
        deadline_s_left: float | None = None,
        spent_picos: int = 0,
        **_: Any,
    ) -> Outcome:
        self.bots.append(bot.name)
        self.may_park.append(before is not None)
        self.left_s.append(deadline_s_left)
        self.spent.append(spent_picos)
        found = self._outcomes[len(self.bots) - 1]
        if isinstance(found, HeldUp):
            raise found
        if found is None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if stop is None or not stop.is_set():
                    raise
                return outcome(None, error=FleetError("stopped"))
        assert found is not None
        return found


def ask(
    url: str, agent: Scripted, *, bots: int = 5, rules: HealthSettings | None = None, pool: PoolSettings | None = None,
    then: Callable[[Panel, Roster, dict[str, Checkout]], Any] | None = None, before: Before = NOTHING_BEFORE,
    with_rollouts: bool = False,
) -> Opinions:  # fmt: skip
    """Ask about one task, finish it unless it is parked, and return what was said."""
    settings = Settings(pools={"p": pool or PoolSettings(bots=bots)}, health=rules or HealthSettings())

    async def run() -> Opinions:
        store = Store(url)
        try:
            roster, completion, held = Roster(store, settings), Finisher(store, settings), dict[str, Checkout]()
            rollouts = Rollouts(store, lambda bot, _: bot) if with_rollouts else None
            panel = Panel(
                agent, roster, settings, bot_of=lambda name: Bot(name=name, pool="p", persona=PERSONA),
                norms_of=completion.health.norms, held=held, rollouts=rollouts, choices=ModelChoices(store, settings),
            )  # fmt: skip
            if rollouts is not None:
                await rollouts.load()
            first = await roster.check_out("p", task_id="t", token="k", kind="sums")
            assert first is not None
            beside = asyncio.ensure_future(panel.watch(roster.read_out))
            if then is not None:
                asyncio.get_running_loop().call_later(0.1, then, panel, roster, held)
            try:
                opinions = await panel.ask(TASK, first, task_id="t", before=before)
            finally:
                beside.cancel()
            if opinions.parking is not None:
                await roster.give_back(opinions.asked)
                return opinions
            verdict = opinions.outcome()
            result = BotResult(
                task_id="t", status=verdict.status, answer=verdict.answer, pool="p", usage=verdict.usage, ran_ms=400,
                cost_usd_micros=verdict.cost_usd_micros, attempts=verdict.attempts, provider="a", model="b",
                finished_at=1.0,
            )  # fmt: skip
            assert await completion.finish(Finish(
                result, checkout=opinions.chosen.checkout, others=opinions.other_checkouts(), shares=opinions.parts(),
                deeds=opinions.deeds(), kind="sums", provider_errors=verdict.provider_errors,
            ))  # fmt: skip
            return opinions
        finally:
            await store.close()

    return asyncio.run(run())


def parked(url: str, agent: Scripted, **options: Any) -> Parking:
    """Ask about one task that is parked, and return how; no bot is left with it, and nothing is counted."""
    opinions = ask(url, agent, **options)
    assert opinions.parking is not None
    assert in_hand(url) == 0
    with connect(url) as client:
        assert not list(client.scan_iter("*:totals")) + list(client.scan_iter(keys.result("t")))
    return opinions.parking


def in_hand(url: str) -> int:
    with connect(url) as client:
        return int(client.zcard(keys.bot_leases("p")))


def test_a_good_answer_needs_no_second_one(redis_url: str) -> None:
    agent = Scripted(GOOD)
    opinions = ask(redis_url, agent)
    assert len(agent.bots) == 1
    assert opinions.deeds() == (Deed(agent.bots[0], None, 4, 200, 7),)


def test_when_another_bot_does_well_its_answer_stands_and_the_first_is_accused(redis_url: str) -> None:
    agent = Scripted(EMPTY, GOOD)
    opinions = ask(redis_url, agent)
    first, second = agent.bots
    assert first != second
    verdict = opinions.outcome()
    assert (verdict.status, verdict.answer, opinions.chosen.bot.name) == ("ok", "four", second)
    assert (verdict.usage.total_tokens, verdict.cost_usd_micros, verdict.attempts) == (30, 14, 2)
    assert opinions.deeds() == (Deed(first, Fault.EMPTY, cost=7), Deed(second, None, 4, 200, 7))
    assert in_hand(redis_url) == 0
    with connect(redis_url) as client:
        row = client.getrange(keys.health("p"), *row_of(int(first[2:])))
    assert bot_health_of(row).evidence[0] == pytest.approx(1.79, abs=0.01)  # ln(0.30 / 0.05)


def test_each_bot_is_booked_what_it_used_itself(redis_url: str) -> None:
    failing = outcome(
        None, Fault.EMPTY, bad_answers=1, cost_usd_picos=900_000_000, provider_errors={"ProviderUnavailable": 2}
    )
    agent = Scripted(failing, GOOD)
    ask(redis_url, agent)
    first, second = (int(bot[2:]) for bot in agent.bots)
    with connect(redis_url) as client:
        rows = bot_rows_of(client.get(keys.bot_rows("p")) or b"", 5)
        errors = {name.decode(): int(count) for name, count in client.hgetall(keys.errors("p")).items()}
    assert (rows.cost_usd_micros[first], rows.cost_usd_micros[second]) == (900, 7)
    assert (rows.calls_failed[first], rows.calls_failed[second]) == (2, 0)
    assert (rows.tokens[first], rows.tokens[second]) == (15, 15)
    assert (rows.completions[first], rows.completions[second]) == (0, 1)
    assert errors == {"p-001|-|call:ProviderUnavailable": 2, "p-001|-|call:BadAnswer": 1}


def test_when_all_agree_the_prompt_is_to_blame_and_nobody_is_accused(redis_url: str) -> None:
    agent = Scripted(EMPTY, EMPTY, EMPTY)
    opinions = ask(redis_url, agent)
    assert len(set(agent.bots)) == 3
    error = opinions.outcome().error
    assert error is not None
    assert error.blame == "prompt"
    assert opinions.deeds() == ()
    assert in_hand(redis_url) == 0


def test_a_short_answer_on_which_all_agree_stands(redis_url: str) -> None:
    opinions = ask(redis_url, Scripted(SHORT, SHORT, SHORT))
    assert (opinions.outcome().status, opinions.outcome().answer) == ("ok", "4")
    assert opinions.deeds() == (Deed(opinions.chosen.bot.name, None, 1, 200, only_teaches=True),)
    with connect(redis_url) as client:
        assert norm_of(client.hget(keys.norms("p"), "sums")).tasks == 1
        assert bot_health_of(client.getrange(keys.health("p"), *row_of(3))).evidence == (0, 0, 0)


def test_while_opinions_are_divided_more_bots_are_asked(redis_url: str) -> None:
    agent = Scripted(EMPTY, SHORT, EMPTY, GOOD)
    opinions = ask(redis_url, agent)
    assert opinions.outcome().answer == "four"
    assert [deed.fault for deed in opinions.deeds()] == [Fault.EMPTY, Fault.TOO_SHORT, Fault.EMPTY, None]
    assert in_hand(redis_url) == 0


def test_a_function_of_the_users_is_not_called_again(redis_url: str) -> None:
    agent = Scripted(EMPTY)
    assert ask(redis_url, agent, pool=PoolSettings(bots=5, function="mine:bot")).deeds()[0].fault is Fault.EMPTY
    assert len(agent.bots) == 1


def test_a_short_answer_is_better_than_an_outage_of_the_provider(redis_url: str) -> None:
    agent = Scripted(SHORT, UNAVAILABLE)
    opinions = ask(redis_url, agent)
    assert opinions.outcome().answer == "4"
    assert opinions.deeds() == ()
    assert opinions.outcome().provider_errors == {"ProviderUnavailable": 4}


def test_without_another_bot_nobody_can_say_whose_fault_it_was(redis_url: str) -> None:
    agent = Scripted(EMPTY)
    opinions = ask(redis_url, agent, bots=1)
    assert opinions.outcome().status == "failed"
    assert opinions.deeds() == ()


def test_where_one_opinion_is_all_that_is_wanted_it_counts_against_the_bot(redis_url: str) -> None:
    opinions = ask(redis_url, Scripted(EMPTY), rules=HealthSettings(opinions=1))
    assert opinions.outcome().status == "failed"
    assert opinions.deeds() == (Deed("p-001", Fault.EMPTY, cost=7),)


def test_a_failure_that_says_nothing_does_not_hide_what_was_wrong(redis_url: str) -> None:
    opinions = ask(redis_url, Scripted(EMPTY, UNAVAILABLE))
    assert isinstance(opinions.outcome().error, BadAnswer)
    assert opinions.outcome().provider_errors == {"ProviderUnavailable": 4}


def test_a_suspected_bot_gives_no_second_opinion_while_another_is_there(redis_url: str) -> None:
    with connect(redis_url) as client:
        for number in (2, 3, 4):
            client.setrange(keys.health("p"), row_of(number)[0], b"\0\0\x80?")  # evidence 1.0 of errors
        agent = Scripted(EMPTY, GOOD)
        ask(redis_url, agent)
    assert agent.bots == ["p-001", "p-005"]


def test_an_outage_of_the_provider_is_nobodys_fault(redis_url: str) -> None:
    assert ask(redis_url, Scripted(UNAVAILABLE)).deeds() == ()


def put_out(url: str, bots: list[str]) -> Callable[..., None]:
    def act(*_: Any) -> None:
        with connect(url) as client:
            for bot in bots:
                quarantine(client, "p", bot, by="me")

    return act


def test_what_a_bot_runs_when_it_is_quarantined_can_be_done_by_another(redis_url: str) -> None:
    agent = Scripted(None, GOOD)
    opinions = ask(redis_url, agent, rules=HealthSettings(running="retry"), then=put_out(redis_url, ["p-001"]))
    assert (agent.bots[0], opinions.chosen.bot.name) == ("p-001", agent.bots[1])
    assert opinions.outcome().status == "ok"
    assert opinions.deeds() == (Deed(agent.bots[1], None, 4, 200, 7),)
    assert opinions.outcome().cost_usd_micros == 14  # the stopped one's is paid as well
    assert in_hand(redis_url) == 0


def test_when_there_is_no_other_bot_the_task_is_parked_with_what_it_has_used(redis_url: str) -> None:
    both = put_out(redis_url, ["p-001", "p-002"])
    parking = parked(redis_url, Scripted(None), bots=2, rules=HealthSettings(running="retry"), then=both)
    assert (parking.wait.cause, parking.is_alone, parking.sent) == ("bots", True, False)
    assert (parking.before.parked, parking.before.attempts, parking.before.usage.total_tokens) == (1, 1, 15)


def test_a_task_whose_first_bot_must_wait_is_parked(redis_url: str) -> None:
    waits = Parking(Wait("outage", 5.0), Before(attempts=2, parked=1), sent=True)
    assert parked(redis_url, Scripted(waiting(waits))) == waits


def test_a_second_bot_may_spend_only_what_the_first_has_left_of_the_tasks_money(redis_url: str) -> None:
    agent = Scripted(replace(EMPTY, cost_usd_picos=7), replace(EMPTY, cost_usd_picos=5), GOOD)
    ask(redis_url, agent, before=Before(cost_usd_picos=3))
    assert agent.spent == [0, 7, 12]  # what was before is the first one's


def test_a_task_that_has_an_answer_is_never_parked_but_waits_in_its_slot_for_the_others(redis_url: str) -> None:
    agent = Scripted(EMPTY, GOOD)
    assert ask(redis_url, agent).outcome().answer == "four"
    assert agent.may_park == [True, False]


def test_a_task_that_was_held_up_after_its_first_answer_keeps_that_and_asks_again(redis_url: str) -> None:
    agent = Scripted(EMPTY, HeldUp("a function has blocked its loop"), GOOD)
    verdict = ask(redis_url, agent).outcome()
    assert (verdict.answer, verdict.attempts) == ("four", 2)


def test_the_work_before_a_parking_counts_against_the_deadline_and_the_wait_does_not(redis_url: str) -> None:
    agent = Scripted(EMPTY, GOOD)
    ask(redis_url, agent, before=Before(ran_ms=1000, parked=3))
    assert agent.left_s[0] == pytest.approx(PoolSettings().deadline_s - 1)
    assert agent.left_s[1] == pytest.approx(PoolSettings().deadline_s - 0.2)  # what the first tells is all
