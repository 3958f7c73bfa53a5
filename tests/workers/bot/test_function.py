from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.conversation import Message
from fleet.errors import (
    BadAnswer,
    BadRequest,
    BotFunctionFailed,
    ConfigurationError,
    DeadlineExceeded,
    HeldUp,
    OutOfTries,
    ProviderUnavailable,
    RateLimited,
)
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.workers.agent import Agent
from fleet.workers.bot.elsewhere import BlockingBotContext
from fleet.workers.bot.elsewhere import LoopBotContext as BotContext
from fleet.workers.bot.function import load_bot
from tests.every import every
from tests.waiting import wait_until
from tests.workers.fakes import OTHERS_DID_WELL, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, settings_of

HERE = "tests.workers.bot.test_function"
TASK = BotTask(prompt="a very private prompt")
#: What the plain functions below leave behind for their tests.
seen: dict[str, Any] = {}


async def two_steps(task: BotTask, bot: BotContext) -> str:
    draft = await bot.chat(task.prompt or "")
    return await bot.chat([Message(role="user", content="Improve."), {"role": "assistant", "content": draft}])


async def six_steps(task: BotTask, bot: BotContext) -> str:
    return "".join([await bot.chat(f"part {number}") for number in range(6)])


def two_blocking_steps(task: BotTask, bot: BlockingBotContext) -> str:
    seen["thread"] = threading.current_thread().name
    seen["bot"] = (bot.name, bot.pool, bot.persona.archetype)
    return bot.chat(task.prompt or "") + bot.chat("again", temperature=1.5, max_output_tokens=9)


async def at_once(task: BotTask, bot: BotContext) -> str:
    return "".join(await asyncio.gather(*(bot.chat(f"part {i}") for i in range(5))))


async def returns_metadata(task: BotTask, bot: BotContext) -> Any:
    return task.metadata["answer"]


async def raises(task: BotTask, bot: BotContext) -> str:
    raise ValueError(task.prompt)


def raises_in_its_thread(task: BotTask, bot: BlockingBotContext) -> str:
    raise task.metadata["error"](task.prompt)


async def leaves(task: BotTask, bot: BotContext) -> str:
    raise task.metadata["error"](task.prompt)


async def copes(task: BotTask, bot: BotContext) -> str:
    try:
        return await bot.chat("hello")
    except BadRequest:
        return "no key, but an answer"


def forgets_async(task: BotTask, bot: BotContext) -> Any:
    return two_steps(task, bot)


async def never_stops(task: BotTask, bot: BotContext) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "an answer after the deadline"
    return "never"


async def deaf(task: BotTask, bot: BotContext) -> str:
    while not seen["released"]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return "at last"


async def cancels_itself(task: BotTask, bot: BotContext) -> str:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(60)
    return "never"


class OwnKind(BaseException):
    """Neither an Exception nor anything else that is known."""


async def notes_that_it_ran(task: BotTask, bot: BotContext) -> str:
    seen["ran"] = True
    return "done"


def asks_late(task: BotTask, bot: BlockingBotContext) -> str:
    seen["go on"].wait(10)
    try:
        return bot.chat("too late")
    except DeadlineExceeded as error:
        seen["late"] = error
        raise


def wrong_prompt(task: BotTask, bot: BlockingBotContext) -> str:
    return bot.chat(task.metadata["prompt"])


def one_argument(task: BotTask) -> str:
    return ""


not_callable = "text"


def work(
    function: str,
    provider: FakeProvider,
    *,
    deadline_s_left: float = 5.0,
    limiter: FakeLimiter | None = None,
    validator: str | None = None,
    breakers: FakeBreakers | None = None,
    max_attempts: int = 4,
    **data: Any,
) -> Outcome:
    async def run() -> Outcome:
        config = settings_of(function=f"{HERE}:{function}", validator=validator, max_attempts=max_attempts)
        gateway = a_gateway(limiter or FakeLimiter(), provider, breakers=breakers)
        agent = Agent(gateway, config, share=lambda: 0.0)
        task = TASK.model_copy(update={"metadata": data})
        return await agent.run(task, a_bot(), task_id="t1", deadline_s_left=deadline_s_left)

    return asyncio.run(run())


def test_each_chat_of_a_function_has_its_own_grant_and_all_usage_is_summed():
    limiter, provider = FakeLimiter(), FakeProvider(["draft", "final"])
    outcome = work("two_steps", provider, limiter=limiter)
    assert (outcome.status, outcome.answer, outcome.attempts, outcome.usage.total_tokens) == ("ok", "final", 2, 30)
    assert len(limiter.granted) == 2 and limiter.is_settled_once
    assert [message.content for message in provider.calls[1].messages[1:]] == ["Improve.", "draft"]


def test_a_plain_function_runs_in_a_thread_of_its_own_and_its_chat_blocks():
    provider = FakeProvider(["one", "two"])
    outcome = work("two_blocking_steps", provider)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "onetwo", 2)
    assert seen["thread"] == "bot-research-001" and seen["bot"] == ("research-001", "research", "analytical")
    assert (provider.calls[1].temperature, provider.calls[1].max_output_tokens) == (1.5, 9)


def test_only_failures_in_a_row_count_so_that_chance_ends_no_run_of_many_calls():
    away = ProviderUnavailable("503")

    def ran(*replies: Any) -> Outcome:
        breakers = FakeBreakers(rulings=[OTHERS_DID_WELL])
        return work("six_steps", FakeProvider(list(replies)), breakers=breakers, max_attempts=3)

    flaky = ran(*[away, away, "x"] * 6)
    assert (flaky.status, flaky.answer, flaky.attempts) == ("ok", "xxxxxx", 18)
    stuck = ran(*[away, away, "x"] * 4, away)
    assert isinstance(stuck.error, OutOfTries) and (stuck.attempts, stuck.fault) == (15, None)
    empty = ran(away, "", away, away)
    assert isinstance(empty.error, OutOfTries) and empty.attempts == 3  # no usable answer has ended the row


def test_several_chats_may_run_at_once():
    limiter = FakeLimiter()
    assert work("at_once", FakeProvider(["x"]), limiter=limiter).answer == "xxxxx"
    assert len(limiter.granted) == 5 and limiter.is_settled_once


def test_a_function_may_cope_with_a_failed_call():
    assert work("copes", FakeProvider([BadRequest("401")])).answer == "no key, but an answer"


def test_a_failed_call_that_it_lets_through_is_the_tasks_failure():
    assert isinstance(work("two_steps", FakeProvider([BadRequest("401")])).error, BadRequest)
    assert isinstance(work("two_blocking_steps", FakeProvider([BadRequest("401")])).error, BadRequest)


@pytest.mark.parametrize("answer", [None, "", "  "])
def test_no_text_is_a_bad_answer(answer: str | None):
    assert isinstance(work("returns_metadata", FakeProvider(["x"]), answer=answer).error, BadAnswer)


@pytest.mark.parametrize("answer", [{"a": 1}, 42, ["x"], b"bytes"])
def test_anything_but_text_is_refused_with_what_came(answer: object):
    error = work("returns_metadata", FakeProvider(["x"]), answer=answer).error
    assert isinstance(error, BotFunctionFailed) and f"expected a str, got {type(answer).__name__}" in str(error)


def test_a_coroutine_instead_of_text_is_explained():
    assert "declare the function `async def`" in str(work("forgets_async", FakeProvider(["x"])).error)


def test_an_exception_is_named_with_its_line_and_without_its_message():
    error = work("raises", FakeProvider(["x"])).error
    assert isinstance(error, BotFunctionFailed) and "private" not in str(error)
    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise ValueError(" in text)
    assert f"got ValueError raised at test_function.py:{line}" in str(error)


@pytest.mark.parametrize("function", ["leaves", "raises_in_its_thread"])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit, KeyboardInterrupt, GeneratorExit, OwnKind, StopIteration, asyncio.CancelledError, TimeoutError,
        ProviderUnavailable, RateLimited,
    ],
)  # fmt: skip
def test_no_exception_of_a_functions_own_can_end_the_loop_or_hang_the_task_or_pass_for_a_providers(
    function: str, error: type[BaseException]
):
    outcome = work(function, FakeProvider(["x"]), error=error)
    assert isinstance(outcome.error, BotFunctionFailed) and outcome.ran_ms < 4_000


def test_a_function_that_ignores_its_cancellation_still_misses_the_deadline():
    outcome = work("never_stops", FakeProvider(["x"]), deadline_s_left=0.05)
    assert isinstance(outcome.error, DeadlineExceeded) and outcome.ran_ms < 4_000


def test_a_function_that_is_deaf_to_every_cancellation_is_abandoned_at_its_deadline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fleet.workers.bot.user_loops.LAST_WORD_S", 0.05)
    seen["released"] = False

    async def run() -> Outcome:
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider(["x"])), settings_of(function=f"{HERE}:deaf"))
        outcome = await agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=0.05)
        seen["released"] = True
        return outcome

    outcome = asyncio.run(asyncio.wait_for(run(), 10))
    assert isinstance(outcome.error, DeadlineExceeded) and outcome.ran_ms < 4_000


def test_a_function_that_cancels_itself_has_failed():
    outcome = work("cancels_itself", FakeProvider(["x"]))
    assert isinstance(outcome.error, BotFunctionFailed) and "CancelledError" in str(outcome.error)


def test_a_plain_function_that_outlives_the_deadline_fails_at_once_and_its_next_chat_raises():
    seen["go on"], provider = threading.Event(), FakeProvider(["x"])

    async def run() -> Outcome:
        agent = Agent(a_gateway(FakeLimiter(), provider), settings_of(function=f"{HERE}:asks_late"))
        outcome = await agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=0.05)
        seen["go on"].set()
        while "late" not in seen:
            await asyncio.sleep(0.001)
        return outcome

    outcome = asyncio.run(asyncio.wait_for(run(), 10))
    assert isinstance(outcome.error, DeadlineExceeded) and outcome.ran_ms < 4_000
    assert isinstance(seen["late"], DeadlineExceeded) and provider.calls == []


def test_a_task_that_comes_too_late_does_not_reach_its_function():
    seen.pop("ran", None)
    assert isinstance(work("notes_that_it_ran", FakeProvider(["x"]), deadline_s_left=0).error, DeadlineExceeded)
    assert "ran" not in seen


def test_a_thread_that_has_ended_makes_room_for_the_next():
    async def run() -> set[str]:
        config = settings_of(function=f"{HERE}:two_blocking_steps", bots=1)
        config = config.model_copy(update={"worker": config.worker.model_copy(update={"slots": 1})})
        agent = Agent(a_gateway(FakeLimiter(), FakeProvider(["x"])), config)
        return {(await agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=5)).status for _ in range(8)}

    assert asyncio.run(run()) == {"ok"}


def test_a_blocking_chat_is_cut_at_the_deadline_and_settled():
    limiter, before = FakeLimiter(), time.monotonic()
    outcome = work("two_blocking_steps", FakeProvider(["hang"]), limiter=limiter, deadline_s_left=0.05)
    assert isinstance(outcome.error, DeadlineExceeded) and time.monotonic() - before < 4
    assert len(limiter.granted) == 1 and limiter.is_settled_once
    wait_until(lambda: every(t.name != "bot-research-001" for t in threading.enumerate()))


def test_a_task_that_finds_all_threads_left_over_from_others_waits_and_goes_back_to_its_queue_unharmed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("fleet.workers.bot.function.PATIENCE_S", 0.1)
    seen["go on"], provider = threading.Event(), FakeProvider(["x"])

    async def run() -> list[Outcome]:
        config = settings_of(function=f"{HERE}:asks_late", bots=1)
        config = config.model_copy(update={"worker": config.worker.model_copy(update={"slots": 1})})
        agent = Agent(a_gateway(FakeLimiter(), provider), config)
        late = [await agent.run(TASK, a_bot(), task_id="t1", deadline_s_left=0.02) for _ in range(2)]
        parks = await agent.run(TASK, a_bot(), task_id="t2", deadline_s_left=0.02, before=NOTHING_BEFORE)
        with pytest.raises(HeldUp, match="all 2 threads"):
            await agent.run(TASK, a_bot(), task_id="t3", deadline_s_left=5)
        waits = asyncio.ensure_future(agent.run(TASK, a_bot(), task_id="t4", deadline_s_left=5))
        await asyncio.sleep(0)
        seen["go on"].set()
        return [*late, parks, await waits]

    *late, parks, waited = asyncio.run(run())
    assert [type(outcome.error) for outcome in late] == [DeadlineExceeded, DeadlineExceeded]
    assert parks.parking is not None and parks.error is None and parks.fault is None
    assert (parks.parking.wait.cause, parks.parking.before.ran_ms, parks.parking.sent) == ("function", 0, False)
    assert (waited.status, waited.answer) == ("ok", "x")
    assert caplog.text.count("function_threads_full function=tests.workers.bot.test_function:asks_late threads=2") == 1


def test_a_machine_that_has_no_thread_left_fails_no_function_and_no_validator(monkeypatch: pytest.MonkeyPatch):
    start, left = threading.Thread.start, {"bot-research-001": 2, "validator": 2}

    def lacks(thread: threading.Thread) -> None:
        if left.get(thread.name, 0):
            left[thread.name] -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", lacks)
    monkeypatch.setattr("fleet.workers.bot.validator.FIRST_PAUSE_S", 0.01)
    validator = "tests.workers.bot.test_validator:plain"
    outcome = work("two_blocking_steps", FakeProvider(["x"]), validator=validator, verdict=True)
    assert (outcome.status, outcome.answer, left) == ("ok", "xx", {"bot-research-001": 0, "validator": 0})


@pytest.mark.parametrize(
    ("prompt", "got"),
    [
        (42, "got int"),
        ([], "got an empty list"),
        ([{"role": "boss", "content": "a very private prompt"}], "got a wrong role"),
        (["a very private prompt"], "got a wrong message"),
    ],
)
def test_a_wrong_prompt_is_explained_without_quoting_it(prompt: object, got: str):
    error = work("wrong_prompt", FakeProvider(["x"]), prompt=prompt).error
    assert isinstance(error, BotFunctionFailed) and got in str(error) and "private" not in str(error)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("just_a_module", "expected `package.module:function`"),
        (":function", "expected `package.module:function`"),
        ("no_such_module_here:solve", "expected a module that can be imported"),
        (f"{HERE}:no_such_name", "got no such name"),
        (f"{HERE}:not_callable", "expected a function, got str"),
        (f"{HERE}:one_argument", r"expected to be called with \(task, bot\)"),
    ],
)
def test_a_function_that_cannot_be_used_is_a_configuration_error(path: str, expected: str):
    with pytest.raises(ConfigurationError, match=expected):
        load_bot(path)


@pytest.mark.parametrize("body", ["import no_such_thing", "x = (", "raise SystemExit(3)", "{}['x']", "object().x"])
def test_a_module_that_breaks_while_it_is_imported_is_a_configuration_error(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    name = f"broken_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="expected a module that can be imported"):
        load_bot(f"{name}:solve")


def test_a_task_of_a_pool_whose_function_is_wrong_waits_and_calls_nobody():
    async def run() -> Outcome:
        agent = Agent(a_gateway(FakeLimiter(), provider), settings_of(function="no_such_module_here:solve"))
        assert agent.shut.keys() == {"research"}
        return await agent.run(TASK, a_bot(), task_id="t1", before=NOTHING_BEFORE)

    provider = FakeProvider(["x"])
    outcome = asyncio.run(run())
    assert outcome.parking is not None and outcome.error is None and provider.calls == []
    wait = outcome.parking.wait
    assert (wait.cause, wait.about, wait.is_everyones) == ("configuration", "[pools.research]", True)
    assert "function no_such_module_here:solve: expected a module" in wait.told
