"""Anthropic's message batches: requests come with the batch, results as lines once it has ended.

Nothing of ours stands beside a batch, so after a lost reply it is found by its time, its count and, at its end, by the
names of its requests: one that may be it is waited for, and nothing is sent again meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from fleet.batches import BatchAnswer, BatchRequest, Manifest, VendorBatch
from fleet.errors import BadRequest, NotSoon, ProviderUnavailable
from fleet.waits import Wait
from fleet.workers.providers.base import encode_json
from fleet.workers.providers.batches.http import BatchHttp, usage_of

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
        return _sent(await self._http.json("POST", PATH, data=b'{"requests":[%b]}' % rows, bodies=bodies))

    async def find(self, manifest: Manifest) -> VendorBatch | None:
        """Return the batch of a job; None: there is none.

        Raises:
            NotSoon: One of its time and count has not ended: its requests have no names until then.
        """
        after, waits = "", False
        for _ in range(PAGES):
            page = await self._http.json("GET", f"{PATH}?limit={PAGE}{after}")
            batches = [one for one in page.get("data") or [] if isinstance(one, dict)]
            for one in batches:
                if _count(one) != manifest.requests or one.get("id") in manifest.not_these:
                    continue
                if _made_at(one) < manifest.since_s - AROUND_S:
                    continue
                sent = _sent(one)
                if sent.state == "running":
                    waits = True
                elif await self._is_of(sent, manifest.job):
                    return sent
            if not (page.get("has_more") and batches) or _made_at(batches[-1]) < manifest.since_s - AROUND_S:
                break
            after = f"&after_id={batches[-1].get('id')}"
        if waits:
            raise NotSoon(Wait("batch", about=self._http.host, told="a batch that may be this one has not ended"))
        return None

    async def _is_of(self, sent: VendorBatch, job: str) -> bool:
        """True when the first result of a batch is one of a job's."""
        try:
            async for one in self.answers(sent):
                return one.custom_id.startswith(f"{job}-")
        except (ProviderUnavailable, BadRequest):
            return False
        return False

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch stands."""
        return _sent(await self._http.json("GET", f"{PATH}/{batch}"))

    async def cancel(self, batch: str) -> None:
        """Let nothing more of it run."""
        try:
            await self._http.json("POST", f"{PATH}/{batch}/cancel", data=b"{}", missing_ok=True)
        except (ProviderUnavailable, BadRequest):
            if (await self.look(batch)).state == "running":
                raise

    async def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        """Yield its results."""
        raw = await self._http.send("GET", f"{PATH}/{sent.id}/results")
        for line in raw.split(b"\n"):
            if line.strip():
                yield self._answer(line)

    def _answer(self, line: bytes) -> BatchAnswer:
        told = self._http.object_of(line)
        result = told.get("result") or {}
        message = result.get("message")
        if result.get("type") != "succeeded" or not isinstance(message, dict):
            return BatchAnswer(str(told.get("custom_id")))
        return BatchAnswer(str(told.get("custom_id")), encode_json(message), usage_of(message))

    async def delete(self, sent: VendorBatch) -> None:
        """Delete the batch, and its requests and results with it."""
        await self._http.json("DELETE", f"{PATH}/{sent.id}", missing_ok=True)


def _sent(told: dict[str, Any]) -> VendorBatch:
    found = told.get("id")
    if not isinstance(found, str):
        raise ProviderUnavailable("expected a batch with an `id`, got none")
    counts = told.get("request_counts") or {}
    is_over = told.get("processing_status") == "ended"
    return VendorBatch(found, "ended" if is_over else "running", (), int(counts.get("succeeded") or 0))


def _count(told: dict[str, Any]) -> int:
    counts = told.get("request_counts")
    return sum(int(one) for one in counts.values() if isinstance(one, int)) if isinstance(counts, dict) else 0


def _made_at(told: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(told.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")
