"""How limits are told in headers: the families of the vendors and of the proxies before them. No state, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

#: How limits are told: `both` is OpenAI's and Anthropic's together.
Family = Literal["both", "openai", "anthropic", "azure", "epoch", "openrouter", "litellm", "ietf", "none"]


#: What a limit is, what is left of it, and the seconds until nothing of it is used any more.
Reading = tuple[str, str, float]


class Readings(NamedTuple):
    """What a call's headers tell of its key and model; `wall_s` is the Unix time, for resets that are dates."""

    requests: Reading
    tokens: Reading
    wall_s: float


def _both(told: Readings) -> dict[str, str]:
    (requests, requests_left, requests_reset_s), (tokens, tokens_left, tokens_reset_s), wall_s = told
    return {
        "x-ratelimit-limit-requests": requests,
        "x-ratelimit-limit-tokens": tokens,
        "x-ratelimit-remaining-requests": requests_left,
        "x-ratelimit-remaining-tokens": tokens_left,
        "x-ratelimit-reset-requests": duration(requests_reset_s),
        "x-ratelimit-reset-tokens": duration(tokens_reset_s),
        "anthropic-ratelimit-requests-limit": requests,
        "anthropic-ratelimit-requests-remaining": requests_left,
        "anthropic-ratelimit-requests-reset": rfc3339(wall_s + requests_reset_s),
        "anthropic-ratelimit-tokens-limit": tokens,
        "anthropic-ratelimit-tokens-remaining": tokens_left,
        "anthropic-ratelimit-tokens-reset": rfc3339(wall_s + tokens_reset_s),
    }


def _openai(told: Readings) -> dict[str, str]:
    return {name: value for name, value in _both(told).items() if name.startswith("x-")}


def _anthropic(told: Readings) -> dict[str, str]:
    return {name: value for name, value in _both(told).items() if name.startswith("anthropic-")}


def _azure(told: Readings) -> dict[str, str]:
    return {
        "x-ratelimit-remaining-requests": told.requests[1],
        "x-ratelimit-remaining-tokens": told.tokens[1],
    }


def _epoch(told: Readings) -> dict[str, str]:
    resets = {"requests": told.requests[2], "tokens": told.tokens[2]}
    dates = {f"x-ratelimit-reset-{name}": str(math.ceil(told.wall_s + reset_s)) for name, reset_s in resets.items()}
    return {**_openai(told), **dates}


def _openrouter(told: Readings) -> dict[str, str]:
    limit, left, reset_s = told.requests
    return {
        "X-RateLimit-Limit": limit,
        "X-RateLimit-Remaining": left,
        "X-RateLimit-Reset": str(math.ceil((told.wall_s + reset_s) * 1000)),
    }


def _litellm(told: Readings) -> dict[str, str]:
    return {
        "x-ratelimit-api_key-limit-requests": told.requests[0],
        "x-ratelimit-api_key-remaining-requests": told.requests[1],
        "x-ratelimit-api_key-limit-tokens": told.tokens[0],
        "x-ratelimit-api_key-remaining-tokens": told.tokens[1],
    }


def _ietf(told: Readings) -> dict[str, str]:
    limit, left, reset_s = told.requests
    return {
        "RateLimit-Policy": f'"requests";q={limit};w=60',
        "RateLimit": f'"requests";r={left};t={math.ceil(reset_s)}',
    }


FAMILIES: Mapping[Family, Callable[[Readings], dict[str, str]]] = {
    "both": _both,
    "openai": _openai,
    "anthropic": _anthropic,
    "azure": _azure,
    "epoch": _epoch,
    "openrouter": _openrouter,
    "litellm": _litellm,
    "ietf": _ietf,
    "none": lambda told: {},
}


def duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: `120ms`, `1.2s`, `6m0s`, `1h0m0s`, never less than it is."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:g}s"
    minutes, ms = divmod(ms, 60_000)
    if minutes < 60:
        return f"{minutes}m{ms / 1000:g}s"
    return f"{minutes // 60}h{minutes % 60}m{ms / 1000:g}s"


def rfc3339(unix_s: float) -> str:
    """Return a Unix time as Anthropic writes it, with milliseconds."""
    seconds, ms = divmod(math.ceil(unix_s * 1000), 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=1024)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
