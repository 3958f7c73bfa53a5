from __future__ import annotations

import asyncio
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet.errors import BadAnswer, DeadlineExceeded, KeyRejected, ValidatorFailed
from fleet.faults import Fault
from fleet.models import BotTask, Norms
from fleet.outcome import NOTHING_BEFORE, Before, Outcome
from fleet.waits import Wait
from fleet.workers.agent import Agent
from tests.every import every
from tests.test_schema import PRICE
from tests.waiting import wait_until
from tests.workers.fakes import FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of

HERE = "tests.workers.bot.test_validator"
#: What the validators below leave behind for their tests.
seen: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a hundredth of the usual seconds."""
    monkeypatch.setattr("fleet.workers.bot.validator.FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr("fleet.workers.bot.validator.LONGEST_PAUSE_S", 0.02)


def plain(task: BotTask, answer: str) -> Any:
    seen["thread"] = threading.current_thread().name
    seen["asked"] = (task.prompt, answer)
    return task.metadata["verdict"]


async def on_the_loop(task: BotTask, answer: str) -> Any:
    seen["thread"] = threading.current_thread().name
    seen["asked"] = (task.prompt, answer)
    return task.metadata["verdict"]


def raises(task: BotTask, answer: str) -> Any:
    if task.metadata["verdict"] is not True:
        raise seen["error"](f"{task.prompt} {answer}")


async def raises_on_the_loop(task: BotTask, answer: str) -> Any:
    if task.metadata["verdict"] is not True:
        raise seen["error"](f"{task.prompt} {answer}")


def breaks(task: BotTask, answer: str) -> bool:
    seen["asked"].append(task.prompt)
    if seen["broken"] or task.prompt == "odd":
        raise ConnectionError("my database is away")
    return task.prompt != "bad"


def forgets_async(task: BotTask, answer: str) -> Any:
    return on_the_loop(task, answer)


def waits(task: BotTask, answer: str) -> bool:
    return bool(seen["go on"].wait(10))


def one_argument(answer: str) -> bool:
    return True


BOTH = pytest.mark.parametrize("validator", ["plain", "on_the_loop"])


def work(
    validator: str,
    verdict: Any = None,
    *,
    answer: Any = "a secret answer",
    norms: Norms | None = None,
    deadline_s_left: float = 5.0,
    knows: bool = False,
    **task: Any,
) -> Outcome:
    """Let one task work; with `knows` behind another one on whose answer the validator has given a verdict."""

    async def run() -> Outcome:
        config = settings_of(validator=f"{HERE}:{validator}")
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider([answer, answer])), config, share=lambda: 0.0)
        if knows:
            good = BotTask.parse("another prompt", metadata={"verdict": True}, **task)
            assert (await agent.run(good, a_bot(), task_id="t0")).status == "ok"
        asked = BotTask.parse("a private prompt", metadata={"verdict": verdict}, **task)
        return await agent.run(asked, a_bot(), task_id="t1", deadline_s_left=deadline_s_left, norms=norms)

    return asyncio.run(run())


@BOTH
@pytest.mark.parametrize("verdict", [None, True])
def test_none_and_true_are_good(validator: str, verdict: Any):
    outcome = work(validator, verdict)
    assert (outcome.status, outcome.answer, outcome.fault, outcome.bad_answers) == ("ok", "a secret answer", None, 0)
    assert seen["asked"] == ("a private prompt", "a secret answer")


def test_a_plain_validator_has_a_thread_of_its_own_and_an_async_one_the_users_loop():
    work("plain")
    assert seen["thread"] == "validator"
    work("on_the_loop")
    assert seen["thread"] == "fleet-user-loop-1"


@BOTH
def test_false_and_a_reason_reject_the_answer_and_stay_out_of_the_log(validator: str, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.DEBUG):
        for verdict in (False, "", "the secret answer is too vague"):
            outcome = work(validator, verdict)
            assert (outcome.status, outcome.answer, outcome.fault) == ("failed", None, Fault.REJECTED)
            assert type(outcome.error) is BadAnswer and outcome.bad_answers == 1
            assert str(verdict or "takes") in str(outcome.error)
    assert "secret" not in caplog.text and "private" not in caplog.text


def test_a_long_reason_is_shortened():
    assert len(str(work("plain", "why " * 1000).error)) < 250


@BOTH
@pytest.mark.parametrize("verdict", [0, 1, 1.0, [], {"ok": True}])
def test_any_other_verdict_is_the_validators_failure_and_not_the_bots(validator: str, verdict: Any):
    outcome = work(validator, verdict, knows=True)
    assert type(outcome.error) is ValidatorFailed and outcome.error.blame == "configuration"
    assert "expected None, True, False or a str (the reason), got " in str(outcome.error)
    assert (outcome.status, outcome.fault, outcome.bad_answers) == ("failed", None, 0)


@pytest.mark.parametrize("validator", ["raises", "raises_on_the_loop"])
@pytest.mark.parametrize(
    "error", [ValueError, AssertionError, SystemExit, KeyboardInterrupt, BadAnswer, KeyRejected, asyncio.CancelledError]
)
def test_a_validator_that_raises_accuses_nobody_and_quotes_nothing(
    validator: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
):
    seen["error"] = error
    with caplog.at_level(logging.DEBUG):
        outcome = work(validator, knows=True)
    assert type(outcome.error) is ValidatorFailed and outcome.fault is None
    assert f"got {error.__name__} raised at test_validator.py:" in str(outcome.error)
    assert "private" not in str(outcome.error) + caplog.text and "secret" not in str(outcome.error) + caplog.text


def test_a_validator_sees_cut_answers_and_bare_json_and_no_failed_task():
    assert work("plain", answer=said("cut", finish_reason="length")).status == "degraded"
    assert seen["asked"][1] == "cut"
    work("plain", answer='```json\n{"price": 3}\n```', answer_schema=PRICE)
    assert seen["asked"][1] == '{"price": 3}'
    assert work("plain", answer="I cannot assist with that.").fault is Fault.REFUSED
    assert seen["asked"][1] == '{"price": 3}'


def test_an_answer_that_a_validator_took_may_still_be_suspiciously_short():
    norms = Norms(chars=1000.0, ran_ms=0.0, tasks=100)
    assert work("plain", True, answer="Done.", norms=norms).fault is Fault.TOO_SHORT
    assert work("plain", False, answer="Done.", norms=norms).fault is Fault.REJECTED


class FakePeers:
    """Other processes, whose validators gave their last verdict when the test says so; what they are left."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.left: list[float] = []
        self.room = 0
        self.lifted = 0

    async def gave_verdict_at(self) -> float | None:
        return self.at

    def leave(self, seconds: float) -> None:
        self.left.append(seconds)

    def make_room(self, tasks: int) -> None:
        self.room = tasks

    def lift(self) -> None:
        self.lifted += 1


def at_work(
    work: Callable[[Agent, FakeProvider], Any],
    *,
    validator: str = "breaks",
    told: list[Wait] | None = None,
    peers: FakePeers | None = None,
) -> Any:
    """Let several tasks of a pool work, whose validator has 2 threads."""
    seen.update({"asked": [], "broken": True})

    async def run() -> Any:
        provider = FakeProvider(["x"])
        waits: list[Wait] = [] if told is None else told
        agent = Agent(
            a_gateway(FakeLimiter(), provider), settings_of(bots=1, validator=f"{HERE}:{validator}"),
            share=lambda: 0.0, on_wait=lambda pool, wait: waits.append(wait), peers_of=lambda pool: peers,
        )  # fmt: skip
        try:
            async with asyncio.timeout(20):
                return await work(agent, provider)
        finally:
            await agent.close()

    return asyncio.run(run())


def start(
    agent: Agent, prompt: str, *, deadline_s_left: float = 5.0, before: Before | None = None, kind: str = "default"
) -> asyncio.Future[Outcome]:
    task = BotTask(prompt=prompt, kind=kind)
    return asyncio.ensure_future(
        agent.run(task, a_bot(), task_id=prompt, deadline_s_left=deadline_s_left, before=before)
    )


async def until(is_so: Callable[[], Any]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


def all_come_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first pause be so long that the validator has been asked about all answers."""
    monkeypatch.setattr("fleet.workers.bot.validator.FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr("fleet.workers.bot.validator.LONGEST_PAUSE_S", 0.5)


def test_a_validator_that_raises_on_every_answer_holds_the_pool_and_loses_no_answer(monkeypatch: pytest.MonkeyPatch):
    all_come_meanwhile(monkeypatch)
    told: list[Wait] = []

    async def run(agent: Agent, provider: FakeProvider) -> tuple[list[Outcome], Outcome, bool]:
        jobs = [start(agent, f"task {number}", deadline_s_left=1.0) for number in range(4)]
        while not told:
            await asyncio.sleep(0.01)
        was_open = any(job.done() for job in jobs)
        parked = await start(agent, "later", before=NOTHING_BEFORE)  # taken right before the hold
        await asyncio.sleep(1.1)  # their clocks stand
        seen["broken"] = False
        return await asyncio.gather(*jobs), parked, was_open

    outcomes, parked, was_open = at_work(run, told=told)
    assert not was_open
    assert [(outcome.status, outcome.attempts) for outcome in outcomes] == [("ok", 1)] * 4, "nothing is paid twice"
    wait = told[-1]
    assert (wait.cause, wait.about, wait.is_everyones) == ("configuration", f"validator {HERE}:breaks", True)
    assert "got ConnectionError raised at test_validator.py:" in wait.told and "database" not in wait.told
    assert time.time() < (wait.opens_at or 0) < time.time() + 10
    assert parked.parking is not None and parked.attempts == 0 and parked.parking.wait.cause == "configuration"


def test_a_validator_that_raises_on_one_answer_fails_that_task_alone():
    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        seen["broken"] = False
        return await asyncio.gather(*(start(agent, prompt) for prompt in ["good", "odd", "bad", "fine"]))

    good, odd, bad, fine = at_work(run)
    assert type(odd.error) is ValidatorFailed and odd.fault is None
    assert (good.status, fine.status, bad.fault) == ("ok", "ok", Fault.REJECTED)
    assert seen["asked"].count("odd") == 3, "what it needs may be away for a moment"


def test_an_answer_on_which_a_validator_raises_still_when_it_works_again_fails_alone(monkeypatch: pytest.MonkeyPatch):
    all_come_meanwhile(monkeypatch)
    told: list[Wait] = []

    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        jobs = [start(agent, prompt) for prompt in ["good", "odd", "fine"]]
        while not told:
            await asyncio.sleep(0.01)
        monkeypatch.setattr("fleet.workers.bot.validator.FIRST_PAUSE_S", 0.005)
        seen["broken"] = False
        return await asyncio.gather(*jobs)

    assert [outcome.status for outcome in at_work(run, told=told)] == ["ok", "failed", "ok"]


def test_where_one_task_works_at_a_time_a_broken_validator_fails_none_and_others_may_come_meanwhile():
    told: list[Wait] = []
    peers = FakePeers()

    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        jobs = [start(agent, "task 0", deadline_s_left=0.5)]
        await until(lambda: told)  # of one that is alone, too: somebody may have to mend it
        assert peers.room == 1 and agent.verdicts_at() == {}
        jobs.append(start(agent, "task 1", deadline_s_left=0.5))
        await until(lambda: peers.room == 2)
        await asyncio.sleep(0.6)  # their clocks stand
        seen["broken"] = False
        return await asyncio.gather(*jobs)

    assert [(one.status, one.attempts) for one in at_work(run, told=told, peers=peers)] == [("ok", 1)] * 2
    assert peers.room == 0 and peers.lifted >= 1 and told[0].is_lasting


def test_a_first_answer_on_which_it_raises_fails_once_another_one_has_a_verdict_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
):
    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        seen["broken"] = False
        odd = start(agent, "odd")
        await until(lambda: seen["asked"].count("odd") > 6)
        assert not odd.done() and seen["asked"] == ["odd"] * len(seen["asked"])
        other = start(agent, "of another class", kind="summary")
        assert (await other).status == "ok"
        before = len(seen["asked"])
        await until(lambda: len(seen["asked"]) > before + 3)
        assert not odd.done(), "what it makes of another class proves nothing"
        return [await start(agent, "good"), await odd]

    good, odd = at_work(run)
    assert (good.status, type(odd.error)) == ("ok", ValidatorFailed)


def test_one_answer_is_enough_to_hold_a_pool_whose_validator_raises_on_a_known_one_too():
    told: list[Wait] = []

    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        seen["broken"] = False
        known = await start(agent, "known")
        seen["broken"] = True
        job = start(agent, "task")
        await until(lambda: told)
        assert "known" in seen["asked"][1:] and agent.verdicts_at() == {}
        seen["broken"] = False
        return [known, await job]

    assert [one.status for one in at_work(run, told=told)] == ["ok", "ok"]


def test_a_pool_is_open_for_a_while_between_two_holds_until_it_is_proven_that_all_answers_meet_the_same(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("fleet.workers.bot.validator.BEYOND_S", 0.05)
    monkeypatch.setattr("fleet.workers.bot.validator.WINDOW_S", 0.15)
    told: list[Wait] = []

    async def run(agent: Agent, provider: FakeProvider) -> None:
        jobs = [start(agent, f"task {number}") for number in range(3)]
        await until(lambda: len(told) > 2)
        seen["broken"] = False
        await asyncio.gather(*jobs)

    at_work(run, told=told)
    times = [wait.opens_at or 0.0 for wait in told]
    assert every(later - sooner >= 0.15 for sooner, later in itertools.pairwise(times))


def test_where_others_do_better_a_task_is_left_to_them_and_its_pool_is_not_held():
    told: list[Wait] = []
    peers = FakePeers()

    async def run(agent: Agent, provider: FakeProvider) -> tuple[list[Outcome], Outcome]:
        peers.at = time.time() - 5.0  # before it raised here: one goes first, as they may meet the same
        jobs = [start(agent, f"task {number}", before=NOTHING_BEFORE) for number in range(3)]
        await until(lambda: any(job.done() for job in jobs))
        later = await start(agent, "later", before=NOTHING_BEFORE)
        await asyncio.sleep(0.1)
        assert sum(job.done() for job in jobs) == 1
        peers.at = time.time()
        return await asyncio.gather(*jobs), later

    outcomes, later = at_work(run, told=told, peers=peers)
    waits = [outcome.parking.wait for outcome in outcomes if outcome.parking is not None]
    assert len(waits) == 3 and not told and peers.left[0] > 0
    assert {(wait.cause, wait.about, wait.is_everyones) for wait in waits} == {
        ("function", f"validator {HERE}:breaks", False)
    }
    assert later.attempts == 0 and later.parking is not None, "none is begun here meanwhile"


def test_a_hold_ends_with_the_first_verdict_of_others_and_a_task_that_cannot_leave_waits_on():
    told: list[Wait] = []
    peers = FakePeers()

    async def run(agent: Agent, provider: FakeProvider) -> tuple[list[Outcome], Outcome]:
        stays = start(agent, "in a direct call")
        jobs = [start(agent, f"task {number}", before=NOTHING_BEFORE) for number in range(2)]
        await until(lambda: told)
        peers.at = time.time() + 1
        left = await asyncio.gather(*jobs)
        assert not stays.done() and peers.lifted
        seen["broken"] = False
        return left, await stays

    left, stays = at_work(run, told=told, peers=peers)
    assert every(outcome.parking is not None for outcome in left) and stays.status == "ok"
    assert peers.left[-1] == 0.0, "its tasks are wanted again"


def test_where_the_last_process_that_did_better_is_gone_the_pool_is_held_and_no_more_answers_are_thrown_away(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("fleet.workers.bot.validator.LEAVE_S", 0.1)
    told: list[Wait] = []
    peers = FakePeers()

    async def run(agent: Agent, provider: FakeProvider) -> tuple[int, list[Outcome], list[Outcome]]:
        def start_three(name: str) -> list[asyncio.Future[Outcome]]:
            return [start(agent, f"{name} {number}", before=NOTHING_BEFORE) for number in range(3)]

        first = start_three("task")
        await until(lambda: told)
        peers.at = time.time()  # an old worker gives its last verdict, and stops
        thrown_away = await asyncio.gather(*first)
        told.clear()
        await until(lambda: every(v.standing is None for v in agent._validators.values()))
        again = start_three("task")
        await until(lambda: told)
        later = await start(agent, "later", before=NOTHING_BEFORE)
        assert later.parking is not None and later.attempts == 0
        calls = len(provider.calls)
        assert every(not job.done() for job in again)
        seen["broken"] = False
        return calls, thrown_away, await asyncio.gather(*again)

    calls, thrown_away, kept = at_work(run, told=told, peers=peers)
    assert calls == 6 and [one.parking is not None for one in thrown_away] == [True] * 3
    assert {(wait.cause, wait.is_everyones) for wait in told} == {("configuration", True)}
    assert [(one.status, one.attempts) for one in kept] == [("ok", 1)] * 3
    assert peers.left[-1] == 0.0


def test_a_validator_that_forgot_its_async_is_told_so():
    told: list[Wait] = []

    async def run(agent: Agent, provider: FakeProvider) -> None:
        job = start(agent, "task")
        await until(lambda: told)
        job.cancel()

    at_work(run, validator="forgets_async", told=told)
    assert "declare it `async def`" in told[0].told


def test_a_validator_that_hangs_ends_at_the_deadline_and_a_later_answer_waits_for_a_thread_of_its():
    seen["go on"] = threading.Event()

    async def run(agent: Agent, provider: FakeProvider) -> list[Outcome]:
        late = await asyncio.gather(*(start(agent, f"late {number}", deadline_s_left=0.05) for number in range(2)))
        waiting = [start(agent, f"waits {number}", deadline_s_left=0.3) for number in range(3)]
        await asyncio.sleep(0.4)
        waiting[0].cancel()
        seen["go on"].set()
        return [*late, *await asyncio.gather(*waiting[1:])]

    *late, one, other = at_work(run, validator="waits")
    assert every(isinstance(outcome.error, DeadlineExceeded) and outcome.fault is None for outcome in late)
    assert (one.status, other.status) == ("ok", "ok")
    wait_until(lambda: every(thread.name != "validator" for thread in threading.enumerate()), timeout_s=5)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("just_a_module", "validator: expected `package.module:function`"),
        (f"{HERE}:no_such_name", "got no such name"),
        (f"{HERE}:one_argument", r"expected to be called with \(task, answer\)"),
        ("no_such_module_here:check", "expected a module that can be imported"),
    ],
)
def test_a_wrong_validator_shuts_its_own_pool(path: str, expected: str):
    agent = Agent(a_gateway(FakeLimiter(), FakeProvider(["x"])), settings_of(validator=path))
    (wait,) = agent.shut.values()
    assert wait.cause == "configuration" and re.search(expected, wait.told)
