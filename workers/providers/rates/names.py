"""What a header's name says of a rate: of what it tells, which part of it, and over which time.

Read word by word, because every vendor and proxy orders the same words in its own way. A name with a word that nobody
knows counts as one that tells of something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

#: What is counted, in the order of `fleet.rates.RateReadings`.
REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS = range(4)
#: Parts of a rate that a header tells; POLICY and STATE tell several in one value (IETF draft "RateLimit header
#: fields").
LIMIT, REMAINING, RESET, PERIOD, POLICY, STATE = range(6)
#: Who tells: the limits of whoever answers come before those of a tier beside them, and of a provider behind a proxy,
#: which has perhaps more than one.
OWN, BESIDE, BEHIND = range(3)
#: The scope of a vendor's headers that count tokens, and then requests too, a second unless they say otherwise.
TOKENS_A_SECOND = "tokenlimit"
#: Names kept with their meaning; a provider's answers have the same ones again and again.
MOST_NAMES = 2048

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
_PERIODS_S = {
    **dict.fromkeys(("second", "seconds", "sec", "secondly"), 1.0),
    **dict.fromkeys(("minute", "minutes", "min", "minutely"), MINUTE_S),
    **dict.fromkeys(("hour", "hours", "hourly"), HOUR_S),
    **dict.fromkeys(("day", "days", "daily"), DAY_S),
    **dict.fromkeys(("week", "weekly"), 7 * DAY_S),
    **dict.fromkeys(("month", "monthly"), 30 * DAY_S),
}
_FIELDS = {
    "limit": LIMIT, "remaining": REMAINING, "left": REMAINING, "reset": RESET, "resets": RESET, "renewalperiod": PERIOD,
    "policy": POLICY,
}  # fmt: skip
_WHATS = {
    **dict.fromkeys(("request", "requests", "req", "reqs", "calls"), REQUESTS),
    **dict.fromkeys(("token", "tokens", "ratelimitbysize", "tokenlimit"), TOKENS),
    **dict.fromkeys(("input", "prompt"), INPUT_TOKENS),
    **dict.fromkeys(("output", "generated", "completion"), OUTPUT_TOKENS),
}
#: Abbreviations that tell what is counted and over which time.
_BOTH = {
    f"{what}{period}": (number, seconds)
    for what, number in (("rp", REQUESTS), ("tp", TOKENS), ("itp", INPUT_TOKENS), ("otp", OUTPUT_TOKENS))
    for period, seconds in (("s", 1.0), ("m", MINUTE_S), ("h", HOUR_S), ("d", DAY_S))
}
_OPENERS = frozenset({"ratelimit", "ratelimitbysize", "tokenlimit", "priority"})
#: Words that say whose limit it is, or nothing.
_NEUTRAL = frozenset({
    "x", "ratelimit", "anthropic", "priority", "llm", "provider", "openai", "azure", "ms", "ai", "per", "api", "key",
    "model", "user", "team", "member", "org", "organization", "project", "end", "customer", "global", "account",
    "deployment", "group", "agent", "tag", "workspace", "after", "at", "in", "on", "time", "timestamp",
})  # fmt: skip
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a header's name says.

    Args:
        what: What is counted.
        field: Which part of it is told.
        period_s: Over which time, when the name says so.
        told_by: OWN, BESIDE or BEHIND.
        scope: Whose limit it is; headers of one scope belong together.
        in_ms: True when a plain number is milliseconds.
    """

    what: int
    field: int
    period_s: float | None
    told_by: int
    scope: str
    in_ms: bool


@lru_cache(maxsize=MOST_NAMES)
def meaning_of(name: str) -> Meaning | None:
    """Return what a header's name says of a rate, None when it says nothing of any."""
    words = _WORD.findall(re.sub(r"(rate|token)[-_]limit(?=[-_]|$)", r"\1limit", name.lower()))
    if _OPENERS.isdisjoint(words):
        return None
    what, field, period_s = None, None, None
    in_ms, scope = words[-1] == "ms", list[str]()
    for word in words[:-1] if in_ms else words:
        if word in _FIELDS and field is None:
            field = _FIELDS[word]
        elif word in _WHATS:
            what = max(what or 0, _WHATS[word])  # "input tokens" are no tokens of both kinds
        elif word in _BOTH:
            what, period_s = _BOTH[word]
        elif word in _PERIODS_S:
            period_s = _PERIODS_S[word]
        elif word in _NEUTRAL:
            scope.append(word)
        else:
            return None
    if field is None and words[-1] == "ratelimit":
        field = STATE
    if field is None:
        return None
    told_by = BEHIND if words[:2] == ["llm", "provider"] else BESIDE if "priority" in words else OWN
    whose = TOKENS_A_SECOND if "tokenlimit" in words else " ".join(scope)
    return Meaning(what or REQUESTS, field, period_s, told_by, whose, in_ms)
