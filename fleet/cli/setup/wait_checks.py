"""What `fleet doctor` says of waiting tasks: a finding for each reason that does not pass by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fleet.cli.setup.check import Check, fail, ok, warn
from fleet.cli.setup.place_checks import place_checks, tenant_checks
from fleet.config import Settings
from fleet.economy.budgets import read_budgets
from fleet.economy.lanes.board import TOLD_STALE, LaneBoard, read_board
from fleet.engine.admission.spread import read_brokers
from fleet.engine.messages.fair.places import lost_places
from fleet.engine.operations.budgets import differing
from fleet.engine.operations.obstacles import told_line
from fleet.engine.operations.paces import LimitBudgets, read_limit_budgets
from fleet.engine.operations.scaling.published import scaling_view
from fleet.engine.operations.tenants.board import read_tenants
from fleet.engine.operations.waits import Standings, look
from fleet.errors import FleetError
from fleet.quoting import counted, stamp
from fleet.signals.ahead.brokers_view import BrokerView
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.signals.view import WaitLine
from fleet.store.private.two_redis import two_redis

#: How many times the slots that there are must be wanted for a person to hear of it.
MUCH_MORE = 1.5


def read_waits(settings: Settings) -> Standings | None:
    """Return why tasks wait; None: Redis does not answer."""
    try:
        with two_redis(settings) as both:
            seen = look(both.state, both.broker, settings)
            limits = {one.limit.limit: one.limit for one in seen.standings if one.limit is not None}
            budgets = read_limit_budgets(both.state, settings, limits.values(), seen.now_s)
            otherwise = differing(read_budgets(both.state, settings.budgets), settings)
            board = read_board(both.state)
            scaling = scaling_view(both.state, seen.now_s)
            lost, brokers = lost_places(both.broker, settings), read_brokers(both.broker, settings)
            return replace(
                seen, budgets=tuple(budgets), otherwise=tuple(otherwise), board=board, scaling=scaling,
                lost_places=lost, brokers=brokers, tenants=read_tenants(both, settings),
            )  # fmt: skip
    except FleetError:
        return None


def wait_checks(seen: Standings | None) -> Iterator[Check]:
    """Yield a finding for each cause, with all pools that have tasks behind it."""
    if seen is None:
        return
    found: dict[tuple[str, str, str], list[WaitLine]] = {}
    for line in seen.lines:
        if line.is_lasting and line.tasks:
            found.setdefault((line.cause, line.about, line.told), []).append(line)
    if not found:
        yield ok("tasks: waiting", "none for what does not pass by itself")
    for lines in found.values():
        yield _check(lines, seen.now_s)
    yield from (_budget_check(one) for one in seen.budgets if one.lines)
    yield from _batch_checks(seen.board)
    yield from scaling_checks(seen.scaling)
    yield from place_checks(seen.lost_places)
    yield from tenant_checks(seen.tenants, seen.now_s)
    yield from map(_broker_check, seen.brokers)
    for scope, configured, now in seen.otherwise:
        yield warn(
            f"budget {scope}: other settings elsewhere",
            f"fleet.toml says {configured}, but {now} holds: `fleet budgets set` was used",
            f"Write it into fleet.toml, or go back with `fleet budgets reset {scope}`.",
        )


def scaling_checks(scaling: ScalingView | None) -> Iterator[Check]:
    """Yield whether there are about as many slots as are wanted, where somebody decides that."""
    if scaling is None:
        return
    name = "slots: as many as are wanted"
    if scaling.slots <= scaling.there * MUCH_MORE:
        yield ok(name, scaling.line)
    else:
        advice = "Raise MAX of `fleet up --autoscale`, start more workers, or let what waits take longer (drain_s)."
        yield warn(name, scaling.line, advice)


def _batch_checks(board: LaneBoard) -> Iterator[Check]:
    """Yield a finding for each key that takes no batches, and for each batch that a vendor refuses."""
    for limit, until, why in board.shut:
        advice = "Its tasks take other lanes. If it never takes batches, set `batches = false` under [lanes]."
        yield warn(f"batches of {limit}", f"refused until {stamp(until)}: {why}", advice)
    for job in board.jobs:
        if job.id in board.stale:
            advice = "Start a worker that has this key, or its tasks take other lanes a while before they are needed."
            yield warn(f"batch {job.id} of {job.limit}", f"{counted(job.count, 'task')} wait: {TOLD_STALE}", advice)
        elif job.tries:
            advice = "It is tried again; what is not sent in time takes another lane (`fleet lanes`)."
            told = f"{counted(job.count, 'task')} wait"
            if job.state == "collected":
                advice, told = "It is tried again; then the log names its files.", "the vendor keeps its words"
            yield warn(f"batch {job.id} of {job.limit}", f"{told}: {job.why}", advice)


def _broker_check(broker: BrokerView) -> Check:
    """Return whether a broker answers, and whether all that waits there is of its own pools."""
    name = f"broker {broker.name}"
    if broker.away:
        return fail(
            name, f"{broker.line}: {broker.away}", "Start that Redis; workers go on with its tasks by themselves."
        )
    if broker.elsewhere:
        advice = "Workers take them there; leave the broker in fleet.toml until none is left."
        return warn(name, broker.line, advice)
    return ok(name, broker.line)


def _budget_check(budgets: LimitBudgets) -> Check:
    name, told = f"limit {budgets.limit}: the day", "; ".join(budgets.lines)
    if budgets.ends_at is None:
        return ok(name, told)
    return warn(name, told, f"Raise it with `fleet limits set {budgets.limit}`, or let its tasks wait for the new day.")


def _check(lines: Sequence[WaitLine], now_s: float) -> Check:
    tasks, pools = sum(line.tasks for line in lines), ", ".join(line.pool for line in lines)
    advice = f"{lines[0].advice[:1].upper()}{lines[0].advice[1:]}; until then they stay where they are."
    return warn(
        f"tasks: waiting for {lines[0].cause}",
        f"{counted(tasks, 'task')} of {pools}: {told_line(lines[0], now_s)}",
        advice,
    )
