"""Anthropic's message batches: requests come with the batch, results as lines once it has ended.

Nothing of ours stands beside a batch, so after a lost reply it is found by its time, its count and, at its end, by the
names of its requests: one that may be it is waited for, and nothing is sent again meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from fleet.batches import BatchAnswer, BatchRequest, Manifest, VendorBatch
from fleet.errors import BadRequest, NotServed, NotSoon, ProviderUnavailable
from fleet.waits import Wait
from fleet.workers.providers.base import encode_json
from fleet.workers.providers.batches.http import BatchHttp, inner, object_of, text, usage_of, whole

#: Where these batches are.
PATH = "/v1/messages/batches"
#: Batches of a page of the list, and pages that are read (count).
PAGE, PAGES = 1000, 20
#: Seconds that clocks may be apart.
AROUND_S = 600.0


class AnthropicBatchApi:
    """Implements `fleet.batches.BatchApi`.

    Args:
        http: Requests under its key.
    """

    has_files = False

    def __init__(self, http: BatchHttp) -> None:
        self._http = http

    async def upload(self, job: str, requests: list[BatchRequest]) -> str:
        """There is nothing to upload."""
        return ""

    async def find_file(self, job: str) -> str | None:
        """There are no files."""
        return None

    async def create(self, job: str, file: str, requests: list[BatchRequest]) -> VendorBatch:
        """Make the batch."""
        rows = b",".join(b'{"custom_id":"%b","params":%b}' % (one.custom_id.encode(), one.body) for one in requests)
        bodies = [one.body for one in requests]
        return self._sent(await self._http.json("POST", PATH, data=b'{"requests":[%b]}' % rows, bodies=bodies))

    async def find(self, manifest: Manifest) -> VendorBatch | None:
        """Return the batch of a job; None: there is none.

        Raises:
            NotSoon: One of its time and count may be it: it has not ended, so its requests have no names yet, or its
                results tell none.
        """
        waits = False
        async for one in self._listed():
            if _made_at(one) < manifest.since_s - AROUND_S:
                break
            if _count(one) not in (manifest.requests, 0) or one.get("id") in manifest.not_these:
                continue
            sent = self._sent(one)
            is_ours = None if sent.state == "running" else await self._is_of(sent, manifest.job)
            if is_ours:
                return sent
            waits = waits or is_ours is None
        if waits:
            raise NotSoon(Wait("batch", about=self._http.host, told="a batch that may be this one has not told yet"))
        return None

    async def _listed(self) -> AsyncIterator[dict[str, Any]]:
        """Yield all batches, newest first: what is not found there is not there.

        Raises:
            FleetError: A page cannot be read, or there are too many.
        """
        after = ""
        for _ in range(PAGES):
            page = await self._http.json("GET", f"{PATH}?limit={PAGE}{after}")
            rows = page.get("data")
            if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
                raise self._http.unread("a list of batches")
            for one in rows:
                yield one
            if not page.get("has_more"):
                return
            if not rows:
                raise self._http.unread("a page with batches, for it says that there are more")
            after = f"&after_id={self._sent(rows[-1]).id}"
        raise self._http.unread(f"a list of at most {PAGES} pages")

    async def _is_of(self, sent: VendorBatch, job: str) -> bool | None:
        """True when the results of a batch are a job's, by the first that tells; None: none does, or they are gone.

        Raises:
            FleetError: They cannot be read now.
        """
        try:
            async with aclosing(self.answers(sent)) as answers:
                async for one in answers:
                    if one.custom_id:
                        return one.custom_id.startswith(f"{job}-")
        except (BadRequest, NotServed):
            return None
        return None

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch stands."""
        return self._sent(await self._http.json("GET", f"{PATH}/{batch}"))

    async def cancel(self, batch: str) -> None:
        """Let nothing more of it run."""
        try:
            await self._http.json("POST", f"{PATH}/{batch}/cancel", data=b"{}", missing_ok=True)
        except (ProviderUnavailable, BadRequest):
            if (await self.look(batch)).state == "running":
                raise

    async def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        """Yield its results."""
        async with aclosing(self._http.lines(f"{PATH}/{sent.id}/results")) as lines:
            async for line in lines:
                yield _answer(line)

    async def delete(self, sent: VendorBatch) -> None:
        """Delete the batch, and its requests and results with it."""
        await self._http.json("DELETE", f"{PATH}/{sent.id}", missing_ok=True)

    def _sent(self, told: dict[str, Any]) -> VendorBatch:
        found = text(told, "id")
        if not found:
            raise self._http.unread("a batch with an `id`")
        is_over = told.get("processing_status") == "ended"
        done = whole(inner(told, "request_counts"), "succeeded")
        return VendorBatch(found, "ended" if is_over else "running", (), done)


def _answer(line: bytes) -> BatchAnswer:
    told = object_of(line)
    if told is None:
        return BatchAnswer("")
    result = inner(told, "result")
    message = inner(result, "message")
    if result.get("type") != "succeeded" or not message:
        return BatchAnswer(text(told, "custom_id"))
    return BatchAnswer(text(told, "custom_id"), encode_json(message), usage_of(message))


def _count(told: dict[str, Any]) -> int:
    """Return how many requests a batch has; 0: it does not say."""
    counts = inner(told, "request_counts")
    return sum(whole(counts, name) for name in counts)


def _made_at(told: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(told.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")
