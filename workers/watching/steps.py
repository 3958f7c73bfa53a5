"""What a turn called and what came of it, as a step that can be compared: by digests, not by texts. Pure; no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from fleet.workers.watching.circles import ToolStep

#: Characters of a text up to which it is read as JSON, so that spaces and the order of keys make no difference: 1 ms.
LONGEST_READ_CHARS = 65_536
#: Bytes of a digest.
DIGEST_BYTES = 16
#: Names of tools that are told of one step (count); and what such a name looks like: others are a model's invention.
MOST_NAMES, A_NAME = 3, re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Marks on a result that say nothing of it: clients move them to the last turn.
_MARKS = "cache_control"


class WantedCall(NamedTuple):
    """A call of a tool that the model asks for.

    Args:
        id: The provider's name of it, which its result carries.
        name: Which tool.
        arguments: Digest of what it is called with.
    """

    id: str
    name: str
    arguments: bytes


def digest_of(value: object) -> bytes:
    """Return the digest of a JSON value, or of a text, which may be JSON itself: of its canonical form."""
    read = _read(value) if isinstance(value, str) else value
    try:
        told = read if isinstance(read, str) else json.dumps(read, sort_keys=True, separators=(",", ":"), default=str)
    except (RecursionError, TypeError):  # nested too deep, or keys of several kinds: compared as it is written
        told = str(value)
    return blake2b(told.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _read(text: str) -> object:
    bare = text.strip()
    if len(bare) > LONGEST_READ_CHARS or not bare.startswith(("{", "[")):
        return bare
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        return bare


def result_of(content: object) -> object:
    """Return what a tool has said, out of the content of its result in any wire."""
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content
    blocks = [{k: v for k, v in one.items() if k != _MARKS} if isinstance(one, Mapping) else one for one in content]
    texts = [text for one in blocks if isinstance(one, Mapping) and isinstance(text := one.get("text"), str)]
    return "\n".join(texts) if len(texts) == len(blocks) else blocks


def step_of(calls: Iterable[WantedCall], results: Mapping[str, Any]) -> ToolStep:
    """Return the step of a turn: the same for the same calls with the same results, in whatever order they stand.

    Args:
        calls: What the turn called.
        results: What has come of it, by the ids of its calls; one that is missing has no result.
    """
    parts: list[bytes] = []
    names: dict[str, None] = {}
    for call in calls:
        came = digest_of(result_of(results[call.id])) if call.id in results else b""
        parts.append(blake2b(b"\0".join((call.name.encode("utf-8", "replace"), call.arguments, came))).digest())
        names[call.name if A_NAME.fullmatch(call.name) else "a tool"] = None
    whole = blake2b(b"".join(sorted(parts)), digest_size=DIGEST_BYTES)
    return ToolStep(whole.digest(), tuple(sorted(names)[:MOST_NAMES]))
