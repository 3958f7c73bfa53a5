"""What each vendor is told of documents with which many prompts begin: a key for its cache, a marked place."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from fleet.conversation import Message, TextPart
from fleet.workers.calls import Call, Wishes
from fleet.workers.load import may_write_for_an_hour
from fleet.workers.providers.anthropic import Anthropic
from fleet.workers.providers.openai_compatible import OpenAICompatible

DOCUMENTS = TextPart(text="The handbook.")
MESSAGES = (
    Message(role="system", content=(DOCUMENTS, TextPart(text="You are brief."))),
    Message(role="user", content="Who signs?"),
)


def call(messages: tuple[Message, ...] = MESSAGES, **wishes: Any) -> Call:
    return Call("m", messages, None, 100, 60.0, Wishes(**wishes))


def marks(body: dict[str, Any]) -> list[Any]:
    blocks = [
        *body["system"],
        *(b for turn in body["messages"] if isinstance(turn["content"], list) for b in turn["content"]),
    ]
    return [block.get("cache_control") for block in blocks if isinstance(block, dict)]


@pytest.mark.parametrize(
    ("address", "is_told"),
    [
        ("https://api.openai.com/v1", True), ("https://eu.api.openai.com/v1", True),
        ("https://me.openai.azure.com/openai/v1", True), ("http://127.0.0.1:8000/v1", False),
        ("https://api.groq.com/openai/v1", False),
    ],
)  # fmt: skip
def test_openai_alone_is_told_a_key_for_its_cache_and_only_with_documents(address: str, is_told: bool) -> None:
    api = OpenAICompatible(URL(address))
    assert api._body(call(prefix="abc")).get("prompt_cache_key") == ("abc" if is_told else None)
    assert "prompt_cache_key" not in api._body(call())
    own = api._body(call(prefix="abc", extra_body={"prompt_cache_key": "mine"}))
    assert own["prompt_cache_key"] == "mine"
    assert own["messages"][0]["content"].startswith("The handbook.")


def test_anthropic_is_told_where_the_documents_end_and_how_long_they_are_wanted() -> None:
    api = Anthropic(URL("https://api.anthropic.com"))
    assert marks(api._body(call(prefix="abc", keep="5m"))) == [{"type": "ephemeral"}, None]
    assert marks(api._body(call(prefix="abc", keep="1h"))) == [{"type": "ephemeral", "ttl": "1h"}, None]
    assert api._body(call(prefix="abc"))["system"] == api._body(call())["system"] == "The handbook.\nYou are brief."
    assert api._left_out(call(prefix="abc", keep="5m")) == ()


def test_marks_of_the_task_stay_in_an_order_that_is_taken_and_are_no_more_than_are_taken() -> None:
    api = Anthropic(URL("https://api.anthropic.com"))
    asked = tuple(TextPart(text=f"note {n}", cache="1h") for n in range(3))
    few = call((MESSAGES[0], Message(role="user", content=asked)), prefix="abc", keep="5m")
    assert [mark and mark["ttl"] for mark in marks(api._body(few))] == ["1h", None, "1h", "1h", "1h"]
    many = call((MESSAGES[0], Message(role="user", content=(*asked, asked[0]))), prefix="abc", keep="5m")
    assert sum(mark is not None for mark in marks(api._body(many))) == 4


def test_what_may_be_written_for_an_hour_is_reserved_at_its_price() -> None:
    assert may_write_for_an_hour(MESSAGES, Wishes(prefix="abc", keep="1h"))
    assert not may_write_for_an_hour(MESSAGES, Wishes(prefix="abc", keep="5m"))
