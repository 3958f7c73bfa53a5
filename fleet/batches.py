"""What a batch of a vendor is, whoever the vendor: what is sent, what it says of it, what comes back. No I/O here.

How each vendor spells it: `workers/providers/batches/`. Who sends batches, and never twice: `engine/process/batching/`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from fleet.usage import Usage

#: `running`: not at its end. `ended`: what there is of it can be read. `failed`: nothing of it has run, or will.
VendorState = Literal["running", "ended", "failed"]


class BatchRequest(NamedTuple):
    """One request of a batch: its name there, and its body as JSON."""

    custom_id: str
    body: bytes


class VendorBatch(NamedTuple):
    """A batch as its vendor tells it.

    Args:
        id: The vendor's.
        state: How far it is.
        files: Its input, and what came out of it.
        done: Requests that are answered; 0 also where the vendor does not say.
        why: Why it has failed.
        is_queue_full: It has failed because too much waits there already: later it may do.
    """

    id: str
    state: VendorState
    files: tuple[str, ...] = ()
    done: int = 0
    why: str = ""
    is_queue_full: bool = False


class BatchAnswer(NamedTuple):
    """What came of one request.

    Args:
        custom_id: Its name; empty: what came cannot be read, and nobody knows whose it is.
        body: The answer as JSON; empty: there is none, and nothing was billed.
        usage: What was used.
    """

    custom_id: str
    body: bytes = b""
    usage: Usage = Usage()


class Manifest(NamedTuple):
    """By what a batch is found among others of its account, also when the reply that named it was lost.

    Args:
        job: Our own id of it.
        requests: How many it has.
        since_s: Unix time before which it was surely not made.
        not_these: Ids of batches that are other jobs', or have failed.
        file: Its input file at the vendor; empty: it has none, or nobody knows.
    """

    job: str
    requests: int
    since_s: float
    not_these: frozenset[str] = frozenset()
    file: str = ""


class Leaving(NamedTuple):
    """A task's call that leaves for a batch.

    Args:
        task: Its id.
        pool: Whose call it is.
        bot: Who asks.
        tenant: For whom; empty: nobody in particular.
        kind: Task class.
        run: Run of a file that has a budget; empty: none.
        limit: `provider/model/key` under which it goes, to its end.
        by_at: Unix time (s) by which its answer is needed.
        body: Its request as JSON.
        most_picos: What it may cost in a batch at most (10^-12 dollars); None: it has no price.
        lane: Which it takes.
        ticket: Of the grant under which it was sent; empty: it goes without one.
    """

    task: str
    pool: str
    bot: str
    tenant: str
    kind: str
    run: str
    limit: str
    by_at: float
    body: bytes
    most_picos: int | None = None
    lane: str = "batch"
    ticket: str = ""


@runtime_checkable
class BackgroundApi(Protocol):
    """A vendor's responses that are answered later, one by one, under one key.

    Looked at, cancelled, read and deleted as a batch of one request, which has the response's own id.
    """

    def takes(self, body: bytes) -> bool:
        """True when a request, as JSON, can be answered so."""
        ...

    async def begin(self, body: bytes, window: str) -> str:
        """Let a request be answered in the background; return the response's id. This is what costs.

        Raises:
            FleetError: As `fleet.workers.ports.Provider` does.
        """
        ...


class Arrived(NamedTuple):
    """With what a task's call is back.

    Args:
        limit: `provider/model/key` under which it was asked.
        body: The answer as JSON; empty: none came, or will in time.
        lane: Which it had taken.
        is_raced: It goes on there, while its task asks once more on another one.
    """

    limit: str
    body: bytes = b""
    lane: str = "batch"
    is_raced: bool = False


class BatchApi(Protocol):
    """A vendor's batches under one key. Each method sends requests that cost nothing but `create`; none repeats any.

    All raise `FleetError`s as `fleet.workers.ports.Provider` does.
    """

    #: Its requests are uploaded before the batch is made of them.
    has_files: bool

    async def upload(self, job: str, requests: list[BatchRequest]) -> str:
        """Upload the input of a job; return the file's id."""
        ...

    async def find_file(self, job: str) -> str | None:
        """Return the file that was uploaded for a job; None: there is none."""
        ...

    async def create(self, job: str, file: str, requests: list[BatchRequest]) -> VendorBatch:
        """Make the batch. This is what costs; `requests` are sent where it has no files."""
        ...

    async def find(self, manifest: Manifest) -> VendorBatch | None:
        """Return the batch of a job; None: there is none.

        Raises:
            NotSoon: One may be it, and only its end will tell.
        """
        ...

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch stands."""
        ...

    async def cancel(self, batch: str) -> None:
        """Let nothing more of it run. Its end comes later; safe to repeat."""
        ...

    def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        """Yield what came of the requests of a batch that has ended; those without an answer may be left out."""
        ...

    async def delete(self, sent: VendorBatch) -> None:
        """Delete what the vendor keeps of a batch that has ended: safe to repeat."""
        ...
