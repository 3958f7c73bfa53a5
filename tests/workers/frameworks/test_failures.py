"""What becomes of requests of SDKs that fail: in their middle, at the deadline, for good, and when the user leaves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from typing import Any

import pytest

from fleet.config import PoolSettings
from fleet.errors import (
    BadRequest,
    BotFunctionFailed,
    ContextTooLong,
    DeadlineExceeded,
    FleetError,
    OutOfTries,
    ProviderUnavailable,
    TooExpensive,
)
from fleet.models import BotTask
from fleet.outcome import NOTHING_BEFORE, Outcome
from fleet.workers.bot.elsewhere import BlockingBotContext, LoopBotContext
from fleet.workers.bot.footing import Moved
from fleet.workers.bot.raw_asker import MOST_PASSED
from fleet.workers.frameworks.raw import RawRequest
from tests.every import every
from tests.workers.fakes import OTHERS_DID_WELL, FakeBreakers
from tests.workers.frameworks.at_work import KEY, Work
from tests.workers.providers.raw_server import RawServer, provider, response
from tests.workers.providers.test_streams import OPENAI, chunk, streamed

HERE = "tests.workers.frameworks.test_failures"
ANSWER = response({
    "id": "c1", "object": "chat.completion", "created": 1, "model": "model-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "4"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
})  # fmt: skip
BODY = {"model": "m", "messages": [{"role": "user", "content": "2+2?"}]}
#: What the functions below leave behind for their tests.
seen: dict[str, Any] = {}


def told(task: BotTask) -> list[dict[str, Any]]:
    return [{"role": "user", "content": task.prompt}]


async def chats(task: BotTask, bot: LoopBotContext) -> str:
    answer: Any = await bot.openai().chat.completions.create(model="m", messages=told(task), **task.metadata)  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


async def chats_six_times(task: BotTask, bot: LoopBotContext) -> str:
    return "".join([await chats(task, bot) for _ in range(6)])


def chats_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    answer: Any = bot.openai().chat.completions.create(model="m", messages=told(task))  # type: ignore[call-overload]
    return str(answer.choices[0].message.content)


async def responds(task: BotTask, bot: LoopBotContext) -> str:
    return (await bot.openai().responses.create(model="m", input=task.prompt or "")).output_text


async def streams(task: BotTask, bot: LoopBotContext) -> str:
    seen["pieces"] = []
    stream: Any = await bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)  # type: ignore[call-overload]
    async for piece in stream:
        seen["pieces"].append(piece.choices[0].delta.content or "")
    return "".join(seen["pieces"])


def streams_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    seen["pieces"] = []
    stream: Any = bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)  # type: ignore[call-overload]
    for piece in stream:
        seen["pieces"].append(piece.choices[0].delta.content or "")
    return "".join(seen["pieces"])


async def leaves_early(task: BotTask, bot: LoopBotContext) -> str:
    stream: Any = await bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)  # type: ignore[call-overload]
    async with stream:
        async for piece in stream:
            if piece.choices[0].delta.content:
                return str(piece.choices[0].delta.content)
    return ""


def leaves_early_in_a_thread(task: BotTask, bot: BlockingBotContext) -> str:
    stream: Any = bot.openai().chat.completions.create(model="m", messages=told(task), stream=True)  # type: ignore[call-overload]
    with stream:
        for piece in stream:
            if piece.choices[0].delta.content:
                return str(piece.choices[0].delta.content)
    return ""


async def streams_messages(task: BotTask, bot: LoopBotContext) -> str:
    async with bot.anthropic().messages.stream(model="m", max_tokens=9, messages=told(task)) as stream:  # type: ignore[arg-type]
        return "".join([text async for text in stream.text_stream])


async def goes_on_after_its_task(task: BotTask, bot: LoopBotContext) -> str:
    seen["bot"], seen["client"] = bot, bot.openai()
    return "done"


def goes_on_in_its_thread(task: BotTask, bot: BlockingBotContext) -> str:
    seen["first"] = bot
    seen.pop("again", None)
    try:
        return chats_in_a_thread(task, bot)
    except DeadlineExceeded:
        try:
            return chats_in_a_thread(task, bot)
        except DeadlineExceeded as again:
            seen["again"] = again
            raise


async def waits_for_ever(server: RawServer) -> None:
    """Wait until the client is gone, and its function has heard so twice if it runs in a thread."""
    await server.left.wait()
    while "first" in seen and "again" not in seen:
        await asyncio.sleep(0.005)


FUNCTIONS = ("chats", "chats_in_a_thread", "streams", "streams_in_a_thread")
WHOLE = FUNCTIONS[:2]
STREAMING = FUNCTIONS[2:]
OVERLOADED = [chunk(""), {"error": {"message": "overloaded", "type": "server_error", "code": 503}}]


@pytest.mark.parametrize("function", WHOLE)
@pytest.mark.parametrize(
    "failure",
    [
        response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0"}),
        response({"error": {"message": "down"}}, status=503),
        response({"error": {"message": "no such key", "code": "invalid_api_key"}}, status=401),
        response({"error": {"message": "down", "code": 503}, "choices": []}),
        response(b"<html>Bad gateway</html>"),
        response({"surely": "no answer"}),
        response(b'{"choices": ', length=999),
        b"",
    ],
)  # fmt: skip
def test_whatever_is_not_the_requests_fault_is_waited_out_and_tried_again(function: str, failure: bytes):
    work = Work(f"{HERE}:{function}")
    outcome, server = work.run_with(failure, ANSWER)
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "4", 2), outcome.error
    assert len(server.bodies) == len(work.limiter.granted) == 2 and work.limiter.is_settled_once
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (10, 5)
    assert len(work.entries) == 2 and work.entries[1].state == "settled"


@pytest.mark.parametrize("function", STREAMING)
@pytest.mark.parametrize(
    "failure",
    [
        response({"error": {"message": "down"}}, status=503),
        streamed(OVERLOADED),
        streamed(OPENAI[:1]),  # broke off before it said anything
        streamed(OPENAI[:1], missing=9),
    ],
)
def test_a_stream_that_fails_before_its_first_words_is_tried_again(function: str, failure: bytes):
    work = Work(f"{HERE}:{function}")
    outcome, server = work.run_with(failure, streamed(OPENAI))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 2), outcome.error
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.tier) == (12, 3, None)
    assert len(server.bodies) == 2 and work.limiter.is_settled_once


BROKEN = [
    streamed(OPENAI[:3]), streamed(OPENAI[:3], missing=9), streamed([*OPENAI[:3], OVERLOADED[1]]),
]  # fmt: skip


@pytest.mark.parametrize("function", STREAMING)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_stream_that_fails_in_its_middle_ends_no_task_and_blames_no_bot(function: str, broken: bytes):
    work = Work(f"{HERE}:{function}")
    outcome, _ = work.run_with(broken, streamed(OPENAI))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 2), outcome.error
    assert (outcome.fault, outcome.bad_answers, outcome.provider_errors) == (None, 0, {"ProviderUnavailable": 1})
    first, second = work.entries
    assert (first.state, second.state) == ("unknown", "settled") and first.usage.output_tokens > 0
    assert outcome.usage == first.usage + second.usage and work.limiter.is_settled_once


def test_a_stream_whose_last_words_came_is_whole_though_its_usage_was_lost_and_is_called_an_estimate():
    outcome, _ = Work(f"{HERE}:streams").run_with(streamed(OPENAI[:5], missing=9))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 1)
    assert outcome.usage.estimated_calls == 1 and outcome.usage.output_tokens > 0


def test_a_stream_in_which_others_did_well_ends_after_so_many_tries():
    work = Work(
        f"{HERE}:streams", breakers=FakeBreakers(rulings=[OTHERS_DID_WELL], answers=True), pool={"max_attempts": 3}
    )
    outcome, _ = work.run_with(BROKEN[0])
    assert type(outcome.error) is OutOfTries and outcome.error.blame == "provider" and outcome.attempts == 3


@pytest.mark.parametrize("function", WHOLE)
def test_a_dead_tasks_error_comes_through_the_sdk_and_is_the_tasks(function: str):
    work = Work(
        f"{HERE}:{function}", breakers=FakeBreakers(rulings=[OTHERS_DID_WELL], answers=True), pool={"max_attempts": 2}
    )
    outcome, _ = work.run_with(response({"error": {"message": "down"}}, status=503))
    assert type(outcome.error) is OutOfTries and outcome.attempts == 2 and outcome.fault is None


async def hides_a_broken_stream(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await streams(task, bot)
    except ProviderUnavailable:
        raise RuntimeError("a framework's own error, which names no cause")  # noqa: B904


def test_a_framework_that_hides_a_broken_stream_blames_no_bot_either():
    outcome, _ = Work(f"{HERE}:hides_a_broken_stream").run_with(BROKEN[0], streamed(OPENAI))
    assert (outcome.status, outcome.answer, outcome.fault) == ("ok", "four", None), outcome.error


@pytest.mark.parametrize("function", STREAMING)
def test_the_deadline_cuts_a_stream_that_has_begun(function: str):
    """Also for a thread that waits for the next piece: it hears of it, and ends."""
    work = Work(f"{HERE}:{function}", deadline_s=0.5)
    part = streamed(OPENAI[:3], missing=10_000).replace(b"Connection: close\r\n", b"")

    async def run() -> tuple[Outcome, bool]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(part)
            while await reader.read(65536):
                pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await work.at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            ends = asyncio.get_running_loop().time() + 5
            while any(thread.name.startswith("bot-research") for thread in threading.enumerate()):
                assert asyncio.get_running_loop().time() < ends, "the thread waits for ever"
                await asyncio.sleep(0.005)
            return outcome, True

    outcome, _ = asyncio.run(run())
    assert type(outcome.error) is DeadlineExceeded and seen["pieces"][-1] == "fo"
    assert outcome.usage.output_tokens > 0 and work.limiter.is_settled_once


async def hides_it(task: BotTask, bot: LoopBotContext) -> str:
    try:
        return await chats(task, bot)
    except FleetError:
        raise RuntimeError("a framework's own error, which names no cause")  # noqa: B904


def test_a_framework_that_hides_what_ended_the_task_blames_no_bot():
    work = Work(
        f"{HERE}:hides_it", breakers=FakeBreakers(rulings=[OTHERS_DID_WELL], answers=True), pool={"max_attempts": 2}
    )
    outcome, _ = work.run_with(response({"error": {"message": "down"}}, status=503))
    assert type(outcome.error) is OutOfTries


@pytest.mark.parametrize("function", ["goes_on_in_its_thread", "streams", "chats"])
def test_the_deadline_cuts_a_running_request_and_gives_its_reservation_back_to_nobody(function: str):
    seen.clear()
    work = Work(f"{HERE}:{function}", deadline_s=0.3)
    outcome, server = work.run_with(None, meanwhile=waits_for_ever)
    assert type(outcome.error) is DeadlineExceeded and server.left.is_set()
    assert work.limiter.is_settled_once and len(work.entries) == 1 and work.entries[0].state == "unknown"
    assert outcome.usage.input_tokens > 0
    if function == "goes_on_in_its_thread":
        assert "return from your function" in str(seen["again"])


def test_the_deadline_stands_still_while_a_request_waits_for_its_turn():
    work = Work(f"{HERE}:chats", deadline_s=0.3)
    work.limiter.wait_s = 0.6
    outcome, _ = work.run_with(ANSWER)
    assert (outcome.status, outcome.limited_ms >= 600) == ("ok", True)


def test_a_cancelled_task_stops_its_request():
    async def run() -> tuple[Work, RawServer, bool]:
        from tests.workers.providers.raw_server import raw_server

        async with raw_server(None) as server:
            work = Work(f"{HERE}:chats")
            working = asyncio.create_task(work.at(server.url))
            while not server.bodies:
                await asyncio.sleep(0.005)
            working.cancel()
            await asyncio.wait({working})
            await asyncio.wait_for(server.left.wait(), 5)
            return work, server, working.cancelled()

    work, _, is_cancelled = asyncio.run(run())
    assert is_cancelled and work.limiter.is_settled_once


@pytest.mark.parametrize("function", ["leaves_early", "leaves_early_in_a_thread"])
def test_who_leaves_a_stream_ends_the_call_and_pays_what_came(function: str):
    work = Work(f"{HERE}:{function}")
    long = streamed([*OPENAI[:3]], missing=10_000)
    head = long[: long.index(b"Connection")] + b"Connection: keep-alive\r\n\r\n" + long[long.index(b"\r\n\r\n") + 4 :]

    async def run() -> tuple[Outcome, bool]:
        left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            await writer.drain()
            while await reader.read(65536):
                pass
            left.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await work.at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            await asyncio.wait_for(left.wait(), 5)
            return outcome, left.is_set()

    outcome, _ = asyncio.run(run())
    assert (outcome.status, outcome.answer) == ("ok", "fo") and work.limiter.is_settled_once
    (entry,) = work.entries
    assert entry.state == "unknown" and entry.usage.output_tokens > 0
    assert outcome.usage.output_tokens == entry.usage.output_tokens


def test_a_client_that_outlives_its_task_is_refused():
    async def run() -> None:
        from tests.workers.providers.raw_server import raw_server

        async with raw_server(ANSWER) as server:
            await Work(f"{HERE}:goes_on_after_its_task").at(server.url)
            with pytest.raises(DeadlineExceeded, match="return from your function"):
                await seen["client"].chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}])
            assert server.bodies == []

    asyncio.run(run())


def test_a_task_that_may_not_cost_so_much_asks_nobody():
    work = Work(f"{HERE}:chats", task={"max_cost_usd": 0.0005})  # 500 tokens here
    outcome, server = work.run_with(ANSWER)
    assert type(outcome.error) is TooExpensive and server.bodies == [] and not work.limiter.granted


def test_a_dear_task_goes_when_it_asks_for_little():
    work = Work(f"{HERE}:chats", task={"max_cost_usd": 0.0005, "metadata": {"max_completion_tokens": 50}})
    outcome, _ = work.run_with(ANSWER)
    assert (outcome.status, outcome.cost_usd_picos) == ("ok", 15 * 10**6)
    assert work.limiter.granted[0].reserved_tokens < 100


@pytest.mark.parametrize(
    ("task", "pool", "sent", "reserved_out", "noted"),
    [
        ({}, {}, None, PoolSettings().max_output_tokens, {}),
        ({}, {"max_output_tokens": 200}, None, 200, {}),
        ({"metadata": {"max_tokens": 900}}, {}, 900, 900, {}),
        ({"metadata": {"max_tokens": 900}}, {"max_output_tokens": 200}, 200, 200, {"max_output_tokens": 200}),
        ({"metadata": {"max_tokens": 90}}, {"max_output_tokens": 200}, 90, 90, {}),
        ({"metadata": {"max_tokens": 900}, "max_output_tokens": 70}, {}, 70, 70, {"max_output_tokens": 70}),
        ({"metadata": {"max_tokens": 90, "n": 3}}, {}, 90, 270, {}),
    ],
)
def test_the_longest_answer_is_reserved_and_bounded_where_pool_or_task_say_so(
    task: dict[str, Any], pool: dict[str, Any], sent: int | None, reserved_out: int, noted: dict[str, Any]
):
    work = Work(f"{HERE}:chats", task=task, pool=pool)
    outcome, server = work.run_with(ANSWER)
    assert server.bodies[0].get("max_tokens") == sent and server.bodies[0]["model"] == "simulated-1"
    given = work.limiter.granted[0].reserved_tokens - reserved_out
    assert 0 < given < 20 and outcome.sent == {"model": "simulated-1", **noted}


def test_what_the_sdk_sends_as_its_key_is_dropped_and_the_pools_is_put_in():
    _, server = Work(f"{HERE}:chats").run_with(ANSWER)
    head = server.heads[0].lower()
    assert f"authorization: bearer {KEY}" in head and head.count("authorization") == 1
    assert head.startswith("post /v1/chat/completions http/1.1") and "fleet" not in head.replace("user-agent", "")
    assert head.count("content-type") == head.count("content-length") == 1


def test_a_server_that_refuses_to_be_asked_for_the_usage_is_asked_no_more():
    refusal = response({"error": {"message": "Unrecognized request argument: stream_options"}}, status=400)
    work = Work(f"{HERE}:streams")
    outcome, server = work.run_with(refusal, streamed([*OPENAI[:5], "[DONE]"]))
    assert (outcome.status, outcome.answer, outcome.attempts) == ("ok", "four", 2), outcome.error
    assert ["stream_options" in body for body in server.bodies] == [True, False]
    assert "stream_options" in work.lessons.refused("api/simulated-1")


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (response({"error": {"message": "temperature: too hot"}}, status=400), BadRequest),
        (response({"error": {"message": "unprocessable"}}, status=422), BadRequest),
        (response({"error": {"message": "Request too large"}}, status=413), BadRequest),
        (
            response(
                {"error": {"message": "This model's maximum context length is 4096 tokens, you asked for 9000 tokens"}},
                status=400,
            ),
            ContextTooLong,
        ),
    ],
)  # fmt: skip
def test_a_refusal_of_this_request_is_the_sdks_and_fails_as_one(refusal: bytes, kind: type[FleetError]):
    work = Work(f"{HERE}:chats")
    outcome, server = work.run_with(refusal)
    assert type(outcome.error) is kind and outcome.error.blame == "prompt" and len(server.bodies) == 1
    assert work.entries[0].usd_picos == 0 and work.breakers.failures == []
    assert [who for who, _ in work.breakers.well] == ["t1"]


def test_an_api_that_this_server_has_not_is_the_requests_fault_and_no_outage():
    work = Work(f"{HERE}:responds")
    outcome, _ = work.run_with(response({"error": {"message": "Not Found"}}, status=404))
    assert type(outcome.error) is BadRequest and work.breakers.failures == []


def test_a_model_that_is_not_there_makes_the_task_wait():
    missing = response({"error": {"message": "no such model", "code": "model_not_found"}}, status=404)
    work = Work(f"{HERE}:chats")
    outcome, _ = work.run_with(missing, ANSWER)
    assert (outcome.status, outcome.provider_errors) == ("ok", {"NotServed": 1})


async def asks_for_what_is_elsewhere(task: BotTask, bot: LoopBotContext) -> str:
    client = bot.http_client("httpx")
    answers = []
    for path in ("/v1/../../admin/chat/completions", "/v1//chat/completions", "/v1/%2e%2e/messages"):
        try:
            await client.post(f"https://elsewhere.example{path}", json=BODY)
        except FleetError as error:
            answers.append(type(error).__name__)
    return json.dumps(answers)


def test_only_paths_below_the_apis_root_are_asked():
    outcome, server = Work(f"{HERE}:asks_for_what_is_elsewhere").run_with(ANSWER)
    assert server.heads and every("admin" not in head for head in server.heads)
    assert json.loads(str(outcome.answer)) == ["BotFunctionFailed"] * 2


async def lets_a_wrong_path_through(task: BotTask, bot: LoopBotContext) -> str:
    return str(await bot.http_client().post("https://api.example/v1//chat/completions", json=BODY))


async def packs_its_request(task: BotTask, bot: LoopBotContext) -> str:
    packed = {"content-encoding": "gzip"}
    return str(
        await bot.http_client().post("https://a.example/v1/chat/completions", content=b"\x1f\x8b", headers=packed)
    )


@pytest.mark.parametrize("function", ["lets_a_wrong_path_through", "packs_its_request"])
def test_a_request_that_cannot_be_sent_is_its_functions_fault_and_waits_for_nobody(function: str):
    outcome, server = Work(f"{HERE}:{function}").run_with(ANSWER)
    assert type(outcome.error) is BotFunctionFailed and server.heads == [], outcome.error


async def lists_files(task: BotTask, bot: LoopBotContext) -> str:
    answer = await bot.http_client().post("https://api.example/v1/files", json={})
    return f"{answer.status_code} {answer.text}"


def test_a_request_without_a_model_is_tried_again_a_few_times_and_its_refusal_is_the_functions():
    refused = response({"error": {"message": "not with this key"}}, status=403)
    down = response({"error": {"message": "down"}}, status=503)
    outcome, server = Work(f"{HERE}:lists_files").run_with(down, refused)
    assert str(outcome.answer).startswith("403 ") and len(server.heads) == 2
    assert every(f"authorization: bearer {KEY}" in head.lower() for head in server.heads)
    work = Work(f"{HERE}:lists_files", before=NOTHING_BEFORE, share=0.02)
    outcome, server = work.run_with(down)
    assert outcome.parking is not None and len(server.heads) == MOST_PASSED


async def uploads(task: BotTask, bot: LoopBotContext) -> str:
    sound: Any = await bot.openai().audio.transcriptions.create(model="whisper-9", file=("a.wav", b"RIFF" * 100))
    return str(sound.text)


def test_a_form_that_names_a_model_gets_the_pools_and_a_grant():
    work = Work(f"{HERE}:uploads")

    async def run() -> tuple[Outcome, bytes]:
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split()[0])
            asked.append(await reader.readexactly(length))
            writer.write(response({"text": "hello", "usage": {"input_tokens": 7, "output_tokens": 2}}))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            outcome = await work.at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        return outcome, asked[0]

    outcome, asked = asyncio.run(run())
    assert (outcome.answer, outcome.usage.total_tokens) == ("hello", 9), outcome.error
    assert b"simulated-1" in asked and b"whisper-9" not in asked and len(work.limiter.granted) == 1


def test_no_more_usage_is_believed_than_a_request_can_have():
    absurd = {"prompt_tokens": 10**11, "completion_tokens": 10**11}
    told = json.loads(ANSWER.partition(b"\r\n\r\n")[2]) | {"usage": absurd}
    outcome, _ = Work(f"{HERE}:chats").run_with(response(told))
    assert outcome.status == "ok" and outcome.usage.input_tokens < 1_100_000


def test_neither_prompt_nor_key_is_in_the_log_or_the_error(caplog: pytest.LogCaptureFixture):
    refusal = response({"error": {"message": f"bad: a very private prompt {KEY}"}}, status=400)
    with caplog.at_level("DEBUG", logger="fleet"):
        outcome, _ = Work(f"{HERE}:chats", task={"prompt": "a very private prompt"}).run_with(refusal)
    assert "call_failed limit=" in caplog.text
    assert every("private" not in text and KEY not in text for text in (caplog.text, str(outcome.error)))


def test_only_failures_in_a_row_count_against_a_run_of_many_requests():
    down = response({"error": {"message": "down"}}, status=503)

    def run(*answers: bytes) -> Outcome:
        breakers = FakeBreakers(rulings=[OTHERS_DID_WELL], answers=True)
        outcome, _ = Work(f"{HERE}:chats_six_times", breakers=breakers, pool={"max_attempts": 3}).run_with(*answers)
        return outcome

    flaky = run(*[down, down, ANSWER] * 6)
    assert (flaky.status, flaky.answer, flaky.attempts) == ("ok", "444444", 18)
    stuck = run(*[down, down, ANSWER] * 4, down, down, down)
    assert isinstance(stuck.error, OutOfTries) and (stuck.attempts, stuck.fault) == (15, None)


async def writes_anew(task: BotTask, bot: LoopBotContext) -> str:
    body = json.dumps(BODY).encode()
    for is_streamed in (False, True):
        raw = json.dumps({**BODY, "stream": is_streamed}).encode() if is_streamed else body
        with pytest.raises(Moved):
            await bot.exchange(RawRequest("POST", "/v1/chat/completions", {}, raw, may_move=True))
    return str(bot.context.run_watch.turns)


def test_a_request_that_is_written_anew_for_another_wire_is_no_turn():
    outcome, server = Work(f"{HERE}:writes_anew", kind="anthropic").run_with(ANSWER)
    assert (outcome.status, outcome.answer, server.heads) == ("ok", "0", []), outcome.error


def test_a_get_whose_kept_connection_breaks_is_sent_once():
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, provider(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as adapter:
            get = RawRequest("GET", "/models", {}, b"")
            ask = functools.partial(adapter.exchange, get, api_key=KEY, timeout_s=5, on_head=lambda *_: None)
            await ask()
            with pytest.raises(ProviderUnavailable):
                await ask()

    asyncio.run(run())
    assert len(asked) == 2
