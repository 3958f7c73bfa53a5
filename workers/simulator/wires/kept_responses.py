"""What the Responses API keeps: responses by id, and the conversation behind each, so that the next request names it.

Each key sees its own. Only the newest are kept; a real provider keeps them for 30 days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fleet.quoting import quote
from fleet.workers.simulator.rich.wanted import Responding, WireError

#: Where one response is read or deleted, by its id.
PATH = "/v1/responses/"
#: Responses that are kept at most, of all keys together.
MOST_KEPT = 10_000


class KeptResponse(NamedTuple):
    """A response, and the conversation up to and with it."""

    told: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]


class KeptResponses:
    """All of them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], KeptResponse] = {}

    def unfolded(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request with the conversation that it goes on from.

        Raises:
            WireError: When the response it names is not kept.
        """
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        named = body.get("previous_response_id")
        if named is None:
            return {**body, "input": items}
        found = self._kept.get((key, str(named)))
        if found is None:
            raise WireError(
                f"Previous response with id {quote(named)} not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return {**body, "input": [*found.items, *items] if isinstance(items, list) else items}

    def keep(self, key: str, responding: Responding, told: Mapping[str, Any]) -> None:
        """Keep a response, if it was asked for, and forget the oldest."""
        if not responding.is_stored or told.get("object") != "response":
            return
        self._kept[key, told["id"]] = KeptResponse(told, [*responding.items, *told["output"]])
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]

    def page(self, key: str, method: str, response_id: str) -> dict[str, Any] | None:
        """Return the answer to `GET` or `DELETE` of one response; None when it is not kept."""
        found = self._kept.get((key, response_id))
        if found is None:
            return None
        if method == "DELETE":
            del self._kept[key, response_id]
            return {"id": response_id, "object": "response", "deleted": True}
        return dict(found.told)
