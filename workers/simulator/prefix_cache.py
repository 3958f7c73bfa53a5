"""The prefix caches of both vendors: which beginning of a prompt has been seen before, and until when it is kept.

OpenAI's is automatic: from 1,024 tokens on, in steps of 128, for 5 minutes or, where a request asks so, for a day.
Anthropic's caches what a request marks, for 5 minutes or an hour, and bills what is written. Both belong to one key and
model. No clock: time is an argument.

OpenAI sends calls that begin alike to one machine, by how they begin and `prompt_cache_key`. Above so many a minute
others take the rest, each with a cache of its own: https://developers.openai.com/api/docs/guides/prompt-caching
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from fleet.workers.simulator.rich.wanted import CachePlace

#: Tokens below which OpenAI caches no prompt.
MIN_TOKENS = 1024
#: Seconds in which calls of one beginning are counted.
MINUTE_S = 60.0
#: Steps in which OpenAI's cache counts, in tokens.
STEP_TOKENS = 128
#: Characters of a piece that OpenAI's cache knows as a whole.
PIECE_CHARS = 512
#: Seconds for which OpenAI's cache keeps what nobody asks for, and Anthropic's by default.
KEPT_S = 300.0
#: Seconds of Anthropic's other choice, and of OpenAI's (`prompt_cache_retention`).
KEPT_LONG_S, KEPT_A_DAY_S = 3600.0, 86_400.0


class Cached(NamedTuple):
    """What a cache did for one prompt, in tokens: read from it, and written to it for 5 minutes or for an hour.

    `owner` says whose cache it is: key, model, and the machine that the call came to.
    """

    read: int = 0
    written: int = 0
    written_long: int = 0
    owner: str = ""


NOTHING = Cached()


class PrefixCache:
    """All prefixes that were seen.

    Args:
        places: That are remembered; the oldest are forgotten (about 150 bytes each).
        machine_rpm: Calls a minute of one beginning and `prompt_cache_key` that one machine takes; None: any.
    """

    def __init__(self, places: int, machine_rpm: int | None = None) -> None:
        self._most = places
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._machine_rpm = machine_rpm
        self._minute = 0
        self._came = Counter[str]()

    def machine(self, owner: str, cache_key: str, places: Sequence[CachePlace], now_s: float) -> str:
        """Return whose cache a call meets that is sent by how it begins; it counts as one that came.

        Args:
            owner: Key and model.
            cache_key: Its `prompt_cache_key`.
            places: In the order of the prompt.
            now_s: Monotonic time.
        """
        owner = f"{owner}/{cache_key}"
        if self._machine_rpm is None:
            return owner
        if self._minute != (minute := int(now_s // MINUTE_S)):
            self._minute = minute
            self._came.clear()
        route = f"{owner}/{places[0].digest.hex()}"
        self._came[route] += 1
        return f"{owner}/{(self._came[route] - 1) // self._machine_rpm}"

    def look(self, owner: str, places: Sequence[CachePlace], now_s: float) -> Cached:
        """Return what of a prompt is known, and what would be written. Changes nothing.

        Args:
            owner: Whose cache it is.
            places: In the order of the prompt.
            now_s: Monotonic time.
        """
        read, written, written_long = 0, 0, 0
        own = _own(owner)
        for place in places:
            if self._until.get(own + place.digest, 0.0) > now_s:
                read = place.tokens
        done = read
        for place in places:
            if place.ttl_s is None or place.tokens <= done:
                continue
            if place.ttl_s > KEPT_S:
                written_long += place.tokens - done
            else:
                written += place.tokens - done
            done = place.tokens
        return Cached(read, written, written_long, owner)

    def keep(self, owner: str, places: Iterable[CachePlace], now_s: float) -> None:
        """Remember a prompt that was answered; what is read is kept on."""
        own = _own(owner)
        for place in places:
            digest = own + place.digest
            kept_s = self._until.pop(digest, 0.0)
            if place.ttl_s is not None:
                self._until[digest] = max(kept_s, now_s + place.ttl_s)
            elif kept_s > now_s:
                self._until[digest] = max(kept_s, now_s + KEPT_S)
        while len(self._until) > self._most:
            self._until.popitem(last=False)


def automatic_places(texts: Iterable[str], tokens: int, kept_s: float = KEPT_S) -> list[CachePlace]:
    """Return the places of OpenAI's cache: one a piece, told in whole steps of tokens.

    Args:
        texts: All that the prompt holds, in its order.
        tokens: Of all of it.
        kept_s: Seconds for which what nobody asks for is kept.
    """
    whole = "\x1e".join(texts)
    raw = memoryview(whole.encode()) if whole.isascii() else None
    places: list[CachePlace] = []
    running = blake2b(digest_size=16)
    for end in range(PIECE_CHARS, len(whole) + 1, PIECE_CHARS):
        begin = end - PIECE_CHARS
        running.update(whole[begin:end].encode("utf-8", "surrogatepass") if raw is None else raw[begin:end])
        known = tokens * end // len(whole) // STEP_TOKENS * STEP_TOKENS
        if known >= MIN_TOKENS:
            places.append(CachePlace(running.digest(), known, kept_s))
    return places


def _own(owner: str) -> bytes:
    """Return by what all that is in an owner's cache begins."""
    return owner.encode("utf-8", "replace") + b"\0"
