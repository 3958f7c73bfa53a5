"""How large a task may be, and the checks of it that come before any costly work. For producers and workers alike.

Numbers and pure checks. How a message is weighed before it is decoded: `fleet/engine/messages/weight.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: Longest prompt plus messages, in characters. A message this size already fills a 1M-token window.
MAX_PROMPT_CHARS = 4_000_000
#: Bytes of prompt plus messages as ASCII JSON, as most clients send it: a Chinese character takes 6. Reading that many
#: takes 15 ms at worst (measured: 2.5 ns a byte when all is escaped, 0.1 when nothing is).
MAX_PROMPT_BYTES = 6_000_000
#: Bytes of a task's message body: the prompt, metadata, a schema, and what follows the task.
MAX_BODY_BYTES = 7_000_000
#: Messages of one conversation (count).
MAX_MESSAGES = 10_000
#: Fields of one message of a conversation, known or not, before they are looked at (count).
MAX_MESSAGE_FIELDS = 16
#: Parts of one message: texts, images, files (count).
MAX_PARTS = 1000
#: Characters of the address of an image or a file that is handed on.
MAX_URL_CHARS = 8192
#: Tools that a task may offer (count), which is what OpenAI takes, and bytes of all of them as JSON: all are paid for
#: with every call.
MAX_TOOLS, MAX_TOOLS_BYTES = 128, 131_072
#: Bytes, as JSON, of a task's further fields of the request's body, and of its further headers.
MAX_EXTRAS_BYTES = 16_384
#: Texts at which an answer ends (count), and characters of each.
MAX_STOPS, MAX_STOP_CHARS = 16, 256
#: Answers that one call may ask for (count).
MAX_N = 16
#: Bytes of a task's metadata as JSON: they are handed back in its result, and stored with it.
MAX_METADATA_BYTES = 65_536
#: Names in a task's metadata, at all depths (count).
MAX_METADATA_KEYS = 2000
#: Depth to which lists and objects may be nested in metadata; pydantic writes no JSON that is nested deeper.
MAX_DEPTH = 250
#: Documents that a task may name (count), and characters of each.
MAX_DOCUMENTS, MAX_DOCUMENT_CHARS = 8, 4_000_000
#: Characters of a task's id.
MAX_ID_CHARS = 512
#: Characters of an idempotency key.
MAX_KEY_CHARS = 256
#: Characters of a pool's name.
MAX_POOL_CHARS = 128
#: Bytes that one character takes in ASCII JSON at most: two escapes of a surrogate pair.
_MAX_BYTES_PER_CHAR = 12
#: Characters of a prompt that breaks no bound, whatever it holds.
SHORT_CHARS = MAX_PROMPT_BYTES // _MAX_BYTES_PER_CHAR


@dataclass(frozen=True, slots=True)
class Room:
    """What a JSON value may take up: bytes as compact JSON, about; names; depth."""

    bytes: int
    keys: int
    depth: int = MAX_DEPTH


METADATA = Room(MAX_METADATA_BYTES, MAX_METADATA_KEYS)
TOOLS = Room(MAX_TOOLS_BYTES, keys=5000, depth=100)
EXTRAS = Room(MAX_EXTRAS_BYTES, keys=200, depth=20)


def check_json(value: object, room: Room) -> None:
    """Check that a value of lists, objects and plain values is small enough and is JSON, which has no NaN.

    It ends with the first bound that is broken, so the time depends on the room, not on the value.

    Raises:
        ValueError: Saying which bound.
    """
    size = keys = 0
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"expected JSON, which has no NaN and no Infinity, got {item}")
        size += len(item) + 2 if isinstance(item, str) else 2
        if isinstance(item, Mapping | list | tuple):
            size += len(item)
            keys += len(item) if isinstance(item, Mapping) else 0
            _check_depth(depth, room)
        _check_size(size, keys, room)
        if isinstance(item, Mapping):
            waiting += [(name, depth) for name in item]
            waiting += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple):
            waiting += [(inner, depth + 1) for inner in item]


def _check_depth(depth: int, room: Room) -> None:
    if depth > room.depth:
        raise ValueError(f"expected lists and objects at most {room.depth} deep, got some that are nested too deeply")


def _check_size(size: int, keys: int, room: Room) -> None:
    if keys > room.keys:
        raise ValueError(f"expected at most {room.keys:,} names in it, got {keys:,} or more")
    if size > room.bytes:
        raise ValueError(f"expected at most {room.bytes:,} bytes of JSON, got more")


def check_prompt(texts: Sequence[str]) -> None:
    """Check the length of a task's texts. O(1) for short ones.

    Raises:
        ValueError: When they are too long together.
    """
    chars = sum(map(len, texts))
    if chars > MAX_PROMPT_CHARS:
        raise ValueError(f"expected at most {MAX_PROMPT_CHARS:,} characters of prompt, got {chars:,}")
    if chars > SHORT_CHARS:
        size = sum(len(json.dumps(text)) for text in texts)
        if size > MAX_PROMPT_BYTES:
            raise ValueError(f"expected at most {MAX_PROMPT_BYTES:,} bytes of prompt as ASCII JSON, got {size:,}")


def check_messages(value: object) -> object:
    """Check a conversation's length before its messages are looked at one by one; return it as it is.

    Raises:
        ValueError: When there are too many messages, or one has too many fields.
    """
    if not isinstance(value, list | tuple):
        return value
    if len(value) > MAX_MESSAGES:
        raise ValueError(f"expected at most {MAX_MESSAGES:,} messages, got {len(value):,}")
    for number, message in enumerate(value):
        if isinstance(message, Mapping) and len(message) > MAX_MESSAGE_FIELDS:
            raise ValueError(f"{number}: expected `role` and `content`, got {len(message):,} fields")
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list | tuple) and len(content) > MAX_PARTS:
            raise ValueError(f"{number}.content: expected at most {MAX_PARTS:,} parts, got {len(content):,}")
    return value
