"""Places of a prompt that are marked for the provider's cache: read, sent, bounded, refused, left out and billed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.config import PriceSettings
from fleet.conversation import Message, TextPart, Tool, marks_of
from fleet.economy.list_rates import list_rates
from fleet.economy.rates import configured_rates
from fleet.engine.messages.envelope import task_body
from fleet.errors import InvalidTask, Relearnt
from fleet.lessons import Notebook
from fleet.list_prices import Seller, listed_of
from fleet.models import BotTask
from fleet.schema import compiled
from fleet.workers.bot import json_answer
from fleet.workers.calls import Completion, Wishes
from fleet.workers.context import fit
from fleet.workers.load import may_write_for_an_hour
from fleet.workers.providers.taught.student import asked_of
from tests.workers.providers.models.test_requests import ANTHROPIC as CLAUDE_BY_SDK
from tests.workers.providers.models.test_requests import CHAT, json_of
from tests.workers.providers.models.test_requests import ask as ask_by_sdk
from tests.workers.providers.models.vendors import ENVIRONMENT, GOOD
from tests.workers.providers.raw_server import KEY, call, provider, response
from tests.workers.providers.test_asked_bodies import SAID, TOOL, conforms, send
from tests.workers.providers.test_lessons import talk
from tests.workers.simulator.running import running, total

SHORT, LONG = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.y/a.png"}}
USED = {"id": "c1", "name": "temperature", "input": {}}
#: Marks wherever Anthropic's wire has them: within a system prompt, on an image, a result of a tool, a last text.
MARKED: list[dict[str, Any]] = [
    {"role": "system", "content": [{"type": "text", "text": "Rules.", "cache_control": LONG},
                                   {"type": "text", "text": "Today is Monday."}]},
    {"role": "user", "content": [{**IMAGE, "cache_control": SHORT}, {"type": "text", "text": "How warm?"}]},
    {"role": "assistant", "content": [{"type": "tool_use", **USED}]},
    {"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "c1", "content": "21", "cache": "5m"},
        {"type": "text", "text": "And now?", "cache_control": SHORT},
    ]},
]  # fmt: skip


def conversation(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return BotTask.parse(messages=list(messages)).conversation()


def marked_blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of a request that are marked, in the order in which a prompt holds them."""
    turns = [block for turn in body["messages"] if isinstance(turn["content"], list) for block in turn["content"]]
    system = body.get("system")
    blocks = [*body.get("tools", ()), *(system if isinstance(system, list) else ()), *turns]
    return [block for block in blocks if "cache_control" in block]


@pytest.mark.parametrize(
    ("mark", "kept"),
    [
        ({"cache_control": SHORT}, "5m"),
        ({"cache_control": LONG}, "1h"),
        ({"cache": "1h"}, "1h"),
        ({"prompt_cache_breakpoint": {"mode": "explicit"}}, "5m"),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}, "1h"),
        ({"cache_control": None}, None),
    ],
)
def test_a_mark_is_read_in_every_vendors_spelling_wherever_it_stands_and_travels(mark: Any, kept: str | None) -> None:
    text = {"type": "text", "text": "a", **mark}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [text]}
    messages = [
        {"role": "user", "content": [text, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "a", **mark},
        {"role": "user", "content": [text]},
        {"role": "assistant", "content": [{"type": "tool_use", **USED, **mark}]},
        {"role": "user", "content": [result]},
    ]
    tools = [{"name": "temperature", **mark}, {"type": "function", "function": {"name": "other"}, **mark}]
    task = BotTask.parse(messages=messages[2:3] if kept else messages, tools=tools)
    arrived = BotTask.parse(**json.loads(task_body(task, "research"))[1])
    assert arrived.messages == task.messages and [tool.cache for tool in arrived.tools] == [kept, kept]
    found = [list(marks_of(conversation(*one))) for one in (messages[:1], messages[1:2], messages[2:3], messages[3:])]
    assert found == ([[kept], [kept], [kept], [kept, kept]] if kept else [[]] * 4)
    assert conversation(messages[1])[0].content == conversation(messages[2])[0].content == "a"  # a text as before


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"messages": [{"role": "user", "content": "a", "cache_control": SHORT}] * 5}, "at most 4 marked places"),
        ({"messages": [{"role": "user", "content": "a", "cache": "5m"}] * 3,
          "tools": [{"name": f"t{n}", "cache": "1h"} for n in range(2)]}, "at most 4 marked places, got 5"),
        ({"messages": [{"role": "user", "content": "a", "cache": mark} for mark in ("5m", "1h")]},
         "kept for 1h before those for 5m"),
        ({"messages": [{"role": "user", "content": "a", "cache_control": {"type": "ephemeral", "ttl": "2d"}}]},
         "cache_control.ttl: expected 5m or 1h, got '2d'"),
        ({"messages": [{"role": "user", "content": "a", "cache_control": "yes"}]}, "cache_control: expected"),
        ({"messages": [{"role": "user", "content": "a", "cache": "9m"}]}, "messages.0.cache"),
        ({"prompt": "a", "tools": [{"name": "t", "cache_control": {"type": "persistent"}}]}, "cache_control: expected"),
    ],
)  # fmt: skip
def test_marks_beyond_what_a_provider_takes_are_refused_by_name(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        BotTask.parse(**fields)
    assert told in str(refused.value)


def test_marks_go_out_on_anthropics_wire_where_they_stood() -> None:
    tools = BotTask.parse("x", tools=[{"name": "temperature", "cache_control": LONG}]).tools
    body, completion, _ = send("anthropic", messages=conversation(*MARKED)[:3], wishes=Wishes(tools=tools))
    conforms("anthropic", body)
    assert [block["cache_control"] for block in marked_blocks(body)] == [LONG, LONG, SHORT]
    assert [block.get("cache_control") for block in body["system"]] == [LONG, None]
    assert MARK not in completion.left_out
    body, _, _ = send("anthropic", messages=conversation(*MARKED))
    conforms("anthropic", body)
    assert [block["type"] for block in marked_blocks(body)] == ["text", "image", "tool_result", "text"]


MARK = "cache_control"


@pytest.mark.parametrize("extra", [{}, {MARK: SHORT}])
def test_of_more_marks_than_the_wire_takes_the_last_ones_go_out_and_it_is_said(extra: dict[str, Any]) -> None:
    """Tools and turns of a bot function's chat are counted together only here; a mark for all of it is one more."""
    tools = tuple(Tool(name=f"t{n}", cache="1h") for n in range(3))
    messages = (Message(role="system", content="Rules.", cache="5m"), Message(role="user", content="Hi", cache="5m"))
    body, completion, _ = send("anthropic", messages=messages, wishes=Wishes(tools=tools, extra_body=extra))
    conforms("anthropic", body)
    assert len(marked_blocks(body)) + len(extra) == 4
    assert MARK not in body["tools"][0] and body["messages"][-1]["content"][-1][MARK] == SHORT
    assert completion.left_out == (MARK,)


def test_where_a_wire_has_no_marks_they_are_left_out_and_it_is_said() -> None:
    body, completion, _ = send("openai", messages=conversation(*MARKED), wishes=Wishes(tools=(TOOL,)))
    conforms("openai", body)
    assert MARK not in json.dumps(body) and completion.left_out == (MARK,)
    assert body["messages"][0]["content"] == "Rules.\nToday is Monday."  # no parts where texts alone are marked
    assert asked_of(completion.left_out, Wishes()) == [MARK]  # so the result lists it
    _, plain, _ = send("openai")
    assert plain.left_out == ()


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_refuses_marks_gets_none_from_the_next_call_on(status: int) -> None:
    told = {"type": "error", "error": {"type": "invalid_request_error", "message": (
        "messages.0.content.0.text.cache_control: Extra inputs are not permitted"
    )}}  # fmt: skip
    schema = {"type": "object", "properties": {MARK: {"type": "string"}}}
    wishes = Wishes(tools=(Tool(name="t", cache="5m", parameters=schema),), asked=frozenset({"tools"}))
    asked = replace(call(), messages=conversation(*MARKED), wishes=wishes)
    notebook = Notebook()
    came, bodies = talk(
        response(told, status=status), response(SAID["anthropic"]), calls=[asked, asked], kind="anthropic",
        notebook=notebook,
    )  # fmt: skip
    assert isinstance(came[0], Relearnt) and notebook.refused("api/simulated-1") == {MARK}
    assert isinstance(came[1], Completion) and came[1].left_out == (MARK,)
    assert len(marked_blocks(bodies[0])) == 4 and marked_blocks(bodies[1]) == []
    assert bodies[1]["tools"][0]["input_schema"] == schema  # a property of that name is the user's own


def test_marks_stay_where_the_persona_the_schema_and_the_window_change_a_conversation() -> None:
    persona = Message(role="system", content="You are an analytical bot.")
    turns = (persona, *conversation(*MARKED))
    kept = fit(turns, 8000, 500)
    assert list(marks_of(kept)) == list(marks_of(turns)) and kept[0].text.startswith(persona.content + "\nRules.")
    whole = (persona, Message(role="system", content="Rules.", cache="1h"), *turns[-1:])
    ruled = json_answer.with_rules(fit(whole, 8000, 500), json_answer.rules(compiled({"type": "object"}), 4000), ())
    assert isinstance(ruled[0].content, tuple) and ruled[0].cache is None
    assert [getattr(part, "cache", None) for part in ruled[0].content] == [None, "1h", None]
    long = Message(role="user", content=(TextPart(text="word " * 9000, cache="1h"), TextPart(text="and?")))
    assert list(marks_of(fit((persona, long), 1000, 100))) == ["1h"]


def test_pydantic_ais_road_sends_marks_to_vendors_that_have_them_and_names_them_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    tools = (Tool(name="temperature", cache="1h"),)
    for model in (CLAUDE_BY_SDK, CHAT):
        wanted = replace(call(model=model, timeout_s=120), messages=conversation(*MARKED), wishes=Wishes(tools=tools))
        completion, server = ask_by_sdk(wanted, json_of(GOOD[model]))
        (body,) = server.bodies
        if model == CLAUDE_BY_SDK:
            assert body["tools"][0][MARK]["ttl"] == body["system"][-1][MARK]["ttl"] == "1h"
            assert {block.get("type") for block in marked_blocks(body)} >= {"image", "text"}
            assert MARK not in completion.left_out
        else:
            assert MARK not in json.dumps(body) and MARK in completion.left_out


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_what_is_written_to_the_cache_is_billed_by_how_long_it_is_kept(ttl: str) -> None:
    prices = {
        "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 0.0, "cached_usd_per_mtok": 0.1,
        "cache_write_usd_per_mtok": 1.25, "cache_write_1h_usd_per_mtok": 2.0,
    }  # fmt: skip
    rules = {"role": "system", "content": "Rules. " * 1500, "cache": ttl}
    asked = replace(call(), messages=conversation(rules, {"role": "user", "content": "Hello"}))

    async def twice(url: str) -> list[Completion]:
        async with provider(url, "anthropic") as adapter:
            return [await adapter.complete(asked, api_key=KEY) for _ in range(2)]

    with running(**prices) as url:
        first, second = asyncio.run(twice(url))
        billed = total(url)["billed_usd_micros"]
    written = first.usage.cache_write_tokens
    assert written > 1024 and first.usage.cache_write_1h_tokens == (written if ttl == "1h" else 0)
    assert second.usage.cached_tokens == written and second.usage.cache_write_tokens == 0
    rates = configured_rates(PriceSettings.model_validate(prices), None)
    assert rates is not None
    ours = sum(rates.cost_usd_picos(completion.usage) for completion in (first, second)) / 10**6
    assert ours == pytest.approx(billed, abs=1)


def usage_told(
    usage: dict[str, Any], *messages: dict[str, Any], extra: dict[str, Any] | None = None
) -> tuple[int, int]:
    """Return what was written to the cache by an answer's word, and of that for an hour."""
    _, completion, _ = send(
        "anthropic", messages=conversation(*messages), answer={**SAID["anthropic"], "usage": usage},
        wishes=Wishes(extra_body=extra or {}),
    )  # fmt: skip
    return completion.usage.cache_write_tokens, completion.usage.cache_write_1h_tokens


def test_a_provider_that_does_not_say_how_long_it_keeps_has_done_what_was_asked() -> None:
    told = {"input_tokens": 9, "cache_creation_input_tokens": 100, "output_tokens": 10}
    hour, short = {"role": "user", "content": "a", "cache": "1h"}, {"role": "user", "content": "b", "cache": "5m"}
    plain = {"role": "user", "content": "c"}
    assert usage_told(told, hour) == usage_told(told, plain, extra={MARK: LONG}) == (100, 100)
    assert usage_told(told, hour, short) == usage_told(told, short) == usage_told(told, plain) == (100, 0)
    lives = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0}
    assert usage_told({**told, "cache_creation": lives}, hour) == (100, 0)


def test_what_may_be_kept_for_an_hour_is_reserved_at_its_price_and_claudes_list_price_has_one() -> None:
    plain = (Message(role="user", content="a"),)
    hour = (Message(role="user", content="a", cache="1h"),)
    assert may_write_for_an_hour(hour, Wishes()) and may_write_for_an_hour(plain, Wishes(extra_body={MARK: LONG}))
    assert not may_write_for_an_hour(plain, Wishes(extra_body={MARK: SHORT}))
    entry = listed_of(Seller("anthropic", "anthropic"), "claude-sonnet-4-5")
    assert entry is not None
    rates = list_rates(entry, None, standard=True, now_s=1_795_000_000.0)
    assert rates is not None
    parts = dict(rates.steps[0].parts)
    assert parts["cache_write_tokens"] == 0.25 * rates.steps[0].input
    assert parts["cache_write_1h_tokens"] == 0.75 * rates.steps[0].input


def test_the_simulator_refuses_a_fifth_mark_as_the_vendor_does() -> None:
    parts = [{"type": "text", "text": f"{n}", MARK: SHORT} for n in range(5)]

    async def post(url: str) -> tuple[int, str]:
        import aiohttp

        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": parts}]}
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/messages", json=body, headers=headers) as r,
        ):
            return r.status, await r.text()

    with running() as url:
        status, told = asyncio.run(post(str(url)))
    assert status == 400 and "A maximum of 4 blocks with cache_control" in told
