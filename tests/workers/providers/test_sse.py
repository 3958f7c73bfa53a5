from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.workers.providers.answers.sse import MAX_EVENT_BYTES, ServerEvent, SseParser, TooLong

STREAM = (
    ': a comment\n\nevent: message_start\ndata: {"a": 1}\n\ndata: one\ndata:two\ndata\nid: 7\nretry: 10\n\n'
    "event: ping\n\n:\ndata: größer → 😀\n\ndata: [DONE]\n\n"
)
EVENTS = [
    ServerEvent("message_start", '{"a": 1}'),
    ServerEvent("", "one\ntwo\n"),
    ServerEvent("", "größer → 😀"),
    ServerEvent("", "[DONE]"),
]


def parsed(chunks: list[bytes]) -> list[ServerEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)] + list(parser.close())


def cut(raw: bytes, borders: set[int]) -> list[bytes]:
    ends = sorted(border for border in borders if border < len(raw))
    return [raw[a:b] for a, b in zip([0, *ends], [*ends, len(raw)], strict=True)]


@given(st.sets(st.integers(0, 400)), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_events_are_the_same_wherever_the_stream_is_cut(borders: set[int], end: str, has_mark: bool, is_ended: bool):
    text = ("\ufeff" if has_mark else "") + (STREAM if is_ended else STREAM.removesuffix("\n"))
    assert parsed(cut(text.replace("\n", end).encode(), borders)) == EVENTS


@given(st.binary(max_size=300), st.sets(st.integers(0, 300)))
def test_any_bytes_give_the_same_events_in_one_piece_as_in_many(raw: bytes, borders: set[int]):
    assert parsed(cut(raw, borders)) == parsed([raw])


LINES = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.lists(LINES, min_size=1, max_size=3), max_size=5), st.sets(st.integers(0, 400)))
def test_whatever_is_sent_comes_out(events: list[list[str]], borders: set[int]):
    raw = "".join("".join(f"data: {line}\n" for line in lines) + "\n" for lines in events).encode()
    assert parsed(cut(raw, borders)) == [ServerEvent("", "\n".join(lines)) for lines in events]


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"x" * 65530 + b"\n"])
def test_an_event_without_an_end_is_refused_before_it_fills_the_memory(piece: bytes):
    parser, sent = SseParser(), 0
    with pytest.raises(TooLong, match="at most"):
        while sent < 2 * MAX_EVENT_BYTES:
            sent += len(piece)
            list(parser.feed(piece))
    assert sent <= MAX_EVENT_BYTES + 2 * len(piece)
