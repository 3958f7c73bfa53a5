"""Where both halves meet: a worker process's loop, stores, roster, limiter, gateway and agents, put together once.

The life of what is put together: `wiring.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fleet import config
from fleet.config import Settings
from fleet.economy.bill.export import export_of
from fleet.economy.bill.writer import Writer as BillWriter
from fleet.economy.cache.answers import AnswerCache
from fleet.economy.contexts.reads import ReadCounter
from fleet.economy.contexts.shelf import Shelf
from fleet.economy.contexts.warmth import Warmth
from fleet.economy.prices import PriceList
from fleet.engine.admission.late_binding import LateBinding
from fleet.engine.answers.canaries import Canaries
from fleet.engine.answers.choices import ModelChoices
from fleet.engine.answers.grades import Grader
from fleet.engine.answers.lessons import SharedLessons
from fleet.engine.answers.likeness import LikenessWatch
from fleet.engine.answers.opinions import Panel
from fleet.engine.answers.peers import ValidatorPeers
from fleet.engine.answers.rollouts import SENT, Rollouts
from fleet.engine.answers.shadows import Shadows
from fleet.engine.answers.twins import Twins
from fleet.engine.messages.fair.weights import weigh
from fleet.engine.messages.queues import bind_pools
from fleet.engine.outcomes.completion import Finisher
from fleet.engine.process.batching.duty import BatchDuty
from fleet.engine.process.bots import Bots
from fleet.engine.process.breaking import make_breakers
from fleet.engine.process.canvas import Canvas
from fleet.engine.process.checkouts import Checkouts
from fleet.engine.process.data_plane import DataPlane
from fleet.engine.process.delegations import Delegations
from fleet.engine.process.duties.janitor import Janitor, for_ever
from fleet.engine.process.duties.renewer import renew
from fleet.engine.process.duties.silence import SilenceWatch
from fleet.engine.process.held_keys import held_keys
from fleet.engine.process.key_caps import KeyCaps
from fleet.engine.process.ladders import (
    batches_of,
    hold_tools,
    keys_among,
    limits_of,
    make_ladders,
    make_tools,
    shut_pools,
    tell_of_block,
    tell_of_ladder,
)
from fleet.engine.process.lanes import LaneChooser
from fleet.engine.process.moving.keys_of_before import KeysOfBefore
from fleet.engine.process.shared_contexts import SharedContexts
from fleet.engine.process.spending import Spending
from fleet.engine.process.waiting_room import WaitingRoom
from fleet.engine.telemetry.occupancy import DirectCall, Occupancy
from fleet.engine.telemetry.taps import Telemetry
from fleet.engine.transport import leases
from fleet.lessons import Notebook
from fleet.limiter import LearntCosts
from fleet.models import Bot, BotResult, BotTask, Priority
from fleet.resilience import Breakers
from fleet.rollouts import Rollout
from fleet.roster import Checkout, Roster
from fleet.store.client import Store
from fleet.store.clock import CLOCK
from fleet.store.patience import patiently
from fleet.store.private.branches import broker_stores
from fleet.store.private.embedded import broker_url, state_url
from fleet.store.running.brokers import AnyStore, each, main_of
from fleet.vault.key_scopes import KeyScopes
from fleet.vault.keyring import Keyring
from fleet.waits import Wait
from fleet.workers.agent import Agent
from fleet.workers.bot.persona import bot_of, tried_bot_of, worker_bot_of
from fleet.workers.bot.window import room_of
from fleet.workers.context import count_message_tokens, count_tokens
from fleet.workers.gateway import Gateway
from fleet.workers.loops.runtime import Runtime
from fleet.workers.rungs import Route
from fleet.workers.silence.under_way import Hanging

if TYPE_CHECKING:
    from fleet.workers.frameworks.tools import ToolApis

logger = logging.getLogger("fleet.worker")

#: Seconds that a caller that works for a task itself waits at most until what it cost is counted.
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a worker process is put together from; why it can serve some pools not at all. Lives on its loop."""

    plane: DataPlane
    state: Store
    broker: AnyStore
    roster: Roster
    routes: Sequence[Route]
    shut: Mapping[str, Wait]
    agent: Agent
    held: Mapping[str, Checkout]
    late_binding: LateBinding
    likeness: LikenessWatch
    lessons: SharedLessons
    peers: ValidatorPeers
    spending: Spending
    breakers: Breakers
    keyring: Keyring
    delegations: Delegations
    scopes: KeyScopes
    caps: KeyCaps
    panel: Panel
    janitor: Janitor
    telemetry: Telemetry
    bill: BillWriter
    tools: ToolApis | None
    lanes: LaneChooser
    silence: SilenceWatch
    hanging: Callable[[], Mapping[str, Hanging]]
    batches: BatchDuty
    grader: Grader
    rollouts: Rollouts
    choices: ModelChoices

    async def settle(self) -> None:
        """Wait until what calls have cost is in the bill and the budgets: a process may end now. Not for long."""
        keepers = (self.spending.keeper, self.caps.keeper)
        await asyncio.gather(self.bill.flush(SETTLE_S), *(keeper.flush(SETTLE_S) for keeper in keepers))

    async def close(self) -> None:
        """Give up what others may take over, and close all connections."""
        self.likeness.close()
        await self.peers.close()
        await self.lessons.close()
        await self.breakers.close()
        await self.agent.close()
        await self.spending.close()
        await self.caps.keeper.close()
        for provider in {route.provider_name: route.provider for route in self.routes}.values():
            await provider.close()
        if self.tools is not None:
            await self.tools.close()
        await self.bill.close()
        await self.state.close()
        for store in each(self.broker):
            await store.close()
        await asyncio.to_thread(self.telemetry.close)


async def assemble(
    settings: Settings,
    telemetry: Telemetry,
    slots: Callable[[], int] | None = None,
    process: str = "",
    *,
    most_slots: Callable[[], int] | None = None,
) -> Assembly:
    """Put a worker process together, on the running loop; nothing runs yet.

    A provider without a key, a function that cannot be imported and their like shut their own pools only.

    Args:
        settings: Everything.
        telemetry: Its logs, metrics and traces.
        slots: How many tasks may run at once here; by default as the settings say.
        process: Id by which somebody else reports for this process: by that its death is known.
        most_slots: How many it may come to that; by default it stays as it is.

    Raises:
        ConfigurationError: When no pool could work: Redis, the folder of the state.
    """
    state = Store(state_url(settings), timeout_s=settings.redis.socket_timeout_s)
    same = broker_url(settings) == state_url(settings)
    broker = broker_stores(
        settings, state if same else Store(broker_url(settings), timeout_s=settings.redis.socket_timeout_s)
    )
    spending = Spending(state, settings, process=process or leases.process_id(), broker=broker)
    delegations = Delegations(settings)
    scopes = KeyScopes(settings, delegations.scope_of)
    roster = Roster(
        state, settings, avoid=lambda *who: [*spending.bots_out(*who), *scopes.bots_out(who[0])],
        bot_of=lambda name: bots.of(name),
    )  # fmt: skip
    notebook = Notebook()
    lessons = SharedLessons(state, notebook)
    keyring = Keyring(settings)
    keyring.on_exchange = telemetry.exchanged
    ladders = await make_ladders(settings, telemetry, notebook, keyring)
    rungs = [rung for ladder in ladders.values() for rung in ladder if rung.shut is None]
    routes = keys_among(rung.route for rung in rungs if rung.route is not None)
    own = {name: route for name, (rung, *_) in ladders.items() if (route := rung.route) is not None}
    limiter = telemetry.make_limiter(state, limits_of(settings))
    tool_keys = await hold_tools(settings, keyring)
    secrets = {route.limit: route.api_key for route in routes}
    secrets |= {limit: key.value for key in tool_keys.values() for limit in key.limits}
    breakers = make_breakers(settings, state, broker, secrets, calm=limiter.calm, key_wait=keyring.standing)
    bill = spending.writer(lambda: process or janitor.reports_as(), export_of(settings.bill))
    limiter.on_lost, limiter.shut = bill.void, breakers.opened
    price = PriceList(settings)
    gateway = Gateway(
        limiter, own, price, breakers=breakers, lessons=notebook, clock=CLOCK.now_s, ladders=ladders,
        on_turn=partial(tell_of_ladder, state), costs=LearntCosts(state), bill=bill, budgets=spending.keeper,
    )  # fmt: skip
    lanes = LaneChooser(
        settings,
        price,
        state,
        norms_of=lambda *of: completion.health.norms(*of),
        lets_leave=slots is None or slots() < sys.maxsize,
    )
    gateway.take_lanes(lanes)
    gateway.contexts = contexts = SharedContexts(
        settings, Shelf(state, count_tokens),
        room_of=lambda pool, window, answer: room_of(window, answer, gateway.measure(own[pool])),
        tokens_of=lambda task: count_message_tokens(task.conversation()), warmth=Warmth(state),
        reads=ReadCounter(state), limits_of=gateway.ladders.limits_of,
        models={route.limit: route.model for route in routes}, broker=broker, price=price,
        has_left=lanes.has_left,
    )  # fmt: skip
    gateway.keys.scopes = gateway.roads.scopes = caps = KeyCaps(
        state, scopes, delegations.scopes_of, process=process or leases.process_id(), on_reached=spending.on_reached
    )
    tools = make_tools(settings, telemetry, state, keyring, tool_keys, roads=gateway.roads, limiter=limiter, bill=bill)
    room = WaitingRoom(
        broker,
        state,
        roster,
        closed=lambda pool: delegations.shut(pool) or agent.shut.get(pool) or gateway.closed(pool),
        spending=spending,
        delegations=delegations,
        contexts=contexts,
        twins=Twins(settings, AnswerCache(state), broker, bot_of=lambda name: bots.of(name), has_come=lanes.bot_of),
    )
    peers = ValidatorPeers(state, partial(room.did_well, priority=Priority.CRITICAL.value), lambda: janitor.living())
    agent = Agent(
        gateway, settings, on_block=lambda block: tell_of_block(block, settings, state), on_wait=room.hold_soon,
        slots=slots, peers_of=peers.of, tools=tools,
    )  # fmt: skip
    bots = Bots(lambda name: worker_bot_of(name, settings, likeness.remedy_of(name)))
    likeness = LikenessWatch(state, settings, bots.forget)
    completion = Finisher(state, settings, broker=broker, on_suspect=lambda *who: canaries.suspect(*who))
    canaries = Canaries(state, settings, agent, completion.health, bot_of=bots.of)
    held: dict[str, Checkout] = {}
    rollouts = Rollouts(state, partial(_tried, settings))
    panel = Panel(
        agent, roster, settings, bot_of=bots.of, norms_of=completion.health.norms, held=held, rollouts=rollouts,
        choices=(choices := ModelChoices(state, settings)),
    )  # fmt: skip
    grader = Grader(state, settings)
    shadows = Shadows(state, settings, agent, grader, bot_of=bots.of)
    plane = DataPlane(
        settings, telemetry, state=state, broker=broker, checkouts=Checkouts(roster, lanes), panel=panel,
        completion=completion, held=held,
        note=_to_each(grader.note, likeness.note, shadows.note), canvas=Canvas(state), room=room,
    )  # fmt: skip
    return Assembly(
        plane=plane,
        state=state,
        broker=broker,
        roster=roster,
        routes=routes,
        shut=shut_pools(ladders, agent.shut),
        agent=agent,
        held=held,
        late_binding=LateBinding(
            limiter, broker, list(own), lambda pool: min(gateway.ladders.limits_of(pool), key=limiter.backlog_s)
        ),
        likeness=likeness,
        lessons=lessons,
        peers=peers,
        spending=spending,
        breakers=breakers,
        keyring=keyring,
        delegations=delegations,
        scopes=scopes,
        caps=caps,
        panel=panel,
        janitor=(
            janitor := Janitor(
                broker,
                state,
                plane.refuse,
                gateway.unanswered,
                lambda: _in_slots(gateway.roads.restraint.waiting(), {} if tools is None else tools.waiting()),
                partial(held_keys, keyring),
            )
        ),
        telemetry=telemetry,
        bill=bill,
        tools=tools,
        lanes=lanes,
        silence=SilenceWatch(
            breakers, gateway.roads.silent, slots=most_slots or agent.occupants.slots, pools=tuple(own), hold=room.hold,
            closed=gateway.closed, places=settings.places_under, let_go=gateway.roads.answered_elsewhere,
        ),
        hanging=gateway.roads.hanging,
        batches=BatchDuty(
            state, broker, settings, price, api_of=batches_of(routes, keyring.standing),
            process=process or leases.process_id(),
        ),
        grader=grader,
        rollouts=rollouts,
        choices=choices,
    )  # fmt: skip


def _in_slots(*counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return the tasks that wait in their slots for the API of a model or a tool, by pool and its limit."""
    return {
        pool: {limit: n for one in counts for limit, n in one.get(pool, {}).items()} for pool in set().union(*counts)
    }


def _tried(settings: Settings, bot: Bot, rollout: Rollout) -> Bot | None:
    """Return a bot under what a rollout tries."""
    return tried_bot_of(bot, settings, persona=rollout.persona, prompt=rollout.prompt, model=rollout.model)


def _to_each(
    first: Callable[[BotTask, Bot, BotResult], None], *told: Callable[[BotTask, Bot, BotResult], None]
) -> Callable[[BotTask, Bot, BotResult], None]:
    """Return what tells each of several of an answer that stands; the first alone of one that a rollout has tried."""

    def tell(task: BotTask, bot: Bot, result: BotResult) -> None:
        first(task, bot, result)
        for one in told if SENT not in result.sent else ():
            one(task, bot, result)

    return tell


def put_together(settings: Settings, occupancy: Occupancy) -> tuple[Runtime, Assembly]:
    """Start a loop, put a process together on it, and see that the bots are there; what fails leaves nothing behind.

    Raises:
        ConfigurationError: As `assemble`.
    """
    runtime = Runtime()
    runtime.start()
    try:
        slots, most, process = (lambda: occupancy.slots), (lambda: occupancy.most_slots or occupancy.slots), ""
        if isinstance(occupancy, DirectCall):
            slots = most = lambda: sys.maxsize  # it has no slots: nobody lends them
            process = occupancy.process
        telemetry = Telemetry(settings, config.home_path(), occupancy)
        assembly = runtime.run(assemble(settings, telemetry, slots, process, most_slots=most))
        runtime.run(patiently(KeysOfBefore(settings, assembly.state).move))
        runtime.run(patiently(assembly.roster.seed))
        runtime.run(patiently(assembly.lessons.load))
        runtime.run(patiently(assembly.rollouts.load))
        runtime.run(patiently(assembly.choices.load))
        runtime.run(patiently(assembly.breakers.load))
        runtime.run(patiently(partial(assembly.keyring.load, assembly.state)))
        runtime.run(patiently(partial(assembly.delegations.load, assembly.state)))
        runtime.run(patiently(partial(assembly.scopes.load, assembly.state)))
        runtime.run(patiently(partial(assembly.spending.load, assembly.broker)))
        runtime.run(patiently(partial(_hear_time, assembly.broker)))
        main = main_of(assembly.broker)
        runtime.run(patiently(lambda: main.command(*bind_pools(settings))))
        runtime.run(patiently(partial(weigh, settings, main)))
    except BaseException:
        runtime.stop()
        raise
    return runtime, assembly


async def _hear_time(broker: AnyStore) -> None:
    """Know the clock of Redis before the first task comes."""
    asked_s = time.monotonic()
    seconds, micros = await main_of(broker).command("TIME")
    CLOCK.hear(int(seconds) + int(micros) / 1e6, asked_s=asked_s)


def renewing(settings: Settings, held: Mapping[str, Checkout]) -> Runtime:
    """Start a loop that does nothing but renew leases: that of the data plane may stand."""
    runtime = Runtime("fleet-leases")
    runtime.start()
    runtime.spawn(for_ever(partial(renew, settings, held)))
    return runtime


def make_bot(name: str, settings: Settings) -> Bot:
    """Return a bot and its persona, for whoever only shows it. Raises `ConfigurationError` if no pool has it."""
    return bot_of(name, settings)
