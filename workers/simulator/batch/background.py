"""OpenAI's background responses: made, polled by their id, cancelled, deleted; answered later, on the provider's clock.

`background_options.completion_window` of `2h` or `8h` gives a discount, and an answer within that time as a target, no
promise: https://developers.openai.com/api/docs/guides/background. There is no list: who loses the reply to a creation
never learns its id.

Weakness: none is streamed.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any

from fleet.workers.simulator.batch.answering import Answerer
from fleet.workers.simulator.batch.book import JobBook
from fleet.workers.simulator.batch.clock import Clock
from fleet.workers.simulator.batch.faults import BatchFaults
from fleet.workers.simulator.batch.jobs import BatchJob, Item, between, takes_s
from fleet.workers.simulator.chance import Draw
from fleet.workers.simulator.rich.wanted import WireError, read_choice, read_flag, read_object_at
from fleet.workers.simulator.wires.responses_wire import ResponsesWire
from fleet.workers.simulator.wires.wire import CompletionRequest

#: Windows, and the seconds of each; the soonest has none.
WINDOWS: Mapping[str, float] = {"soonest": 0.0, "2h": 7200.0, "8h": 28_800.0}
#: Tier of the ledger for each that has a discount.
TIERS: Mapping[str, str] = {"2h": "background-2h", "8h": "background-8h"}
#: Seconds within which 95% of those answer that are wanted the soonest, and half of them; of windows, shares of them.
SOONEST_S, WINDOW_SHARES = (20.0, 120.0), (0.25, 0.9)
#: Seconds before a response begins to run, at least and at most.
QUEUED_S = (0.5, 5.0)
#: Seconds for which an answer is kept that was not stored explicitly: "roughly 10 minutes".
KEPT_S = 600.0
#: Begin of ids of responses.
PREFIX = "resp_bg"


class BackgroundDesk:
    """Responses that are made in the background.

    Args:
        provider: Answers and bills.
        book: All jobs.
        clock: The provider's time.
        faults: What goes wrong on demand.
        wire: That of the Responses API.
    """

    def __init__(
        self, provider: Answerer, book: JobBook, clock: Clock, faults: BatchFaults, wire: ResponsesWire
    ) -> None:
        self._provider, self._book, self._clock, self._faults, self._wire = provider, book, clock, faults, wire

    def create(self, key: str, body: dict[str, Any], asked: CompletionRequest, draw: Draw) -> dict[str, Any] | None:
        """Take a request, and return its response as it is told at once; None: the reply is lost.

        Raises:
            WireError: It cannot run in the background as it is.
        """
        window = _window(body)
        now_s = self._clock.now_s()
        begins_s = now_s + between(draw.fate, QUEUED_S)
        shares = SOONEST_S if window == "soonest" else tuple(share * WINDOWS[window] for share in WINDOW_SHARES)
        due_s = begins_s + takes_s(draw, median_s=shares[0], p95_s=shares[1])
        if self._faults.meets("late_response"):
            due_s = math.inf
        tier = TIERS.get(window) or (asked.wanted.tier if asked.wanted else None) or "default"
        job = BatchJob(
            id=f"{PREFIX}{uuid.uuid4().hex}", key=key, wire=self._wire, tier=tier, created_s=now_s, begins_s=begins_s,
            expires_s=math.inf, items=[Item("", _foreground(body), due_s)], cancel_takes_s=0.0, finalized_s=0.0,
            told={"window": window, "body": body, "model": asked.model, "is_stored": body.get("store") is True},
        )  # fmt: skip
        self._book.add(job, lambda job: None)
        return None if self._faults.meets("lost_response") else told(job, now_s)

    async def page(self, key: str, method: str, path: str) -> dict[str, Any] | None:
        """Return the answer to a request about one of them; None when there is none.

        Args:
            key: Whose it is.
            method: `GET`, `DELETE`, or `POST` for `/cancel`.
            path: Behind `/v1/responses/`.
        """
        response_id, _, deed = path.partition("/")
        now_s = await self._book.catch_up()
        job = self._book.find(key, response_id)
        if job is None or deed not in ("", "cancel") or (deed == "cancel") != (method == "POST"):
            return None
        if not self._book.is_open(job) and not job.told["is_stored"] and job.ends_s + KEPT_S < now_s:
            self._book.drop(job)
            return None
        if method == "DELETE":
            self._book.drop(job)
            return {"id": response_id, "object": "response", "deleted": True}
        if deed == "cancel" and not job.is_whole:
            job.cancel(now_s)
        return told(job, now_s)


def told(job: BatchJob, now_s: float) -> dict[str, Any]:
    """Return a response as it stands."""
    item, body, window = job.items[0], job.told["body"], job.told["window"]
    about = {"id": job.id, "background": True}
    if window != "soonest":
        about["background_options"] = {"completion_window": window}
    if item.answer is not None and item.answer.status == 200:
        return {**item.answer.body, **about, "created_at": int(job.created_s), "completed_at": int(item.due_s),
                "service_tier": "default" if job.tier in TIERS.values() else job.tier}  # fmt: skip
    error, status = None, "queued" if now_s < job.begins_s else "in_progress"
    if item.answer is not None:
        refused = item.answer.body.get("error") or {}
        status, error = "failed", {"code": "server_error", "message": str(refused.get("message"))}
    elif job.cancelled_at_s is not None:
        status = "cancelled"
    return {
        **about, "object": "response", "created_at": int(job.created_s), "model": job.told["model"], "status": status,
        "error": error, "incomplete_details": None, "instructions": body.get("instructions"), "output": [],
        "metadata": body.get("metadata") or {}, "parallel_tool_calls": True, "temperature": body.get("temperature"),
        "tool_choice": "auto", "tools": [], "top_p": body.get("top_p"), "usage": None, "store": True,
        "service_tier": body.get("service_tier") or "auto",
    }  # fmt: skip


def _foreground(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in ("background", "background_options")}


def _window(body: Mapping[str, Any]) -> str:
    """Return the window of a request. Raises `WireError` where it does not go with the rest."""
    options = read_object_at(body.get("background_options") or {}, "background_options")
    where = "background_options.completion_window"
    window = read_choice(options.get("completion_window"), tuple(WINDOWS), where) or "soonest"
    if read_flag(body.get("stream"), "stream", default=False):
        raise WireError("stream: the simulator streams no background response", param="stream")
    if window != "soonest" and body.get("service_tier") not in (None, "auto", "default"):
        raise WireError(f"{where}: 2h and 8h require Standard processing", param="service_tier")
    return window
