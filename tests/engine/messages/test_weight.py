"""What is decoded and what is refused unread: the weight of a message is told before it is decoded."""

from __future__ import annotations

import base64
import bz2
import contextlib
import json
import lzma
import time
import zlib
from collections.abc import Callable
from typing import Any

import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import bounds
from fleet.engine.messages import weight
from fleet.engine.transport import message as reading
from fleet.errors import InvalidTask

M = 1_000_000


def message(body: bytes = b'[["x"],{},{}]', headers: dict[str, Any] | None = None, **change: Any) -> bytes:
    """Return a message as kombu writes it."""
    whole = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "fleet.submit_task", "id": "t1", **(headers or {})},
        "properties": {"correlation_id": "t1", "delivery_info": {}, "body_encoding": "base64"},
    }
    return json.dumps(whole | change).encode()


HEAVY = {
    "lists": b"[" + b"[]," * (2 * M) + b"0]",
    "nested lists": b"[" + (b"[" * 100 + b"]" * 100 + b",") * 30_000 + b"0]",
    "names": json.dumps({f"x{number}": 1 for number in range(300_000)}).encode(),
    "texts": json.dumps(["x"] * 400_000).encode(),
    "empty texts": b'["' + b'","' * (2 * M) + b'"]',
    "numbers": b"[" + b"0," * (3 * M) + b"0]",
    "escapes": b'["' + b"\\u4e00" * 1_200_000 + b'"]',
    "open brackets": b"[" * M,
    "quotes": b'"' * (6 * M),
    "backslashes": b"\\" * (6 * M),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_what_takes_long_to_decode_is_heavy_and_that_is_told_soon(kind: str) -> None:
    started = time.thread_time()
    assert weight.weight(HEAVY[kind]) > weight.MAX_WEIGHT
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([["What is 1 + 2, and why? [a] {b: c}\n" * 100_000], {}, {}]).encode(),
        json.dumps([["\u4e2d" * 900_000], {}, {}]).encode(),
        json.dumps([[], {"messages": [{"role": "user", "content": "hi"}] * 5000}, {}]).encode(),
        json.dumps([[{f"x{number}": 1 for number in range(50_000)}], {}, {}]).encode(),
    ],
)
def test_long_prompts_and_conversations_are_no_weight(body: bytes) -> None:
    weight.check_weight(body)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_have_a_weight_and_a_message_or_a_typed_refusal(text: bytes, copies: int) -> None:
    raw = text * (1 + copies * 1000)
    assert weight.weight(raw) >= 0
    assert reading_of(raw) in (dict, InvalidTask, "none")


def reading_of(raw: bytes) -> object:
    try:
        found: object = reading.decoded(raw)
        return dict if isinstance(found, dict) else "none"
    except InvalidTask:
        return InvalidTask
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # what the channel puts aside
        return "none"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    )
)
def test_the_weight_counts_every_value_whatever_the_texts_hold(value: Any) -> None:
    big = json.dumps([value, "x" * weight.LIGHT_BYTES]).encode()

    def values(item: Any) -> int:
        if isinstance(item, dict):
            return 4 + sum(1 + values(inner) for inner in item.values())
        return 4 + sum(map(values, item)) if isinstance(item, list) else 0

    commas_at_least = values(value)
    assert weight.weight(big) >= commas_at_least


def test_a_refusal_names_five_unknown_fields_at_most_and_stays_below_one_kilobyte() -> None:
    with pytest.raises(InvalidTask) as refused:
        weight.check_weight(json.dumps([[], {f"{chr(121) * 25}{n}": 1 for n in range(80_000)}, {}]).encode())
    assert len(str(refused.value).encode()) <= 1000
    with pytest.raises(InvalidTask, match="begins with unknown fields: x0, x1, x2, x3, x4") as refused:
        weight.check_weight(json.dumps([[], {f"x{n}": 1 for n in range(80_000)}, {}]).encode())
    assert "x5" not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (message(b'["' + b"x" * (8 * M) + b'"]'), "of at most 7,000,000 bytes, got 8,000,0"),
        (message(headers={"big": "x" * M}), "of at most|at most 65,536 bytes of headers, got 1,000,"),
        (message(headers={f"h{number}": 1 for number in range(300_000)}), "at most 65,536 bytes of headers"),
        (weight.cut(message(b"x" * (20 * M))), "at most 16,000,000 bytes, got 26,66"),
    ],
)
def test_a_message_that_is_too_large_keeps_its_id_and_says_why(raw: bytes, why: str) -> None:
    found = reading.decoded(raw)
    assert (found["headers"]["id"], found["body"]) == ("t1", "")
    with pytest.raises(InvalidTask, match=why):
        raise InvalidTask(found["headers"][reading.REFUSED])


def test_a_message_that_is_too_large_and_names_no_task_is_put_aside() -> None:
    for raw in (b"[" * (20 * M), weight.cut(b"x" * (20 * M)), message(headers={"id": "i" * M})):
        with pytest.raises(InvalidTask):
            reading.decoded(raw)


def test_tasks_of_your_own_are_bound_by_their_bytes_alone() -> None:
    many = json.dumps([[[{"answer": "x"}] * 100_000], {}, {}]).encode()
    found = reading.decoded(message(many, {"task": "mine.sum"}))
    assert reading.REFUSED not in found["headers"] and len(found["body"]) > len(many)


@pytest.mark.parametrize(
    ("way", "compress"), [("gzip", zlib.compress), ("application/x-bz2", bz2.compress), ("xz", lzma.compress)]
)
def test_a_compressed_body_is_read_as_far_as_a_task_may_go(way: str, compress: Callable[[bytes], bytes]) -> None:
    assert weight.decompressed(compress(b"[[], {}, {}]"), way, 100) == b"[[], {}, {}]"
    with pytest.raises(InvalidTask, match="a compressed one that is longer"):
        weight.decompressed(compress(b"x" * (20 * M)), way, bounds.MAX_BODY_BYTES)
    with pytest.raises(InvalidTask, match="compression: expected a body in"):
        weight.decompressed(b"no such thing", way, 100)


@pytest.mark.parametrize("way", ["rot13", "zstd", 5, ["gzip"]])
def test_compression_whose_result_cannot_be_bounded_is_refused(way: object) -> None:
    with pytest.raises(InvalidTask, match="compression: expected gzip, bzip2 or lzma"):
        weight.decompressed(b"x", way, 100)


def test_the_bounds_hold_one_decoding_below_20_ms() -> None:
    """The heaviest texts that pass, each decoded by what a worker decodes with; measured on the thread's own clock."""
    lightest = [
        b'["' + b"\\u4e00" * 1_000_000 + b'"]',
        json.dumps({f"x{number}": 1 for number in range(60_000)}).encode(),
        b"[" + b"[]," * 28_000 + b"0]",
        b"[" * weight.LIGHT_BYTES,
        b'["' + b"x" * (6 * M) + b'"]',
    ]
    for text in lightest:
        assert weight.weight(text) <= weight.MAX_WEIGHT
        assert (
            min(seconds(lambda text=text: pydantic_core.from_json(text)) for _ in range(3)) < 0.04
        )  # 20 ms, and noise


def seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    with contextlib.suppress(ValueError):
        work()
    return time.thread_time() - started
