"""Health: three sequential tests per bot, and its quarantine, in the step that finishes a task. Decides: `health.lua`.

What counts against a bot is a `Deed`; whose fault a bad answer was is decided before (`engine/answers/opinions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import redis

from fleet.config import HealthSettings
from fleet.faults import Fault
from fleet.models import Norms, bot_name
from fleet.roster.quarantine import OUT, QUARANTINE
from fleet.store import keys
from fleet.store.client import Script
from fleet.store.layouts import Layout, Place, Places

#: Classes whose norms a process remembers.
MOST_NORMS = 10_000
#: Names of the events that `health.lua` records, as the catalogue of the signals declares them.
EVENTS = ("bot_quarantined", "bot_released", "quarantine_cap")
#: What the three tests look for, and the evidence that ends them: natural logarithm of the likelihood ratio,
#: ln(0.99 / 0.0001). On probation half of that is enough.
TESTS = ("bad answers", "avoids work", "slow")
ENOUGH = 9.2
#: Evidence from which on a bot may be given canaries: one event of a good bot.
SUSPECTED = 1.5
#: The tests' numbers in Lua.
TEST_NUMBERS = {"ERRORS": 1, "AVOIDS": 2, "SLOWNESS": 3}
#: Bytes before the first row of `keys.health`, and of each of the latest tasks there: rates, and whether it was slow.
HEAD_BYTES, SAMPLE_BYTES = 128, len(TESTS) + 1

_NO_SAY = -1.0


class _Deed(NamedTuple):
    """A deed as `health.lua` reads it; `fault` is one of the codes below."""

    number: int
    fault: int
    chars: float
    ms: float
    cost: float


_WELL, _TEACHES, _FIRST_FAULT = range(3)
#: By fault; all but `TOO_SHORT` are bad answers.
_CODES = {fault: _FIRST_FAULT + place for place, fault in enumerate(Fault)}
#: Weight of the newest task in a bot's rates; tasks until which a rate still shows that it began at 0 (count).
NEWEST, YOUNG_TASKS = 0.1, 44


class _Rules(NamedTuple):
    """By what `health.lua` quarantines."""

    quarantine_us: float
    most_out: float
    trial_tasks: float


class _Row(Places):
    """What is known against one bot."""

    #: By test: evidence, and rate of the event in its last tasks (of 255).
    EVIDENCE = Place(3)
    RATE = Place(3)
    QUARANTINES = Place()
    TASKS = Place()
    #: Tasks since the last quarantine; what most of its bad answers lately had, and how many more than others.
    SINCE = Place()
    FAULT = Place()
    FAULTS = Place()


class _Norm(NamedTuple):
    """What is usual for a class: medians, how many they are of; its good and bad tasks, which fade; its mean cost.

    Good tasks whose answers turned out to be wrong are counted apart: no test of whether answers are usable knows them.
    """

    chars: float
    ms: float
    tasks: float
    good_tasks: float
    bad_tasks: float
    cost: float
    wrong_tasks: float


class _Skill(NamedTuple):
    """What a bot did of one class: good and bad tasks, the sum of their costs and of the squares of those; all fade."""

    good: float
    bad: float
    costs: float
    squares: float


_DEED, RULES, NORM = Layout.of(_Deed), Layout.of(_Rules), Layout.of(_Norm)
ROW, SKILL = Layout.of(_Row, "3f4BIH2B"), Layout.of(_Skill, "4f")
_LEARN = Script.beside(
    __file__,
    "skill.lua",
    keys="skills specialists",
    argv="number bot did_well cost class_good class_bad class_cost life_s",
    tables={"skill": SKILL},
)
#: Takes out whom a test has found, as a function of the scripts that test.
TAKE_OUT = Script.beside(
    __file__,
    "take_out.lua",
    keys="bots quarantined reasons probation events quiet",
    argv="bot pool reason quarantines quarantine_us most_out life_s quarantined_event cap_event",
    constants={"OUT": OUT},
    using=[QUARANTINE],
)
#: Judges bots, as a function of the finishing script.
HEALTH = Script.beside(
    __file__,
    "health.lua",
    keys="health norms bots quarantined reasons probation events quiet skills specialists",
    argv="now_us samples kind pool rules life_s quarantined_event released_event cap_event",
    tables={"row": ROW, "norm": NORM, "rules": RULES, "deed": _DEED},
    constants={
        "HEAD_BYTES": HEAD_BYTES, "SAMPLE_BYTES": SAMPLE_BYTES, "ENOUGH": ENOUGH, "SUSPECTED": SUSPECTED,
        "TESTS": len(TESTS),
        **TEST_NUMBERS,
        "WELL": _WELL, "TEACHES": _TEACHES, "NEWEST": NEWEST, **{fault.name: code for fault, code in _CODES.items()},
    },
    using=[TAKE_OUT, _LEARN],
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deed:
    """What a bot did on one task, as far as its health is concerned.

    Args:
        bot: Its name.
        fault: What was its fault; None: it did well.
        chars: Characters of its answer; None: they say nothing.
        ran_ms: Its time at work; None: it says nothing, for the provider failed meanwhile.
        cost: Micro-dollars, or tokens where there is no price.
        only_teaches: True when it says nothing of the bot, but of what is usual for the class.
    """

    bot: str
    fault: Fault | None = None
    chars: int | None = None
    ran_ms: int | None = None
    cost: int = 0
    only_teaches: bool = False

    def pack(self) -> bytes:
        """Return it as `health.lua` reads it."""
        deed = _Deed(
            number=int(self.bot.rpartition("-")[2]),
            fault=self._code(),
            chars=_NO_SAY if self.chars is None else self.chars,
            ms=_NO_SAY if self.ran_ms is None else self.ran_ms,
            cost=self.cost,
        )
        return _DEED.pack(deed)

    def _code(self) -> int:
        if self.only_teaches:
            return _TEACHES
        return _WELL if self.fault is None else _CODES[self.fault]


@dataclass(frozen=True, slots=True)
class BotHealth:
    """How a bot stands.

    Args:
        evidence: Against it, for errors, avoidance and slowness: natural logarithms of likelihood ratios, from 0;
            9.2 is enough for a quarantine.
        rates: Shares of its last tasks with each.
        quarantines: How often it was quarantined lately.
        tasks: Tasks on which it was judged.
        since: Those of them since its last quarantine.
        fault: What most of its bad answers lately had; None: nobody knows.
    """

    evidence: tuple[float, float, float]
    rates: tuple[float, float, float]
    quarantines: int
    tasks: int
    since: int
    fault: Fault | None = None


class Health:
    """Packs deeds for the finishing script and remembers what it answers. One per process, on its loop.

    Args:
        settings: How bots are judged.
        on_suspect: Called with the pool and name of a bot that is suspected or on probation.
    """

    def __init__(
        self, settings: HealthSettings, on_suspect: Callable[[str, str], None] = lambda pool, bot: None
    ) -> None:
        self._settings = settings
        self._on_suspect = on_suspect
        self._rules = rules_of(settings)
        self._norms: dict[tuple[str, str], Norms] = {}

    def norms(self, pool: str, kind: str) -> Norms | None:
        """Return what is usual for a class, as this process last heard; None when it has not."""
        return self._norms.get((pool, kind))

    def names(self, pool: str, kind: str) -> dict[str, str]:
        """Return KEYS of `health.lua` by name."""
        return {
            "health": keys.health(pool),
            "norms": keys.norms(pool),
            "bots": keys.bots(pool),
            "quarantined": keys.quarantined(pool),
            "reasons": keys.quarantine_reasons(pool),
            "probation": keys.probation(pool),
            "events": keys.events(),
            "quiet": keys.event_quiet(f"quarantine_cap:{pool}"),
            "skills": keys.skills(pool, kind),
            "specialists": keys.specialists(pool, kind),
        }

    def samples(self, deeds: Sequence[Deed]) -> bytes:
        """Return the argument `samples` of `health.lua`; empty: nobody is judged."""
        return b"".join([deed.pack() for deed in deeds]) if self._settings.watch else b""

    def constants(self, pool: str, kind: str) -> dict[str, bytes | str | int]:
        """Return the other ARGV of `health.lua` by name, the same for all tasks of a class."""
        quarantined, released, cap = EVENTS
        return {
            "kind": kind,
            "pool": pool,
            "rules": self._rules,
            "life_s": keys.STATE_TTL_S,
            "quarantined_event": quarantined,
            "released_event": released,
            "cap_event": cap,
        }

    def heard(self, pool: str, kind: str, reply: bytes) -> None:
        """Remember what `health.lua` answered: whom it suspects, and the norm."""
        suspect, norm = int.from_bytes(reply[:4], "little"), reply[4:]
        if norm:
            if len(self._norms) >= MOST_NORMS:
                self._norms.clear()
            self._norms[pool, kind] = norm_of(norm)
        if suspect:
            self._on_suspect(pool, bot_name(pool, suspect))


def rules_of(settings: HealthSettings) -> bytes:
    """Return by what bots are quarantined, as the scripts read it."""
    return RULES.pack(_Rules(settings.quarantine_s * 1e6, settings.most_out, settings.probation_tasks))


def read_probation(client: redis.Redis, pools: Iterable[str]) -> set[str]:
    """Return the bots that are on probation. One round trip, O(those)."""
    with client.pipeline(transaction=False) as pipe:
        for pool in pools:
            pipe.zrange(keys.probation(pool), 0, -1)
        return {name.decode() for names in pipe.execute() for name in names}


@dataclass(frozen=True, slots=True)
class Skill:
    """How a bot does one task class.

    Args:
        kind: The class.
        good: Share of its last tasks that it did well.
        tasks: How many these are; older ones count less.
        better: By how much it is better than its pool, at least; None: it is no specialist.
    """

    kind: str
    good: float
    tasks: float
    better: float | None


def read_skills(client: redis.Redis, pool: str, number: int, kinds: Sequence[str]) -> list[Skill]:
    """Return how a bot does each task class that it has done. One round trip."""
    with client.pipeline(transaction=False) as pipe:
        for kind in kinds:
            first = number * SKILL.struct.size
            pipe.getrange(keys.skills(pool, kind), first, first + SKILL.struct.size - 1)
            pipe.zscore(keys.specialists(pool, kind), bot_name(pool, number))
        replies = pipe.execute()
    skills = []
    for kind, raw, ratio in zip(kinds, replies[::2], replies[1::2], strict=True):
        good, bad, *_ = _Skill(*SKILL.unpack(raw)[1:])
        if good + bad:
            skills.append(Skill(kind, good / (good + bad), good + bad, ratio - 1 if ratio else None))
    return skills


def bot_health_of(raw: bytes) -> BotHealth:
    """Return how a bot stands from its row of `keys.health`; one that was never judged stands well."""
    row = ROW.unpack(raw)
    errors, avoids, slow = (row[_Row.EVIDENCE + test] for test in (1, 2, 3))
    rates = tuple(share_of(row[_Row.RATE + test], int(row[_Row.TASKS])) for test in (1, 2, 3))
    return BotHealth(
        (errors, avoids, slow),
        (rates[0], rates[1], rates[2]),
        quarantines=int(row[_Row.QUARANTINES]),
        tasks=int(row[_Row.TASKS]),
        since=int(row[_Row.SINCE]),
        fault=fault_of(int(row[_Row.FAULT])),
    )


def share_of(rate: float, tasks: int) -> float:
    """Return the share of a bot's last tasks that a rate of its row tells: it began at 0, and that is made good.

    Args:
        rate: As it lies in the row.
        tasks: On which the bot was judged. A test that had nothing to say of some is understated.
    """
    return min(1.0, rate / 255 / (1 - (1 - NEWEST) ** tasks)) if 0 < tasks < YOUNG_TASKS else rate / 255


def fault_of(code: int) -> Fault | None:
    """Return the fault of a code in a row; None: it has none, or one of another release."""
    return next((fault for fault, known in _CODES.items() if known == code), None)


def norm_of(raw: bytes) -> Norms:
    """Return what is usual for a class from its field of `keys.norms`."""
    norm = _Norm(*NORM.unpack(raw)[1:])
    return Norms(chars=norm.chars, ran_ms=norm.ms, tasks=int(norm.tasks))


def row_of(number: int) -> tuple[int, int]:
    """Return first and last byte of a bot's row in `keys.health`, as GETRANGE takes them."""
    first = HEAD_BYTES + number * ROW.struct.size
    return first, first + ROW.struct.size - 1
