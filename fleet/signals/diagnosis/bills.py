"""Findings about the bill: calls of which nobody knows what they cost, documents that are paid for anew. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.money import dollars_of
from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case

#: Share of today's calls, and calls (count), from which it is told that they are unknown.
MANY, LEAST = 0.05, 10


def unknown(case: Case) -> Iterator[Diagnosis]:
    """Yield that nobody knows what many of today's calls have cost."""
    day = case.view.bill.day
    if day.unknown_calls < LEAST or day.unknown_calls < MANY * day.calls:
        return
    reserved = dollars_of(day.unknown_usd_picos)
    yield diagnosis(
        "calls_unknown", "warning",
        f"Nobody knows what {day.unknown_calls:,} of today's {day.calls:,} calls have cost", now_s=case.now_s,
        cause=f"they were cut off, or their workers died; ${reserved:,.4f} is reserved for them",
        help=Help(advice="look at what cuts them off; compare with the provider's own usage",
                  command="fleet bill unknown"),
    )  # fmt: skip


def caches(case: Case) -> Iterator[Diagnosis]:
    """Yield documents that calls hardly read from their provider's cache any more, with the cause."""
    for (document, limit), (now, before) in case.symptoms.reads.items():
        if now.calls < FEWEST_READS or now.share >= READ_SHARE:
            continue
        fell = before.calls >= FEWEST_READS and before.share >= READ_SHARE
        was = f", {before.share:.0%} in the hour before" if fell else ""
        idle = now.cold >= now.missed
        yield diagnosis(
            "cache_missed", "warning",
            f"{now.share:.0%} of {now.calls:,} calls have read {document} from the cache of {limit}{was}",
            about=f"{document} {limit}", now_s=case.now_s, cause=_IDLE if idle else _NOT_READ,
            help=Help(advice=_IDLE_HELP if idle else _NOT_READ_HELP, command=f"fleet context show {document} --json"),
        )  # fmt: skip


#: Calls with a document (count) from which the share that has read it is told, and the share below which it is.
FEWEST_READS, READ_SHARE = 20, 0.5
_IDLE = "it lies idle for longer than the provider keeps it, so most calls send it anew"
_IDLE_HELP = "let tasks that name it come together, or take it out of prompts that are asked now and then"
_NOT_READ = "it was sent shortly before, and the provider has not read it again"
_NOT_READ_HELP = (
    "the provider or a proxy before it may have no prefix cache, or more calls come than one of its machines takes; a "
    "bot function whose tools change from call to call has another beginning each time"
)
