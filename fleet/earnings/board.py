"""What pages and metrics show of earnings: sums by network, and payouts under way. Never a payee's name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

import redis

from fleet.config import Settings
from fleet.config.payouts.tables import tokens_in_full
from fleet.earnings.ledger import rows_ever
from fleet.earnings.rows import Asset, asset_of
from fleet.store import payout_keys


@dataclass(slots=True)
class NetworkEarnings:
    """What was earned on one network, as it is configured now.

    Args:
        tasks: That have earned something, less those that were taken back.
        units: Smallest units earned, less what was taken back.
        payout: Id of the payout that is under way; empty: none is.
        since_s: Unix time at which that was prepared.
    """

    asset: Asset
    tasks: int = 0
    units: int = 0
    payout: str = ""
    since_s: float = 0.0

    @property
    def tokens(self) -> str:
        """The units as people read them."""
        return tokens_in_full(self.units, self.asset.decimals)


def read_earnings(client: redis.Redis, settings: Settings) -> list[NetworkEarnings]:
    """Return what was earned on each network. Nothing is read where tasks earn nothing. O(bots that have earned)."""
    if not settings.payouts.earn:
        return []
    found = {name: NetworkEarnings(asset_of(name, settings.networks)) for name in sorted(settings.networks)}
    assets = {one.asset: one for one in found.values()}
    for row, count in rows_ever(client).items():
        if (network := assets.get(Asset.of(row.asset))) is not None:
            network.units += row.units * count
            network.tasks += count if row.units > 0 else -count
    under_way = cast("dict[bytes, bytes]", client.hgetall(payout_keys.open_payouts()))
    for name, payout in under_way.items():
        text = cast("bytes | None", client.hget(payout_keys.payouts(), payout.decode()))
        if (one := found.get(name.decode())) is not None and text is not None:
            one.payout, one.since_s = payout.decode(), float(json.loads(text)["slip"]["prepared_s"])
    return list(found.values())
