"""What a vendor's refusal of a batch means, and what of it may be shown: its status, type and code.

Its sentences are shown nowhere: they may quote any of the thousands of prompts of a batch, also of an earlier upload.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pydantic_core

from fleet.errors import FleetError
from fleet.workers.providers.problem import MAX_COMPARED_CHARS, read_problem
from fleet.workers.providers.verdict import error_of

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,48}")


class RefusedBatch(NamedTuple):
    """A refusal as it came.

    Args:
        host: Who answered.
        status: HTTP status.
        raw: Its body.
        headers: Of the answer.
    """

    host: str
    status: int
    raw: bytes
    headers: Mapping[str, str]


def meaning_of(refused: RefusedBatch, *, key: str, bodies: Sequence[bytes] = ()) -> FleetError:
    """Return the error that a refusal is. Its sentences are not understood either where they may be those of a prompt.

    Args:
        refused: As it came.
        key: With which it was asked.
        bodies: Requests of a batch that were sent with it.
    """
    is_much = sum(map(len, bodies)) > MAX_COMPARED_CHARS
    texts = [] if is_much else [text for body in bodies for text in _texts(pydantic_core.from_json(body))]
    problem = read_problem(refused.raw, secrets=(key,), texts=texts)
    safe = replace(problem, message="", is_echo=problem.is_echo or is_much)
    return error_of(refused.host, refused.status, safe, refused.headers, now_s=time.time())


def word_of(value: object) -> str:
    """Return a code of a vendor's as it may be shown: one short word, or that it is none."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else "unnamed"


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
