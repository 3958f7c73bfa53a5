"""Settings that guard who is paid hold at once where they are stricter, and else only after the wait that held before.

Whoever may write `fleet.toml` could change an address, and shorten in the same file how long addresses wait. What was
seen before is in Redis: a change counts from when Fleet first saw it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import redis

from fleet.config import Settings
from fleet.config.payouts.tables import MOST_HOURS
from fleet.earnings.rows import EarningRow
from fleet.payouts.prices import Price, held_rows, seen_prices
from fleet.quoting import duration
from fleet.signals import catalogue
from fleet.signals.events import record_event_now
from fleet.store import payout_keys

HOUR_S = 3600.0
#: Turns that two ways to write the settings take before it is said that files differ: once, somebody went back.
TURNS = 2
#: Hours of waiting and confirmers, as settings were seen.
Seen = tuple[float, tuple[str, ...]]
#: Field of the settings themselves among the addresses: no payee has that name.
TERMS = ""
#: Fields of prices, and of networks before their name: no payee's name has a colon.
PRICES, NETWORK = ":prices", ":network:"


@dataclass(frozen=True, slots=True)
class PayoutTerms:
    """Which settings hold, and which are to: those of `fleet.toml` as it was seen last.

    Args:
        wait_hours: For which an address waits.
        confirmers: Of whom one must confirm a payout, in small letters, sorted.
        next_wait_hours: Holds when `since_s` is as long ago as `guard_hours`; the same: nothing changes.
        next_confirmers: Likewise.
        since_s: Unix time at which that change was first seen.
        back_hours: What was waited before the wait was raised: to go back to it takes no longer than that. None: it
            was not raised, or has been as high for as long as it says.
        rose_s: Unix time at which it was raised.
        prior: What was seen before the settings that were seen last.
        flips: How often in a row those two took turns.
    """

    wait_hours: float
    confirmers: tuple[str, ...]
    next_wait_hours: float
    next_confirmers: tuple[str, ...]
    since_s: float
    back_hours: float | None = None
    rose_s: float = 0.0
    prior: Seen | None = None
    flips: int = 0

    @property
    def changes(self) -> bool:
        """True while something waits to hold."""
        return (self.wait_hours, self.confirmers) != self.seen

    @property
    def seen(self) -> Seen:
        """What was seen last."""
        return self.next_wait_hours, self.next_confirmers

    @property
    def guard_hours(self) -> float:
        """Hours for which what was seen last must stand before it holds."""
        is_back = self.back_hours is not None and self.back_hours <= self.next_wait_hours < self.wait_hours
        return self.back_hours if is_back and self.back_hours is not None else self.wait_hours

    @property
    def holds_at_s(self) -> float:
        """Unix time from which on the change holds."""
        return self.since_s + self.guard_hours * HOUR_S


@dataclass(frozen=True, slots=True)
class Guards:
    """What guards a payout now.

    Args:
        terms: Settings that hold.
        waits: Payee -> why its address is not paid yet; who is not in it is.
        networks: Network -> why nothing is paid there yet, and no end of a payout is believed.
        held: Rows of the ledger whose price is not believed yet.
        told: What of the settings does not hold yet, for people; empty: all does.
    """

    terms: PayoutTerms
    waits: Mapping[str, str]
    networks: Mapping[str, str]
    held: Collection[EarningRow]
    told: str


def read_guards(client: redis.Redis, settings: Settings, ledger: Mapping[EarningRow, int], now_s: float) -> Guards:
    """Return what guards payouts, and keep what was not seen before, with an event for each.

    Args:
        client: Plain client of the state Redis.
        settings: Payees, prices, networks and terms, as `fleet.toml` has them now.
        ledger: Row -> tasks, of all time: a price may have been another one for an hour.
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
            what = "new" if told["is_first"] else "changed"
            _keep(client, name, told, f"address {what}", payee=name, network=payee.network)
        elif told["since_s"] > now_s:  # the clock was put back
            told["since_s"] = now_s
            _keep(client, name, told)
        left_s = told["since_s"] + terms.wait_hours * HOUR_S - now_s
        if left_s > 0:
            waits[name] = f"its address {'is new' if told['is_first'] else 'has changed'}: for {duration(left_s)} still"
    networks = {
        name: why for name in settings.networks
        if (why := _network_waits(client, name, settings, known.get(f"{NETWORK}{name}"), terms, now_s))
    }  # fmt: skip
    held, prices = _held_rows(client, settings, ledger, known.get(PRICES), terms, now_s)
    told = "; ".join(one for one in (_told(terms, now_s), *networks.values(), prices) if one)
    return Guards(terms, waits, networks, held, told)


def _keep(client: redis.Redis, field: str, told: Mapping[str, Any], what: str = "", **about: str) -> None:
    """Keep what was seen, with an event unless that says nothing new."""
    client.hset(payout_keys.addresses(), field, json.dumps(told))
    if what:
        record_event_now(client, catalogue.PAYOUT_GUARD, what=what, **{"payee": "", "network": "", **about})


def _network_waits(
    client: redis.Redis, name: str, settings: Settings, told: Mapping[str, Any] | None, terms: PayoutTerms, now_s: float
) -> str:
    """Return why nothing is paid on a network yet: another node could say that what was paid has failed."""
    network = settings.networks[name]
    url = "" if network.url is None else hashlib.sha256(network.url.get_secret_value().encode()).hexdigest()
    seen = {"url": url, "token": _small(network.token), "multisend": _small(network.multisend or "")}
    field = f"{NETWORK}{name}"
    if told is None:
        _keep(client, field, {"holds": seen, "next": seen, "since_s": now_s})
        return ""
    if seen != told["next"] or told["since_s"] > now_s:
        told = {"holds": told["holds"], "next": seen, "since_s": now_s}
        _keep(client, field, told, "network changed" if seen != told["holds"] else "network put back", network=name)
    if seen == told["holds"]:
        return ""
    left_s = told["since_s"] + terms.wait_hours * HOUR_S - now_s
    if left_s <= 0:
        _keep(client, field, {**told, "holds": seen}, "network holds", network=name)
        return ""
    names = " and ".join(f"networks.{name}.{key}" for key in seen if seen[key] != told["holds"][key])
    return f"{names} changed: nothing is paid there, and no payment has ended, for {duration(left_s)} still"


def _held_rows(
    client: redis.Redis, settings: Settings, ledger: Mapping[EarningRow, int], told: Mapping[str, Any] | None,
    terms: PayoutTerms, now_s: float,
) -> tuple[Collection[EarningRow], str]:  # fmt: skip
    """Return rows of prices that were not seen for long enough, and that for people."""
    known = None if told is None else {Price(*line): since_s for *line, since_s in told["prices"]}
    wait_s = terms.wait_hours * HOUR_S
    rows = [row for row in ledger if row.units > 0]
    prices = seen_prices(known, settings.payouts.earn, rows, now_s=now_s, wait_s=wait_s)
    if prices != known:
        is_news = known is not None and any(since_s for price, since_s in prices.items() if price not in known)
        kept = {"since_s": 0.0, "prices": [[*price, since_s] for price, since_s in prices.items()]}
        _keep(client, PRICES, kept, "price new" if is_news else "")
    left_s = max(prices.values(), default=0.0) + wait_s - now_s
    told_so = f"prices in payouts.earn are new: what was earned by them is held for {duration(left_s)} still"
    return held_rows(prices, rows), told_so if any(prices.values()) else ""


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
    is_same = (wait_hours, confirmers) == known.seen
    if is_same and known.since_s <= now_s and now_s >= known.holds_at_s:
        return replace(known, wait_hours=wait_hours, confirmers=confirmers, back_hours=None, flips=0)
    fewer = set(confirmers) < set(known.confirmers)
    is_stricter = bool(confirmers) and (not known.confirmers or fewer)
    later = replace(
        known, next_wait_hours=wait_hours, next_confirmers=confirmers, **_way_back(known, wait_hours, now_s),
        wait_hours=max(wait_hours, known.wait_hours), confirmers=confirmers if is_stricter else known.confirmers,
    )  # fmt: skip
    if is_same:
        return replace(later, since_s=min(known.since_s, now_s))
    flips = known.flips + 1 if (wait_hours, confirmers) == known.prior else 0
    return replace(later, since_s=now_s, prior=known.seen, flips=flips)


def _way_back(known: PayoutTerms, wait_hours: float, now_s: float) -> dict[str, Any]:
    """Return what one may go back to sooner; a raised wait is as good as its word once it has stood so long."""
    is_settled = now_s >= known.rose_s + known.wait_hours * HOUR_S
    back_hours = None if is_settled and not known.changes else known.back_hours
    if wait_hours <= known.wait_hours:
        return {"back_hours": back_hours}
    return {"back_hours": known.wait_hours if back_hours is None else back_hours, "rose_s": now_s}


def _kept_terms(client: redis.Redis, settings: Settings, told: Mapping[str, Any] | None, now_s: float) -> PayoutTerms:
    known = None if told is None else _terms_of(told)
    confirmers = tuple(sorted(one.lower() for one in settings.payouts.confirmers))
    terms = next_terms(known, settings.payouts.address_wait_hours, confirmers, now_s)
    if terms != known:
        what = "terms change" if terms.changes else "terms hold"
        what = "terms differ between hosts" if terms.flips >= TURNS else what
        kept = {**asdict(terms), "guard_hours": terms.guard_hours}
        _keep(client, TERMS, kept, "" if known is None else what)
    return terms


def _terms_of(told: Mapping[str, Any]) -> PayoutTerms:
    prior, back_hours = told.get("prior"), told.get("back_hours")
    return PayoutTerms(
        min(MOST_HOURS, told["wait_hours"]), tuple(told["confirmers"]), min(MOST_HOURS, told["next_wait_hours"]),
        tuple(told["next_confirmers"]), told["since_s"], back_hours, told.get("rose_s", 0.0),
        None if prior is None else (prior[0], tuple(prior[1])), told.get("flips", 0),
    )  # fmt: skip


def _small(address: str) -> str:
    return address.lower() if address.startswith("0x") else address


def _told(terms: PayoutTerms, now_s: float) -> str:
    is_torn = terms.flips >= TURNS and terms.prior is not None and now_s < terms.holds_at_s
    old = terms.prior if is_torn and terms.prior is not None else (terms.wait_hours, terms.confirmers)
    names = ("payouts.address_wait_hours", "payouts.confirmers")
    changed = " and ".join(name for name, was, now in zip(names, old, terms.seen, strict=True) if was != now)
    if is_torn:
        return (
            f"{changed} went to and fro {terms.flips} times, and each time the wait begins anew: hosts have different "
            "files; give all of them the same fleet.toml"
        )
    if not terms.changes:
        return ""
    return f"{changed} were changed: the old ones hold for {duration(max(0.0, terms.holds_at_s - now_s))} still"
