"""What pages and metrics show of earnings: sums by network. Never a payee's name. Payouts: `under_way.py`."""

from __future__ import annotations

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
        netted_units: Those of them that payouts have taken up which have not failed.
    """

    asset: Asset
    tasks: int = 0
    units: int = 0
    netted_units: int = 0

    @property
    def tokens(self) -> str:
        """The units as people read them."""
        return tokens_in_full(self.units, self.asset.decimals)

    @property
    def unpaid(self) -> str:
        """What no payout has taken up, as people read it."""
        return tokens_in_full(self.units - self.netted_units, self.asset.decimals)


def read_earnings(client: redis.Redis, settings: Settings) -> list[NetworkEarnings]:
    """Return what was earned on each network. Nothing is read where tasks earn nothing. O(bots that have earned)."""
    if not settings.payouts.earn:
        return []
    found = {name: NetworkEarnings(asset_of(name, settings.networks)) for name in sorted(settings.networks)}
    assets = {one.asset: one for one in found.values()}
    netted = cast("dict[bytes, bytes]", client.hgetall(payout_keys.netted()))
    for row, count in rows_ever(client).items():
        if (network := assets.get(Asset.of(row.asset))) is not None:
            network.units += row.units * count
            network.netted_units += row.units * int(netted.get(row.spelt.encode(), 0))
            network.tasks += count if row.units > 0 else -count
    return list(found.values())
