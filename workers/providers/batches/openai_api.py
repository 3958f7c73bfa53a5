"""OpenAI's batches: a file of requests, a batch of that file, files of what came out.

A job is known again by the name of its file, and its batch by its metadata or its input file, so a lost reply loses
nothing, also at a server that keeps no metadata.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import aiohttp

from fleet.batches import BatchAnswer, BatchRequest, Manifest, VendorBatch
from fleet.errors import FleetError, NotSoon, ProviderUnavailable
from fleet.waits import Wait
from fleet.workers.providers.base import encode_json
from fleet.workers.providers.batches.http import BatchHttp, inner, object_of, text, usage_of, whole
from fleet.workers.providers.batches.refusals import word_of

#: What the requests of a batch ask.
ENDPOINT = "/v1/chat/completions"
#: The one window that there is.
WINDOW = "24h"
#: By what our jobs are known in a batch's metadata.
MARK = "fleet_job"
#: Objects of a page of a list, and pages that are read (count): newest first.
PAGE, PAGES = 100, 50
#: Objects of a page of files.
FILES_PAGE = 1000

_OVER = {"completed", "expired", "cancelled"}


class OpenAIBatchApi:
    """Implements `fleet.batches.BatchApi`.

    Args:
        http: Requests under its key.
    """

    has_files = True

    def __init__(self, http: BatchHttp) -> None:
        self._http = http

    async def upload(self, job: str, requests: list[BatchRequest]) -> str:
        """Upload the input of a job; return the file's id."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", _lines(requests), filename=_name(job), content_type="application/jsonl")
        sent = await self._http.json("POST", "/files", data=form, bodies=_bodies(requests))
        return self._id(sent)

    async def find_file(self, job: str) -> str | None:
        """Return the file that was uploaded for a job; None: there is none."""
        async for one in self._listed(f"/files?purpose=batch&order=desc&limit={FILES_PAGE}"):
            if one.get("filename") == _name(job):
                return self._id(one)
        return None

    async def create(self, job: str, file: str, requests: list[BatchRequest]) -> VendorBatch:
        """Make the batch of a file."""
        body = {
            "input_file_id": file, "endpoint": ENDPOINT, "completion_window": WINDOW, "metadata": {MARK: job},
        }  # fmt: skip
        return self._sent(await self._http.json("POST", "/batches", data=encode_json(body), bodies=_bodies(requests)))

    async def find(self, manifest: Manifest) -> VendorBatch | None:
        """Return the batch of a job; None: there is none.

        Raises:
            NotSoon: Nobody can tell: one of its time says neither of what file it is nor what stands beside it.
        """
        waits = False
        async for one in self._listed(f"/batches?limit={PAGE}"):
            made_at, file = one.get("created_at"), text(one, "input_file_id")
            if isinstance(made_at, int | float) and made_at < manifest.since_s - AROUND_S:
                break
            if text(one, "id") in manifest.not_these:
                continue
            if manifest.job == inner(one, "metadata").get(MARK) or (file and file == manifest.file):
                return self._sent(one)
            waits = waits or not (file or inner(one, "metadata"))
        if waits:
            raise NotSoon(Wait("batch", about=self._http.host, told="a batch that may be this one does not say so"))
        return None

    async def _listed(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a list, all of them: what is not found there is not there.

        Raises:
            FleetError: A page cannot be read, or there are too many.
        """
        after = ""
        for _ in range(PAGES):
            page = await self._http.json("GET", f"{path}{after}")
            rows = page.get("data")
            if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
                raise self._http.unread("a list of objects")
            for one in rows:
                yield one
            if not page.get("has_more"):
                return
            if not rows:
                raise self._http.unread("a page with objects, for it says that there are more")
            after = f"&after={self._id(rows[-1])}"
        raise self._http.unread(f"a list of at most {PAGES} pages")

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch stands."""
        return self._sent(await self._http.json("GET", f"/batches/{batch}"))

    async def cancel(self, batch: str) -> None:
        """Let nothing more of it run."""
        try:
            await self._http.json("POST", f"/batches/{batch}/cancel", data=b"{}", missing_ok=True)
        except ProviderUnavailable:
            if (await self.look(batch)).state == "running":  # else it has ended before: nothing is left to cancel
                raise

    async def answers(self, sent: VendorBatch) -> AsyncGenerator[BatchAnswer]:
        """Yield the answers in its output; the files of errors hold none."""
        for file in sent.files[1:]:
            async with aclosing(self._http.lines(f"/files/{file}/content")) as lines:
                async for line in lines:
                    yield _answer(line)

    async def delete(self, sent: VendorBatch) -> None:
        """Delete its files, as many as the vendor lets; the batch itself holds no words."""
        refused: FleetError | None = None
        for file in sent.files:
            try:
                await self._http.json("DELETE", f"/files/{file}", missing_ok=True)
            except FleetError as error:
                refused = error
        if refused is not None:
            raise refused

    def _id(self, told: dict[str, Any]) -> str:
        found = text(told, "id")
        if not found:
            raise self._http.unread("an object with an `id`")
        return found

    def _sent(self, told: dict[str, Any]) -> VendorBatch:
        status, errors = text(told, "status"), inner(told, "errors").get("data")
        rows = errors if isinstance(errors, list) else []
        codes = [word_of(one.get("code")) for one in rows if isinstance(one, dict)]
        files = (text(told, name) for name in ("input_file_id", "output_file_id", "error_file_id"))
        return VendorBatch(
            self._id(told),
            "ended" if status in _OVER else "failed" if status == "failed" else "running",
            tuple(filter(None, files)),
            whole(inner(told, "request_counts"), "completed"),
            ", ".join(codes) if status == "failed" else "",
            "token_limit_exceeded" in codes,
        )


#: Seconds that clocks may be apart: a list is read on so far before a job's time.
AROUND_S = 3600.0


def _name(job: str) -> str:
    return f"fleet-{job}.jsonl"


def _lines(requests: list[BatchRequest]) -> bytes:
    return b"".join(
        b'{"custom_id":%b,"method":"POST","url":"%b","body":%b}\n'
        % (json.dumps(one.custom_id).encode(), ENDPOINT.encode(), one.body)
        for one in requests
    )


def _bodies(requests: list[BatchRequest]) -> list[bytes]:
    return [one.body for one in requests]


def _answer(line: bytes) -> BatchAnswer:
    told = object_of(line)
    if told is None:
        return BatchAnswer("")
    response = inner(told, "response")
    body = inner(response, "body")
    if response.get("status_code") != 200 or not body:
        return BatchAnswer(text(told, "custom_id"))
    return BatchAnswer(text(told, "custom_id"), encode_json(body), usage_of(body))
