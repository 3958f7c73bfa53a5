"""What calls use, in the classes in which providers bill it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field, model_serializer

from fleet.frozen import Lasting


class Usage(Lasting):
    """Tokens of one call, or of one task summed over all its calls.

    Classes that are part of another are named so: `input_tokens` is all that the prompt held, whatever of it was read
    from a cache or written to one, and `output_tokens` is all that the model made, thinking included. Written out, a
    class besides these two stands only where it is not zero.
    """

    input_tokens: int = Field(0, ge=0, description="All input.")
    output_tokens: int = Field(0, ge=0, description="All output, thinking included.")
    cached_tokens: int = Field(0, ge=0, description="Of the input: read from the provider's cache.")
    cache_write_tokens: int = Field(0, ge=0, description="Of the input: written to the provider's cache.")
    cache_write_1h_tokens: int = Field(0, ge=0, description="Of those written: kept for an hour, at a higher price.")
    reasoning_tokens: int = Field(0, ge=0, description="Of the output: thinking.")
    audio_input_tokens: int = Field(0, ge=0, description="Of the input: sound.")
    audio_output_tokens: int = Field(0, ge=0, description="Of the output: sound.")
    image_input_tokens: int = Field(0, ge=0, description="Of the input: images, where the provider counts them apart.")
    image_output_tokens: int = Field(0, ge=0, description="Of the output: images.")
    cached_audio_tokens: int = Field(0, ge=0, description="Of what was read from the cache: sound.")
    cached_image_tokens: int = Field(0, ge=0, description="Of what was read from the cache: images.")
    web_searches: int = Field(0, ge=0, description="Searches of the web by the provider's own tool, billed each.")
    told_usd_picos: int = Field(0, ge=0, description="What the provider itself says it charged, in 10^-12 US dollars.")
    estimated_calls: int = Field(
        0, ge=0, description="Calls of which the provider did not tell the usage: an estimate."
    )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        counts, more = self.__dict__, other.__dict__
        if not any(counts.values()):
            return other
        return Usage(**{name: count + more[name] for name, count in counts.items() if count or more[name]})

    def within(self, *, input_tokens: int, output_tokens: int) -> Usage:
        """Return it with at most so many tokens, and no part above its whole."""
        whole = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        return Usage(**clamped({name: min(count, whole.get(name, count)) for name, count in self.__dict__.items()}))

    def __repr_args__(self) -> Iterator[tuple[str, int]]:
        return ((name, count) for name, count in self.__dict__.items() if count or name in _ALWAYS)

    @model_serializer(mode="plain")
    def _without_zeros(self) -> dict[str, int]:
        return {name: count for name, count in self.__dict__.items() if count or name in _ALWAYS}


def told(usage: Mapping[str, int]) -> str:
    """Return what was used for people: `2,006 + 300 tokens (1,920 cached)`."""
    parts = [f"{usage[name]:,} {what}" for name, what in _SHOWN.items() if usage.get(name)]
    parts += ["estimated"] if usage.get("estimated_calls") else []
    whole = f"{usage.get('input_tokens', 0):,} + {usage.get('output_tokens', 0):,} tokens"
    return f"{whole} ({', '.join(parts)})" if parts else whole


def clamped(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by class with no part above its whole, and without zeros.

    Args:
        counts: By class; those that are not there are zero.
    """
    given, made = counts.get("input_tokens", 0), counts.get("output_tokens", 0)
    room = {"input_tokens": given, "output_tokens": made}
    for name, whole in _WHOLE.items():
        if count := counts.get(name, 0):
            room[name] = min(count, room.get(whole, 0))
    beyond = room.get("cached_tokens", 0) + room.get("cache_write_tokens", 0) - given
    if beyond > 0:
        room["cache_write_tokens"] -= beyond
        room["cache_write_1h_tokens"] = min(room.get("cache_write_1h_tokens", 0), room["cache_write_tokens"])
    for name in ("cached_audio_tokens", "cached_image_tokens"):
        room[name] = min(room.get(name, 0), room.get("cached_tokens", 0))
    for name in _COUNTS:
        room[name] = counts.get(name, 0)
    return {name: count for name, count in room.items() if count}


#: Class -> the class that it is part of, which comes before it.
_WHOLE = {
    "cached_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "reasoning_tokens": "output_tokens",
    "audio_input_tokens": "input_tokens",
    "audio_output_tokens": "output_tokens",
    "image_input_tokens": "input_tokens",
    "image_output_tokens": "output_tokens",
    "cached_audio_tokens": "audio_input_tokens",
    "cached_image_tokens": "image_input_tokens",
}
#: What is no part of anything.
_COUNTS = ("web_searches", "told_usd_picos", "estimated_calls")
#: Classes that people are shown beside the wholes.
_SHOWN = {"cached_tokens": "cached", "cache_write_tokens": "written to the cache", "reasoning_tokens": "thinking"}
#: Classes that are written out also when they are zero.
_ALWAYS = frozenset({"input_tokens", "output_tokens"})
