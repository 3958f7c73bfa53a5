"""Rows of the ledger, and what a task earns. Pure.

A row is who earns what, in the smallest units of a token, and its value counts tasks: units may be far beyond what
Redis can add up exactly (0.01 of a token with 18 places is more than 2^53), counts never are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import NamedTuple

from fleet.config import Settings
from fleet.config.payouts.tables import NetworkSettings, units_of
from fleet.models import CACHE, BotResult

#: Seconds of a day; days are counted from 1970, in UTC.
DAY_S = 86_400
#: Bots whose payee is remembered, and rows of bots, kinds and tenants (count): worked out anew, each takes 40 us.
MOST_BOTS, MOST_ROWS = 20_000, 50_000


class Asset(NamedTuple):
    """What is paid: a token on a network, with its decimals: units of one are no units of another.

    Letters of a hexadecimal address are small, however settings and older rows write them: they tell nothing apart.
    """

    network: str
    token: str
    decimals: int

    @property
    def spelt(self) -> str:
        """As rows say it."""
        return "/".join(map(str, self))

    @classmethod
    def of(cls, spelt: str) -> Asset:
        """Read it."""
        network, token, decimals = spelt.split("/")
        return cls(network, _in_small(token), int(decimals))


class EarningRow(NamedTuple):
    """Who earned what by tasks of one kind. Units are negative where earnings are taken back."""

    payee: str
    asset: str
    bot: str
    units: int
    pool: str
    kind: str

    @property
    def spelt(self) -> str:
        """As the ledger has it: units as text, for no reader rounds that."""
        return _spelt(self)

    @classmethod
    def of(cls, spelt: bytes | str) -> EarningRow:
        """Read it."""
        payee, asset, bot, units, pool, kind = json.loads(spelt)
        return cls(payee, asset, bot, int(units), pool, kind)

    @property
    def taken_back(self) -> EarningRow:
        """The row of its counter-entry."""
        return self._replace(units=-self.units)


@lru_cache(maxsize=MOST_ROWS)
def _spelt(row: EarningRow) -> str:
    return json.dumps([str(part) for part in row], ensure_ascii=False, separators=(",", ":"))


class EarningTerms:
    """What tasks earn, by the settings.

    Args:
        settings: Prices, payees and networks.
    """

    def __init__(self, settings: Settings) -> None:
        self._terms, self._payees, self._networks = settings.payouts, settings.payees, settings.networks
        self._kinds = {*settings.kinds, *(line.kind for line in settings.payouts.earn)}
        self.payee_of = lru_cache(maxsize=MOST_BOTS)(self._payee_of)
        self._row = lru_cache(maxsize=MOST_ROWS)(self._priced)

    def row_of(self, result: BotResult, kind: str) -> EarningRow | None:
        """Return what a task earns whose result stands; None: nothing, for it failed, no bot worked, nobody is paid."""
        if result.status != "ok" or not result.bot or not result.pool or result.served_by == CACHE:
            return None
        if result.simulated and not self._terms.pay_simulated:
            return None
        kind = kind if kind in self._kinds else "*"  # a producer may invent kinds: they must not become rows
        return self._row(result.bot, result.pool, kind, result.tenant)

    def _priced(self, bot: str, pool: str, kind: str, tenant: str) -> EarningRow | None:
        payee = self.payee_of(bot)
        price = next((one.price for one in self._terms.earn if one.fits(pool, kind, tenant)), "0")
        if payee is None:
            return None
        network = self._payees[payee].network
        units = units_of(price, self._networks[network].decimals)
        asset = asset_of(network, self._networks)
        return EarningRow(payee, asset.spelt, bot, units, pool, kind) if units else None

    def _payee_of(self, bot: str) -> str | None:
        """Return the payee of a bot; None: it has none."""
        fits = (name for name, payee in self._payees.items() if any(fnmatchcase(bot, one) for one in payee.bots))
        return next(fits, None)


def asset_of(network: str, networks: Mapping[str, NetworkSettings]) -> Asset:
    """Return what is paid on a network now."""
    return Asset(network, _in_small(networks[network].token), networks[network].decimals)


def _in_small(token: str) -> str:
    return token.lower() if token.startswith("0x") else token


def day_of(at_s: float) -> int:
    """Return the day of a Unix time."""
    return int(at_s // DAY_S)
