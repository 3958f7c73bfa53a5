"""What the limiter packs: the state of a limit, what was learnt of it, and what scripts are asked and answer.

Times are microseconds of Redis time. Rates are numbered 1 requests, 2 tokens, 3 input tokens, 4 output tokens; classes
0 (critical) to 4 (bulk).
"""

from __future__ import annotations

from typing import NamedTuple, Self

from fleet.limiter.limits import BY_HOLD, BY_LIMIT, BY_MONEY, BY_REQUESTS, Terms
from fleet.store.layouts import Layout, Place, Places
from fleet.waits import Cause, Wait

_CAUSES: dict[int, Cause] = {BY_LIMIT: "limit", BY_HOLD: "hold", BY_REQUESTS: "requests", BY_MONEY: "money"}


class At(Places):
    """Places of the state of a limit: `state[At.HELD_UNTIL]`."""

    #: By rate: GCRA's "theoretical arrival time".
    CLOCK = Place(4)
    #: Nobody before this time: a provider said so.
    HELD_UNTIL = Place()
    #: Start tag of the latest grant, in the fair order.
    VIRTUAL_TIME = Place()
    #: By rate, from 2 on: what a call uses, net.
    MEAN = Place(3, first=2)
    #: By class, from 1 on: share of grants to more urgent ones.
    URGENT_SHARE = Place(4)
    #: By class, from 1 on: credit against the more urgent.
    CREDIT = Place(4)
    #: By class, 0 to 3: when it asked last (ms).
    ASKED_MS = Place(4, first=0)
    GRANTED = Place()
    GRANTED_TOKENS = Place()
    #: By rate: what is counted in the window.
    WINDOW = Place(4)
    DAY = Place()
    DAY_REQUESTS = Place()
    DAY_USD_MICROS = Place()
    MEAN_FLIGHT_US = Place()
    #: The minute that is counted (since 1970), what was settled in it, and in the one before.
    MINUTE = Place()
    MINUTE_REQUESTS = Place()
    MINUTE_TOKENS = Place()
    BEFORE_REQUESTS = Place()
    BEFORE_TOKENS = Place()
    #: 429s of the provider, and when the last one came.
    REFUSED = Place()
    REFUSED_AT = Place()
    #: When to look for dead tickets and old entries again; -1: the clock was set back.
    SWEEP_AT = Place()
    #: Of the money of the day: reserved for calls in flight. This and what follows stands apart (`BESIDE`).
    DAY_RESERVED = Place()
    #: When money was last reserved.
    RESERVED_AT = Place()
    #: 0, or when the provider came back after an outage: from then on the burst grows from little.
    CALM_AT = Place()


class Learnt(Places):
    """What headers and 429s taught of a limit, beside what is configured."""

    #: By rate: what the provider says it allows a minute (0: not said), and until when that is believed.
    ALLOWED = Place(4)
    ALLOWED_UNTIL = Place(4)
    #: By rate, 1 and 2: a guess, where nothing is configured or said.
    GUESS = Place(2)
    #: By rate: what others have used of the window, and until when that holds.
    OTHERS = Place(4)
    OTHERS_UNTIL = Place()
    #: Calls a minute that the little left of a longer period allows, and until when that holds.
    PACED = Place()
    PACED_UNTIL = Place()
    #: Calls at the same time, by a refusal of one too many (0: none was), and from when on it grows again.
    IN_FLIGHT = Place()
    IN_FLIGHT_GROWS = Place()


class Seen(Places):
    """What the next lesson needs to know of those before."""

    #: By rate: the limit as told, and the most that was ever left of it.
    LIMIT = Place(4)
    MOST_LEFT = Place(4)
    #: By rate, 1 and 2: growth of the guess per second; when they grew last, and were cut last.
    GROWTH = Place(2)
    GROWN_AT = Place()
    CUT_AT = Place()
    #: Two marks, some seconds apart: time, granted requests and tokens, refusals.
    OLD_MARK_AT = Place()
    OLD_GRANTED = Place()
    OLD_TOKENS = Place()
    OLD_REFUSED = Place()
    MARK_AT = Place()
    MARK_GRANTED = Place()
    MARK_TOKENS = Place()
    MARK_REFUSED = Place()
    #: By rate: answers that told this limit; its period as its resets show it (us, 0: a minute) and when they last
    #: did; the longest reset; answers that agree on a period, that period, and what the last of them had used.
    TOLD = Place(4)
    PERIOD = Place(4)
    SHOWN_AT = Place(4)
    LONGEST_RESET = Place(4)
    AGREED = Place(4)
    AGREED_PERIOD = Place(4)
    AGREED_USE = Place(4)
    #: Limits of longer periods, by rate, 1 to 4 of an hour and 5 to 8 of a day or more: as told, what was left when
    #: that was noted (at LONG_AT), the period (us), and when all is there again (0: not said).
    LONG_LIMIT = Place(8)
    LONG_LEFT = Place(8)
    LONG_AT = Place(8)
    LONG_PERIOD = Place(8)
    LONG_FULL_AT = Place(8)
    #: Answers in a row that told that little is left.
    TOLD_PACED = Place()


class Heard(Places):
    """What an answer's headers said (-1: not said), as of the grant of its call.

    By rate, 1 to 4 of a minute or of a period that is not named, 5 to 8 of an hour, 9 to 12 of a day or longer.
    """

    GRANTED_AT = Place()
    GRANTED = Place()
    GRANTED_TOKENS = Place()
    LIMIT = Place(12)
    LEFT = Place(12)
    #: Time until all is there again.
    RESET_US = Place(12)
    #: The period, when it is named.
    PERIOD_US = Place(12)


class Asked(NamedTuple):
    """The numbers of one question.

    Args:
        priority: Class, 0 (most urgent) to 4.
        asked_order: Order it had when it asked before; -1: it did not.
        asked_candidate: Candidate that it asked then.
        charge: Of a call in the fair order / weight; 0: its tokens.
        weight: Of the caller.
        by_tenant: 1: tenants share, and within them their bots.
        tokens: Input and output together.
        input: Those of them that are input.
        output: And output.
        usd_micros: The most that it may cost.
        max_wait_us: Longest wait.
        random: In [0, 1).
        lease_us: How long it counts as in flight without being settled.
        patience_us: A turn that is further away is refused, with the reason; below 0: as far as `max_wait_us`.
        beyond: Calls at the same time that it may be more than the limit allows: 1 for a probe.
    """

    priority: float
    asked_order: float
    asked_candidate: float
    charge: float
    weight: float
    by_tenant: float
    tokens: float
    input: float
    output: float
    usd_micros: float
    max_wait_us: float
    random: float
    lease_us: float
    patience_us: float
    beyond: float


class Reply(NamedTuple):
    """What `acquire.lua` answered: a code and numbers; last, unpacked, what an operator set and who told of a hold.

    Why a call does not go soon: `cause` (`limits.BY_LIMIT` and so on), whether that `is_own`, holds for none but this
    call, and the `lowest` priority that it does not stop. `is_beyond`: it is a probe, and one call at the same time
    more than the limit allows. Of the day, so many thousandths are used; of its money,
    `day_usd_micros`, the call is charged `cost_usd_micros`. The bill would enter it at `noted_usd_micros`.
    """

    code: int
    wait_us: int
    order: int
    now_us: int
    held_us: int
    idle: int
    backlog_us: int
    candidate: int
    quiet_us: int
    tokens: int
    input_tokens: int
    output_tokens: int
    granted: int
    granted_tokens: int
    horizon_us: int
    cause: int
    is_own: int
    lowest: int
    day_used: int
    is_beyond: int
    cost_usd_micros: float
    day_usd_micros: float
    noted_usd_micros: float
    was_set: bytes
    held_by: bytes

    @classmethod
    def unpack(cls, reply: bytes) -> Self:
        """Return the reply that the script has packed."""
        was_set, _, held_by = reply[_REPLY.size :].partition(b"\n")
        return cls._make((*_REPLY.unpack_from(reply), was_set, held_by))

    def wait(self, *, about: str) -> Wait:
        """Return why a call under the limit `about` does not go soon."""
        cause = _CAUSES.get(self.cause, "limit")
        return Wait(
            cause,
            opens_at=(self.now_us + self.wait_us) / 1e6,
            about=about,
            told=self.held_by.decode("utf-8", "replace") if cause == "hold" else self._told(),
            is_everyones=not self.is_own,
            lowest=self.lowest,
        )

    def _told(self) -> str:
        if self.cause not in (BY_REQUESTS, BY_MONEY):
            return ""
        if not self.is_own:
            return f"{self.day_used / 10:.0f}% of the day is used"
        cost, day = self.cost_usd_micros / 1e6, self.day_usd_micros / 1e6
        least = f"this call may cost ${cost:,.4f}, more than"
        if cost > day:
            return f"{least} a whole day has: ${day:,.4f}; raise usd_per_day"
        return f"{least} is left of the day's ${day:,.4f}"


class Settled(NamedTuple):
    """The numbers of a call that is over.

    Args:
        sent: 1; 0: it never left.
        tokens: Charged when it was granted; of them input and output.
        input: See above.
        output: See above.
        used_tokens: Used; of them input and output.
        used_input: See above.
        used_output: See above.
        asked_tokens: What it asked for.
        asked_output: Of it output.
        reserved_usd_micros: Reserved of the money of the day.
        usd_micros: Spent.
        reserved_day: Day (UTC, since 1970) on which it was granted, and counted.
        since_slot_us: Time since its slot; below 0: it is to come.
        learns: 1: its use says something of its kind.
        asked_usd_micros: The most that it might have cost.
    """

    sent: float
    tokens: float
    input: float
    output: float
    used_tokens: float
    used_input: float
    used_output: float
    asked_tokens: float
    asked_output: float
    reserved_usd_micros: float
    usd_micros: float
    reserved_day: float
    since_slot_us: float
    learns: float
    asked_usd_micros: float


STATE = Layout.of(At, f"{At.DAY_RESERVED - 1}d")
LEARNT, SEEN, HEARD = Layout.of(Learnt), Layout.of(Seen), Layout.of(Heard)
#: The state's places that 0.2 did not have: they are packed apart.
BESIDE = Layout({}, f"{At.CALM_AT - STATE.size}d")
#: Terms as configured; behind them, for the scripts, what others use of the window by rate.
TERMS = Layout.of(Terms).and_group("others")
ASKED, SETTLED, REPLY = Layout.of(Asked), Layout.of(Settled), Layout.of(Reply, "20q3d")
_REPLY = REPLY.struct
pack_asked, pack_settled = ASKED.packer(Asked), SETTLED.packer(Settled)
#: Codes of `Reply`; 0 is "too late".
SEND, ASK_AGAIN = 1, 2
