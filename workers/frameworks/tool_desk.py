"""The road of one request to a tool API: its limit and breaker, budgets, the bill, and the task's deadline.

It asks no model, so it costs what `usd_per_call` says, and no tokens. What goes over the wire: `tool_wire.py`; when a
request is sent again: `tools.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from fleet.config import KEY_LABEL, TOOLS, ToolSettings
from fleet.entries import Entry
from fleet.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FleetError,
    GiveUp,
    KeyMissing,
    KeyRejected,
    KeySpent,
    MachineExhausted,
    RateLimited,
    Waits,
)
from fleet.grants import Caller, Grant
from fleet.money import PICOS, PICOS_PER_MICRO
from fleet.quoting import nearest, quote
from fleet.workers.bot.asker import BEGUN_PATIENCE_S
from fleet.workers.bot.raw_asker import RawAsker
from fleet.workers.costs import Line, afford
from fleet.workers.frameworks.tool_wire import ToolAnswer, ToolRequest, ToolWire
from fleet.workers.meter import NO_USAGE, Meter
from fleet.workers.passage import DEFAULT_HOLD_S, MOST_RENEWALS
from fleet.workers.ports import Bill, Limiter
from fleet.workers.roads import Roads

logger = logging.getLogger(__name__)

#: Seconds that a task must have stood still for what it asks of a tool to be told as waiting.
TOLD_AFTER_S = 1.0


class ToolErrorCount(Protocol):
    """Who counts what goes wrong at tools, by bot."""

    def failed(self, pool: str, bot: str, tool: str, error: str) -> None:
        """Note a request that was not answered as it should. Never waits, never raises.

        Args:
            pool: Of the bot.
            bot: Its name.
            tool: As `tools/NAME`.
            error: Type of the error.
        """
        ...


class ToolKey(Protocol):
    """The key of a tool as this process has it now: it may be another one tomorrow."""

    @property
    def value(self) -> str:
        """The key; empty: none is sent, or none is known yet."""
        ...

    @property
    def failure(self) -> KeyMissing | None:
        """Why its source gave none when it was last read."""
        ...

    @property
    def takers(self) -> list[Callable[[str], None]]:
        """Who is given another value as soon as it is known."""
        ...


#: Reads the source of a limit's key at once, which was refused: True when another one is to be used now.
Renew = Callable[[str, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _Tool:
    """One tool as this process can use it.

    Args:
        wire: Its connections.
        limit: `tools/NAME/KEY`.
        picos: What a request costs, in 10^-12 dollars.
        key: As this process has it.
    """

    wire: ToolWire
    limit: str
    picos: int
    key: ToolKey

    @property
    def shut(self) -> KeyMissing | None:
        """Why this process cannot use it now; None: it can."""
        failure = None if self.key.value else self.key.failure
        if failure is not None:
            failure.about = self.limit
        return failure


class ToolDesk:
    """The tool APIs of a process. One per process, used from its event loop.

    Args:
        tools: The tables of [tools].
        keys: The key of each, by the same names.
        roads: Those of the process: models and tools have the same.
        limiter: The fleet-wide limiter.
        bill: Where each request is written down; None: nowhere.
        errors: Who counts failures; None: nobody.
        step: Opens a block that is traced as the request of a tool.
        renew: Reads the key's source at once, for a key that was refused; None: nobody does.
    """

    def __init__(
        self,
        tools: Mapping[str, ToolSettings],
        keys: Mapping[str, ToolKey],
        *,
        roads: Roads,
        limiter: Limiter,
        bill: Bill | None = None,
        errors: ToolErrorCount | None = None,
        step: Callable[[str], AbstractContextManager[Any]] = lambda name: nullcontext(),
        renew: Renew | None = None,
    ) -> None:
        self._roads = roads
        self._limiter = limiter
        self._bill = bill
        self._errors = errors
        self._step = step
        self._standing = Counter[tuple[RawAsker, str]]()
        self._renew = renew
        self._tools = {name: _tool(name, settings, keys[name]) for name, settings in tools.items()}

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits of all of them."""
        return tuple(tool.limit for tool in self._tools.values())

    @contextmanager
    def standing(self, asker: RawAsker, name: str) -> Iterator[None]:
        """Open a block in which a task waits for a tool: its clock stands still, and it is counted by `waiting`."""
        place = asker, name
        self._standing[place] += 1
        try:
            with asker.deadline.standing():
                yield
        finally:
            self._standing[place] -= 1
            if not self._standing[place]:
                del self._standing[place]

    def waiting(self) -> dict[str, dict[str, int]]:
        """Return how many tasks of each pool wait in their slots for which tool, by its limit. Never waits."""
        found: dict[str, dict[str, int]] = {}
        for asker, name in self._standing:
            if asker.deadline.standing_s >= TOLD_AFTER_S:
                of_pool, limit = found.setdefault(asker.pool, {}), self._found(name).limit
                of_pool[limit] = of_pool.get(limit, 0) + 1
        return found

    def check(self, name: str) -> None:
        """Say so when this process cannot use a tool: what its function has begun goes back, and waits.

        Raises:
            ConfigurationError: There is none of that name.
            KeyMissing: Its key is not set here.
        """
        if (shut := self._found(name).shut) is not None:
            raise shut

    def settings_of(self, name: str) -> ToolSettings:
        """Return the table of a tool; raises as `check`."""
        return self._found(name).wire.settings

    def misses(self, name: str, url: str) -> str:
        """Return why a request to `url` is none for this tool; empty: it is."""
        return self._found(name).wire.misses(url)

    def limit_of(self, name: str) -> str:
        """Return `tools/NAME/KEY`."""
        return self._found(name).limit

    def now_s(self) -> float:
        """Return the Unix time, as Redis has it."""
        return self._roads.clock()

    async def once(self, name: str, request: ToolRequest, asker: RawAsker, caller: Caller) -> ToolAnswer:
        """Pass the breaker, wait for a grant, send one request, settle; with the key that has replaced a refused one.

        Raises:
            NotSoon: It cannot leave soon; nothing was sent.
            Waits: There was no answer.
            GiveUp: Its answer is too large, it came after the deadline, or what is left of the task's `max_cost_usd`
                does not pay for it.
        """
        tool = self._found(name)
        for _ in range(MOST_RENEWALS):
            answer, is_to_go_again = await self._once(name, tool, request, asker, caller)
            if not is_to_go_again:
                break
        return answer

    async def _is_renewed(self, tool: _Tool, used: str, error: FleetError) -> bool:
        is_refused = isinstance(error, KeyRejected) and not isinstance(error, KeySpent)
        return is_refused and self._renew is not None and await self._renew(tool.limit, used)

    async def _once(
        self, name: str, tool: _Tool, request: ToolRequest, asker: RawAsker, caller: Caller
    ) -> tuple[ToolAnswer, bool]:
        """Return the answer, and whether it only refuses a key that has been replaced."""
        meter, deadline = asker.meter, asker.deadline
        if (shut := tool.shut) is not None:
            raise shut
        asked = Entry(
            "", meter.who, asker.pool, caller.bot, caller.tenant, caller.kind, caller.run, tool.limit, "", NO_USAGE,
            tool.picos, "unknown", 0.0,
        )  # fmt: skip
        expected = afford(f"{TOOLS}/{name}", tool.picos, 1.0, meter) if meter.most_picos is not None else 0
        with meter.pending(expected):
            with self.standing(asker, name):
                road = await self._roads.turn(
                    (tool.limit,), NO_USAGE, asked=asked, cost_usd_micros=tool.picos / PICOS_PER_MICRO, meter=meter,
                    caller=caller, patience_s=BEGUN_PATIENCE_S,
                )  # fmt: skip
            out, counts, used = deadline.sends(road.is_answering), False, tool.wire.key
            try:
                with self._step(name):
                    answer = await self._sent(tool, request, road.grant, meter, Line(asked, road.grant))
                if answer.failed is not None and await self._is_renewed(tool, used, answer.failed):
                    road.did_well(meter.who, 0)
                    return answer, True
                if isinstance(answer.failed, Waits):
                    await road.failed(answer.failed, meter)
                else:
                    counts = True
                    road.did_well(meter.who, 0)
            except BaseException as error:
                counts = isinstance(error, GiveUp | asyncio.CancelledError)
                await road.failed(error, meter)
                self._note(asker, name, error)
                raise
            finally:
                deadline.came(out, counts=counts)
        self._note(asker, name, answer.failed)
        if deadline.left_s <= 0:
            raise DeadlineExceeded(f"the answer of the tool {name} came too late")
        return answer, False

    async def close(self) -> None:
        """Close all connections."""
        for tool in self._tools.values():
            await tool.wire.close()

    async def _sent(self, tool: _Tool, request: ToolRequest, grant: Grant, meter: Meter, line: Line) -> ToolAnswer:
        """Send one request and settle its grant, also when it is cancelled.

        An answer costs; a refusal does not. Of a request without an answer nobody knows: it is entered as reserved.
        """
        clock, micros = asyncio.get_running_loop().time, grant.cost_usd_micros
        started, is_failed = clock(), True
        try:
            answer = await tool.wire.send(request)
            error, is_failed = answer.failed, isinstance(answer.failed, Waits)
            if error is None:
                line.settle(NO_USAGE, tool.picos, None)
                _charge(meter, tool.picos)
            else:
                micros = 0.0
                line.settle_free()
            if isinstance(error, RateLimited):
                hold_s = DEFAULT_HOLD_S if error.retry_after_s is None else error.retry_after_s
                self._limiter.penalise(tool.limit, retry_after_s=hold_s)
            return answer
        except MachineExhausted:  # no request, and no failure of the API's
            micros, line.is_void = 0.0, True
            raise
        except asyncio.CancelledError:
            is_failed = False
            _charge(meter, tool.picos)
            raise
        except FleetError as error:
            if isinstance(error, GiveUp):  # answered, and not taken
                line.settle(NO_USAGE, tool.picos, None)
                _charge(meter, tool.picos)
            elif not getattr(error, "sent", True):
                micros = 0.0
                line.settle_free()
            raise
        finally:
            if is_failed:  # `Road.failed` adds the same to the seconds that failed
                meter.calling_s += clock() - started
            self._limiter.settle(line.over(at_s=self.now_s()), used_tokens=0, cost_usd_micros=micros)
            self._limiter.observe(grant, None)
            line.enter(self._bill)
            self._roads.settle_budgets(grant, line.counted_picos, is_unknown=line.is_unknown)

    def _note(self, asker: RawAsker, name: str, error: BaseException | None) -> None:
        """Count and log a failure by its type only: an address may hold what the task is about."""
        if not isinstance(error, FleetError):
            return
        kind = type(error).__name__
        if isinstance(error, Waits):
            logger.warning("tool_failed limit=%s error=%s", self._found(name).limit, kind)
        if self._errors is not None:
            self._errors.failed(asker.pool, asker.name, f"{TOOLS}/{name}", kind)

    def _found(self, name: str) -> _Tool:
        if name not in self._tools:
            error = ConfigurationError(
                f"expected a tool that fleet.toml has, got {quote(name)}; {near_tool(name, self._tools)}"
            )
            error.about = f"[tools.{name}]"
            raise error
        return self._tools[name]


def _tool(name: str, settings: ToolSettings, key: ToolKey) -> _Tool:
    wire = ToolWire(name, settings, key.value)
    key.takers.append(wire.take)
    tool = _Tool(wire, f"{TOOLS}/{name}/{KEY_LABEL}", round(settings.usd_per_call * PICOS), key)
    if tool.shut is not None:
        logger.error("tool_shut tool=%s cause=key: %s; requests to it wait", name, tool.shut)
    return tool


def _charge(meter: Meter, picos: int) -> None:
    """Add a request to what the task has cost; one that costs nothing leaves a task without a cost without one."""
    if picos:
        meter.charge(NO_USAGE, picos)


def near_tool(name: str, known: Collection[str]) -> str:
    """Return what to say after a name that no tool has."""
    return nearest(name, known) if known else f"it has no tools: write a table [tools.{name}] with its base_url"
