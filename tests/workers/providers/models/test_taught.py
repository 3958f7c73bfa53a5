"""What models refuse on pydantic-ai's road: learnt, left out, tried once more after a day, and never asked in vain."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from fleet.errors import BadRequest, Relearnt
from fleet.lessons import PROBE_AFTER_S, Notebook
from fleet.workers.calls import Call, Completion, Wishes
from fleet.workers.providers.models.adapter import Models
from tests.workers.providers.models.test_requests import CHAT, GOOGLE, call, json_of
from tests.workers.providers.models.vendors import GOOD, PIECES, streamed
from tests.workers.providers.raw_server import KEY, RawServer, raw_server, response

REFUSED = response({"error": {"message": "temperature is not supported", "param": "temperature"}}, status=400)
API = f"api/{CHAT}"


def ask(book: Notebook, *calls: Call, answers: tuple[bytes, ...]) -> tuple[list[Any], RawServer]:
    """Send calls in turn; give each answer or its error, and what the server saw."""

    async def main() -> tuple[list[Any], RawServer]:
        found: list[Any] = []
        async with raw_server(*answers) as server:
            adapter = Models(server.url, timeout_s=120, name="api", lessons=book)
            for one in calls:
                try:
                    found.append(await adapter.complete(one, api_key=KEY))
                except (BadRequest, Relearnt) as error:
                    found.append(error)
            await adapter.close()
        return found, server

    return asyncio.run(main())


@pytest.mark.parametrize("is_taken", [True, False])
def test_what_was_refused_a_day_ago_is_sent_once_more_by_one_call_and_forgotten_when_it_is_taken(
    is_taken: bool,
) -> None:
    now_s = [1e9]
    book = Notebook(lambda: now_s[0])
    book.learn(API, "temperature")
    book.learn(API, "topP")  # nothing that this call carries
    now_s[0] += PROBE_AFTER_S
    book.let_probe({(one.api, one.what) for one in book.due()})
    answers = (json_of(GOOD[CHAT]) if is_taken else REFUSED, json_of(GOOD[CHAT]))
    found, server = ask(book, call(model=CHAT), call(model=CHAT), answers=answers)
    assert ["temperature" in body for body in server.bodies] == [True, is_taken]
    assert isinstance(found[0], Completion if is_taken else Relearnt)
    assert book.refused(API) == ({"topP"} if is_taken else {"temperature", "topP"})
    assert book.age_s(API, "temperature") == (None if is_taken else 0)  # renewed for another day


def test_a_server_that_did_not_stream_a_day_ago_is_asked_for_pieces_once_more() -> None:
    async def main() -> None:
        book = Notebook()
        book.learn(API, "stream")
        book.let_probe({(API, "stream")})
        async with raw_server(streamed("openai-chat", PIECES["openai-chat"])) as server:
            adapter = Models(server.url, timeout_s=120, name="api", lessons=book)
            async with aclosing(adapter.stream(call(model=CHAT), api_key=KEY)) as pieces:
                assert len([piece async for piece in pieces]) > 2
            await adapter.close()
            assert server.bodies[0]["stream"] is True and book.refused(API) == set()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("model", "wishes", "told", "named", "field"),
    [
        (GOOGLE, {"top_p": 0.5}, "topP is not supported by this model", "top_p", "topP"),
        (GOOGLE, {"stop": ("END",)}, "Unsupported parameter: 'stopSequences'", "stop", "stopSequences"),
        (GOOGLE, {"thinking_tokens": 512}, "Unknown name 'thinkingConfig': no such field.", "thinking_tokens",
         "thinkingConfig"),
        (CHAT, {"extra_body": {"user": "me"}}, "Unrecognized request argument supplied: user", "user", "user"),
    ],
)  # fmt: skip
def test_a_refused_field_is_the_tasks_where_the_task_asked_for_it_whatever_the_wire_calls_it(
    model: str, wishes: dict[str, Any], told: str, named: str, field: str
) -> None:
    refused = response({"error": {"message": told, "code": 400}}, status=400)
    of_pool = replace(call(model=model, max_output_tokens=4000), wishes=Wishes(**wishes))
    asked = frozenset(wishes)
    of_task = replace(of_pool, wishes=Wishes(**wishes, asked=asked))
    found, _ = ask(Notebook(), of_task, answers=(refused,))
    assert isinstance(found[0], BadRequest) and found[0].blame == "prompt"
    found, server = ask(Notebook(), of_pool, of_pool, answers=(refused, json_of(GOOD[model])))
    assert isinstance(found[0], Relearnt) and found[1].left_out == (named,), found
    assert [f"'{field}':" in str(body) for body in server.bodies] == [True, False]


def test_a_refusal_that_hides_in_a_200_is_learnt_like_any_other() -> None:
    hidden = json_of({"error": {"message": "temperature is not supported by upstream", "code": 400}})
    found, server = ask(Notebook(), call(model=CHAT), call(model=CHAT), answers=(hidden, json_of(GOOD[CHAT])))
    assert isinstance(found[0], Relearnt) and found[1].left_out == ("temperature",)
    assert ["temperature" in body for body in server.bodies] == [True, False]
