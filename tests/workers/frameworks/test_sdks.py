"""Vendors' SDKs in bot functions, against the simulator over HTTP: whole and streamed, async and in threads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from fleet.errors import BadRequest, BotFunctionFailed
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE
from fleet.usage import Usage
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from tests.every import every
from tests.workers.frameworks.at_work import KEY, Work
from tests.workers.simulator.running import running, total

HERE = "tests.workers.frameworks.test_sdks"
#: What the functions below leave behind for their tests.
seen: dict[str, Any] = {}


def told(task: BotTask) -> list[dict[str, Any]]:
    return [{"role": "user", "content": task.prompt}]


async def chats(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.openai().chat.completions.create(model="gpt-9", messages=told(task))  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


def chats_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    answer = bot.openai().chat.completions.create(model="gpt-9", messages=told(task))  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


async def streams(task: BotTask, bot: LoopBotContext) -> str:
    seen["chunks"] = []
    stream: Any = await bot.openai().chat.completions.create(
        model="gpt-9", messages=told(task), stream=True, **task.metadata  # type: ignore[call-overload]
    )  # fmt: skip
    async for chunk in stream:
        seen["chunks"].append(chunk)
    return "".join(one.choices[0].delta.content or "" for one in seen["chunks"] if one.choices)


def streams_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    seen["chunks"] = list(
        bot.openai().chat.completions.create(model="gpt-9", messages=told(task), stream=True)  # type: ignore[call-overload]
    )
    return "".join(one.choices[0].delta.content or "" for one in seen["chunks"] if one.choices)


async def responds(task: BotTask, bot: LoopBotContext) -> str:
    return (await bot.openai().responses.create(model="gpt-9", input=task.prompt or "")).output_text


async def streams_a_response(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.openai().responses.stream(model="gpt-9", input=task.prompt or "") as stream:
        return (await stream.get_final_response()).output_text


async def messages(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.anthropic().messages.create(model="claude-9", max_tokens=90, messages=told(task))  # type: ignore[arg-type]
    return answer.content[0].text  # type: ignore[union-attr]


def messages_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    answer = bot.anthropic().messages.create(model="claude-9", max_tokens=90, messages=told(task))  # type: ignore[arg-type]
    return answer.content[0].text  # type: ignore[union-attr]


async def streams_messages(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.anthropic().messages.stream(model="claude-9", max_tokens=90, messages=told(task)) as stream:  # type: ignore[arg-type]
        return "".join([text async for text in stream.text_stream])


def streams_messages_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    with bot.anthropic().messages.stream(model="claude-9", max_tokens=90, messages=told(task)) as stream:  # type: ignore[arg-type]
        return "".join(stream.text_stream)


async def ten_at_once(task: BotTask, bot: LoopBotContext) -> str:
    return "".join(await asyncio.gather(*(chats(task, bot) for _ in range(10))))


WIRES = {
    "chats": "openai", "chats_in_a_thread": "openai", "streams": "openai", "streams_in_a_thread": "openai",
    "responds": "openai", "streams_a_response": "openai",
    "messages": "anthropic", "messages_in_a_thread": "anthropic",
    "streams_messages": "anthropic", "streams_messages_in_a_thread": "anthropic",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["its own", "simulator"])
@pytest.mark.parametrize("function", WIRES)
def test_an_sdk_answers_and_what_it_used_is_what_the_provider_counted(function: str, kind: str):
    work = Work(f"{HERE}:{function}", kind=WIRES[function] if kind == "its own" else kind)
    with running() as url:
        outcome = work.run_at(url)
        counted = total(url)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 1), outcome.error
    assert outcome.usage == Usage(input_tokens=counted["input_tokens"], output_tokens=counted["output_tokens"])
    assert (counted["served"], counted["cut"], outcome.sent) == (1, 0, {"model": "simulated-1"})
    assert work.limiter.is_settled_once and [used for _, used in work.limiter.settled] == [outcome.usage.total_tokens]
    (entry,) = work.entries
    assert (entry.state, entry.usage, entry.usd_picos) == ("settled", outcome.usage, outcome.cost_usd_picos)


def test_several_requests_of_a_function_go_at_once_under_a_grant_each():
    work = Work(f"{HERE}:ten_at_once")
    with running(latency_ms=20.0) as url:
        outcome, counted = work.run_at(url), total(url)
    assert (outcome.answer, outcome.attempts, counted["served"]) == ("4" * 10, 10, 10)
    assert len(work.limiter.granted) == len(work.entries) == 10 and work.limiter.is_settled_once
    assert outcome.usage.input_tokens == counted["input_tokens"]


def test_a_stream_has_its_usage_only_for_a_client_that_asked_for_it():
    with running() as url:
        Work(f"{HERE}:streams").run_at(url)
        assert every(chunk.choices and chunk.usage is None for chunk in seen["chunks"])
        asking = Work(f"{HERE}:streams", task={"metadata": {"stream_options": {"include_usage": True}}})
        outcome = asking.run_at(url)
    assert seen["chunks"][-1].usage.total_tokens == outcome.usage.total_tokens > 0


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("chats", {"rpm": 60, "burst": 0.05, "minute_s": 3.0}),  # three at once, then one each 50 ms
        ("ten_at_once", {"rpm": 60, "burst": 0.05, "minute_s": 3.0}),
        ("ten_at_once", {"error_rate": 0.5, "seed": 3}),
        ("ten_at_once", {"cut_rate": 0.5, "seed": 3}),
    ],
)
def test_refusals_and_failures_of_the_provider_never_reach_the_sdk(function: str, options: dict[str, Any]):
    work = Work(f"{HERE}:{function}")
    with running(**options) as url:
        if function == "chats":
            for _ in range(4):  # uses the burst
                Work(f"{HERE}:chats").run_at(url)
        outcome = work.run_at(url)
        counted = total(url)
    assert outcome.status == "ok" and set(str(outcome.answer)) == {"4"}
    if function == "ten_at_once":
        failed = counted["refused_429"] + counted["errors_5xx"] + counted["cut"]
        assert outcome.attempts == 10 + failed > 10
        assert sum(outcome.provider_errors.values()) == failed
        assert outcome.usage.input_tokens == counted["input_tokens"] and work.limiter.is_settled_once


async def asks_wrongly(task: BotTask, bot: LoopBotContext) -> str:
    answer: Any = await bot.openai().chat.completions.create(model="m", messages=told(task), temperature=99)  # type: ignore[call-overload]
    return str(answer)


def asks_wrongly_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    return str(bot.anthropic().messages.create(model="m", max_tokens=-1, messages=told(task)))  # type: ignore[arg-type]


async def copes(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await asks_wrongly(task, bot)
    except openai.BadRequestError as error:
        seen["error"] = error
        return await chats(task, bot)


async def wraps(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await asks_wrongly(task, bot)
    except openai.BadRequestError as error:
        raise ValueError("my own framework") from error


@pytest.mark.parametrize("function", ["asks_wrongly", "asks_wrongly_in_a_thread", "wraps"])
def test_a_refused_request_that_is_let_through_fails_as_one_and_blames_no_bot(function: str):
    with running() as url:
        outcome = Work(f"{HERE}:{function}", kind="simulator").run_at(url)
        assert total(url)["bad_requests"] == 1
    assert type(outcome.error) is BadRequest and outcome.error.blame == "prompt" and outcome.fault is None
    assert (outcome.attempts, outcome.provider_errors) == (1, {"BadRequest": 1})


def test_a_refusal_comes_to_the_sdk_as_the_provider_said_it():
    with running() as url:
        outcome = Work(f"{HERE}:copes").run_at(url)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 2)
    assert seen["error"].status_code == 400 and "temperature" in seen["error"].message


@pytest.mark.parametrize(
    ("function", "kind"), [("messages", "openai"), ("messages_in_a_thread", "openai"), ("chats", "anthropic")]
)
def test_a_wire_that_the_provider_does_not_speak_makes_the_task_wait_and_says_what_to_do(function: str, kind: str):
    work = Work(f"{HERE}:{function}", kind=kind, before=NOTHING_BEFORE)
    with running() as url:
        outcome = work.run_at(url)
        assert total(url)["calls"] == 0
    assert outcome.parking is not None and outcome.parking.wait.cause == "configuration"
    assert "use bot." in outcome.parking.wait.told and not work.limiter.granted


async def shows_its_client(task: BotTask, bot: LoopBotContext) -> str:
    client = bot.openai()
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=told(task))  # type: ignore[call-overload]
    seen["hands"] = [
        repr(client), str(vars(client)), repr(client._client), str(raw.headers), str(raw.http_request.headers),
        str(raw.http_request.url), repr(bot.http_client("httpx")), str(vars(bot.http_client()._transport)),
    ]  # fmt: skip
    return "done"


def test_the_key_is_never_in_the_functions_hands():
    with running() as url:
        outcome = Work(f"{HERE}:shows_its_client").run_at(url)
    assert outcome.answer == "done" and len(seen["hands"]) == 8
    assert every(KEY not in text for text in seen["hands"])


def test_the_models_name_is_said_only_where_it_was_another():
    with running() as url:
        assert Work(f"{HERE}:names_it_rightly").run_at(url).sent == {}
        assert Work(f"{HERE}:chats").run_at(url).sent == {"model": "simulated-1"}


async def names_it_rightly(task: BotTask, bot: LoopBotContext) -> str:
    answer: Any = await bot.openai().chat.completions.create(model="simulated-1", messages=told(task))  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


async def lists_models(task: BotTask, bot: LoopBotContext) -> str:
    return json.dumps([model.id async for model in bot.openai().models.list()])


def test_what_asks_no_model_passes_with_the_key_and_without_a_grant():
    work = Work(f"{HERE}:lists_models")
    with running() as url:
        outcome = work.run_at(url)
    assert outcome.status == "ok" and "simulated-1" in json.loads(str(outcome.answer))
    assert (work.limiter.granted, work.entries, outcome.attempts) == ([], [], 0)


async def sets_what_is_ours(task: BotTask, bot: LoopBotContext) -> str:
    with pytest.raises(BotFunctionFailed, match="api_key"):
        bot.openai(api_key="mine")
    with pytest.raises(BotFunctionFailed, match="expected kind httpx or httpx2, got 'curl'"):
        bot.http_client("curl")  # type: ignore[arg-type]
    return "said"


def test_options_that_are_the_pools_are_refused():
    with running() as url:
        assert Work(f"{HERE}:sets_what_is_ours").run_at(url).answer == "said"


@pytest.mark.parametrize("function", ["messages", "messages_in_a_thread"])
def test_a_machine_without_the_sdk_makes_the_task_wait(function: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "anthropic", None)
    outcome = Work(f"{HERE}:{function}", kind="anthropic", before=NOTHING_BEFORE).run_at("http://127.0.0.1:9")
    assert outcome.parking is not None and outcome.parking.wait.cause == "configuration"
    assert "pip install anthropic" in outcome.parking.wait.told


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
@pytest.mark.parametrize("function", ["sends_itself", "sends_itself_in_a_thread"])
def test_a_client_of_either_library_takes_any_framework_to_the_pools_api(function: str, library: str):
    work = Work(f"{HERE}:{function}", task={"metadata": {"library": library}})
    with running() as url:
        outcome = work.run_at(url)
        assert total(url)["served"] == 1
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 1), outcome.error


BODY = {"model": "gpt-9", "messages": [{"role": "user", "content": "2+2?"}]}


async def sends_itself(task: BotTask, bot: LoopBotContext) -> str:
    client = bot.http_client(task.metadata["library"])
    answer = await client.post(
        "https://api.vendor.example/openai/v1/chat/completions", json=BODY, headers={"Authorization": "Bearer mine"}
    )
    return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


def sends_itself_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    with bot.http_client(task.metadata["library"]) as client:
        with client.stream("POST", "https://api.vendor.example/v1/chat/completions", json=BODY) as answer:
            answer.read()
        return str(answer.raise_for_status().json()["choices"][0]["message"]["content"])


async def makes_its_own_client(task: BotTask, bot: LoopBotContext) -> str:
    client = openai.AsyncOpenAI(api_key="mine", http_client=bot.http_client(), max_retries=5)
    answer: Any = await client.chat.completions.create(model="m", messages=told(task))  # type: ignore[call-overload]
    other = anthropic.AsyncAnthropic(api_key="mine", http_client=bot.http_client(), max_retries=5)
    return str(answer.choices[0].message.content) + (await _first_text(other, task))


async def _first_text(client: anthropic.AsyncAnthropic, task: BotTask) -> str:
    answer = await client.messages.create(model="m", max_tokens=9, messages=told(task))  # type: ignore[arg-type]
    return answer.content[0].text  # type: ignore[union-attr]


def test_a_client_of_the_users_own_goes_the_same_way():
    work = Work(f"{HERE}:makes_its_own_client", kind="simulator")
    with running(error_rate=0.5, seed=1) as url:
        outcome, counted = work.run_at(url), total(url)
    assert (outcome.answer, counted["served"]) == ("44", 2)
    assert outcome.attempts == counted["calls"]


async def raises_in_its_own_code(task: BotTask, bot: LoopBotContext) -> str:
    await chats(task, bot)
    raise KeyError("a bug")


def test_a_bug_beside_good_requests_is_the_functions():
    with running() as url:
        outcome = Work(f"{HERE}:raises_in_its_own_code").run_at(url)
    assert type(outcome.error) is BotFunctionFailed


def test_an_sdk_is_imported_when_the_function_that_asks_for_it_is_loaded_and_not_before(tmp_path: Path):
    """Importing one blocks for a second: no loop of users' functions should wait for that."""
    (tmp_path / "asks_bots.py").write_text("async def solve(task, bot):\n    return bot.openai()\n")
    (tmp_path / "plain_bots.py").write_text("async def solve(task, bot):\n    return await bot.chat(task.prompt)\n")
    code = (
        "import sys; from fleet.workers.bot.function import load_bot; names = 'openai anthropic httpx httpx2'.split();"
        "load_bot('plain_bots:solve'); before = [name for name in names if name in sys.modules];"
        "load_bot('asks_bots:solve'); print(before, 'openai' in sys.modules, 'anthropic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[] True False\n", done.stderr
