"""Where clients come with files and batches: finds what a path asks for, and answers in the vendor's words."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import BodyPartReader, web

from fleet.quoting import quote
from fleet.workers.simulator.batch import openai_batches
from fleet.workers.simulator.batch.answering import BATCH, Answerer
from fleet.workers.simulator.batch.book import JobBook
from fleet.workers.simulator.batch.clock import Clock
from fleet.workers.simulator.batch.faults import BatchFaults, Failing
from fleet.workers.simulator.batch.files import MAX_FILE_BYTES, Files, StoredFile, read_upload
from fleet.workers.simulator.batch.jobs import CANCELLED_S, CHECKED_S, WINDOW_S, BatchJob, between, planned, takes_s
from fleet.workers.simulator.batch.listing import page_of
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.sending import MARK, respond
from fleet.workers.simulator.wires.wire import Wire, encode_json, read_object

#: Paths of this desk begin so.
FILES, BATCHES = "/v1/files", "/v1/batches"
#: Bytes that are read at once of an upload.
CHUNK_BYTES = 1 << 20
#: Characters that a refusal quotes of what it refuses.
QUOTED = 400


class NoSuch(Exception):
    """There is no object of that id; the message says so in the vendor's words."""


class Conflict(Exception):
    """The object is not in a state that allows it."""


class BatchDesk:
    """OpenAI's files and batches.

    Args:
        provider: Answers and bills.
        book: All jobs.
        clock: The provider's time.
        faults: What goes wrong on demand.
        wires: What a batch may ask for, by its path.
    """

    def __init__(
        self, provider: Answerer, book: JobBook, clock: Clock, faults: BatchFaults, wires: Mapping[str, Wire]
    ) -> None:
        self._provider, self._book, self._clock, self._faults, self._wires = provider, book, clock, faults, wires
        self._files = Files()

    async def answer(self, request: web.BaseRequest, key: str) -> web.StreamResponse:
        """Answer any request below the two paths."""
        wire = next(iter(self._wires.values()))
        try:
            told = await self._told(request, key)
        except WireError as error:
            return _refusal(wire, 400, str(error), param=error.param, code=error.code)
        except NoSuch as error:
            return _refusal(wire, 404, str(error))
        except Conflict as error:
            return _refusal(wire, 409, str(error))
        except Failing as error:
            return _refusal(wire, error.status, "A fault that was asked for.")
        if told is None:
            return lost(request)
        if isinstance(told, bytes):
            return respond(200, told, {**MARK, "Content-Type": "application/octet-stream"})
        if told.get("refused"):
            return _refusal(wire, 429, "Too many requests for batches; try again later.", code="rate_limit_exceeded")
        return respond(200, encode_json(told).encode("ascii"), MARK)

    async def _told(self, request: web.BaseRequest, key: str) -> dict[str, Any] | bytes | None:
        """Return what a request gets: an object, a file, or nothing when the reply is lost."""
        now_s = await self._book.catch_up()
        self._faults.fail("refused_key", 401)
        asked = (request.method, *request.path.strip("/").split("/")[1:])
        match asked:
            case ("POST", "files"):
                return await self._upload(request, key)
            case ("GET", "files"):
                return self._faults.page(self._files.page(key, request.query, now_s))
            case ("GET", "files", file_id):
                return self._file(key, file_id, now_s).told()
            case ("GET", "files", file_id, "content"):
                return self._faults.output(self._file(key, file_id, now_s).content)
            case ("DELETE", "files", file_id):
                self._faults.fail("refused_delete", 400)
                self._file(key, file_id, now_s)
                return {"id": file_id, "object": "file", "deleted": self._files.delete(key, file_id, now_s)}
            case ("POST", "batches"):
                return await self._create(read_object(await request.read()), key)
            case ("GET", "batches"):
                page = page_of([{"id": job.id} for job in self._book.of(key, "batch_")], request.query)
                named = [self._batch(key, one["id"]) for one in page["data"]]
                return self._faults.page({**page, "data": [openai_batches.told(job, now_s) for job in named]})
            case ("GET", "batches", batch_id):
                return openai_batches.told(self._batch(key, batch_id), now_s)
            case ("POST", "batches", batch_id, "cancel"):
                return self._cancel(self._batch(key, batch_id), now_s)
        raise NoSuch(f"unknown path for {request.method}: expected one of the files' or the batches'")

    def _file(self, key: str, file_id: str, now_s: float) -> StoredFile:
        found = self._files.find(key, file_id, now_s)
        if found is None:
            raise NoSuch(f"No such File object: {quote(file_id)}")
        return found

    def _batch(self, key: str, batch_id: str) -> BatchJob:
        found = self._book.find(key, batch_id)
        if found is None:
            raise NoSuch(f"No batch found with id {quote(batch_id)}.")
        return found

    async def _upload(self, request: web.BaseRequest, key: str) -> dict[str, Any] | None:
        parts, filename, content = await _read_parts(request)
        purpose, kept_s = read_upload(parts, filename, content)
        if self._faults.meets("refused_upload"):
            raise WireError(f"Invalid file: {(content or b'').decode('utf-8', 'replace')[:QUOTED]}", param="file")
        now_s = self._clock.now_s()
        expires_s = None if kept_s is None else now_s + kept_s
        file = StoredFile(f"file-{uuid.uuid4().hex}", key, filename, purpose, content or b"", now_s, expires_s)
        self._files.keep(file)
        return None if self._faults.meets("lost_upload") else file.told()

    async def _create(self, body: dict[str, Any], key: str) -> dict[str, Any] | None:
        told = openai_batches.read_create(body, self._wires)
        if self._faults.meets("no_metadata"):
            told["metadata"] = None
        now_s, options = self._clock.now_s(), self._provider.options
        file = self._files.find(key, told["input_file_id"], now_s)
        if file is None or file.purpose != "batch":
            raise WireError(
                f"Invalid input_file_id: expected a file of purpose 'batch', got {quote(told['input_file_id'])}",
                param="input_file_id",
            )
        if self._faults.meets("refused_create"):
            return {"refused": True}
        if self._faults.meets("bad_create"):
            raise WireError(f"Invalid request: {file.content.decode('utf-8', 'replace')[:QUOTED]}")
        lines, errors = await asyncio.to_thread(openai_batches.read_lines, file.content, told["endpoint"])
        if not errors and self._faults.meets("failed_validation"):
            errors = [openai_batches.BAD_LINE]
        wire = self._wires[told["endpoint"]]
        model = lines[0].body.get("model") if lines else None
        tokens = 0
        if not errors and options.batch_queue_tokens is not None:
            tokens = sum(self._input_tokens(wire, key, line.body) for line in lines)
            if tokens + self._queued_tokens(key, model) > options.batch_queue_tokens:
                errors = [openai_batches.over_the_queue(model, options.batch_queue_tokens)]
        chance = self._provider.model.chance
        draw = chance.draw(key, file.content)
        begins_s = now_s + (between(draw.fate, CHECKED_S) if options.batch_median_s else 0.0)
        takes = takes_s(draw, median_s=options.batch_median_s, p95_s=options.batch_p95_s)
        job = BatchJob(
            id=f"batch_{uuid.uuid4().hex}",
            key=key,
            wire=wire,
            tier=BATCH,
            created_s=now_s,
            begins_s=begins_s,
            expires_s=now_s + WINDOW_S,
            items=[] if errors else planned(lines, chance=chance, draw=draw, begins_s=begins_s, takes_s=takes),
            cancel_takes_s=between(draw.words, CANCELLED_S),
            errors=errors,
            told={**told, "model": model},
            queued_tokens=tokens,
        )
        if not options.batch_median_s:
            job.finalized_s = 0.0
        if not errors:
            job.meet(self._faults)
        self._book.add(job, self._ended)
        return None if self._faults.meets("lost_create") else openai_batches.told(job, now_s)

    def _input_tokens(self, wire: Wire, key: str, body: dict[str, Any]) -> int:
        """Return the input of a request; one that is refused later waits with none."""
        try:
            read = wire.understood(self._provider.kept.unfolded(key, body), "", {}) if wire.is_translated else body
            return wire.read(read, {}).input_tokens
        except WireError:
            return 0

    def _queued_tokens(self, key: str, model: object) -> int:
        """Return the input tokens that wait already."""
        waiting = [job for job in self._book.of(key, "batch_") if self._book.is_open(job)]
        return sum(job.queued_tokens for job in waiting if job.told.get("model") == model)

    def _ended(self, job: BatchJob) -> None:
        """Write the files of a batch."""
        if job.errors:
            return
        for name, content in zip(("output_file_id", "error_file_id"), openai_batches.files_of(job), strict=True):
            if content:
                file_id = job.files[name] = f"file-{uuid.uuid4().hex}"
                if not job.is_gone:
                    filename = f"{job.id}_{name.split('_')[0]}.jsonl"
                    self._files.keep(StoredFile(file_id, job.key, filename, "batch_output", content, job.ends_s))

    def _cancel(self, job: BatchJob, now_s: float) -> dict[str, Any]:
        told = openai_batches.told(job, now_s)
        if job.ends_s <= now_s:
            raise Conflict(f"Cannot cancel a batch with status '{told['status']}'.")
        job.cancel(now_s)
        return openai_batches.told(job, now_s)


async def _read_parts(request: web.BaseRequest) -> tuple[dict[str, str], str, bytes | None]:
    """Return the fields of an upload, the name of its file and its content. Raises `WireError`."""
    if not request.content_type.startswith("multipart/"):
        raise WireError("expected multipart/form-data, with the file in it")
    parts, filename, content = dict[str, str](), "", None
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            read = await _read_part(part)
            if part.name == "file":
                filename, content = part.filename or "", read
            elif part.name:
                parts[part.name] = read.decode("utf-8", "replace").strip()
    except ValueError:
        raise WireError("expected multipart/form-data, got something else") from None
    return parts, filename, content


async def _read_part(part: BodyPartReader) -> bytes:
    read = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        read += chunk
        if len(read) > MAX_FILE_BYTES:
            raise WireError(f"expected a file of at most {MAX_FILE_BYTES} bytes, got a larger one", param="file")
    return bytes(read)


async def body_of(request: web.BaseRequest, most: int) -> bytes:
    """Return a body that may be larger than that of a call. Raises `WireError`."""
    read = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        read += chunk
        if len(read) > most:
            raise WireError(f"expected a body of at most {most} bytes, got a larger one")
    return bytes(read)


def lost(request: web.BaseRequest) -> web.Response:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _refusal(
    wire: Wire, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> web.Response:
    return respond(status, wire.error(status, message, param=param, code=code), MARK)
