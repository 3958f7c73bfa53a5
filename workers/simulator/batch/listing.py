"""Pages of a list, as both vendors page: a limit, and the id after or before which it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.quoting import quote
from fleet.workers.simulator.rich.wanted import WireError


def page_of(
    told: Sequence[Mapping[str, Any]],
    query: Mapping[str, str],
    *,
    default: int = 20,
    most: int = 100,
    after: str = "after",
    before: str = "",
) -> dict[str, Any]:
    """Return one page of objects with ids. Raises `WireError`.

    Args:
        told: All of them, in the order of the list.
        query: Of the request.
        default: Objects of a page when it names no limit.
        most: Highest limit.
        after: Name of the parameter that holds the id after which the page begins.
        before: The same for the id before which it ends; empty: there is none.
    """
    limit = query.get("limit", str(default))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= most):
        raise WireError(f"limit: expected a whole number from 1 to {most}, got {quote(limit)}", param="limit")
    ids = [one["id"] for one in told]
    start, end = 0, len(told)
    if (named := query.get(after)) is not None:
        start = _place(ids, named, after) + 1
    if before and (named := query.get(before)) is not None:
        end = _place(ids, named, before)
        start = max(start, end - int(limit))
    page = told[start : min(end, start + int(limit))]
    return {
        "object": "list",
        "data": list(page),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start > 0 if before and query.get(before) is not None else start + len(page) < end,
    }


def _place(ids: Sequence[str], named: str, param: str) -> int:
    if named not in ids:
        raise WireError(f"{param}: expected the id of an object in this list, got {quote(named)}", param=param)
    return ids.index(named)
