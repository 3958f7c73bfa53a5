"""Where payouts stand, read without what pays: the last one of each network, and what guards them. Never a payee."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import redis

from fleet.config import Settings
from fleet.config.payouts.tables import MOST_HOURS, tokens_in_full
from fleet.store import payout_keys

#: States in which nothing moves any more.
_ENDED = ("settled", "failed")
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class PayoutFacts:
    """One payout, as `signals/money/payout_view.py` says what its fields are."""

    network: str
    payout: str
    kind: str
    is_open: bool
    payments: int
    tokens: str
    prepared_at: float
    expires_at: float
    moved_at: float
    states: dict[str, int]
    in_blocks: int
    why: str


@dataclass(slots=True)
class WaitingAddresses:
    """Addresses on one network that are not paid yet; `until`: Unix time, None: nobody has looked yet."""

    network: str
    wait_s: float
    new: int = 0
    changed: int = 0
    until: float | None = None


def read_payouts_under_way(client: redis.Redis) -> list[PayoutFacts]:
    """Return the payout under way on each network, else the one prepared last. O(networks)."""
    opened = _texts(client.hgetall(payout_keys.open_payouts()))
    ids = {**_texts(client.hgetall(payout_keys.latest())), **opened}
    if not ids:
        return []
    found = cast("list[bytes | None]", client.hmget(payout_keys.payouts(), list(ids.values())))
    return [
        _facts(network, json.loads(text), is_open=network in opened)
        for network, text in sorted(zip(ids, found, strict=True))
        if text is not None
    ]


def read_waiting_addresses(
    client: redis.Redis, settings: Settings, now_s: float
) -> tuple[list[WaitingAddresses], float | None]:
    """Return the addresses that wait by network, and from when on changed terms hold; None: none has changed."""
    known = {name: json.loads(text) for name, text in _texts(client.hgetall(payout_keys.addresses())).items()}
    terms = known.get("", {})
    wait_s = _HOUR_S * min(MOST_HOURS, float(terms.get("wait_hours", settings.payouts.address_wait_hours)))
    found: dict[str, WaitingAddresses] = {}
    for name, payee in settings.payees.items():
        told = known.get(name, {})
        is_seen = (told.get("network"), str(told.get("address")).lower()) == (payee.network, payee.address.lower())
        until = told["since_s"] + wait_s if is_seen else None
        if not wait_s or (until is not None and until <= now_s):
            continue
        row = found.setdefault(payee.network, WaitingAddresses(payee.network, wait_s))
        is_new = bool(told.get("is_first", True)) if is_seen else not told
        row.new, row.changed = row.new + is_new, row.changed + (not is_new)
        row.until = until if row.until is None else min(row.until, until or row.until)
    ends = [since_s + wait_s for since_s in _changes(known)]
    own = _terms_hold_at(terms)
    ends = [end for end in (*ends, *(() if own is None else (own,))) if end > now_s]
    return [found[name] for name in sorted(found)], max(ends, default=None)


def _changes(known: Mapping[str, Any]) -> Iterator[float]:
    """Yield since when networks and prices that changed wait to hold, as `fleet/payouts/guards.py` keeps them."""
    for name, told in known.items():
        if name.startswith(":network:") and told["next"] != told["holds"]:
            yield told["since_s"]
    yield from (since_s for *_, since_s in known.get(":prices", {}).get("prices", ()) if since_s)


def _terms_hold_at(terms: Mapping[str, Any]) -> float | None:
    """Return when changed terms hold, as `fleet/payouts/guards.py` keeps them."""
    if not terms or all(terms[name] == terms[f"next_{name}"] for name in ("wait_hours", "confirmers")):
        return None
    hours = terms.get("guard_hours", terms["wait_hours"])
    return float(terms["since_s"] + min(MOST_HOURS, hours) * _HOUR_S)


def _facts(network: str, record: Mapping[str, Any], *, is_open: bool) -> PayoutFacts:
    slip, standings = record["slip"], record["standings"]
    payments = [payment for one in slip["transfers"] for payment in one["payments"]]
    whys = [one["why"] for one in standings if one["state"] != "settled" and one["why"]]
    return PayoutFacts(
        network, slip["id"], slip["kind"], is_open, len(payments),
        tokens_in_full(sum(int(payment["units"]) for payment in payments), slip["decimals"]),
        float(slip["prepared_s"]), float(slip["expires_s"]),
        max([float(slip["prepared_s"]), *(float(one["since_s"]) for one in standings)]),
        dict(Counter(one["state"] for one in standings)),
        sum(one["state"] not in _ENDED and one["block"] is not None for one in standings),
        whys[0] if whys else "",
    )  # fmt: skip


def _texts(found: object) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in cast("dict[bytes, bytes]", found).items()}
