"""The prefix caches of both vendors: which beginning of a prompt has been seen before, and until when it is kept.

OpenAI's is automatic: from 1,024 tokens on, in steps of 128, for 5 minutes or, where a request asks so, for a day.
Anthropic's caches what a request marks, for 5 minutes or an hour, and bills what is written. Both belong to one key and
model. No clock: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from fleet.workers.simulator.rich.wanted import CachePlace

#: Tokens below which no prompt is cached, on both wires.
MIN_TOKENS = 1024
#: Steps in which OpenAI's cache counts, in tokens.
STEP_TOKENS = 128
#: Characters of a piece that OpenAI's cache knows as a whole.
PIECE_CHARS = 512
#: Seconds for which OpenAI's cache keeps what nobody asks for, and Anthropic's by default.
KEPT_S = 300.0
#: Seconds of Anthropic's other choice, and of OpenAI's (`prompt_cache_retention`).
KEPT_LONG_S, KEPT_A_DAY_S = 3600.0, 86_400.0


class Cached(NamedTuple):
    """What a cache did for one prompt, in tokens: read from it, and written to it for 5 minutes or for an hour."""

    read: int = 0
    written: int = 0
    written_long: int = 0


NOTHING = Cached()


class PrefixCache:
    """All prefixes that were seen.

    Args:
        places: That are remembered; the oldest are forgotten (about 150 bytes each).
    """

    def __init__(self, places: int) -> None:
        self._most = places
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def look(self, owner: str, places: Sequence[CachePlace], now_s: float) -> Cached:
        """Return what of a prompt is known, and what would be written. Changes nothing.

        Args:
            owner: Key and model.
            places: In the order of the prompt.
            now_s: Monotonic time.
        """
        read, written, written_long = 0, 0, 0
        for place in places:
            if place.tokens >= MIN_TOKENS and self._until.get(_owned(owner, place), 0.0) > now_s:
                read = place.tokens
        done = read
        for place in places:
            if place.ttl_s is None or place.tokens < MIN_TOKENS or place.tokens <= done:
                continue
            if place.ttl_s > KEPT_S:
                written_long += place.tokens - done
            else:
                written += place.tokens - done
            done = place.tokens
        return Cached(read, written, written_long)

    def keep(self, owner: str, places: Iterable[CachePlace], now_s: float) -> None:
        """Remember a prompt that was answered; what is read is kept on."""
        for place in places:
            if place.tokens < MIN_TOKENS:
                continue
            digest = _owned(owner, place)
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
    places: list[CachePlace] = []
    running = blake2b(digest_size=16)
    for end in range(PIECE_CHARS, len(whole) + 1, PIECE_CHARS):
        running.update(whole[end - PIECE_CHARS : end].encode("utf-8", "surrogatepass"))
        known = tokens * end // len(whole) // STEP_TOKENS * STEP_TOKENS
        places.append(CachePlace(running.digest(), known, kept_s))
    return places


def _owned(owner: str, place: CachePlace) -> bytes:
    return owner.encode("utf-8", "replace") + b"\0" + place.digest
