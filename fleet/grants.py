"""What the limiter is asked and what it hands out: who calls, and the permission to send one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fleet.models import Priority


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call is made for: the limiter orders waiting calls by this.

    Args:
        bot: Name of the bot; calls of one bot share one turn. Empty: all calls without a name share one.
        priority: Urgent calls go first.
        kind: Task class; the limiter learns what its calls really use.
        tenant: Tenants get equal shares, each divided among its bots. Empty: bots get equal shares.
        weight: Share of the bot (of the tenant's bot) against the others', above 0.
        run: Run of a file that has a budget; empty: none.
        warm: Limits whose keys' caches have the beginning of its prompt: it goes with one of them while it may; empty:
            none is known to.
        is_probe: An open breaker waits for it: it may be one call at the same time more than the limit allows.
    """

    bot: str = ""
    priority: Priority = Priority.NORMAL
    kind: str = "default"
    tenant: str = ""
    weight: float = 1.0
    run: str = ""
    warm: tuple[str, ...] = ()
    is_probe: bool = False


#: A caller that says nothing about itself.
ANYBODY = Caller()


class Tokens(NamedTuple):
    """Tokens of one call: input and output together, and both apart."""

    total: int = 0
    input: int = 0
    output: int = 0


class Mark(NamedTuple):
    """Where a grant stands among all of its limit: its time (us, of Redis), requests and tokens granted until then."""

    at_us: int = 0
    requests: int = 0
    tokens: int = 0


class Grant(NamedTuple):
    """Permission to send one call, handed out by the limiter once its time has come.

    Args:
        limit: The `provider/model/key` it was given under.
        reserved_tokens: What the call asked for: the most that it may use.
        waited_ms: How long the caller waited for it.
        ticket: Its name in the limiter's order; empty if there is nothing to settle.
        kind: Task class of the call.
        reserved_output_tokens: Those of `reserved_tokens` that are output.
        charged: Tokens that were charged: what calls of this kind mostly use.
        cost_usd_micros: The most that the call may cost, with parts of a micro-dollar.
        charged_usd_micros: What was reserved of the day's budget: what calls of this kind mostly cost.
        sent_at: Time of the event loop at which the call may leave.
        mark: Its place among all grants.
        reservation: Under which budgets have reserved for it; empty: none counts it.
        capped: Under which its key's daily caps have reserved for it; empty: none counts it.
        noted_usd_micros: What the bill enters if nobody learns its cost; 0 without a note.
        is_beyond: A probe beyond the calls at the same time that the limit allows: those under way hang.
        came: Of a call that is over: what its note says from now on, see `entries.py: packed_end`; empty: as before.
    """

    limit: str
    reserved_tokens: int
    waited_ms: int = 0
    ticket: str = ""
    kind: str = "default"
    reserved_output_tokens: int = 0
    charged: Tokens = Tokens()
    cost_usd_micros: float = 0
    charged_usd_micros: float = 0
    sent_at: float = 0.0
    mark: Mark = Mark()
    reservation: str = ""
    capped: str = ""
    noted_usd_micros: float = 0
    is_beyond: bool = False
    came: str = ""
