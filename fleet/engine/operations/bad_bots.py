"""Bad bots: what roster and diversity know of them, as columns of the table of bots, by pool, and the worst five. Pure.

The departments do not import each other; here their readings meet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from math import floor
from typing import get_args

from fleet.config import Settings
from fleet.diversity import ClassState
from fleet.faults import SAID
from fleet.models import bot_name
from fleet.roster import ENOUGH, HealthRows, PoolBots, Quarantine
from fleet.roster.grading import ENOUGH_WRONG, kind_of
from fleet.signals.bot_table import BotTable, HealthColumns, TestName
from fleet.signals.health_view import BotStanding, FleetHealth, PoolHealth

#: Bots in the list of the worst.
WORST = 5
#: Evidence from which on a bot is shown as suspected: two odd tasks in a row. Some bot of many has always had one.
SHOWN = 3.0
#: Who takes bots out when nobody else does; so it is where nobody has asked who it was.
HEALTH = "health"

_TESTS: tuple[TestName, ...] = get_args(TestName)
#: By whether answers were compared with those of others.
_WRONG: Mapping[bool, TestName] = {False: "wrong answers", True: "answers otherwise"}


@dataclass(frozen=True, slots=True)
class BotReadings:
    """What was read of all bots, by pool.

    Args:
        names: The bots of each pool.
        rows: Evidence against them.
        stand: Who is out or on probation.
        reasons: Why bots are out, of those that were asked for.
        alike: Bots that an alarm names.
        doubted: Bots whose answers may be wrong: class of the tasks, and evidence.
    """

    names: Mapping[str, Sequence[str]]
    rows: Mapping[str, HealthRows]
    stand: Mapping[str, PoolBots]
    reasons: Mapping[str, Quarantine]
    alike: frozenset[str]
    doubted: Mapping[str, tuple[str, float]]


def alike_of(classes: Sequence[ClassState]) -> frozenset[str]:
    """Return the bots that are named by an alarm that lasts."""
    return frozenset(bot_name(state.pool, bot) for state in classes if state.alarm for bot in state.flagged)


def health_columns(readings: BotReadings) -> HealthColumns:
    """Return the columns of the table of bots that say how healthy each is. O(bots).

    A bot that its health has taken out has the evidence that was enough: the tests begin anew then.
    """
    everyone = tuple(chain.from_iterable(readings.names.values()))
    rows = [readings.rows[pool] for pool in readings.names]
    evidence = list(chain.from_iterable(one.evidence for one in rows))
    test = [_TESTS[number] for one in rows for number in one.test]
    how = {start + at: SAID[fault] for start, one in _starts(rows) for at, fault in one.faults.items()}
    bad, avoids, slow = (tuple(chain.from_iterable(one.percents[place] for one in rows)) for place in range(3))
    reason, until = [""] * len(everyone), list[float | None](repeat(None, len(everyone)))
    share = dict(zip(_TESTS, (bad, bad, avoids, slow), strict=False))
    out = {bot: end for one in readings.stand.values() for bot, end in one.out.items()}
    for at, bot in enumerate(everyone):
        if (doubt := readings.doubted.get(bot)) and (weight := _weight(doubt[1])) >= evidence[at]:
            evidence[at], test[at] = weight, _WRONG[kind_of(doubt[0])[1] != "grades"]
        if bot in out:
            why = readings.reasons.get(bot)
            until[at], reason[at] = out[bot], why.reason if why else ""
            if why is None or why.by == HEALTH:
                evidence[at], test[at] = max(ENOUGH, evidence[at]), _test_of(reason[at]) or test[at]
        elif evidence[at] >= SHOWN:
            of_what = f", {how[at]}" if test[at] == _TESTS[1] and at in how else ""
            reason[at] = (
                f"{test[at]}{of_what}: {share[test[at]][at]}% of its last tasks"
                if test[at] in share
                else (f"{test[at]}: tasks of kind {kind_of(readings.doubted[bot][0])[0]}")
            )
    return HealthColumns(
        evidence=tuple(evidence), test=tuple(test), bad_percent=bad, avoids_percent=avoids, slow_percent=slow,
        reason=tuple(reason), until=tuple(until), alike=tuple(map(readings.alike.__contains__, everyone)),
    )  # fmt: skip


def _starts(rows: Iterable[HealthRows]) -> Iterator[tuple[int, HealthRows]]:
    """Yield each pool's rows with the place of its first bot among all."""
    start = 0
    for one in rows:
        yield start, one
        start += len(one.evidence)


def _weight(evidence: float) -> float:
    """Return the evidence of grades on the scale of the other tests, whose `ENOUGH` is enough here, too."""
    return round(evidence * ENOUGH / ENOUGH_WRONG, 1)


def _test_of(reason: str) -> TestName:
    """Return the test that `health.lua` names first in a reason."""
    return next((test for test in _TESTS[1:] if reason.startswith((f"{test}:", f"{test},"))), "")


def fleet_health(bots: BotTable, readings: BotReadings, settings: Settings, *, now_s: float) -> FleetHealth:
    """Return what is wrong with the bots of each pool, and the worst five of all."""
    return FleetHealth(
        enough=ENOUGH,
        pools=tuple(_pools(bots, readings, settings, now_s)),
        worst=tuple(_standing(bots, at, readings.reasons) for at in _worst(bots, readings.reasons)),
    )


def _pools(bots: BotTable, readings: BotReadings, settings: Settings, now_s: float) -> Iterator[PoolHealth]:
    at_work = [
        (pool, evidence >= enough_of(state))
        for pool, state, evidence in zip(bots.pool, bots.state, bots.evidence, strict=True)
        if evidence >= SHOWN and state != "quarantined"
    ]
    suspected, kept_in = Counter(pool for pool, _ in at_work), Counter(pool for pool, is_bad in at_work if is_bad)
    alike = Counter(pool for pool, is_alike in zip(bots.pool, bots.alike, strict=True) if is_alike)
    for pool, stand in readings.stand.items():
        size = len(readings.names[pool])
        all_out, back_at = stand.back_at(size, now_s)
        yield PoolHealth(
            pool=pool, bots=size, out=len(stand.out), most_out=floor(settings.health.most_out * size),
            probation=len(stand.probation), suspected=suspected[pool], kept_in=kept_in[pool], alike=alike[pool],
            all_out=all_out, back_at=back_at,
        )  # fmt: skip


def enough_of(state: str) -> float:
    """Return the evidence that sends a bot in this state out."""
    return ENOUGH / 2 if state == "probation" else ENOUGH


def _worst(bots: BotTable, reasons: Mapping[str, Quarantine]) -> list[int]:
    """Return the places of the worst bots: bad ones at work, those that are out (the newest first), suspected ones."""
    bad = [
        at for at, (state, evidence) in enumerate(zip(bots.state, bots.evidence, strict=True))
        if state == "quarantined" or evidence >= SHOWN
    ]  # fmt: skip

    def rank(at: int) -> tuple[int, float, float]:
        why, weight = reasons.get(bots.name[at]), bots.evidence[at] / enough_of(bots.state[at])
        group = 1 if bots.state[at] == "quarantined" else 0 if weight >= 1 else 2
        return group, -(why.since if why else 0.0), -weight

    return sorted(bad, key=rank)[:WORST]


def _standing(bots: BotTable, at: int, reasons: Mapping[str, Quarantine]) -> BotStanding:
    why = reasons.get(bots.name[at])
    return BotStanding(
        bot=bots.name[at], pool=bots.pool[at], state=bots.state[at], evidence=bots.evidence[at],
        enough=enough_of(bots.state[at]), test=bots.test[at], reason=bots.reason[at],
        since=why.since if why else None, until=bots.until[at], by=why.by if why else "", alike=bots.alike[at],
    )  # fmt: skip
