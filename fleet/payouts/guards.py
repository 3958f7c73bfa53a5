"""Settings that guard who is paid hold at once where they are stricter, and else only after the wait that held before.

Whoever may write `fleet.toml` could change an address, and shorten in the same file how long addresses wait. What was
seen before is in Redis: a change counts from when Fleet first saw it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import redis

from fleet.config import Settings
from fleet.config.payouts.tables import MOST_HOURS
from fleet.quoting import duration
from fleet.signals import catalogue
from fleet.signals.events import record_event_now
from fleet.store import payout_keys

HOUR_S = 3600.0
#: Field of the settings themselves among the addresses: no payee has that name.
TERMS = ""


@dataclass(frozen=True, slots=True)
class PayoutTerms:
    """Which settings hold, and which are to: those of `fleet.toml` as it was seen last.

    Args:
        wait_hours: For which an address waits.
        confirmers: Of whom one must confirm a payout, in small letters, sorted.
        next_wait_hours: Holds when `since_s` is as long ago as `wait_hours`; the same: nothing changes.
        next_confirmers: Likewise.
        since_s: Unix time at which that change was first seen.
    """

    wait_hours: float
    confirmers: tuple[str, ...]
    next_wait_hours: float
    next_confirmers: tuple[str, ...]
    since_s: float

    @property
    def changes(self) -> bool:
        """True while something waits to hold."""
        return (self.wait_hours, self.confirmers) != (self.next_wait_hours, self.next_confirmers)

    @property
    def holds_at_s(self) -> float:
        """Unix time from which on the change holds."""
        return self.since_s + self.wait_hours * HOUR_S


@dataclass(frozen=True, slots=True)
class Guards:
    """What guards a payout now.

    Args:
        terms: Settings that hold.
        waits: Payee -> why its address is not paid yet; who is not in it is.
        told: What of the settings does not hold yet, for people; empty: all does.
    """

    terms: PayoutTerms
    waits: Mapping[str, str]
    told: str


def read_guards(client: redis.Redis, settings: Settings, now_s: float) -> Guards:
    """Return what guards payouts, and keep what was not seen before, with an event for each.

    Args:
        client: Plain client of the state Redis.
        settings: Payees and terms, as `fleet.toml` has them now.
        now_s: Unix time of Redis.
    """
    found = cast("dict[bytes, bytes]", client.hgetall(payout_keys.addresses()))
    known = {name.decode(): json.loads(text) for name, text in found.items()}
    terms = _kept_terms(client, settings, known.get(TERMS), now_s)
    waits = {}
    for name, payee in settings.payees.items():
        told = known.get(name, {})
        if (told.get("network"), _small(told.get("address", ""))) != (payee.network, _small(payee.address)):
            told = {"network": payee.network, "address": payee.address, "since_s": now_s, "is_first": name not in known}
            client.hset(payout_keys.addresses(), name, json.dumps(told))
            what = "new" if told["is_first"] else "changed"
            record_event_now(client, catalogue.PAYOUT_GUARD, what=f"address {what}", payee=name, network=payee.network)
        elif told["since_s"] > now_s:  # the clock was put back
            told["since_s"] = now_s
            client.hset(payout_keys.addresses(), name, json.dumps(told))
        left_s = told["since_s"] + terms.wait_hours * HOUR_S - now_s
        if left_s > 0:
            waits[name] = f"its address {'is new' if told['is_first'] else 'has changed'}: for {duration(left_s)} still"
    return Guards(terms, waits, _told(terms, now_s))


def next_terms(known: PayoutTerms | None, wait_hours: float, confirmers: tuple[str, ...], now_s: float) -> PayoutTerms:
    """Return which terms hold now. Pure.

    Args:
        known: As they were before; None: nobody has looked yet.
        wait_hours: Of the settings.
        confirmers: Of the settings, in small letters, sorted.
        now_s: Unix time.
    """
    if known is None:
        return PayoutTerms(wait_hours, confirmers, wait_hours, confirmers, now_s)
    is_same = (wait_hours, confirmers) == (known.next_wait_hours, known.next_confirmers)
    if is_same and known.since_s <= now_s and now_s >= known.holds_at_s:
        return replace(known, wait_hours=wait_hours, confirmers=confirmers)
    since_s = known.since_s if is_same and known.since_s <= now_s else now_s
    fewer = set(confirmers) < set(known.confirmers)
    is_stricter = bool(confirmers) and (not known.confirmers or fewer)
    return PayoutTerms(
        max(wait_hours, known.wait_hours), confirmers if is_stricter else known.confirmers, wait_hours, confirmers,
        since_s,
    )  # fmt: skip


def _kept_terms(client: redis.Redis, settings: Settings, told: Mapping[str, Any] | None, now_s: float) -> PayoutTerms:
    known = None if told is None else _terms_of(told)
    confirmers = tuple(sorted(one.lower() for one in settings.payouts.confirmers))
    terms = next_terms(known, settings.payouts.address_wait_hours, confirmers, now_s)
    if terms != known:
        names = ("wait_hours", "confirmers", "next_wait_hours", "next_confirmers", "since_s")
        client.hset(payout_keys.addresses(), TERMS, json.dumps({name: getattr(terms, name) for name in names}))
        if known is not None:
            what = "terms change" if terms.changes else "terms hold"
            record_event_now(client, catalogue.PAYOUT_GUARD, what=what, payee="", network="")
    return terms


def _terms_of(told: Mapping[str, Any]) -> PayoutTerms:
    return PayoutTerms(
        min(MOST_HOURS, told["wait_hours"]), tuple(told["confirmers"]), min(MOST_HOURS, told["next_wait_hours"]),
        tuple(told["next_confirmers"]), told["since_s"],
    )  # fmt: skip


def _small(address: str) -> str:
    return address.lower() if address.startswith("0x") else address


def _told(terms: PayoutTerms, now_s: float) -> str:
    if not terms.changes:
        return ""
    changed = {
        "payouts.address_wait_hours": terms.wait_hours != terms.next_wait_hours,
        "payouts.confirmers": terms.confirmers != terms.next_confirmers,
    }
    names = " and ".join(name for name, is_so in changed.items() if is_so)
    return f"{names} were changed: the old ones hold for {duration(max(0.0, terms.holds_at_s - now_s))} still"
