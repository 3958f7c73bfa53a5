"""OpenAI's batches: the object, what its input file may hold, and what stands in its output and error files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from fleet.quoting import quote
from fleet.workers.simulator.batch.jobs import BatchJob, Item
from fleet.workers.simulator.rich.wanted import WireError
from fleet.workers.simulator.wires.wire import encode_json

#: Requests of a batch at most.
MAX_REQUESTS = 50_000
#: Wrong lines that a failed batch tells at most.
MAX_TOLD = 100
#: Metadata: pairs, letters of a name, letters of a value.
MAX_PAIRS, MAX_NAME, MAX_VALUE = 16, 64, 512

_DUPLICATE = (
    "The custom_id for this request is a duplicate of another request. The custom_id parameter must be unique for each "
    "request in a batch."
)
_EXPIRED = "This request could not be executed before the completion window expired."
_CANCELLED = "This request was not executed because the batch was cancelled."


class BatchedLine(NamedTuple):
    """A request of an input file."""

    custom_id: str
    body: dict[str, Any]


def read_create(body: Mapping[str, Any], endpoints: Mapping[str, object]) -> dict[str, Any]:
    """Return what a batch repeats of the request that made it. Raises `WireError`."""
    for name in ("input_file_id", "endpoint", "completion_window"):
        if not isinstance(body.get(name), str):
            raise WireError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    if body["endpoint"] not in endpoints:
        expected = ", ".join(f"'{known}'" for known in endpoints)
        raise WireError(
            f"Invalid value: {quote(body['endpoint'])}. Supported values are: {expected}.",
            param="endpoint",
            code="invalid_value",
        )
    if body["completion_window"] != "24h":
        raise WireError(
            f"Invalid value: {quote(body['completion_window'])}. Value must be '24h'.",
            param="completion_window",
            code="invalid_value",
        )
    metadata = body.get("metadata")
    if metadata is not None:
        _check_metadata(metadata)
    told = {name: body[name] for name in ("input_file_id", "endpoint", "completion_window")}
    return {**told, "metadata": metadata}


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or len(metadata) > MAX_PAIRS:
        raise WireError(f"metadata: expected an object of at most {MAX_PAIRS} pairs", param="metadata")
    for name, value in metadata.items():
        if len(name) > MAX_NAME or not isinstance(value, str) or len(value) > MAX_VALUE:
            raise WireError(
                f"metadata: expected names of at most {MAX_NAME} and texts of at most {MAX_VALUE} characters",
                param="metadata",
            )


def read_lines(
    content: bytes, endpoint: str, *, most: int = MAX_REQUESTS
) -> tuple[list[BatchedLine], list[dict[str, Any]]]:
    """Return the requests of an input file, and what is wrong with it: then nothing of it runs."""
    rows = [row for row in content.split(b"\n") if row.strip()]
    if not rows:
        return [], [_wrong("empty_file", "The input file holds no requests.", None)]
    if len(rows) > most:
        return [], [_wrong("too_many_tasks", f"The batch has {len(rows)} requests, at most {most} are allowed.", None)]
    lines: list[BatchedLine] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    model: object = None
    for number, row in enumerate(rows, 1):
        try:
            line, error = _line(row, endpoint), None
        except WireError as refused:
            line, error = BatchedLine("", {}), _wrong(refused.code or "", str(refused), number, refused.param)
        if error is None and line.custom_id in seen:
            error = _wrong("duplicate_custom_id", _DUPLICATE, number, "custom_id")
        model = line.body.get("model") if model is None else model
        if error is None and line.body.get("model") != model:
            error = _wrong("model_mismatch", "All requests of a batch must name one model.", number, "body.model")
        seen.add(line.custom_id)
        lines.append(line)
        if error is not None:
            errors.append(error)
            if len(errors) == MAX_TOLD:
                break
    return lines, errors


def _line(row: bytes, endpoint: str) -> BatchedLine:
    """Return one request. Raises `WireError`."""
    try:
        told = json.loads(row)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise WireError("This line is not parseable as valid JSON.", code="invalid_json_line")
    for name in ("custom_id", "method", "url", "body"):
        if told.get(name) in (None, ""):
            raise WireError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    custom_id, body = told["custom_id"], told["body"]
    if not isinstance(custom_id, str) or not isinstance(body, dict):
        raise WireError("custom_id: expected text, body: expected an object", param="body", code="invalid_type")
    if told["method"] != "POST":
        raise WireError(f"method: expected 'POST', got {quote(told['method'])}", param="method", code="invalid_method")
    if told["url"] != endpoint:
        raise WireError(
            f"The URL of this request, {quote(told['url'])}, is not the batch's endpoint {quote(endpoint)}.",
            param="url",
            code="url_mismatch",
        )
    return BatchedLine(custom_id, body)


def _wrong(code: str, message: str, line: int | None, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


#: What a batch fails with that is to fail.
BAD_LINE = _wrong("invalid_json_line", "This line is not parseable as valid JSON.", 1)


def over_the_queue(model: object, most: int) -> dict[str, Any]:
    """Return what a batch fails with when too much waits already."""
    message = (
        f"Enqueued token limit reached for {quote(model)} in this organization. Limit: {most:,} enqueued tokens. "
        "Please try again once some in_progress batches have been completed."
    )
    return _wrong("token_limit_exceeded", message, None)


def told(job: BatchJob, now_s: float) -> dict[str, Any]:
    """Return the vendor's object."""
    status, ends_s = _status(job, now_s), int(job.ends_s)
    has_ended = job.ends_s <= now_s
    is_cancelled = job.cancelled_at_s is not None
    counts = Counter("completed" if item.answer.status == 200 else "failed" for item in job.items if item.answer)
    if has_ended and not is_cancelled:
        counts["failed"] = len(job.items) - counts["completed"]
    whole = has_ended and job.is_whole and not is_cancelled
    return {
        "id": job.id,
        "object": "batch",
        **job.told,
        "status": status,
        "errors": {"object": "list", "data": job.errors} if status == "failed" else None,
        "output_file_id": None,
        "error_file_id": None,
        **(job.files if has_ended else {}),
        "created_at": int(job.created_s),
        "in_progress_at": int(job.begins_s) if job.begins_s <= now_s and not job.errors else None,
        "expires_at": int(job.expires_s),
        "finalizing_at": int(job.items[-1].due_s) if status in ("finalizing", "completed") else None,
        "completed_at": ends_s if whole else None,
        "failed_at": ends_s if status == "failed" else None,
        "expired_at": ends_s if status == "expired" else None,
        "cancelling_at": None if job.cancelled_at_s is None else int(job.cancelled_at_s),
        "cancelled_at": ends_s if status == "cancelled" else None,
        "request_counts": {"total": len(job.items), "completed": counts["completed"], "failed": counts["failed"]},
        "usage": _usage(job),
    }


def _status(job: BatchJob, now_s: float) -> str:
    has_ended = job.ends_s <= now_s
    if job.cancelled_at_s is not None:
        return "cancelled" if has_ended else "cancelling"
    if now_s < job.begins_s:
        return "validating"
    if job.errors:
        return "failed"
    if job.is_whole:
        return "completed" if has_ended else "finalizing"
    return "expired" if has_ended else "in_progress"


def _usage(job: BatchJob) -> dict[str, Any]:
    given, cached, made, thought = (
        sum(item.answer.tokens[place] for item in job.items if item.answer) for place in range(4)
    )
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": given + made,
    }


def files_of(job: BatchJob) -> tuple[bytes, bytes]:
    """Return the contents of the output file and of the error file of a batch that has ended; empty: there is none."""
    output, errors = list[str](), list[str]()
    for number, item in enumerate(job.in_files()):
        is_good = item.answer is not None and item.answer.status == 200
        line = encode_json(_row(job, item, f"{job.id.removeprefix('batch_')}{number:06x}"))
        (output if is_good else errors).append(line)
    return _joined(output), _joined(errors)


def _row(job: BatchJob, item: Item, number: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"batch_req_{number}", "custom_id": item.custom_id, "response": None, "error": None}
    if item.answer is not None:
        row["response"] = {
            "status_code": item.answer.status, "request_id": f"req_{number}", "body": item.answer.body,
        }  # fmt: skip
    elif job.cancelled_at_s is not None:
        row["error"] = {"code": "batch_cancelled", "message": _CANCELLED}
    else:
        row["error"] = {"code": "batch_expired", "message": _EXPIRED}
    return row


def _joined(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")
