"""What the scripts of budgets pack: what a scope has spent, what it may spend, and the reply to a call that reserves.

Money is whole micro-dollars with the picos beyond them apart: each is exact in a double.
"""

from __future__ import annotations

from typing import NamedTuple, Self

from fleet.config import PERIODS, BudgetSettings
from fleet.money import PICOS_PER_MICRO
from fleet.store.layouts import Layout, Place, Places

#: Seconds that a tenant's or run's tasks may stand at most until a new try where calls in flight have reserved what
#: is left, and after how many the script writes that anew.
MOST_STAND_S, STAND_STEP_S = 16, 2
#: Seconds after the last such refusal for which ends of calls are told to who may wake such tasks.
WAITED_S = 60
#: Life of what a scope has spent, of its reservations, and of those that were charged for a dead process, in seconds.
LIFE_S, LAPSED_S = 400 * 86_400, 86_400
#: Numbers of what a used-up budget does, as the scripts know them.
MODES = ("wait", "degrade", "stop bulk")
#: An amount that is not limited.
NOT_LIMITED = -1
#: What a scope may spend that has to have a budget, and has none: nothing in all.
NOTHING = " ".join([*[str(NOT_LIMITED)] * (len(PERIODS) - 1), "0", "0"])
#: Replies: it is reserved, there is no room, and no budget counts the call.
RESERVED, FULL, NONE = 1, 0, 2


class BudgetAt(Places):
    """Places of what one scope has spent; by period in the order of `PERIODS`."""

    #: When the period began, Unix time in seconds; of the one that never ends: when the first call asked.
    START = Place(len(PERIODS))
    #: What was spent in it: whole micro-dollars, and picos beyond them.
    MICROS = Place(len(PERIODS))
    REST = Place(len(PERIODS))
    #: Percentage of it that was told of, with the amount that it was of: see `reserve.lua`.
    TOLD = Place(len(PERIODS))
    #: Micro-dollars reserved for calls that are under way.
    RESERVED = Place()
    #: What calls have mostly reserved, in micro-dollars.
    MEAN = Place()
    #: Until when (Unix time in seconds) tasks of a tenant or run may wait for what calls in flight have reserved, and
    #: for which period; 0: none does.
    WAITED_UNTIL = Place()
    WAITED_FOR = Place()


class TermsAt(Places):
    """Places of what a scope may spend."""

    #: Micro-dollars by period; -1: not limited.
    ALLOWED = Place(len(PERIODS))
    #: What it does when it is used up: a place in `MODES`.
    MODE = Place()


class BudgetReply(NamedTuple):
    """What `reserve.lua` answered.

    When there is no room (`code`): the number of the `scope` among those that were asked, from 1, the number of its
    `period`, when it opens (0: only when it is raised), whether that `is_own`, holds for none but this call, the
    `lowest` priority that it does not stop (-1: all), and why in numbers. `told_scope` is not 0 when the use of one has
    just reached a percentage that is told of.
    """

    code: int
    scope: int
    period: int
    opens_s: int
    is_own: int
    returns: int
    lowest: int
    mode: int
    used: int
    reserved: int
    allowed: int
    told_scope: int
    told_period: int
    told_percent: int

    @classmethod
    def unpack(cls, reply: bytes) -> Self:
        """Return the reply that the script has packed."""
        return cls._make(REPLY.struct.unpack(reply))


STATE = Layout.of(BudgetAt)
TERMS = Layout.of(TermsAt)
REPLY = Layout.of(BudgetReply, f"{len(BudgetReply._fields)}q")


def micros_allowed(usd: float | None) -> int:
    """Return what a script is told that a budget allows."""
    return NOT_LIMITED if usd is None else max(1, round(usd * 1_000_000))


def terms_text(settings: BudgetSettings | None) -> str:
    """Return what a scope may spend as the scripts read it; empty: no budget."""
    if settings is None:
        return ""
    return " ".join(str(number) for number in (*map(micros_allowed, settings.allowed), MODES.index(settings.when_full)))


def settings_in(text: str | bytes) -> BudgetSettings:
    """Return what `terms_text` wrote.

    Raises:
        ValueError: When it is something else.
    """
    *amounts, mode = (int(part) for part in text.split())
    usd = (None if micros < 0 else micros / 1_000_000 for micros in amounts)
    hour, day, month, in_all = usd
    return BudgetSettings.model_validate(
        {"usd_per_hour": hour, "usd_per_day": day, "usd_per_month": month, "usd_in_all": in_all,
         "when_full": MODES[mode]}
    )  # fmt: skip


def split_picos(picos: int) -> tuple[int, int]:
    """Return an amount as whole micro-dollars and the picos beyond them."""
    return divmod(picos, PICOS_PER_MICRO)
