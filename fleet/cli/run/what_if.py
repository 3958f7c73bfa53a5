"""What tasks would take under other settings: estimated, and played through the limiter's rules (`fleet simulate`)."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleet.cli.run.dry_run import DryRun, Inventory
from fleet.cli.run.expected import usd
from fleet.cli.run.weighing import Scales
from fleet.config import LimitSettings, Settings
from fleet.economy.estimate import Estimate, Weighed
from fleet.economy.habits import Capacity, Experience, Range
from fleet.economy.prices import PriceList
from fleet.errors import ConfigurationError
from fleet.limiter.simulated.playout import PlayedTask, Playout, play
from fleet.models import BotTask
from fleet.money import PICOS_PER_MICRO
from fleet.quoting import counted, duration
from fleet.usage import Usage

#: Spread of the logarithm of times to an answer: the 95th percentile is twice the median.
_SPREAD = 0.42
#: Share of a limit, or of the slots, below which it is not what decides.
_BINDS = 0.6


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Settings that are tried; None: as they are. Limits are changed for every model that the tasks call."""

    rpm: int | None = None
    tpm: int | None = None
    usd_per_day: float | None = None
    slots: int | None = None
    bots: int | None = None

    @property
    def of_limits(self) -> dict[str, float]:
        """Those of limits."""
        numbers = {"rpm": self.rpm, "tpm": self.tpm, "usd_per_day": self.usd_per_day}
        return {name: number for name, number in numbers.items() if number is not None}

    def slots_of(self, settings: Settings) -> int | None:
        """Return the slots that are tried: as many as said, else by the bots and the head-room."""
        if self.slots is not None or self.bots is None:
            return self.slots
        return math.ceil(self.bots * (1 + settings.worker.head_room))


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How the tasks come, and what they are like.

    Args:
        tasks: So many of one kind; None: those of the file.
        sizes: Input tokens of those, smallest and largest.
        used: Share of the longest answer that each gets; None: as is learnt, else guessed.
        latency_s: Mean time to an answer; None: as is learnt, else guessed.
        per_minute: Tasks that come in a minute; None: all at once.
        seed: Decides sizes, lengths, times and jitter.
        most: Tasks that are played at most.
    """

    tasks: int | None = None
    sizes: tuple[int, int] = (200, 1200)
    used: float | None = None
    latency_s: float | None = None
    per_minute: float | None = None
    seed: int = 0
    most: int = 100_000


@dataclass(frozen=True, slots=True)
class Tried:
    """What came out: the estimate, and one play by model."""

    found: Inventory
    expected: Estimate
    known: Experience
    plays: Mapping[str, Playout]
    limits: Mapping[str, LimitSettings]


def try_out(wanted: DryRun, changes: WhatIf, trial: Arrivals) -> Tried:
    """Estimate tasks under changed settings, and play them.

    Args:
        wanted: The file and how its lines are read.
        changes: What is otherwise than in the settings.
        trial: How the tasks come.

    Raises:
        ConfigurationError: When a budget is tried for a model without a price.
    """
    chance = random.Random(trial.seed)
    found = wanted.survey() if trial.tasks is None else _made(wanted, trial, chance)
    if len(found.asked) > trial.most:
        raise ConfigurationError(
            f"IN: expected at most {trial.most:,} lines to play, got {len(found.asked):,}; "
            "`fleet run --dry-run` estimates any number of them"
        )
    wanted = replace(wanted, settings=_changed(wanted.settings, {one.api for one in found.asked}, changes))
    known = _known(wanted, found, changes, trial)
    expected = wanted.estimate(found, known)
    jobs, price = defaultdict[str, list[PlayedTask]](list), PriceList(wanted.settings)
    for number, one in enumerate(found.asked):
        at_s = number * 60 / trial.per_minute if trial.per_minute else 0.0
        jobs[one.api].append(_job(one, at_s, known, trial, price, chance))
    limits = {api: _in_force(wanted.settings, api, known.rooms.get(api)) for api in jobs}
    slots = {api: max(1, round(known.slots * len(of) / len(found.asked))) for api, of in jobs.items()}
    plays = {api: play(limits[api], of, slots=slots[api], seed=trial.seed) for api, of in jobs.items()}
    return Tried(found, expected, known, plays, limits)


def _made(wanted: DryRun, trial: Arrivals, chance: random.Random) -> Inventory:
    """Return so many tasks of the sizes that are asked for."""
    scales, options = Scales(wanted.settings), wanted.line_format.options
    one = [scales.weigh(BotTask.parse("-", **options)) for _ in range(trial.tasks or 0)]
    return Inventory(asked=[task._replace(input_tokens=chance.randint(*trial.sizes), variance=0.0) for task in one])


def _changed(settings: Settings, apis: set[str], changes: WhatIf) -> Settings:
    if not changes.of_limits:
        return settings
    limits = dict(settings.limits)
    for api in apis:
        if changes.usd_per_day is not None:
            try:
                settings.check_price(api, "--usd-per-day")
            except ValueError as error:
                raise ConfigurationError(str(error)) from None
        limits[api] = settings.limit_at(*api.split("/", 1))[1].model_copy(update=changes.of_limits)
    return settings.model_copy(update={"limits": limits})


def _known(wanted: DryRun, found: Inventory, changes: WhatIf, trial: Arrivals) -> Experience:
    known = wanted.known(found)
    rooms = {
        api: replace(room, rpm=changes.rpm or room.rpm, tpm=changes.tpm or room.tpm)
        for api, room in known.rooms.items()
    }
    latencies = known.latencies_s
    if trial.latency_s is not None:
        latencies = {(one.pool, one.kind): Range.of(trial.latency_s) for one in found.asked}
    slots = changes.slots_of(wanted.settings) or known.slots
    return replace(known, rooms=rooms, slots=slots, latencies_s=latencies, backlog={})


def _in_force(settings: Settings, api: str, room: Capacity | None) -> LimitSettings:
    limit = settings.limit_at(*api.split("/", 1))[1]
    if room is None:
        return limit
    rates = {"rpm": room.rpm, "tpm": room.tpm, "in_flight": room.in_flight}
    return limit.model_copy(update={name: rate for name, rate in rates.items() if rate is not None})


def _job(
    one: Weighed, at_s: float, known: Experience, trial: Arrivals, price: PriceList, chance: random.Random
) -> PlayedTask:
    given = max(1, round(one.input_tokens))
    made = _drawn_tokens(one, known, trial, chance)
    latency = known.latency_s(one.pool, one.kind).expected * math.exp(chance.gauss(-(_SPREAD**2) / 2, _SPREAD))
    most = price(one.api, Usage(input_tokens=given, output_tokens=one.most_tokens), one.tier)
    cost = price(one.api, Usage(input_tokens=given, output_tokens=made), one.tier)
    return PlayedTask(
        at_s, one.kind, given, one.most_tokens, made, latency if trial.latency_s != 0 else 0.0,
        (most or 0) / PICOS_PER_MICRO, (cost or 0) / PICOS_PER_MICRO,
    )  # fmt: skip


def _drawn_tokens(one: Weighed, known: Experience, trial: Arrivals, chance: random.Random) -> int:
    """Draw the length of one answer: as is learnt of its kind, else between one token and the longest on any scale."""
    habit = known.habits.get((one.api, one.kind))
    if trial.used is not None:
        share = trial.used
    elif habit is not None and habit.share > 0:
        squared = math.log1p((habit.deviation / habit.share) ** 2)
        share = habit.share * math.exp(chance.gauss(-squared / 2, math.sqrt(squared)))
    else:
        share = math.exp(chance.uniform(-math.log(max(2, one.most_tokens)), 0.0))
    return max(1, min(one.most_tokens, round(share * one.most_tokens)))


def json_of(outcome: Tried) -> dict[str, Any]:
    """Return all of it, JSON-ready."""
    expected, waits = outcome.expected, _waits(outcome)
    micros = (round(picos / PICOS_PER_MICRO) for picos in expected.usd_picos)
    shares = _shares(outcome)
    return {
        "tasks": len(outcome.found.asked),
        "done": sum(one.done for one in outcome.plays.values()),
        "seconds": round(_seconds(outcome), 3),
        "wait_s": {name: _at(waits, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
        "cost_usd_micros": dict(zip(("low", "expected", "high"), micros, strict=True)),
        "binds": _binds(shares),
        "used": {what: round(share, 4) for what, share in shares.items()},
        "slots": outcome.known.slots,
        "stopped": [
            {"limit": api, "by": one.stopped, "after": one.done} for api, one in outcome.plays.items() if one.stopped
        ],
        "learnt": outcome.known.is_learnt,
    }


def lines(outcome: Tried) -> Iterator[str]:
    """Yield all of it for a person."""
    told, shares = json_of(outcome), _shares(outcome)
    wait, figure = told["wait_s"], outcome.expected.usd_picos
    yield f"tasks     {counted(told['tasks'], 'task')} over {counted(told['slots'], 'slot')}"
    used = ", ".join(f"{what} {share:.0%}" for what, share in shares.items())
    yield f"time      {duration(told['seconds'])}; {told['binds']} ({used} used)"
    yield f"wait      p50 {duration(wait['p50'])}, p95 {duration(wait['p95'])}, from a task's coming to its call"
    yield f"cost      {usd(figure.expected)} ({usd(figure.low)} to {usd(figure.high)})"
    for one in told["stopped"]:
        yield f"stops     {one['by']} of {one['limit']} is used up after {counted(one['after'], 'task')}"
    if not outcome.known.is_learnt:
        yield "          no Redis of this fleet answers: nothing is learnt, so lengths and times are guesses"
    yield "nothing was sent"


def _seconds(outcome: Tried) -> float:
    return max((one.seconds for one in outcome.plays.values()), default=0.0)


def _waits(outcome: Tried) -> list[float]:
    return sorted(wait for one in outcome.plays.values() for wait in one.waits_s)


def _at(times: list[float], share: float) -> float:
    return round(times[min(len(times) - 1, int(len(times) * share))], 3) if times else 0.0


def _shares(outcome: Tried) -> dict[str, float]:
    """Return how much of each limit, and of the slots, the slowest of the plays has used."""
    if not outcome.plays:
        return {}
    api, slowest = max(outcome.plays.items(), key=lambda item: item[1].seconds)
    minutes, limit = max(slowest.seconds, 1e-6) / 60, outcome.limits[api]
    shares = {"slots": slowest.busy_s / (outcome.known.slots * max(slowest.seconds, 1e-6))}
    if limit.rpm:
        shares[f"requests a minute of {api}"] = slowest.done / minutes / limit.rpm
    if limit.tpm:
        shares[f"tokens a minute of {api}"] = slowest.tokens / minutes / limit.tpm
    if limit.in_flight:
        shares[f"calls at once of {api}"] = slowest.busy_s / (limit.in_flight * max(slowest.seconds, 1e-6))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _binds(shares: Mapping[str, float]) -> str:
    what, share = next(iter(shares.items()), ("nothing", 0.0))
    return f"{what} decide" if share >= _BINDS else "nothing is full: tasks come slowly, or answers take long"
