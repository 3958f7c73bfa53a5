"""What calls use, in the classes in which providers bill it."""

from __future__ import annotations

from pydantic import Field

from fleet.frozen import Frozen


class Usage(Frozen):
    """Tokens of one call, or of one task summed over all its calls.

    Classes that are part of another are named so: `input_tokens` is all that the prompt held, whatever of it was read
    from a cache or written to one, and `output_tokens` is all that the model made, thinking included.
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

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage.model_construct(**{name: getattr(self, name) + getattr(other, name) for name in _CLASSES})


_CLASSES = tuple(Usage.model_fields)
