"""Whether a 429 means that too many calls were under way at once, and how many the provider takes.

Waiting as long as `retry-after` says would be wrong then: a proxy says a minute, and room is there as soon as a call
ends. Pure functions of headers and body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

#: Most calls at the same time that are believed.
MOST = 100_000
#: Bytes of a body that are looked at.
_MOST_BYTES = 8192
#: Headers that name the kind of limit.
_KINDS = ("rate_limit_type", "x-ratelimit-type", "x-rate-limit-type", "llm_provider-x-ratelimit-type")
_PARALLEL = re.compile(r"parallel|concurren|simultan|in[ _-]?flight|at the same time|并发", re.IGNORECASE)
#: Words before those that make them advice, and words that tell of another limit beside them: then it may be that one.
_ADVICE = re.compile(
    r"(?:reduc|lower|decreas|fewer|less|avoid|consider|try|upgrad|increas|rais)\w*[^.;:]{0,40}$", re.IGNORECASE
)
_OTHER = re.compile(r"\b[it]?o?[rt]p[mhd]\b|\bper[ _-](?:min|hour|day)|/ ?min", re.IGNORECASE)
_THINGS = r"(?:concurren\w+|parallel[ _-]\w+|simultaneous \w+|in[ _-]flight)"
_NUMBERS = (
    re.compile(r"current[ _]limit\W{1,3}(\d+)", re.IGNORECASE),
    re.compile(rf"{_THINGS}(?: requests?| limit)?\W{{1,4}}(?:is |of )?(\d+)", re.IGNORECASE),
    re.compile(rf"(?:max\w*|limit\w*|at most|up to|only)\W{{1,2}}(?:is |of |to )?(\d+) {_THINGS}", re.IGNORECASE),
)


def read_parallel(headers: Mapping[str, str], body: bytes | str) -> int | None:
    """Return how many calls at once the provider takes, 0 when it doesn't say, None when the 429 isn't about that.

    Args:
        headers: Of the answer; names in any case when the mapping allows it, else lower case.
        body: Of the answer, as it came.
    """
    kinds = " ".join(kind for name in _KINDS if (kind := headers.get(name)))
    text = body[:_MOST_BYTES] if isinstance(body, str) else body[:_MOST_BYTES].decode("utf-8", "replace")
    if not (_PARALLEL.search(kinds) if kinds else _speaks_of_it(text)):
        return None
    found = [int(number[1][:9]) for number in (pattern.search(text) for pattern in _NUMBERS) if number]
    return next((number for number in found if 0 < number <= MOST), 0)


def _speaks_of_it(text: str) -> bool:
    found = _PARALLEL.search(text)
    return found is not None and _ADVICE.search(text, 0, found.start()) is None and _OTHER.search(text) is None
