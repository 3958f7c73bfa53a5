"""Calls that could be answered in the background, and what becomes of them where that is refused. No network."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest

from fleet.batches import Arrived, Leaving
from fleet.conversation import Message
from fleet.errors import BadRequest, NotServed, NotSoon, ProviderUnavailable
from fleet.usage import Usage
from fleet.waits import Wait
from fleet.workers.calls import Call, Completion, Wishes
from fleet.workers.deadline import Deadline
from fleet.workers.meter import Meter
from fleet.workers.providers.batches.background import LaterApi, completion_of, response_of
from tests.workers.fakes import LIMIT, FakeLimiter, FakeProvider, a_gateway

LANE = "background-2h"
BODY = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 9}


class Later(FakeProvider):
    """A provider whose background responses are begun as `begun` says; the rest is said at once."""

    has_files = True

    def __init__(self, begun: Exception | str, body: dict[str, Any] | None = None) -> None:
        super().__init__(["said at once"])
        self.begun, self.body, self.windows = begun, body or BODY, list[str]()

    def later_body(self, call: Call) -> bytes:
        return json.dumps(self.body).encode()

    def later_answer(self, call: Call, raw: bytes) -> Completion:
        return Completion(json.loads(raw)["said"], "stop", Usage(input_tokens=7, output_tokens=3))

    def batches(self, key: Callable[[], str]) -> Any:
        return self

    def takes(self, body: bytes) -> bool:
        return LaterApi.takes(self, body)  # type: ignore[arg-type]

    async def begin(self, body: bytes, window: str) -> str:
        self.windows.append(window)
        if isinstance(self.begun, Exception):
            raise self.begun
        return self.begun


class Chooser:
    """Lanes of which the background is the cheapest."""

    def __init__(self) -> None:
        self.lacking, self.left, self.back = list[str](), list[tuple[Leaving, str]](), None

    def lane(self, *_: object, may_batch: bool, besides: Collection[str] = (), **__: object) -> str:
        return LANE if may_batch and LANE not in {*besides, *self.lacking} else "standard"

    def used(self, *_: object) -> None: ...

    def busy(self, *_: object) -> None: ...

    def lacks(self, api: str, lane: str) -> None:
        self.lacking.append(lane)

    async def leave(self, leaving: Leaving) -> None:
        raise AssertionError("no batch")

    async def begun(self, leaving: Leaving, batch: str) -> None:
        self.left.append((leaving, batch))

    async def unread(self, task: str) -> None:
        raise AssertionError("it can be read")

    async def came(self, task: str) -> Arrived | None:
        if self.left:
            raise NotSoon(Wait("batch", about=LIMIT, is_everyones=False))
        return self.back


def ask(provider: Later, chooser: Chooser, limiter: FakeLimiter | None = None) -> tuple[Completion, Meter]:
    gateway = a_gateway(limiter or FakeLimiter(), provider, price=lambda api, usage, tier: usage.total_tokens)
    gateway.take_lanes(chooser)
    meter = Meter(who="t")
    wishes = Wishes(by_at=time.time() + 8000, may_leave=True, may_be_back=True)

    async def go() -> Completion:
        return await gateway.chat(
            "research", (Message(role="user", content="Why?"),), temperature=None, max_output_tokens=9,
            deadline=Deadline(asyncio.get_running_loop().time() + 60), meter=meter, wishes=wishes,
        )  # fmt: skip

    return asyncio.run(go()), meter


def test_a_call_leaves_with_its_grants_ticket_and_only_its_input_counts_for_the_limit() -> None:
    provider, chooser, limiter = Later("resp_1"), Chooser(), FakeLimiter()
    with pytest.raises(NotSoon):
        ask(provider, chooser, limiter)
    ((leaving, batch),) = chooser.left
    assert (leaving.lane, leaving.limit, batch, provider.windows) == (LANE, LIMIT, "resp_1", ["2h"])
    assert leaving.ticket == limiter.granted[0].ticket and not provider.calls
    ((grant, used),) = limiter.settled
    assert used == grant.reserved_tokens - grant.reserved_output_tokens


@pytest.mark.parametrize(
    ("refusal", "is_lacking"),
    [
        (NotServed("404"), True), (BadRequest("background_options: unknown"), True),
        (BadRequest("content rules", blame="prompt"), False),
    ],
)  # fmt: skip
def test_a_refusal_sends_the_call_on_another_lane_and_only_what_is_no_fault_of_its_prompt_shuts_this_one(
    refusal: Exception, is_lacking: bool
) -> None:
    provider, chooser = Later(refusal), Chooser()
    answer, _ = ask(provider, chooser)
    assert answer.text == "said at once" and (chooser.lacking == [LANE]) == is_lacking
    assert not chooser.left


def test_what_the_wire_cannot_say_in_the_background_is_asked_at_once() -> None:
    provider, chooser = Later("resp_1", {**BODY, "tools": []}), Chooser()
    assert ask(provider, chooser)[0].text == "said at once" and provider.windows == []
    assert not chooser.lacking


def test_a_lost_reply_is_the_calls_failure_like_any_other() -> None:
    chooser = Chooser()
    with pytest.raises(ProviderUnavailable):
        ask(Later(ProviderUnavailable("cut off", sent=True)), chooser)
    assert not chooser.left and not chooser.lacking


def test_an_answer_that_is_back_is_charged_in_its_lane_and_not_asked_again() -> None:
    provider, chooser = Later("resp_1"), Chooser()
    chooser.back = Arrived(LIMIT, b'{"said": "later"}', LANE)  # type: ignore[assignment]
    answer, meter = ask(provider, chooser)
    assert (answer.text, answer.tier, meter.calls, meter.cost_usd_picos) == ("later", LANE, 1, 10)


def test_a_chat_completion_is_told_as_a_response_and_back() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}}
    chat = {**BODY, "temperature": 0.5, "reasoning_effort": "low", "verbosity": "low", "response_format": form}
    asked = response_of(json.dumps(chat).encode(), "8h")
    assert asked["text"] == {"verbosity": "low", "format": {"type": "json_schema", **form["json_schema"]}}  # type: ignore[dict-item]
    assert (asked["max_output_tokens"], asked["reasoning"], asked["store"]) == (9, {"effort": "low"}, True)
    assert asked["background_options"] == {"completion_window": "8h"} and asked["input"] == chat["messages"]
    said = {"type": "message", "content": [{"type": "output_text", "text": "Be"}, {"type": "refusal", "refusal": "no"}]}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [said]}
    back = completion_of(cut)
    assert back is not None
    (choice,) = back["choices"]
    assert (choice["message"]["content"], choice["message"]["refusal"], choice["finish_reason"]) == (
        "Be",
        "no",
        "length",
    )
    assert completion_of({"status": "failed"}) is completion_of({"status": "cancelled"}) is None
