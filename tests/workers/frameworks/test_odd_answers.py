"""A 2xx that an SDK would stumble over: its provider's failure as it is for `chat()`, never the bot's."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from fleet.models import BotTask
from fleet.outcome import Outcome
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from tests.workers.fakes import FakeBreakers
from tests.workers.frameworks.at_work import Work
from tests.workers.providers.raw_server import RawServer, response
from tests.workers.providers.test_streams import ANTHROPIC, OPENAI, chunk, events, streamed

HERE = "tests.workers.frameworks.test_odd_answers"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
CHAT = {
    "id": "c1", "object": "chat.completion", "created": 1, "model": "model-1", "usage": USAGE,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}],
}  # fmt: skip
MESSAGE = {
    "id": "m1", "type": "message", "role": "assistant", "model": "model-1", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "four"}], "usage": {"input_tokens": 10, "output_tokens": 5},
}  # fmt: skip
TEXT = {"type": "message", "id": "i1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "four", "annotations": []}]}  # fmt: skip
RESPONSE = {
    "id": "r1", "object": "response", "created_at": 1, "model": "model-1", "status": "completed", "output": [TEXT],
    "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}, "parallel_tool_calls": True, "tools": [],
    "tool_choice": "auto",
}  # fmt: skip
VECTORS = {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
           "usage": {"prompt_tokens": 3, "total_tokens": 3}}  # fmt: skip


def told(task: BotTask) -> Any:
    return [{"role": "user", "content": task.prompt}]


async def chats(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.openai().chat.completions.create(model="m", messages=told(task))
    return str(answer.choices[0].message.content)


async def says(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.anthropic().messages.create(model="m", max_tokens=9, messages=told(task))
    return "".join(block.text for block in answer.content if block.type == "text")


async def responds(task: BotTask, bot: LoopBotContext) -> str:
    return (await bot.openai().responses.create(model="m", input=task.prompt or "")).output_text


async def embeds(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.openai().embeddings.create(model="m", input=["2+2?"], encoding_format="float")
    return json.dumps(answer.data[0].embedding)


async def streams_chat(task: BotTask, bot: LoopBotContext) -> str:
    stream = await bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)
    return "".join([piece.choices[0].delta.content or "" async for piece in stream])


def streams_chat_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    stream = bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)
    return "".join([piece.choices[0].delta.content or "" for piece in stream])


async def streams_message(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.anthropic().messages.stream(model="m", max_tokens=9, messages=told(task)) as stream:
        return "".join([text async for text in stream.text_stream])


async def streams_response(task: BotTask, bot: LoopBotContext) -> str:
    said = []
    async with await bot.openai().responses.create(model="m", input=task.prompt or "", stream=True) as stream:
        async for event in stream:
            said += [event.delta] if event.type == "response.output_text.delta" else []
    return "".join(said)


async def speaks(task: BotTask, bot: LoopBotContext) -> str:
    sound = await bot.openai().audio.speech.create(model="m", voice="alloy", input=task.prompt or "")
    return str(len(sound.content))


async def lists(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.openai().files.list()
    return str(len(answer.data))


GOOD: dict[str, Any] = {"chats": CHAT, "says": MESSAGE, "responds": RESPONSE, "embeds": VECTORS}
STREAMS = {"streams_chat": OPENAI, "streams_chat_in_a_thread": OPENAI, "streams_message": ANTHROPIC}
KINDS = {"says": "anthropic", "streams_message": "anthropic"}


def run(function: str, *answers: bytes) -> tuple[Outcome, RawServer, Work]:
    work = Work(f"{HERE}:{function}", kind=KINDS.get(function, "openai"))
    outcome, server = work.run_with(*answers)
    assert work.limiter.is_settled_once
    return outcome, server, work


def check_are_the_providers(function: str, odd: list[bytes], good: bytes) -> Outcome:
    """One task meets all of these in turn, and then an answer."""
    outcome, server, work = run(function, *odd, good)
    sent = len(odd) + 1
    assert (outcome.status, outcome.attempts, outcome.fault) == ("ok", sent, None), outcome.error
    assert (outcome.bad_answers, len(server.bodies), len(work.breakers.failures)) == (0, sent, len(odd))
    return outcome


NO_ANSWERS = [
    b"", b"<html><body>Bad gateway</body></html>", b'{"choices": [{"mess', b"[" * 100_000, b"[]", b'"text"', b"{}",
    b'{"choices": null, "content": 4, "output": null, "data": null}',
    b'{"choices": [], "content": "text", "output": "text", "data": []}',
    b'{"choices": [null], "content": {}, "output": {}, "data": [null]}',
    b'{"choices": [{"message": null}], "status": "failed", "output": [], "data": [{"embedding": []}]}',
    b'{"choices": [{}], "content": 4, "status": "completed", "output": [], "data": [{}]}',
    b'{"error": {"type": "server_error", "message": "oops"}}',
    b'{"message": "upstream connect error", "code": 502}',
]  # fmt: skip


@pytest.mark.parametrize("function", GOOD)
def test_a_2xx_that_is_none_of_its_wires_answers_is_tried_again(function: str):
    check_are_the_providers(function, [response(body) for body in NO_ANSWERS], response(GOOD[function]))


def test_half_an_answer_is_its_providers_failure_and_paid():
    reasons = ("error", "network_error", "UNSPECIFIED", "abort")
    message = {"role": "assistant", "content": "fo"}
    chats = [CHAT | {"choices": [{"index": 0, "message": message, "finish_reason": reason}]} for reason in reasons]
    messages = [MESSAGE | {"stop_reason": reason} for reason in reasons]
    for function, halves in (("chats", chats), ("says", messages)):
        outcome = check_are_the_providers(function, list(map(response, halves)), response(GOOD[function]))
        assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (50, 25)


@pytest.mark.parametrize("function", STREAMS)
def test_what_is_no_stream_of_its_wire_is_tried_again(function: str):
    bodies = (
        b"", b"<html>\n\nBad gateway</html>", b"data: <html>\n\n", b'data: {"choi', b"data: [DONE]\n\n", b": ping\n\n"
    )  # fmt: skip
    types = ("text/event-stream", "text/html", "text/plain", "application/json")
    odd = [response(body, headers={"Content-Type": one}) for body in bodies for one in types]
    assert check_are_the_providers(function, odd, streamed(STREAMS[function])).answer == "four"


@pytest.mark.parametrize("function", ["streams_chat", "streams_chat_in_a_thread"])
def test_a_stream_that_the_provider_itself_calls_broken_is_no_whole_one(function: str):
    odd = [
        streamed([*OPENAI[:1], chunk(finish="network_error"), "[DONE]"]),
        streamed([*OPENAI[:1], chunk(finish="error")]),
    ]
    assert check_are_the_providers(function, odd, streamed(OPENAI)).answer == "four"


@pytest.mark.parametrize("said", [
    [{"choices": [], "prompt_filter_results": []}, *OPENAI],
    [{"object": "chat.completion.chunk"}, *OPENAI],
    [{"note": {}}, *OPENAI],
    [*OPENAI[:4], {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, "[DONE]"],
    [*OPENAI[:4], {"choices": [{"index": 0, "finish_reason": "eos_token"}]}, {"usage": USAGE}, "[DONE]"],
    [{"choices": [{"index": 0, "message": {"role": "assistant", "content": "four"}, "finish_reason": "stop"}]}],
    [chunk("four") | {"error": {"code": 0, "message": "ok"}}, chunk(finish="stop")],
])  # fmt: skip
def test_a_stream_in_words_a_little_otherwise_is_an_answer(said: list[Any]):
    outcome, _, _ = run("streams_chat", streamed(said))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 1), outcome.error


@pytest.mark.parametrize(
    ("function", "whole"),
    [("streams_chat", CHAT), ("streams_chat_in_a_thread", CHAT), ("streams_message", MESSAGE),
     ("streams_response", RESPONSE)],
)  # fmt: skip
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "text/event-stream"])
def test_a_server_that_does_not_stream_is_believed(function: str, whole: dict[str, Any], content_type: str):
    outcome, _, work = run(function, response(whole, headers={"Content-Type": content_type}))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 1), outcome.error
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (10, 5) and work.entries[0].state == "settled"


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(("function", "said"), [("chats", OPENAI), ("says", ANTHROPIC)])
def test_a_server_that_always_streams_is_read(function: str, said: list[Any], content_type: str):
    answer = response(events(said), headers={"Content-Type": content_type})
    outcome, _, _ = run(function, answer)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 1), outcome.error
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (12, 3)
    overloaded = [said[0], {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}]
    odd = [response(events(one), headers={"Content-Type": content_type}) for one in (said[:4], overloaded)]
    assert check_are_the_providers(function, odd, answer).answer == "four"


def test_tools_that_a_server_calls_without_streaming_are_called():
    call = {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    whole = CHAT | {
        "choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}]
    }
    outcome, _, _ = run("streams_a_call", response(whole))
    assert outcome.answer == "look {}", outcome.error


async def streams_a_call(task: BotTask, bot: LoopBotContext) -> str:
    stream = await bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)
    calls = [call async for piece in stream for call in piece.choices[0].delta.tool_calls or ()]
    return " ".join(f"{call.function.name} {call.function.arguments}" for call in calls if call.function)


def test_an_answer_that_is_no_json_by_its_nature_is_one():
    outcome, _, work = run("speaks", response(b"\xff\xfb" * 50, headers={"Content-Type": "audio/mpeg"}))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "100", 1), outcome.error
    assert work.breakers.failures == []
    outcome, _, _ = run("speaks", response(b"<html>Bad gateway</html>"), response(b"\xff" * 9))
    assert (outcome.answer, outcome.attempts) == ("9", 2)


@pytest.mark.parametrize(
    "odd",
    [
        response({"error": {"message": "no such key", "code": "invalid_api_key"}}, status=401),
        response({"error": {"message": "fill it", "code": "insufficient_quota"}}, status=429),
        response({"error": {"message": "locked"}}, status=409),
        response(b"<html>Bad gateway</html>"),
    ],
)
def test_a_request_without_a_model_that_fails_for_the_key_or_the_provider_is_tried_again(odd: bytes):
    work = Work(f"{HERE}:lists", breakers=FakeBreakers(answers=True))
    outcome, server = work.run_with(odd, response({"object": "list", "data": []}))
    assert (outcome.status, outcome.answer, len(server.heads)) == ("ok", "0", 2), outcome.error


async def streams_and_is_done(task: BotTask, bot: LoopBotContext) -> str:
    said = await streams_chat(task, bot)
    seen.set()
    return said


def streams_in_a_thread_and_is_done(task: BotTask, bot: BlockingBotContext) -> str:
    said = streams_chat_in_a_thread(task, bot)
    seen.set()
    return said


seen = threading.Event()


@pytest.mark.parametrize("function", ["streams_and_is_done", "streams_in_a_thread_and_is_done"])
def test_a_stream_that_is_left_at_its_last_event_is_whole(function: str):
    """The answer ends only when its reader has gone: SDKs leave at the last event, and do not wait for the end."""
    seen.clear()
    work, tail = Work(f"{HERE}:{function}", deadline_s=10), b": bye\n\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(streamed(OPENAI, missing=len(tail)))
        while not seen.is_set():
            await asyncio.sleep(0.005)
        writer.write(tail)
        await writer.drain()
        writer.close()

    async def run() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await work.at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")

    outcome = asyncio.run(run())
    assert (outcome.status, outcome.answer, outcome.provider_errors) == ("ok", "four", {}), outcome.error
    assert [entry.state for entry in work.entries] == ["settled"] and work.limiter.is_settled_once
    assert [who for who, _ in work.breakers.well] == ["t1"]
