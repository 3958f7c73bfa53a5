"""Marks on the charts: what happened to the fleet, so that a fall and its cause stand one below the other. Pure.

Made of the stream of events (`events.py`). Of one kind there is one mark a minute, and one an hour when it is older
than the charts of minutes: a day has a few hundred at most, however many events it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from pydantic import Field

from fleet.frozen import Frozen
from fleet.signals import catalogue
from fleet.signals.catalogue import Event

#: What a mark stands for; a chart draws the first of these when several are at one place.
MarkKind = Literal["outage", "429", "worker", "quarantine", "action", "recovery"]
#: Events that are marked, and as what. Whatever else an operator did (it says `by`) is an action.
_KINDS: dict[Event, MarkKind] = {
    catalogue.BREAKER_OPENED: "outage",
    catalogue.KEY_REJECTED: "outage",
    catalogue.PROVIDER_LIMITED: "429",
    catalogue.BREAKER_CLOSED: "recovery",
    catalogue.WORKER_LOST: "worker",
    catalogue.WORKER_STALLED: "worker",
    catalogue.BOT_QUARANTINED: "quarantine",
    catalogue.QUARANTINE_CAP: "quarantine",
    catalogue.DIVERSITY_ALARM: "quarantine",
}
_KIND_OF = {event.name: kind for event, kind in _KINDS.items()}
#: Fields that name what an event is about, the first that it has.
_ABOUT = ("limit", "worker", "bot", "pool", "api", "provider")
#: Who acts for the fleet itself: what it does is no operator's action.
_OURSELVES = "health"
#: Seconds for which charts show minutes.
_MINUTES_S = 3600
#: Characters of a mark's words.
_WORDS = 120


class MarkableEvent(Protocol):
    """What is asked of an event."""

    @property
    def at(self) -> float: ...
    @property
    def name(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, str]: ...


class ChartMark(Frozen):
    """What happened in one minute, or hour, of one kind."""

    at: int = Field(description="Start of the minute or hour.")
    kind: MarkKind
    count: int = Field(description="Events behind it.")
    words: str = Field(description="The newest of them.")


def marks_of(events: Iterable[MarkableEvent], *, now_s: float) -> tuple[ChartMark, ...]:
    """Return the marks of a day, the oldest first; `events` are the newest first."""
    found: dict[tuple[int, MarkKind], ChartMark] = {}
    for event in events:
        kind = _kind_of(event)
        if kind is None or event.at < now_s - 86_400:
            continue
        unit_s = 60 if event.at > now_s - _MINUTES_S else 3600
        at = int(event.at // unit_s) * unit_s
        known = found.get((at, kind))
        words = known.words if known else _words(event)
        found[at, kind] = ChartMark(at=at, kind=kind, count=known.count + 1 if known else 1, words=words)
    return tuple(sorted(found.values(), key=lambda mark: (mark.at, mark.kind)))


def _kind_of(event: MarkableEvent) -> MarkKind | None:
    return _KIND_OF.get(event.name) or ("action" if event.fields.get("by", _OURSELVES) != _OURSELVES else None)


def _words(event: MarkableEvent) -> str:
    about = next((event.fields[name] for name in _ABOUT if name in event.fields), "")
    by = event.fields.get("by", "")
    told = f"{event.name.replace('_', ' ')} {about}".rstrip() + (f", by {by}" if by else "")
    return told[:_WORDS]
