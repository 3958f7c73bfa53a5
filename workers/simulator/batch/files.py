"""The files that OpenAI's wire keeps: what a client uploads, and what its batches put out. Each key sees its own.

Held in memory and lost with the process, as all that the simulator keeps. No clock: time is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.quoting import quote
from fleet.workers.simulator.batch.listing import page_of
from fleet.workers.simulator.rich.wanted import WireError

#: Purposes of an upload that the vendor knows.
PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
#: Bytes of a file at most.
MAX_FILE_BYTES = 200 * 1024 * 1024
#: Seconds for which a batch's input is kept unless its upload says otherwise, and what it may say.
KEPT_S, LEAST_KEPT_S = 30 * 86_400, 3600
#: Files in one page of a list at most.
MAX_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file.

    Args:
        id: The vendor's.
        key: Whose it is.
        filename: As uploaded.
        purpose: The same.
        content: All of it.
        created_s: Unix time of the clock.
        expires_s: The same; None: it is kept.
    """

    id: str
    key: str
    filename: str
    purpose: str
    content: bytes
    created_s: float
    expires_s: float | None = None

    def told(self) -> dict[str, Any]:
        """Return the vendor's object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.content),
            "created_at": int(self.created_s),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
            "expires_at": None if self.expires_s is None else int(self.expires_s),
        }


class Files:
    """All of them."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}

    def keep(self, file: StoredFile) -> None:
        """Keep a file."""
        self._files[file.id] = file

    def find(self, key: str, file_id: str, now_s: float) -> StoredFile | None:
        """Return a file of a key's own; None when there is none, or its time is over."""
        found = self._files.get(file_id)
        if found is not None and found.expires_s is not None and found.expires_s <= now_s:
            del self._files[file_id]
            return None
        return found if found is not None and found.key == key else None

    def delete(self, key: str, file_id: str, now_s: float) -> bool:
        """Forget a file; False when there is none."""
        found = self.find(key, file_id, now_s)
        return found is not None and self._files.pop(file_id, None) is not None

    def page(self, key: str, query: Mapping[str, str], now_s: float) -> dict[str, Any]:
        """Return a list of them, newest first unless `order=asc`. Raises `WireError`."""
        purpose, order = query.get("purpose"), query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise WireError(f"order: expected 'asc' or 'desc', got {quote(order)}", param="order")
        mine = [file for file_id in list(self._files) if (file := self.find(key, file_id, now_s)) is not None]
        told = [file.told() for file in mine if purpose in (None, file.purpose)]
        return page_of(told if order == "asc" else told[::-1], query, default=MAX_LISTED, most=MAX_LISTED)


def read_upload(parts: Mapping[str, str], filename: str, content: bytes | None) -> tuple[str, int | None]:
    """Return the purpose of an upload, and for how many seconds it is kept; None: for good. Raises `WireError`."""
    purpose = parts.get("purpose", "")
    if content is None:
        raise WireError("Missing required parameter: 'file'.", param="file", code="missing_required_parameter")
    if purpose not in PURPOSES:
        expected = ", ".join(f"'{known}'" for known in PURPOSES)
        raise WireError(f"{quote(purpose)} is not one of [{expected}] - 'purpose'", param="purpose")
    if purpose == "batch" and not filename.endswith(".jsonl"):
        raise WireError("Invalid file format for Batch API. Must be .jsonl")
    kept = parts.get("expires_after[seconds]")
    if kept is None:
        return purpose, KEPT_S if purpose == "batch" else None
    if not (kept.isascii() and kept.isdigit() and LEAST_KEPT_S <= int(kept) <= KEPT_S):
        raise WireError(
            f"expires_after.seconds: expected {LEAST_KEPT_S} to {KEPT_S}, got {quote(kept)}",
            param="expires_after.seconds",
        )
    return purpose, int(kept)
