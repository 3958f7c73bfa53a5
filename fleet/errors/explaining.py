"""What pydantic found wrong with a task, told in one line per field, without the words of a user. No I/O."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from fleet.quoting import MOST_NAMES, QUOTED_CHARS, brief, nearest, quote

#: Fields whose values no error quotes: they hold what a user wrote.
_PRIVATE = frozenset(
    {"prompt", "messages", "metadata", "answer_schema", "tools", "stop", "extra_body", "extra_headers"}
)
#: Those of them whose keys are the user's words, too.
_NAMELESS = frozenset({("metadata",), ("answer_schema",), ("extra_body",)})


def explain_validation(error: ValidationError, *, fields: tuple[str, ...]) -> str:
    """Turn pydantic's errors into one line per field: expected, got, nearest known name; a few of them when many.

    Args:
        error: What pydantic raised.
        fields: Known names at the top level, for the "did you mean".
    """
    found = error.errors(include_url=False)
    told = [_explain_one(dict(item), fields) for item in found[:MOST_NAMES]]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more:,} more" if more else "")


def _explain_one(item: dict[str, Any], fields: tuple[str, ...]) -> str:
    own = item["loc"][:1] in _NAMELESS  # its keys are the user's words, and may go deep
    inside = 1 if own else None
    where = ".".join(brief(str(part), QUOTED_CHARS) for part in item["loc"][:inside]) or "task"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown field, {nearest(str(item['loc'][-1]), fields)}"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{where}: {message}"
    got = item.get("input")
    secret = item["loc"] and item["loc"][0] in _PRIVATE
    return f"{where}: {message[0].lower()}{message[1:]}, got {type(got).__name__ if secret else quote(got)}"
