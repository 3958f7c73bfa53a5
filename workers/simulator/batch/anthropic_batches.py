"""Anthropic's message batches: requests come in the body, results as lines of JSON, and counts at the end only."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fleet.quoting import quote
from fleet.workers.simulator.batch.answering import BATCH, Answerer
from fleet.workers.simulator.batch.book import JobBook
from fleet.workers.simulator.batch.clock import Clock
from fleet.workers.simulator.batch.desk import QUOTED, NoSuch, body_of, lost
from fleet.workers.simulator.batch.faults import BatchFaults, Failing
from fleet.workers.simulator.batch.jobs import CANCELLED_S, WINDOW_S, BatchJob, Item, between, planned, takes_s
from fleet.workers.simulator.batch.listing import page_of
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.sending import MARK, respond
from fleet.workers.simulator.wires.wire import Wire, encode_json, read_object

#: Where these batches are.
MESSAGE_BATCHES = "/v1/messages/batches"
#: Requests of a batch and bytes of all of them at most.
MAX_REQUESTS, MAX_BYTES = 100_000, 256 * 1024 * 1024
#: Seconds for which results can be read.
ARCHIVED_S = 29 * 86_400.0

_PREFIX = "msgbatch_"
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class MessageBatches:
    """All that is below `/v1/messages/batches`.

    Args:
        provider: Answers and bills.
        book: All jobs.
        clock: The provider's time.
        faults: What goes wrong on demand.
        wire: The format of the requests.
    """

    def __init__(self, provider: Answerer, book: JobBook, clock: Clock, faults: BatchFaults, wire: Wire) -> None:
        self._provider, self._book, self._clock, self._faults, self._wire = provider, book, clock, faults, wire

    async def answer(self, request: web.BaseRequest, key: str) -> web.StreamResponse:
        """Answer any request below the path."""
        try:
            told = await self._told(request, key)
        except WireError as error:
            return respond(400, self._wire.error(400, str(error)), MARK)
        except NoSuch as error:
            return respond(404, self._wire.error(404, str(error)), MARK)
        except Failing as error:
            return respond(error.status, self._wire.error(error.status, "A fault that was asked for."), MARK)
        if told is None:
            return lost(request)
        if isinstance(told, bytes):
            return respond(200, told, {**MARK, "Content-Type": "application/binary"})
        if told.get("refused"):
            message = "This request would exceed your organization's rate limit of batch requests."
            return respond(429, self._wire.error(429, message), MARK)
        return respond(200, encode_json(told).encode("ascii"), MARK)

    async def _told(self, request: web.BaseRequest, key: str) -> dict[str, Any] | bytes | None:
        """Return what a request gets: an object, results, or nothing when the reply is lost."""
        now_s = await self._book.catch_up()
        self._faults.fail("refused_key", 401)
        host = f"http://{request.headers.get('Host', '')}"
        match (request.method, *request.path.removeprefix(MESSAGE_BATCHES).strip("/").split("/")):
            case ("POST", ""):
                return await self._create(request, key, host)
            case ("GET", ""):
                ids = [{"id": job.id} for job in self._book.of(key, _PREFIX)]
                page = page_of(ids, request.query, most=1000, after="after_id", before="before_id")
                jobs = [self._batch(key, one["id"]) for one in page["data"]]
                return self._faults.page({**page, "data": [_told(job, now_s, host) for job in jobs]})
            case ("GET", batch_id):
                return _told(self._batch(key, batch_id), now_s, host)
            case ("GET", batch_id, "results"):
                return self._faults.output(_results(self._batch(key, batch_id), now_s))
            case ("POST", batch_id, "cancel"):
                job = self._batch(key, batch_id)
                if job.ends_s <= now_s:
                    raise WireError(f"Batch {quote(batch_id)} cannot be canceled because it has already ended.")
                job.cancel(now_s)
                return _told(job, now_s, host)
            case ("DELETE", batch_id):
                self._faults.fail("refused_delete", 400)
                job = self._batch(key, batch_id)
                if job.ends_s > now_s:
                    raise WireError(
                        f"Batch {quote(batch_id)} cannot be deleted while it is processed: cancel it first."
                    )
                self._book.drop(job)
                return {"id": batch_id, "type": "message_batch_deleted"}
        raise NoSuch(f"unknown path for {request.method}: expected one of the message batches'")

    def _batch(self, key: str, batch_id: str) -> BatchJob:
        found = self._book.find(key, batch_id) if batch_id.startswith(_PREFIX) else None
        if found is None:
            raise NoSuch(f"No message batch found with id {quote(batch_id)}.")
        return found

    async def _create(self, request: web.BaseRequest, key: str, host: str) -> dict[str, Any] | None:
        raw = await body_of(request, MAX_BYTES)
        requests = read_requests(read_object(raw))
        if self._faults.meets("refused_create"):
            return {"refused": True}
        if self._faults.meets("bad_create"):
            raise WireError(f"requests.0.params: Invalid request {encode_json(requests[0][1])[:QUOTED]}")
        now_s, options, chance = self._clock.now_s(), self._provider.options, self._provider.model.chance
        draw = chance.draw(key, raw)
        takes = takes_s(draw, median_s=options.batch_median_s, p95_s=options.batch_p95_s)
        job = BatchJob(
            id=f"{_PREFIX}{uuid.uuid4().hex}",
            key=key,
            wire=self._wire,
            tier=BATCH,
            created_s=now_s,
            begins_s=now_s,
            expires_s=now_s + WINDOW_S,
            items=planned(requests, chance=chance, draw=draw, begins_s=now_s, takes_s=takes),
            cancel_takes_s=between(draw.words, CANCELLED_S),
            finalized_s=0.0,
        )
        job.meet(self._faults)
        self._book.add(job, lambda ended: None)
        return None if self._faults.meets("lost_create") else _told(job, now_s, host)


def read_requests(body: Mapping[str, Any], *, most: int = MAX_REQUESTS) -> list[tuple[str, dict[str, Any]]]:
    """Return the requests of a batch: what is wrong inside of one is told in its result. Raises `WireError`."""
    requests = body.get("requests")
    if not isinstance(requests, list) or not 1 <= len(requests) <= most:
        raise WireError(f"requests: expected a list of 1 to {most} requests")
    read: dict[str, dict[str, Any]] = {}
    for place, one in enumerate(requests):
        custom_id, params = (one.get("custom_id"), one.get("params")) if isinstance(one, dict) else (None, None)
        if not isinstance(custom_id, str) or _CUSTOM_ID.fullmatch(custom_id) is None:
            raise WireError(
                f"requests.{place}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$', got "
                f"{quote(custom_id)}"
            )
        if not isinstance(params, dict):
            raise WireError(f"requests.{place}.params: Field required")
        if custom_id in read:
            raise WireError(f"requests.{place}.custom_id: {quote(custom_id)} is not unique in this batch")
        read[custom_id] = params
    return list(read.items())


def _told(job: BatchJob, now_s: float, host: str) -> dict[str, Any]:
    """Return the vendor's object."""
    has_ended, is_archived = job.ends_s <= now_s, job.created_s + ARCHIVED_S <= now_s
    counts = Counter(_kind(job, item) for item in job.items) if has_ended else Counter(processing=len(job.items))
    status = "ended" if has_ended else "in_progress" if job.cancelled_at_s is None else "canceling"
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {
            name: counts[name] for name in ("processing", "succeeded", "errored", "canceled", "expired")
        },
        "created_at": _date(job.created_s),
        "expires_at": _date(job.expires_s),
        "ended_at": _date(job.ends_s) if has_ended else None,
        "cancel_initiated_at": None if job.cancelled_at_s is None else _date(job.cancelled_at_s),
        "archived_at": _date(job.created_s + ARCHIVED_S) if is_archived else None,
        "results_url": f"{host}{MESSAGE_BATCHES}/{job.id}/results" if has_ended and not is_archived else None,
    }


def _results(job: BatchJob, now_s: float) -> bytes:
    """Return the results of a batch that has ended. Raises `NoSuch`."""
    if job.ends_s > now_s or job.created_s + ARCHIVED_S <= now_s or job.is_gone:
        raise NoSuch(f"Batch {quote(job.id)} has no results: it has not ended yet, or they are not kept any more.")
    rows = ({"custom_id": item.custom_id, "result": _result(job, item)} for item in job.in_files())
    return "".join(f"{encode_json(row)}\n" for row in rows).encode("ascii")


def _result(job: BatchJob, item: Item) -> dict[str, Any]:
    kind = _kind(job, item)
    if item.answer is None:
        return {"type": kind}
    return {"type": kind, "message" if kind == "succeeded" else "error": item.answer.body}


def _kind(job: BatchJob, item: Item) -> str:
    if item.answer is not None:
        return "succeeded" if item.answer.status == 200 else "errored"
    return "expired" if job.cancelled_at_s is None else "canceled"


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
