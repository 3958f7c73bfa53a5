"""Which payout has paid what a task has earned. A payout takes up all that a row has when it is prepared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import redis

from fleet.earnings.rows import EarningRow
from fleet.store import payout_keys


class Paid(NamedTuple):
    """The payment with which a task's earning went.

    Args:
        payout: Its id.
        state: Of its transaction.
        transaction: Its id on the network; empty: it is not signed.
        since_s: Unix time since when it has that state.
    """

    payout: str
    state: str
    transaction: str
    since_s: float


def paid_by(client: redis.Redis, row: EarningRow, at_s: float) -> Paid | None:
    """Return with which payment a row's task of a time went, to about a second; None: with none that has not failed.

    O(payouts): for a person who asks.
    """
    found = cast("dict[bytes, bytes]", client.hgetall(payout_keys.payouts()))
    records = sorted((json.loads(text) for text in found.values()), key=lambda one: one["slip"]["prepared_s"])
    for record in records:
        if record["slip"]["prepared_s"] + 1 < at_s:
            continue
        for payment, standing in _payments(record):
            if payment["payee"] != row.payee or standing["state"] == "failed":
                continue
            rows = client.hget(payout_keys.parts(record["slip"]["id"]), payment["id"])
            if rows is not None and row.spelt in json.loads(cast(bytes, rows)):
                return Paid(record["slip"]["id"], standing["state"], standing["id"], float(standing["since_s"]))
    return None


def _payments(record: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for transfer, standing in zip(record["slip"]["transfers"], record["standings"], strict=True):
        for payment in transfer["payments"]:
            yield payment, standing
