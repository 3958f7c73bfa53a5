"""What both native wires do with what is asked of a model: fields that one of them lacks, and those of its own.

How each wire spells the others: `openai_body.py`, `anthropic_body.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.conversation import Kept, marks_of
from fleet.errors import BadRequest
from fleet.workers.calls import PLAIN, Call, Wishes

#: Name of a mark up to which a provider's cache is to keep a prompt; it changes no answer, so nothing fails for it.
MARK = "cache_control"


def lacking(wishes: Wishes, absent: Sequence[str]) -> tuple[str, ...]:
    """Return the names of what is asked and the wire has no field for."""
    if wishes is PLAIN:
        return ()
    return tuple(name for name in absent if getattr(wishes, name) is not None and (name != "n" or wishes.n > 1))


def refuse_lacking(wishes: Wishes, absent: Sequence[str], vendor: str) -> None:
    """Refuse a call whose task asks for what the wire has no field for, unless it may be left out.

    Raises:
        BadRequest: Naming the field.
    """
    if wishes.drop_params:
        return
    for name in lacking(wishes, absent):
        if name in wishes.asked:
            raise BadRequest(
                f"{name}: expected a task without it, {vendor} has no such field; take it out, or set drop_params; "
                "nothing was sent",
                blame="prompt",
            )


def marks_in(call: Call) -> list[Kept]:
    """Return how long each place of a call that is marked for the provider's cache is to be kept."""
    return list(marks_of(call.messages, call.wishes.tools))


def has_marks(call: Call) -> bool:
    """True when a place of a call is marked."""
    return any(True for _ in marks_of(call.messages, call.wishes.tools))


def add_extra(body: dict[str, Any], wishes: Wishes) -> None:
    """Put the further fields into a request's body.

    Raises:
        BadRequest: When Fleet has set one of them itself.
    """
    for name, value in wishes.extra_body.items():
        if name in body:
            raise BadRequest(
                f"extra_body.{name}: expected a field that Fleet does not set, and it sets this one from the task's or "
                "the pool's own options; leave one of them out; nothing was sent",
                blame="prompt",
            )
        body[name] = value
