"""Health: three sequential tests per bot, and its quarantine, in the step that finishes a task. Decides: `health.lua`.

What counts against a bot is a `Deed`; whose fault a bad answer was is decided before (`engine/answers/opinions.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import redis

from fleet.config import HealthSettings
from fleet.faults import Fault
from fleet.models import Norms, bot_name
from fleet.roster.quarantine import OUT, QUARANTINE
from fleet.store import keys
from fleet.store.client import Script

#: Judges bots, as a function of the finishing script.
HEALTH = Script.beside(__file__, "health.lua").using(QUARANTINE).using(Script.beside(__file__, "skill.lua"))
#: Classes whose norms a process remembers.
MOST_NORMS = 10_000
#: Names of the events that `health.lua` records, as the catalogue of the signals declares them.
EVENTS = ("bot_quarantined", "bot_released", "quarantine_cap")
#: What the three tests look for, and the evidence that ends them: `health.lua` has the same.
#: On probation half of that is enough.
TESTS = ("bad answers", "avoids work", "slow")
ENOUGH = 9.2
#: Bytes before the first row of `keys.health`.
HEAD_BYTES = 128

_DEED = struct.Struct("<5d")
_RULES = struct.Struct("<ddd")
_ROW = struct.Struct("<3f4B2I")
_NORM = struct.Struct("<6d")
_SKILL = struct.Struct("<4f")
_NO_SAY = -1.0


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
        code = 3 if self.only_teaches else 0 if self.fault is None else 2 if self.fault is Fault.TOO_SHORT else 1
        chars = _NO_SAY if self.chars is None else self.chars
        ran_ms = _NO_SAY if self.ran_ms is None else self.ran_ms
        return _DEED.pack(int(self.bot.rpartition("-")[2]), code, chars, ran_ms, self.cost)


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
    """

    evidence: tuple[float, float, float]
    rates: tuple[float, float, float]
    quarantines: int
    tasks: int
    since: int


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
        self._rules = _RULES.pack(settings.quarantine_s * 1e6, settings.most_out, settings.probation_tasks)
        self._norms: dict[tuple[str, str], Norms] = {}

    def norms(self, pool: str, kind: str) -> Norms | None:
        """Return what is usual for a class, as this process last heard; None when it has not."""
        return self._norms.get((pool, kind))

    def all_names(self, pool: str, kind: str) -> list[str]:
        """Return KEYS of `health.lua`."""
        names = self.names(pool, kind)
        return [*names[:2], keys.bots(pool), *names[2:5], keys.events(), *names[5:]]

    def names(self, pool: str, kind: str) -> list[str]:
        """Return KEYS of `health.lua`, without the two that a finishing script has anyway (bots and events)."""
        return [
            keys.health(pool), keys.norms(pool), keys.quarantined(pool), keys.quarantine_reasons(pool),
            keys.probation(pool), keys.event_quiet(f"quarantine_cap:{pool}"), keys.skills(pool, kind),
            keys.specialists(pool, kind),
        ]  # fmt: skip

    def arguments(self, pool: str, kind: str, deeds: Sequence[Deed]) -> list[bytes | str | int]:
        """Return ARGV of `health.lua`; the first is empty when nobody is judged."""
        judged = b"".join(deed.pack() for deed in deeds) if self._settings.watch else b""
        return [judged, kind, pool, self._rules, keys.STATE_TTL_S, OUT, *EVENTS]

    def heard(self, pool: str, kind: str, reply: bytes) -> None:
        """Remember what `health.lua` answered: whom it suspects, and the norm."""
        suspect, norm = int.from_bytes(reply[:4], "little"), reply[4:]
        if norm:
            if len(self._norms) >= MOST_NORMS:
                self._norms.clear()
            self._norms[pool, kind] = norm_of(norm)
        if suspect:
            self._on_suspect(pool, bot_name(pool, suspect))


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
            first = number * _SKILL.size
            pipe.getrange(keys.skills(pool, kind), first, first + _SKILL.size - 1)
            pipe.zscore(keys.specialists(pool, kind), bot_name(pool, number))
        replies = pipe.execute()
    skills = []
    for kind, raw, ratio in zip(kinds, replies[::2], replies[1::2], strict=True):
        good, bad, *_ = _SKILL.unpack(raw.ljust(_SKILL.size, b"\0"))
        if good + bad:
            skills.append(Skill(kind, good / (good + bad), good + bad, ratio - 1 if ratio else None))
    return skills


def bot_health_of(raw: bytes) -> BotHealth:
    """Return how a bot stands from its row of `keys.health`; one that was never judged stands well."""
    numbers = _ROW.unpack(raw.ljust(_ROW.size, b"\0"))
    rates = (numbers[3] / 255, numbers[4] / 255, numbers[5] / 255)
    return BotHealth(numbers[:3], rates, *numbers[6:])


def norm_of(raw: bytes) -> Norms:
    """Return what is usual for a class from its field of `keys.norms`."""
    chars, ran_ms, tasks = _NORM.unpack(raw)[:3]
    return Norms(chars=chars, ran_ms=ran_ms, tasks=int(tasks))


def row_of(number: int) -> tuple[int, int]:
    """Return first and last byte of a bot's row in `keys.health`, as GETRANGE takes them."""
    first = HEAD_BYTES + number * _ROW.size
    return first, first + _ROW.size - 1
