"""Tasks whose model refuses something, or takes less than they have: what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from fleet.config import PoolSettings, ProviderSettings
from fleet.errors import BadRequest, ContextTooLong, Relearnt
from fleet.lessons import Notebook
from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.usage import Usage
from fleet.workers.agent import Agent
from fleet.workers.bot.asker import MOST_RELEARNT
from fleet.workers.calls import CONTEXT_FULL, Completion
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.gateway import Gateway, Route
from fleet.workers.providers import make_provider
from tests.every import every
from tests.workers.fakes import LIMIT, FakeBreakers, FakeLimiter, FakeProvider, a_bot, a_gateway, said, settings_of
from tests.workers.test_agent import work

RELEARNT = Relearnt("later calls leave out 'temperature'")
#: About 1,300 tokens by our estimate: they fit the bot's window of 2,048.
LONG = BotTask(prompt="HEAD " + "the quick brown fox jumps over the lazy dog. " * 120 + " TAIL")


def too_long(window: int | None = None, true: int | None = None) -> ContextTooLong:
    return ContextTooLong("api answered 400: too long", window_tokens=window, true_input_tokens=true)


def test_a_call_that_carried_what_is_refused_is_repeated_and_counts_as_no_failed_try() -> None:
    provider = FakeProvider([RELEARNT, RELEARNT, RELEARNT, "4"])
    outcome = work(FakeLimiter(), provider, max_attempts=1)
    assert (outcome.status, outcome.answer, len(provider.calls)) == ("ok", "4", 4)


def test_a_model_that_refuses_for_ever_ends_the_task_typed() -> None:
    provider = FakeProvider([RELEARNT])
    outcome = work(FakeLimiter(), provider)
    assert isinstance(outcome.error, BadRequest)
    assert len(provider.calls) == MOST_RELEARNT + 1


def test_sixty_calls_in_flight_when_a_refusal_is_learnt_are_sixty_good_answers() -> None:
    """The system role and then the temperature are refused, to all that were sent before anybody knew."""
    seen: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        seen.append(body)
        while len(seen) < 60:
            await asyncio.sleep(0.01)
        if body["messages"][0]["role"] == "system":
            return web.json_response({"object": "error", "message": "the system role is not supported"}, status=400)
        if "temperature" in body:
            told = "gateway: upstream said - 'temperature' is a parameter that this model does not support."
            return web.json_response({"error": {"message": told, "param": None, "code": "400"}}, status=400)
        return web.json_response({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]})

    async def main() -> list[Outcome]:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        made = make_provider(ProviderSettings(kind="openai"), base_url=f"http://127.0.0.1:{port}/v1", name="api")
        route = Route(made, "api", "model-1", LIMIT, api_key="", timeout_s=60.0)
        gateway = Gateway(FakeLimiter(), {"research": route}, lambda model, usage, tier: None, breakers=FakeBreakers())
        agent = Agent(gateway, settings_of(max_attempts=1), share=lambda: 0.0)
        try:
            tasks = (agent.run(BotTask(prompt=f"{i}?"), a_bot(), task_id=str(i)) for i in range(60))
            return await asyncio.gather(*tasks)
        finally:
            await made.close()
            await runner.cleanup()

    assert [outcome.status for outcome in asyncio.run(main())] == ["ok"] * 60
    assert len(seen) <= 180


def test_a_prompt_that_is_too_long_is_cut_by_the_figures_of_the_error() -> None:
    provider = FakeProvider([too_long(1024, 1800), said("4")])
    outcome = work(FakeLimiter(), provider, task=LONG, max_output_tokens=100)
    assert (outcome.status, outcome.attempts) == ("ok", 2)
    first, second = (count_message_tokens(call.messages) for call in provider.calls)
    assert second <= first * (1024 - 100) / 1800  # true tokens, by the model's own count
    assert second > first * (1024 - 100) / 1800 * 0.8
    question = provider.calls[1].messages[-1].text
    assert question.startswith("HEAD")
    assert question.endswith("TAIL")
    assert 0 <= outcome.cut_tokens - (first - second) <= 5


@pytest.mark.parametrize("error", [too_long(), too_long(window=100_000)])
def test_an_error_without_figures_that_explain_it_is_met_by_a_shorter_prompt(error: ContextTooLong) -> None:
    provider = FakeProvider([error, said("4")])
    outcome = work(FakeLimiter(), provider, task=LONG)
    first, second = (count_message_tokens(call.messages) for call in provider.calls)
    assert outcome.status == "ok"
    assert 0.5 * first < second <= 0.61 * first


def test_a_prompt_that_is_too_long_twice_is_a_bad_request_of_the_prompt() -> None:
    provider = FakeProvider([too_long(1024, 1800)])
    outcome = work(FakeLimiter(), provider, task=LONG)
    assert type(outcome.error).__name__ == "BadRequest"
    assert outcome.error is not None
    assert outcome.error.blame == "prompt"
    assert len(provider.calls) == 2


def test_no_prompt_is_cut_to_nothing() -> None:
    provider = FakeProvider([too_long(600, 1800)])
    outcome = work(FakeLimiter(), provider, task=LONG, max_output_tokens=590)
    assert type(outcome.error).__name__ == "BadRequest"
    assert len(provider.calls) == 1


def test_an_answer_without_a_text_because_the_context_is_full_is_asked_for_with_a_shorter_prompt() -> None:
    provider = FakeProvider([said("", finish_reason=CONTEXT_FULL), said("4")])
    outcome = work(FakeLimiter(), provider, task=LONG)
    assert (outcome.status, outcome.attempts) == ("ok", 2)
    assert len(provider.calls[1].messages[-1].text) < len(provider.calls[0].messages[-1].text)
    assert outcome.usage.input_tokens == 20  # both were paid for


def test_what_an_error_taught_cuts_the_next_prompt_before_it_is_sent() -> None:
    provider = FakeProvider([too_long(1024, 1800), said("4")])

    async def run() -> list[Outcome]:
        settings = settings_of(max_output_tokens=100)
        agent = Agent(a_gateway(FakeLimiter(), provider), settings, share=lambda: 0.0)
        bot = a_bot().model_copy(update={"persona": a_bot().persona.model_copy(update={"context_window_tokens": 8192})})
        return [await agent.run(LONG, bot, task_id="t") for _ in range(2)]

    outcomes = asyncio.run(run())
    assert [outcome.attempts for outcome in outcomes] == [2, 1]
    assert outcomes[1].cut_tokens > 0


def test_true_tokens_of_answers_cut_what_comes_later() -> None:
    notebook = Notebook()
    provider = FakeProvider([said("4", input_tokens=1700)])
    route = Route(provider, "api", "model-1", LIMIT, api_key="", timeout_s=60.0)
    gateway = Gateway(
        FakeLimiter(), {"research": route}, lambda model, usage, tier: None, breakers=FakeBreakers(), lessons=notebook
    )

    async def run() -> None:
        agent = Agent(gateway, settings_of(max_output_tokens=900), share=lambda: 0.0)
        for _ in range(60):
            await agent.run(LONG, a_bot(), task_id="t")

    asyncio.run(run())
    assert notebook.measure("api/model-1").ratio > 1.1
    first, last = (count_message_tokens(provider.calls[i].messages) for i in (0, -1))
    assert last < first


def test_what_a_bots_window_cuts_is_said_and_what_fits_is_not() -> None:
    cut = work(FakeLimiter(), FakeProvider(["4"]), task=BotTask(prompt=LONG.conversation()[0].text * 3))
    assert cut.status == "ok"
    assert count_tokens(LONG.conversation()[0].text) < cut.cut_tokens < 3 * count_tokens(LONG.conversation()[0].text)
    assert work(FakeLimiter(), FakeProvider(["4"]), task=LONG).cut_tokens == 0


def test_a_schema_stays_when_the_prompt_is_cut_tighter() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    provider = FakeProvider([too_long(1024, 1800), said('{"a": 1}')])
    task = LONG.model_copy(update={"answer_schema": schema})
    outcome = work(FakeLimiter(), provider, task=task, max_output_tokens=100)
    assert (outcome.status, outcome.answer) == ("ok", '{"a": 1}')
    assert every(call.wishes.schema is not None for call in provider.calls)
    assert len(provider.calls[1].messages[-1].text) < len(provider.calls[0].messages[-1].text)


def test_a_task_or_its_pool_may_ask_to_go_without_what_is_refused() -> None:
    provider = FakeProvider(["4"])
    work(FakeLimiter(), provider, task=BotTask(prompt="2+2?", drop_params=True))
    work(FakeLimiter(), provider, drop_params=True)
    work(FakeLimiter(), provider, task=BotTask(prompt="2+2?", drop_params=False), drop_params=True)
    assert [call.wishes.drop_params for call in provider.calls] == [True, True, False]
    assert PoolSettings().drop_params is False


def test_a_result_lists_what_was_asked_and_left_out_and_not_what_fleet_chose_itself() -> None:
    left_out = Completion("4", "stop", Usage(), left_out=("seed", "temperature"))
    outcome = work(FakeLimiter(), FakeProvider([left_out]), task=BotTask(prompt="2+2?", seed=1, drop_params=True))
    assert outcome.left_out == ("seed",)
    assert outcome.sent == {"seed": None, "temperature": None}  # what was really sent
