"""Findings about the use of keys and bots: far more than usual, or not ours. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.signals.diagnosis.finding import Diagnosis, Help, diagnosis
from fleet.signals.diagnosis.symptoms import Case
from fleet.signals.unusual.alarms import RESUME, key_of
from fleet.signals.view import WaitLine

#: Requests a minute of others, and their share of what the provider allows, from which it is told.
LEAST_RPM, LEAST_SHARE = 10.0, 0.1


def unusual(case: Case) -> Iterator[Diagnosis]:
    """Yield keys and bots that are asked for far more than usual."""
    for alarm in case.symptoms.unusual:
        is_key = alarm.kind == "key"
        advice = (
            "see who submits (fleet bill --by tenant,kind); if it was stolen, revoke it; if this is meant, resume it"
            if is_key
            else "see its tasks; quarantine it, or if this is meant, resume it"
        )
        yield diagnosis(
            "use_unusual", "critical" if is_key else "warning",
            f"{'Key' if is_key else 'Bot'} {alarm.name} is used far more than usual", now_s=case.now_s,
            since=alarm.since, cause=f"{alarm.told}{f'; {alarm.done}' if alarm.done else ''}", about=alarm.name,
            tasks=sum(line.tasks for line in case.view.waits if is_key and resumed_in(line) == alarm.name),
            help=Help(advice=advice, command=alarm.command,
                      action={"do": "resume_use", "kind": alarm.kind, "name": alarm.name}),
        )  # fmt: skip


def resumed_in(line: WaitLine) -> str:
    """Return the key or bot that is to be resumed for what waits to go on; any name: there is none."""
    return line.advice.partition(f"`{RESUME} ")[2].rstrip("`") or line.about


def shared(case: Case) -> Iterator[Diagnosis]:
    """Yield keys of which the provider counts requests that are not ours.

    Weakness: it is known only of limits that count in a window or tell what is left, and two fleets that share a key on
    purpose are told of as well.
    """
    for limit in case.view.limits:
        if limit.others_rpm >= max(LEAST_RPM, LEAST_SHARE * (limit.rpm or 0)):
            key = key_of(limit.limit)
            yield diagnosis(
                "key_shared", "warning", f"Somebody else uses key {key}", now_s=case.now_s, about=key,
                cause=f"{limit.limit}: the provider counts about {limit.others_rpm:.0f} requests a minute beside ours",
                help=Help(advice="if nobody should, rotate the key, and revoke the old one at the provider",
                          command=f"fleet keys rotate {key}"),
            )  # fmt: skip
