"""An answer that is handed on while it is made, and what it has used when it was cut.

One call's worth. Retries, grants and money are the gateway's and the agent's; how a wire streams: `providers/`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from fleet.errors import FleetError, ProviderUnavailable
from fleet.usage import Usage
from fleet.workers.calls import Call, Completion, Delta
from fleet.workers.context import count_tokens
from fleet.workers.load import sent_tokens
from fleet.workers.ports import Provider, StreamingProvider
from fleet.workers.thinking import StreamSplitter, apart

#: Takes the next piece of an answer's text. Must not raise, nor wait.
Emit = Callable[[str], None]


class Streaming:
    """Hands on the text of answers as it comes; thinking is left out.

    Args:
        emit: Gets each piece.

    Attributes:
        has_told: True once a piece was handed on: what follows cannot be said anew.
    """

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self.has_told = False
        self._begin()

    def _begin(self) -> None:
        self._told: Usage | None = None
        self._pieces: list[str] = []
        #: True when an answer broke off in its middle: what it has used is not all told.
        self.is_cut = False

    @property
    def has_begun(self) -> bool:
        """True when something of the answer came, or of its usage."""
        return bool(self._pieces) or self._told is not None

    async def receive(self, provider: Provider, call: Call, api_key: str, *, is_unopened: bool = False) -> Completion:
        """Send one call and hand on its answer; return the whole.

        A provider that cannot stream answers in one piece. With `is_unopened` the answer is expected to begin with
        thinking that has a closing tag alone.

        Raises:
            FleetError: As `Provider.complete`. When a part of the answer had come, with what that has used.
        """
        self._begin()
        if not isinstance(provider, StreamingProvider):
            whole = await provider.complete(call, api_key=api_key)
            self._tell(apart(whole, call.messages).text)
            return whole
        try:
            return await self._receive(provider, call, api_key, is_unopened)
        except FleetError as error:
            if self.has_begun and (error.usage is None or not error.usage.total_tokens):
                error.usage, self.is_cut = self.used(call), True
            raise

    async def _receive(self, provider: StreamingProvider, call: Call, api_key: str, is_unopened: bool) -> Completion:
        splitter, whole = StreamSplitter(call.messages, is_unopened=is_unopened), None
        async with aclosing(provider.stream(call, api_key=api_key)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    whole = piece
                else:
                    self._take(piece, splitter)
        self._tell(splitter.close().text)
        if whole is None:
            raise ProviderUnavailable("expected a whole answer at the end of a stream, got none")
        if not self.has_told:  # the server did not stream, or the text was told in no piece
            self._tell(apart(whole, call.messages).text)
        return whole

    def _take(self, piece: Delta, splitter: StreamSplitter) -> None:
        self._told = piece.usage or self._told
        if piece.reasoning:
            self._pieces.append(piece.reasoning)
        if piece.text:
            self._pieces.append(piece.text)
            self._tell(splitter.feed(piece.text).text)

    def _tell(self, text: str) -> None:
        if text:
            self.has_told = True
            self._emit(text)

    def used(self, call: Call) -> Usage:
        """Return what a call has used that was cut: as far as the provider told it, else by estimate of what came."""
        came = count_tokens("".join(self._pieces))
        if self._told is None:
            return asked_usage(call, output_tokens=came)
        return self._told.model_copy(update={"output_tokens": max(came, self._told.output_tokens)})


def asked_usage(call: Call, *, output_tokens: int = 0) -> Usage:
    """Return what a call has used of which only the question is known, by estimate."""
    return Usage(input_tokens=sent_tokens(call.messages, call.wishes), output_tokens=output_tokens, estimated_calls=1)
