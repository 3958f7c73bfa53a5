"""Requests of SDKs as they come, and what they get: the words that the data plane and the clients share.

Nothing here knows a library of HTTP: `clients.py` turns these into the requests and responses of httpx and httpx2.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from fleet.errors import FleetError

#: Headers of a request that are not passed on: who asks and where is the route's, how it is packed the connection's.
DROPPED = frozenset({
    "authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "openai-organization",
    "openai-project", "cookie", "host", "content-length", "connection", "transfer-encoding", "accept-encoding",
})  # fmt: skip
#: Headers of an answer that are not: its body comes unpacked, and cookies are the connection's.
KEPT_BACK = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "set-cookie"})
#: Where a response says in its `extensions` which error of Fleet it is.
REFUSAL = "fleet_refusal"
#: Gets the next bytes of an answer. Must not raise, nor wait.
Take = Callable[[bytes], None]
#: Hears status and headers of an answer; returns what takes its bytes as they come, or None: it is wanted whole.
OnHead = Callable[[int, Mapping[str, str]], Take | None]


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request of an SDK, without its key and its address.

    Args:
        method: Such as `POST`.
        path: As the SDK wrote it, with its query: `/v1/chat/completions`.
        headers: By names in lower case.
        body: As it came.
        is_streamed: The client reads the answer as it comes; what the body asks decides whether it comes so.
        may_move: Whoever sends it writes it anew for a rung that speaks another wire: it hears `Moved` then.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    is_streamed: bool = False
    may_move: bool = False


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as the provider gave it, for the SDK.

    Args:
        status: Of HTTP.
        headers: By names in lower case.
        body: All of it; empty when it comes in pieces.
        chunks: Where the pieces come; None: it is whole.
        refusal: The error that it is to Fleet: what a function fails with that lets it through.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    chunks: Chunks | None = None
    refusal: FleetError | None = None


@runtime_checkable
class RawProvider(Protocol):
    """A provider that takes requests as SDKs write them. Sends exactly one HTTP request per call; never retries."""

    host: str

    def speaks(self, wire: str) -> bool:
        """True when the API understands a wire: `openai` or `anthropic`."""
        ...

    async def exchange(self, request: RawRequest, *, api_key: str, timeout_s: float, on_head: OnHead) -> RawAnswer:
        """Send one request with the key, to a path below the API's root; return the answer whatever its status is.

        Raises:
            ProviderUnavailable: No answer, or half of one; it broke off.
            MachineExhausted: No connection, for this machine has no room for one.
        """
        ...


class Onlooker(Protocol):
    """Looks at what one request of a run asks, and what it gets: `watch.py`."""

    def before(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body to send instead; raise what ends the run."""
        ...

    def after(self, answer: Mapping[str, Any]) -> None:
        """Hear an answer, put together where it came in pieces."""
        ...


class Chunks:
    """The pieces of an answer, from the loop that gets them to whoever reads: a thread, or another loop.

    Weakness: pieces that nobody reads are kept, up to the longest answer that is read at all.

    Args:
        leave: Called when the reader goes, on any thread; maybe after the end.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self.leave = leave
        #: Called from the loop that puts, after each piece.
        self.wake: Callable[[], None] = lambda: None
        self._pieces: queue.SimpleQueue[bytes | FleetError | None] = queue.SimpleQueue()

    def put(self, piece: bytes) -> None:
        """Hand on the next piece."""
        self._pieces.put(piece)
        self.wake()

    def end(self, error: FleetError | None = None) -> None:
        """Say that it is over, or how it broke off."""
        self._pieces.put(error)
        self.wake()

    def next(self, *, waits: bool) -> bytes | None:
        """Return the next piece, None at the end.

        Args:
            waits: Block this thread until there is one.

        Raises:
            queue.Empty: There is none yet.
            FleetError: It broke off.
        """
        piece = self._pieces.get(block=waits)
        if piece is None or isinstance(piece, FleetError):
            self._pieces.put(piece)  # for whoever asks again
            if piece is not None:
                raise piece
        return piece
