"""The checks of `fleet doctor` about earnings: bots that earn for nobody, tables that do nothing, real money."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.models import bot_name
from fleet.quoting import counted


def payout_checks(settings: Settings) -> Iterator[Check]:
    """Yield what there is to say about earnings; nothing where nobody earns and nobody is to be paid."""
    terms, name = settings.payouts, "payouts: bots and payees"
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


def _without_payee(settings: Settings) -> list[str]:
    """Return the bots of pools with a price whose work nobody is paid for."""
    from fleet.earnings.rows import EarningTerms

    terms = EarningTerms(settings)
    priced = [pool for pool in settings.pools if any(line.pool in ("*", pool) for line in settings.payouts.earn)]
    names = (bot_name(pool, number) for pool in priced for number in range(1, settings.pools[pool].bots + 1))
    return [bot for bot in names if terms.payee_of(bot) is None]
