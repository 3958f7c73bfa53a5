"""Streamed answers on their way to an SDK: byte for byte but for what Fleet asked for, however they are cut."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.frameworks.asked import read
from fleet.workers.frameworks.passing import Passing
from fleet.workers.frameworks.raw import RawRequest
from tests.workers.providers.test_streams import ANTHROPIC, OPENAI, chunk

EVENTS = {"content-type": "text/event-stream"}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


def wire(said: list[Any], end: str = "\n\n") -> bytes:
    line = end[: len(end) // 2]

    def written(one: Any) -> str:
        name = f"event: {one['type']}{line}" if isinstance(one, dict) and "type" in one else ""
        return f"{name}data: {one if isinstance(one, str) else json.dumps(one)}{end}"

    return "".join(map(written, said)).encode()


def passed(kind: str, pieces: list[bytes], *, hides_usage: bool = False) -> tuple[bytes, Passing, list[int]]:
    """Let an answer pass; give what the SDK got, and after how many pieces each came."""
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    ask, got, at = read(RawRequest("POST", PATHS[kind], {}, body)), list[bytes](), list[int]()
    heads: list[int] = []
    passing = Passing(ask, lambda status, headers: heads.append(status), got.append, collects=True)
    passing.begin(200, EVENTS, hides_usage=hides_usage)
    for piece in pieces:
        passing.feed(piece)
        at.append(len(got))
    passing.close()
    assert heads == ([200] if got else [])
    return b"".join(got), passing, at


@given(
    cuts=st.lists(st.integers(0, 2000), max_size=12), end=st.sampled_from(["\n\n", "\r\n\r\n"]),
    kind=st.sampled_from(["openai", "anthropic"]), hides=st.booleans(),
)  # fmt: skip
def test_however_an_answer_is_cut_the_sdk_gets_it_but_for_what_it_did_not_ask(
    cuts: list[int], end: str, kind: str, hides: bool
) -> None:
    said = OPENAI if kind == "openai" else ANTHROPIC
    raw = wire(said, end)
    places = [0, *sorted({min(cut, len(raw)) for cut in cuts}), len(raw)]
    pieces = [raw[start:stop] for start, stop in itertools.pairwise(places)]
    got, passing, _ = passed(kind, pieces, hides_usage=hides and kind == "openai")
    hidden = [one for one in said if isinstance(one, dict) and one.get("choices") == []]
    wanted = [one for one in said if one not in hidden] if hides and kind == "openai" else said
    assert got == wire(wanted, end)
    used = passing.used()
    assert used is not None and (used.input_tokens, used.output_tokens) == (12, 3)
    assert passing.is_whole and passing.has_ended and passing.error is None


def test_nothing_is_handed_on_before_something_is_said():
    _, passing, at = passed("openai", [wire([one]) for one in OPENAI])
    assert at[0] == 0 and at[1] == 2 and passing.has_told
    _, _, at = passed("anthropic", [wire([one]) for one in ANTHROPIC])
    assert at[0] == 0 and at[1] == 2


def test_a_call_of_a_tool_is_something_said():
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
    first = {"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]}
    _, passing, at = passed("openai", [wire([first])])
    assert at == [1] and passing.has_told and not passing.is_whole


@pytest.mark.parametrize("before", [[], OPENAI[:1], OPENAI[:3]])
def test_an_error_is_kept_from_the_sdk_and_nothing_after_it_is_an_answer(before: list[Any]):
    raw = wire([*before, {"error": {"message": "overloaded", "code": 503}}])
    got, passing, _ = passed("openai", [raw])
    assert b"overloaded" not in got and passing.error is not None and b"overloaded" in passing.error
    assert bool(got) is (len(before) > 1)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_the_answer_is_put_together_as_if_it_had_come_in_one_piece(kind: str):
    _, passing, _ = passed(kind, [wire(OPENAI if kind == "openai" else ANTHROPIC)])
    assert "four" in json.dumps(passing.answer())


def test_the_next_try_begins_anew():
    body = json.dumps({"model": "m", "stream": True, "messages": []}).encode()
    got: list[bytes] = []
    ask = read(RawRequest("POST", PATHS["openai"], {}, body))
    passing = Passing(ask, lambda status, headers: None, got.append, collects=True)
    passing.begin(200, EVENTS, hides_usage=False)
    passing.feed(wire(OPENAI[:1]))
    passing.begin(200, EVENTS, hides_usage=False)
    passing.feed(wire([chunk("whole"), chunk(finish="stop"), "[DONE]"]))
    passing.close()
    assert b"".join(got) == wire([chunk("whole"), chunk(finish="stop"), "[DONE]"])


def test_a_long_event_in_many_pieces_takes_a_time_that_grows_as_its_length():
    """Pictures come in such events: where each piece is joined to all before it, 4 MB held the loop for 8 s."""
    raw = wire([chunk("x" * 4_000_000), chunk(finish="stop"), "[DONE]"])
    began = time.process_time()
    got, passing, _ = passed("openai", [raw[at : at + 4096] for at in range(0, len(raw), 4096)])
    assert time.process_time() - began < 2 and got == raw and passing.is_whole
