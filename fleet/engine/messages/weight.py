"""What a message weighs: how long its decoding would take, told in a few looks at its bytes, before it is decoded.

Decoding is one call into C that holds Python's lock: while it lasts, neither the consumer nor any slot goes on. So
what would take longer than `MAX_WEIGHT` allows is refused unread. Only the task's id is looked for: it gets a result.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Mapping
from json import JSONDecoder
from typing import Any

import pydantic_core

from fleet import bounds
from fleet.engine.messages.envelope import to_json
from fleet.errors import InvalidTask
from fleet.models import TASK_FIELDS
from fleet.quoting import listed

#: Bytes of a message as it lies in Redis, of whatever task. `take.lua` cuts what is longer: neither is it carried to a
#: worker nor kept. For tasks of your own this is the only bound; for bot tasks there are tighter ones.
MAX_MESSAGE_BYTES = 16_000_000
#: Messages of a conversation that is checked on the loop: 1 ms.
QUICK_MESSAGES = 500
#: Bytes that `take.lua` leaves of a longer one, at its head and at its tail: there stand its headers.
CUT_BYTES = 32_768
#: What it puts before them, and before the message's size.
CUT_MARK = b"fleet-cut:"
#: Bytes of all of a bot task's message but its body.
MAX_HEADER_BYTES = 65_536
#: Bytes that are decoded whatever they are: 10 ms at worst (all of them opening brackets).
LIGHT_BYTES = 65_536
#: Most that is decoded, in units of 100 ns: 15 ms. A value or a name is one, a list or object four, eight escapes one.
MAX_WEIGHT = 150_000
#: Bytes of a message's beginning in which the names of its fields are looked for.
_PEEK_BYTES = 4096

_READ = JSONDecoder()


def weight(text: bytes) -> int:
    """Return how long JSON takes to decode, in units of 100 ns; 0 for what is short enough, and more than `MAX_WEIGHT`
    for what takes too long.

    Linear, at the speed of `bytes.count`: 3 ms for 6 MB. What isn't JSON weighs something, too.
    """
    if len(text) <= LIGHT_BYTES:
        return 0
    escapes = text.count(b"\\") // 8
    if escapes > MAX_WEIGHT:
        return escapes
    if escapes or b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    strings = text.count(b'"') // 2
    if strings > MAX_WEIGHT:
        return strings
    outside = b"".join(text.split(b'"')[::2])
    values = outside.count(b",") + outside.count(b":")
    lists = outside.count(b"[") + outside.count(b"{")
    return escapes + values + 4 * lists + len(outside) // 16


def check_weight(body: bytes) -> None:
    """Refuse the body of a bot task that is too long, or takes too long to decode.

    Args:
        body: As it came.

    Raises:
        InvalidTask: Saying which, with a few unknown fields when it begins with such.
    """
    if len(body) > bounds.MAX_BODY_BYTES:
        raise InvalidTask(f"expected a task of at most {bounds.MAX_BODY_BYTES:,} bytes, got {len(body):,}")
    heavy = weight(body)
    if heavy > MAX_WEIGHT:
        raise InvalidTask(
            f"expected a task of at most {MAX_WEIGHT:,} names and values (a list or object counts as 4), got "
            f"{heavy:,} or more{_beginning(body)}"
        )


def check_headers(*headers: Mapping[str, Any]) -> None:
    """Refuse headers that are too long.

    Raises:
        InvalidTask: Saying how long.
    """
    size = len(to_json(headers))
    if size > MAX_HEADER_BYTES:
        raise InvalidTask(f"expected at most {MAX_HEADER_BYTES:,} bytes of headers, got {size:,}")


def _beginning(body: bytes) -> str:
    """Return a few of a task's unknown fields, read from its first bytes."""
    try:
        parts = pydantic_core.from_json(body[:_PEEK_BYTES], allow_partial=True)
        found = next(part for part in (*parts[1:2], *parts[0]) if isinstance(part, dict))
    except (ValueError, TypeError, LookupError, StopIteration):
        return ""
    unknown = [name for name in found if name not in TASK_FIELDS]
    return f"; it begins with unknown fields: {listed(unknown, min(len(unknown), 5))}" if unknown else ""


def headers_of_heavy(message: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return headers and properties of a message that is too heavy to be decoded, as far as they can be found.

    Looked at are the first and the last `CUT_BYTES`: kombu and other clients write them before or after the body.
    """
    found = []
    for name in (b'"headers"', b'"properties"'):
        ends = (message[:CUT_BYTES], message[-CUT_BYTES:])
        found.append(next((value for end in ends if (value := _object_after(name, end))), {}))
    return found[0], found[1]


def _object_after(name: bytes, text: bytes) -> dict[str, Any]:
    start = text.rfind(name)
    if start < 0:
        return {}
    try:
        rest = text[start + len(name) :].lstrip(b" \t\r\n:").decode("utf-8", "replace")
        value, _ = _READ.raw_decode(rest)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def cut_size(message: bytes) -> int | None:
    """Return how long a message was that `take.lua` has cut; None for a whole one."""
    if not message.startswith(CUT_MARK):
        return None
    digits = message[len(CUT_MARK) : len(CUT_MARK) + 20].partition(b":")[0]
    return int(digits) if digits.isdigit() else None


def cut(message: bytes) -> bytes:
    """Return a message as `take.lua` would leave it; one that is short enough as it is."""
    if len(message) <= 2 * CUT_BYTES + 100:
        return message
    return b"%b%d:%b%b" % (CUT_MARK, len(message), message[:CUT_BYTES], message[-CUT_BYTES:])


#: How compressed bodies are read: kombu's names of the ways whose result can be bounded.
_DECOMPRESSORS: Mapping[str, Any] = {
    **dict.fromkeys(("application/x-gzip", "gzip", "zlib"), zlib.decompressobj),
    **dict.fromkeys(("application/x-bz2", "bzip2", "bzip"), bz2.BZ2Decompressor),
    **dict.fromkeys(("application/x-lzma", "lzma", "xz"), lzma.LZMADecompressor),
}


def decompressed(body: bytes, way: object, most_bytes: int) -> bytes:
    """Return a compressed body, never more than it may have: a kilobyte can hold a gigabyte.

    Raises:
        InvalidTask: When it is longer, isn't compressed so, or in a way whose result cannot be bounded.
    """
    make = _DECOMPRESSORS.get(way) if isinstance(way, str) else None
    if make is None:
        raise InvalidTask(f"compression: expected gzip, bzip2 or lzma, got {listed([way], 1)}")
    try:
        text: bytes = make().decompress(body, most_bytes + 1)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise InvalidTask(f"compression: expected a body in {way}, got {type(error).__name__}") from None
    if len(text) > most_bytes:
        raise InvalidTask(f"expected a message of at most {most_bytes:,} bytes, got a compressed one that is longer")
    return text


def is_quick(request: Mapping[str, Any]) -> bool:
    """False for a task whose check may take more than a few ms: a schema, a conversation of many messages.

    Args:
        request: Celery's request dict.
    """
    args, kwargs = request["args"], request["kwargs"]
    for part in (*args[:1], kwargs) if isinstance(args, list | tuple) else ():
        if isinstance(part, dict) and ("answer_schema" in part or _length(part.get("messages")) > QUICK_MESSAGES):
            return False
    return True


def _length(value: object) -> int:
    return len(value) if isinstance(value, list | tuple) else 0
