"""Canaries: tasks with known answers for bots under suspicion: they are found, or cleared, with fewer real ones.

Rationed over the whole fleet, run beside the slots at low priority. A canary that is lost with its process is no loss.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet.config import Settings
from fleet.engine.answers.opinions import Agent
from fleet.errors import ConfigurationError, FleetError
from fleet.faults import Fault
from fleet.models import Bot, BotTask, Priority
from fleet.outcome import Outcome
from fleet.patterns import Pattern, PatternError, pattern
from fleet.roster import HEALTH, Deed, Health
from fleet.signals import catalogue
from fleet.store import keys
from fleet.store.client import Script, Store

#: Canaries that one file may hold.
MOST_CANARIES = 1000
#: Class under which canaries are judged: they teach no norms and make no specialists.
KIND = "default"

_JUDGE = Script.beside(
    __file__,
    "canary.lua",
    keys=f"totals {HEALTH.keys}",
    argv=f"{HEALTH.argv.removeprefix('now_us ')} counts*",
    using=[HEALTH],
)

logger = logging.getLogger("fleet.worker")


@dataclass(frozen=True, slots=True)
class Canary:
    """A prompt, and what a good answer contains."""

    prompt: str
    expect: Pattern


def load_canaries(path: Path) -> tuple[Canary, ...]:
    """Read canaries from JSON lines.

    Raises:
        ConfigurationError: When the file cannot be read, or a line is none; it is named, never quoted.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"canaries: expected a readable file, got {error}") from error
    found = [_parse(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not 1 <= len(found) <= MOST_CANARIES:
        raise ConfigurationError(f"canaries: expected 1 to {MOST_CANARIES} lines in {path}, got {len(found)}")
    return tuple(found)


def _parse(line: str, where: str) -> Canary:
    expected = 'canaries: expected {"prompt": text, "expect": regular expression}'
    try:
        record = json.loads(line)
        return Canary(BotTask(prompt=record["prompt"]).prompt or "", pattern(record["expect"], ignore_case=True))
    except PatternError as error:
        raise ConfigurationError(f"{where}: expect: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{where}: {expected}, got {type(error).__name__}") from error


def _readable(settings: Settings) -> Iterator[tuple[str, tuple[Canary, ...]]]:
    for name, pool in settings.pools.items():
        try:
            if pool.canaries:
                yield name, load_canaries(pool.canaries)
        except ConfigurationError as error:
            logger.warning("canaries_unusable pool=%s: %s", name, error)


class Canaries:
    """Tries suspected bots. One per process, on its loop.

    Args:
        store: State Redis.
        settings: Pools and their canaries, and how often.
        agent: Lets a bot work.
        health: Packs what came of it.
        bot_of: Makes a bot by its name.

    A pool whose file is not as it should be goes without, and the log says so: its tasks need none.
    """

    def __init__(
        self, store: Store, settings: Settings, agent: Agent, health: Health, *, bot_of: Callable[[str], Bot]
    ) -> None:
        self._store = store
        self._agent = agent
        self._health = health
        self._bot_of = bot_of
        self._every_ms = round(settings.health.canary_every_s * 1000)
        self._canaries = dict(_readable(settings))
        self._running: dict[str, asyncio.Task[None]] = {}

    def suspect(self, pool: str, bot: str) -> None:
        """Give a bot a canary some time soon, if the pool has any and the ration allows. Never waits, never raises."""
        if pool in self._canaries and pool not in self._running:
            self._running[pool] = asyncio.get_running_loop().create_task(self._try(pool, bot))

    async def _try(self, pool: str, bot: str) -> None:
        try:
            quiet = keys.event_quiet(f"canary:{pool}")
            if await self._store.command("SET", quiet, bot, "NX", "PX", self._every_ms):
                await self._give(pool, bot, random.choice(self._canaries[pool]))
        except FleetError as error:
            logger.warning("canary failed bot=%s error=%s", bot, error)
        finally:
            del self._running[pool]

    async def _give(self, pool: str, bot: str, canary: Canary) -> None:
        task = BotTask(prompt=canary.prompt, kind="canary", priority=Priority.LOW)
        outcome = await self._agent.run(
            task, self._bot_of(bot), task_id=f"canary-{bot}", deadline_s_left=None, norms=None
        )
        deed = _deed(bot, outcome, canary)
        spent = {
            catalogue.CANARIES: 1,
            **dict(catalogue.used(outcome.usage)),
            **dict(catalogue.paid(outcome.cost_usd_picos or 0)),
            catalogue.ATTEMPTS: outcome.attempts,
            catalogue.CALLS: max(0, outcome.attempts - sum(outcome.provider_errors.values())),
        }
        counts = [part for counter, number in spent.items() if number for part in (counter.name, number)]
        call = _JUDGE.call(
            totals=keys.pool_totals(pool), **self._health.names(pool, KIND), **self._health.constants(pool, KIND),
            samples=self._health.samples([deed] if deed else []), counts=counts,
        )  # fmt: skip
        await self._store.run(_JUDGE, *call)
        logger.info("canary bot=%s %s", bot, "says nothing" if deed is None else deed.fault or "ok")


def _deed(bot: str, outcome: Outcome, canary: Canary) -> Deed | None:
    if outcome.rung:
        return None  # another model's answer
    if outcome.answer is None and outcome.fault in (None, Fault.REJECTED):
        return None  # the provider's doing, or the fleet's; a validator is for real tasks
    is_right = outcome.answer is not None and canary.expect.is_in(outcome.answer[: canary.expect.most_chars])
    return Deed(bot, None if is_right else outcome.fault or Fault.REJECTED)
