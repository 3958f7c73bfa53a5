"""The checks of `fleet doctor` about earnings: bots that earn for nobody, tables that do nothing, real money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from fleet.cli.setup.check import Check, fail, ok, warn
from fleet.config import Settings
from fleet.models import bot_name
from fleet.quoting import counted

if TYPE_CHECKING:
    from fleet.cli.setup.redis_facts import RedisFacts


def payout_checks(settings: Settings, servers: Sequence[RedisFacts] = ()) -> Iterator[Check]:
    """Yield what there is to say about earnings; nothing where nobody earns and nobody is to be paid.

    Args:
        settings: Prices, payees, networks.
        servers: What is known of each Redis.
    """
    terms, name = settings.payouts, "payouts: bots and payees"
    for network in sorted(settings.networks):
        yield from _of_network(network, settings, servers)
    if not terms.earn and not settings.payees:
        return
    if not terms.earn or not settings.payees:
        there, missing = ("[payees]", "[[payouts.earn]]") if settings.payees else ("[[payouts.earn]]", "[payees]")
        yield warn(name, f"{there} without {missing}: nobody earns anything", f"Add {missing}, or remove {there}.")
        return
    lost = _without_payee(settings)
    if lost:
        found = f"{counted(len(lost), 'bot')} without a payee, such as {lost[0]}: they earn nothing"
        yield warn(name, found, "Name them in the `bots` of a [payees.NAME] table.")
    else:
        yield ok(name, f"{counted(len(settings.payees), 'payee')}, each bot that earns has one")
    if terms.pay_simulated and any(network.main_net for network in settings.networks.values()):
        yield warn(
            "payouts: simulated answers",
            "earn real money",
            "Remove payouts.pay_simulated: nobody's model has answered.",
        )


def _of_network(name: str, settings: Settings, servers: Sequence[RedisFacts]) -> Iterator[Check]:
    """Yield what keeps a network from being paid on, or its payouts from being remembered."""
    network, title = settings.networks[name], f"payouts: network {name}"
    lacks = {"url": network.url is None, "native_price": not Fraction(network.native_price)}
    missing = [key for key, is_so in lacks.items() if is_so]
    if missing:
        found = f"no {' and no '.join(missing)}"
        yield warn(title, found, f"Set them in [networks.{name}]: `fleet payouts prepare` refuses without.")
    if not network.main_net:
        if not missing:
            yield ok(title, "a test network")
        return
    state = servers[-1] if servers else None  # that of the state, where there are two
    if state is not None and (state.aof is False or state.appendfsync == "no"):
        found = "real money, and Redis brings nothing to its disk in time"
        yield fail(title, found, "Set `appendonly yes` and `appendfsync everysec`: what was paid must outlive a crash.")
    elif not settings.payouts.confirmers or settings.payouts.address_wait_hours == 0:
        found = "real money, and one person can pay any address" if not settings.payouts.confirmers else (
            "real money, and a new address is paid at once"
        )  # fmt: skip
        yield warn(title, found, "Set payouts.confirmers and payouts.address_wait_hours (docs/payouts.md).")
    elif not missing:
        yield ok(title, "real money; Redis keeps files, a second person confirms, addresses wait")


def _without_payee(settings: Settings) -> list[str]:
    """Return the bots of pools with a price whose work nobody is paid for."""
    from fleet.earnings.rows import EarningTerms

    terms = EarningTerms(settings)
    priced = [pool for pool in settings.pools if any(line.pool in ("*", pool) for line in settings.payouts.earn)]
    names = (bot_name(pool, number) for pool in priced for number in range(1, settings.pools[pool].bots + 1))
    return [bot for bot in names if terms.payee_of(bot) is None]
