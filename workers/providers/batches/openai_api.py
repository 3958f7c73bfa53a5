"""OpenAI's batches: a file of requests, a batch of that file, files of what came out.

A job is known again by the name of its file and by the batch's metadata, so a lost reply loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp

from fleet.batches import BatchAnswer, BatchRequest, Manifest, VendorBatch
from fleet.errors import ProviderUnavailable
from fleet.workers.providers.base import encode_json
from fleet.workers.providers.batches.http import BatchHttp, usage_of
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
        sent = await self._http.json("POST", "/files", data=form, is_json=False, bodies=_bodies(requests))
        return _id(sent)

    async def find_file(self, job: str) -> str | None:
        """Return the file that was uploaded for a job; None: there is none."""
        after = ""
        for _ in range(PAGES):
            page = await self._http.json("GET", f"/files?purpose=batch&order=desc&limit={FILES_PAGE}{after}")
            files = _data(page)
            found = next((one for one in files if one.get("filename") == _name(job)), None)
            if found is not None:
                return _id(found)
            if not (page.get("has_more") and files):
                return None
            after = f"&after={_id(files[-1])}"
        return None

    async def create(self, job: str, file: str, requests: list[BatchRequest]) -> VendorBatch:
        """Make the batch of a file."""
        body = {
            "input_file_id": file, "endpoint": ENDPOINT, "completion_window": WINDOW, "metadata": {MARK: job},
        }  # fmt: skip
        return _sent(await self._http.json("POST", "/batches", data=encode_json(body), bodies=_bodies(requests)))

    async def find(self, manifest: Manifest) -> VendorBatch | None:
        """Return the batch of a job; None: there is none."""
        after = ""
        for _ in range(PAGES):
            page = await self._http.json("GET", f"/batches?limit={PAGE}{after}")
            batches = _data(page)
            for one in batches:
                is_ours = (one.get("metadata") or {}).get(MARK) == manifest.job
                if is_ours and one.get("id") not in manifest.not_these:
                    return _sent(one)
            oldest = batches[-1].get("created_at") if batches else None
            if not page.get("has_more") or (isinstance(oldest, int) and oldest < manifest.since_s - AROUND_S):
                return None
            after = f"&after={_id(batches[-1])}"
        return None

    async def look(self, batch: str) -> VendorBatch:
        """Return how a batch stands."""
        return _sent(await self._http.json("GET", f"/batches/{batch}"))

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
            raw = await self._http.send("GET", f"/files/{file}/content")
            for line in raw.split(b"\n"):
                if line.strip():
                    yield self._answer(line)

    def _answer(self, line: bytes) -> BatchAnswer:
        told = self._http.object_of(line)
        response = told.get("response") or {}
        body = response.get("body")
        if response.get("status_code") != 200 or not isinstance(body, dict):
            return BatchAnswer(str(told.get("custom_id")))
        return BatchAnswer(str(told.get("custom_id")), encode_json(body), usage_of(body))

    async def delete(self, sent: VendorBatch) -> None:
        """Delete its files; the batch itself holds no words."""
        for file in sent.files:
            await self._http.json("DELETE", f"/files/{file}", missing_ok=True)


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


def _data(page: dict[str, Any]) -> list[dict[str, Any]]:
    found = page.get("data")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _id(told: dict[str, Any]) -> str:
    found = told.get("id")
    if not isinstance(found, str):
        raise ProviderUnavailable("expected an object with an `id`, got none")
    return found


def _sent(told: dict[str, Any]) -> VendorBatch:
    status, errors = told.get("status"), (told.get("errors") or {}).get("data") or []
    codes = [word_of(one.get("code")) for one in errors if isinstance(one, dict)]
    files = (told.get("input_file_id"), told.get("output_file_id"), told.get("error_file_id"))
    done = (told.get("request_counts") or {}).get("completed") or 0
    return VendorBatch(
        _id(told),
        "ended" if status in _OVER else "failed" if status == "failed" else "running",
        tuple(file for file in files if isinstance(file, str)),
        int(done),
        ", ".join(codes) if status == "failed" else "",
        "token_limit_exceeded" in codes,
    )
