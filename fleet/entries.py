"""What one call to a provider has cost: an entry of the bill. How entries are summed: `fleet/economy/bill/`."""

from __future__ import annotations

from json.encoder import encode_basestring as _text
from typing import Literal, NamedTuple

from fleet.usage import Usage

#: Whether the provider told what was counted.
State = Literal["settled", "unknown"]


class Entry(NamedTuple):
    """One call to a provider, and what it has cost.

    Args:
        id: The call's: the ticket of its grant.
        task: For which it was made.
        pool: Of the bot.
        bot: Who made it.
        tenant: For whom the task is; empty: nobody in particular.
        kind: Task class.
        run: Run of a file that has a budget; empty: none.
        limit: `provider/model/key`.
        tier: Service tier that answered; empty: the usual one.
        usage: Each class of token.
        usd_picos: In 10^-12 US dollars; None: the model has no price in that tier.
        state: `settled`: the provider told its usage, or surely counted nothing. `unknown`: it was sent, and nobody
            knows what was counted; it is entered at what was reserved for it.
        at_s: Unix time in seconds, by the clock of Redis.
        reservation: Under which budgets reserved for it; empty: none did.
    """

    id: str
    task: str
    pool: str
    bot: str
    tenant: str
    kind: str
    run: str
    limit: str
    tier: str
    usage: Usage
    usd_picos: int | None
    state: State
    at_s: float
    reservation: str = ""


def packed_end(entry: Entry) -> str:
    """Return what a call was settled at, as JSON for its note: amount, tier, time, usage. About 2 us."""
    picos = "null" if entry.usd_picos is None else entry.usd_picos
    usage = ",".join([f'"{name}":{count}' for name, count in entry.usage.__dict__.items() if count])
    return f"[{picos},{_text(entry.tier)},{entry.at_s:.3f},{{{usage}}}]"
