"""What Prometheus is told: every metric declared once, and the fleet's view in its text format.

No metric is labelled by bot, key or task: quantiles over bots, and the worst few by rank. Labels are pools, limits,
priorities, statuses and error types: all from the configuration or the catalogue, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from fleet.signals import catalogue
from fleet.signals.diagnosis.finding import KINDS, Diagnosis, Severity
from fleet.signals.grades.metrics import GRADE_METRICS, grades
from fleet.signals.jobs.metrics import JOB_METRICS, jobs
from fleet.signals.limit_view import BreakerState, LimitView
from fleet.signals.money.metric import Metric, Sample
from fleet.signals.money.metrics import MONEY_METRICS, money
from fleet.signals.recorder import WorkerReport, doubted_in
from fleet.signals.rollouts.metrics import ROLLOUT_METRICS, rollouts
from fleet.signals.tenants.metrics import TENANT_METRICS, tenants
from fleet.signals.view import KEY_STATES, Durations, FleetView, PoolView

#: Bots in the metrics by rank.
TOP_BOTS = 5

_LEVELS: dict[Severity, int] = {"info": 1, "warning": 2, "critical": 3}

Family = CounterMetricFamily | GaugeMetricFamily


COMPLETIONS = Metric("fleet_completions", "counter", "Tasks with a result.", ("status",))
DISCARDED = Metric("fleet_discarded", "counter", "Executions whose result was discarded.", ("reason",))
CALLS = Metric("fleet_provider_calls", "counter", "Calls sent to providers.", ("outcome",))
TOKENS = Metric("fleet_tokens", "counter", "Tokens sent and answered.", ("direction",))
CACHED = Metric("fleet_cached_tokens", "counter", "Tokens sent that the provider read from its cache.")
REASONING = Metric("fleet_reasoning_tokens", "counter", "Tokens answered that were thinking.")
COST = Metric("fleet_cost_usd", "counter", "US dollars spent on models that have a price.")
FALLBACKS = Metric(
    "fleet_fallbacks", "counter", "Tasks that a rung of their pool's fallback ladder served.", ("pool", "rung")
)
TOOL_ERRORS = Metric(
    "fleet_tool_errors", "counter", "Requests to tool APIs that were not answered as they should be.", ("tool", "type")
)
RUNG = Metric(
    "fleet_pool_rung", "gauge", "Rung of a pool's fallback ladder that serves it, or did last; 0: its own.", ("pool",)
)
ASKS = Metric("fleet_asks", "counter", "Questions put to several bots.", ("outcome",))
ASK_MEMBERS = Metric(
    "fleet_ask_members", "counter", "Members of asks: asked, or spared because it was decided without them.", ("what",)
)
GRADES = Metric("fleet_grades", "counter", "Answers by what they were found to be.", ("what",))
DEAD_LETTERS = Metric("fleet_dead_letters", "counter", "Tasks that failed for good and were kept.")
DEAD_KEPT = Metric("fleet_dead_letters_kept", "gauge", "Dead letters that wait to be looked at.", ("pool", "reason"))

BOTS = Metric("fleet_bots", "gauge", "Bots by state.", ("pool", "state"))
BOT_RATE = Metric(
    "fleet_bot_completions_per_hour",
    "gauge",
    "Completions of the last hour, percentiles over bots.",
    ("pool", "percentile"),
)
BOTS_SILENT = Metric("fleet_bots_silent", "gauge", "Bots that completed nothing in the last hour.", ("pool",))
BOT_GINI = Metric("fleet_bot_gini", "gauge", "How unevenly bots work: 0 equal, near 1 one does everything.", ("pool",))
TOP_FAILURES = Metric("fleet_bot_failures_top", "gauge", "Failures of the worst bots, last hour, by rank.", ("rank",))
TOP_SHARE = Metric("fleet_bot_failures_top_share", "gauge", "Share of the last hour's failures on the worst bot.")

BOTS_SUSPECTED = Metric("fleet_bots_suspected", "gauge", "Bots at work with evidence worth a look.", ("pool",))
BOTS_KEPT_IN = Metric(
    "fleet_bots_kept_in", "gauge", "Bots at work with evidence enough for a quarantine: too many are out.", ("pool",)
)
BOTS_ALIKE = Metric("fleet_bots_alike", "gauge", "Bots that an alarm names, for they answer like others.", ("pool",))
DIVERSITY_ALARMS = Metric(
    "fleet_diversity_alarms", "gauge", "Classes of tasks whose bots have become alike.", ("pool",)
)
DIVERSITY_SCORE = Metric(
    "fleet_diversity_score_ratio",
    "gauge",
    "Score of a pool's most alike class by what is usual for it; 1: as usual.",
    ("pool",),
)

RECENT_ERRORS = Metric("fleet_recent_error_ratio", "gauge", "Failed share of the last 1,000 completions.")
HOUR_ERRORS = Metric("fleet_hour_error_ratio", "gauge", "Failed share of the last hour's completions.", ("pool",))
HOUR_FAILURES = Metric("fleet_hour_failures", "gauge", "Failures of the last hour, at most 1,000.", ("type",))
HOUR_COMPLETIONS = Metric("fleet_hour_completions", "gauge", "Completions of the last hour.", ("pool",))
DURATION = Metric(
    "fleet_task_duration_seconds", "gauge", "Where tasks spent time in the last hour.", ("pool", "phase", "percentile")
)

WAITING = Metric("fleet_waiting_tasks", "gauge", "Tasks that wait.", ("pool", "priority"))
BY_CAUSE = Metric(
    "fleet_waiting_tasks_by_cause", "gauge", "Tasks that wait for more than their turn.", ("pool", "cause")
)
OPENS = Metric(
    "fleet_wait_opens_seconds",
    "gauge",
    "Seconds until what they wait for opens, where that is known.",
    ("pool", "cause"),
)
PARKED = Metric("fleet_parked_tasks", "gauge", "Tasks that wait for a time of their own.", ("pool",))
OLDEST = Metric("fleet_oldest_waiting_seconds", "gauge", "Age of the oldest of the next tasks; 0: none.", ("pool",))
DRAIN = Metric(
    "fleet_pool_drain_seconds",
    "gauge",
    "Seconds until what waits is gone at this rate, where that is known.",
    ("pool",),
)
IN_FLIGHT = Metric("fleet_running_tasks", "gauge", "Tasks that bots work on.", ("pool",))
POOL_WORKERS = Metric("fleet_pool_workers", "gauge", "Live workers that serve a pool; 0: its tasks wait.", ("pool",))
OPEN = Metric("fleet_pool_open", "gauge", "1: everything may be taken; 0: the gate holds something back.", ("pool",))

LIMIT_USED = Metric(
    "fleet_limit_used_ratio", "gauge", "Used share of a limit, now or in its minute, hour or day.", ("limit", "kind")
)
LIMIT_WAITING = Metric("fleet_limit_waiting_calls", "gauge", "Calls that wait for a grant.", ("limit",))
LIMIT_HELD = Metric("fleet_limit_held_seconds", "gauge", "Seconds for which a 429 holds the fleet.", ("limit",))
LIMIT_REFUSED = Metric("fleet_limit_refused", "counter", "429s.", ("limit",))
BREAKER = Metric(
    "fleet_breaker_state", "gauge", "Calls go: 0 closed, 1 ramping; they wait: 2 half-open, 3 open.", ("limit",)
)
LIMIT_UNANSWERED = Metric(
    "fleet_limit_unanswered_calls", "gauge", "Calls without an answer for far longer than usual: it hangs.", ("limit",)
)
LIMIT_DOUBTED = Metric(
    "fleet_limit_doubted_calls", "gauge", "Calls held until a first one is answered: its API may be silent.", ("limit",)
)
LIMIT_DAY_REQUESTS = Metric(
    "fleet_limit_day_requests", "gauge", "Requests of a limit's UTC day, used and allowed.", ("limit", "which")
)
LIMIT_DAY_USD = Metric(
    "fleet_limit_day_usd",
    "gauge",
    "US dollars of a limit's UTC day, used or reserved, and allowed.",
    ("limit", "which"),
)
BUDGET_ENDS = Metric(
    "fleet_limit_budget_ends_seconds",
    "gauge",
    "Seconds until the first budget of a limit's UTC day is used up at this pace; none if they last.",
    ("limit",),
)

DIAGNOSIS = Metric(
    "fleet_diagnosis", "gauge", "The worst finding of a kind: 0 none, 1 info, 2 warning, 3 critical.", ("kind",)
)
DIAGNOSIS_TASKS = Metric("fleet_diagnosis_tasks", "gauge", "Tasks behind the findings of a kind.", ("kind",))
SUSPECTS = Metric("fleet_suspects", "gauge", "Tasks whose worker died while they ran: they run apart.")
WORKERS = Metric("fleet_workers", "gauge", "Worker processes that report.")
SLOTS = Metric("fleet_slots", "gauge", "Execution places of all workers.", ("state",))
CPU = Metric("fleet_workers_cpu_cores", "gauge", "Cores that all workers use.")
MEMORY = Metric("fleet_workers_memory_bytes", "gauge", "Resident memory of all workers.")
KEYS = Metric("fleet_keys", "gauge", "Keys of providers and tools, as workers have them.", ("state",))
REDIS_MEMORY = Metric("fleet_redis_memory_bytes", "gauge", "Memory of the state Redis.")

WANTED_WORKERS = Metric("fleet_wanted_workers", "gauge", "Workers that are wanted; none while nobody decides.")
WANTED_SLOTS = Metric("fleet_wanted_slots", "gauge", "Slots that are wanted, by pool, before rounding.", ("pool",))

BROKER_UP = Metric("fleet_broker_up", "gauge", "1 while a broker answers, where there are several.", ("broker",))
BROKER_WAITING = Metric(
    "fleet_broker_waiting_tasks", "gauge", "Tasks that wait at a broker, where there are several.", ("broker", "place")
)

WORKER_TASKS = Metric("fleet_worker_tasks", "counter", "Tasks that this process finished.", ("pool", "status"))
WORKER_PHASE = Metric(
    "fleet_worker_task_seconds", "histogram", "Where this process's tasks spent time.", ("pool", "phase")
)
WORKER_SLOTS = Metric("fleet_worker_slots", "gauge", "Execution places of this process.")
WORKER_EXCHANGES = Metric(
    "fleet_worker_exchanges", "counter", "Exchanges of this process for a token of a provider.", ("provider", "outcome")
)
WORKER_BUSY = Metric("fleet_worker_busy_slots", "gauge", "Those at work.")

#: Told of the fleet by the dashboard, and by each worker of itself.
FLEET_METRICS = (
    ASKS, ASK_MEMBERS, GRADES,
    COMPLETIONS, DISCARDED, CALLS, TOKENS, CACHED, REASONING, COST, FALLBACKS, TOOL_ERRORS, RUNG, DEAD_LETTERS, BOTS,
    BOT_RATE, BOTS_SILENT, BOT_GINI, BOTS_SUSPECTED, BOTS_KEPT_IN, BOTS_ALIKE, DIVERSITY_ALARMS, DIVERSITY_SCORE,
    TOP_FAILURES, TOP_SHARE, RECENT_ERRORS, HOUR_ERRORS, HOUR_FAILURES, HOUR_COMPLETIONS, DURATION, WAITING,
    BY_CAUSE, OPENS, PARKED, OLDEST, IN_FLIGHT, POOL_WORKERS, OPEN, LIMIT_USED, LIMIT_WAITING, LIMIT_HELD,
    LIMIT_REFUSED, LIMIT_UNANSWERED, LIMIT_DOUBTED, BREAKER, SUSPECTS, WORKERS, SLOTS, CPU, MEMORY, REDIS_MEMORY, KEYS,
    LIMIT_DAY_REQUESTS, LIMIT_DAY_USD, DIAGNOSIS, DIAGNOSIS_TASKS, DEAD_KEPT, DRAIN, BUDGET_ENDS,
    WANTED_WORKERS, WANTED_SLOTS, BROKER_UP, BROKER_WAITING,
    *MONEY_METRICS, *JOB_METRICS, *ROLLOUT_METRICS, *GRADE_METRICS, *TENANT_METRICS,
)  # fmt: skip
WORKER_METRICS = (WORKER_TASKS, WORKER_PHASE, WORKER_SLOTS, WORKER_BUSY, WORKER_EXCHANGES)


def exposition(view: FleetView) -> bytes:
    """Return the fleet in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ViewCollector(view))
    return generate_latest(registry)


class _ViewCollector:
    """One view as a collector."""

    def __init__(self, view: FleetView) -> None:
        self._view = view

    def collect(self) -> Iterator[Family]:
        for metric, samples in _all(self._view):
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.description, labels=metric.labels
            )
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


def _all(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield from _totals(view.totals)
    yield from _bots(view)
    yield from _health(view)
    yield from _errors(view)
    yield from _pools(view.pools)
    yield from _waits(view)
    yield from _limits(view.limits)
    ends = ((row.limit, row.budget_ends_at) for row in view.limits)
    yield BUDGET_ENDS, [((limit,), max(0.0, at - view.at)) for limit, at in ends if at is not None]
    yield from money(view)
    yield from jobs(view)
    yield from rollouts(view)
    yield from tenants(view)
    yield from grades(view)
    yield from _diagnoses(view.diagnoses)
    yield DEAD_KEPT, [((group.pool, group.reason), group.count) for group in view.dead]
    yield SUSPECTS, [((), view.suspects)]
    yield KEYS, [((state,), sum(key.state == state for key in view.keys)) for state in KEY_STATES]
    wanted = view.scaling
    yield WANTED_WORKERS, [] if wanted is None else [((), wanted.workers)]
    yield WANTED_SLOTS, [((pool,), slots) for pool, slots in (wanted.by_pool.items() if wanted else ())]
    yield BROKER_UP, [((one.name,), float(not one.away)) for one in view.brokers]
    yield (
        BROKER_WAITING,
        [
            ((one.name, place), count)
            for one in view.brokers
            for place, count in (("home", one.waiting - one.elsewhere), ("left", one.elsewhere))
        ],
    )
    used = view.resources
    yield WORKERS, [((), len(used.workers))]
    yield LIMIT_UNANSWERED, [((limit,), calls) for limit, calls in _unanswered(used.workers, view.limits).items()]
    yield LIMIT_DOUBTED, [((limit,), calls) for limit, calls in _doubted(used.workers, view.limits).items()]
    yield SLOTS, [(("busy",), used.busy), (("free",), max(0, used.slots - used.busy))]
    yield CPU, [((), used.cpu_percent / 100)]
    yield MEMORY, [((), used.rss_mb * 2**20)]
    yield REDIS_MEMORY, [((), used.redis_mb * 2**20)]


def _diagnoses(found: Iterable[Diagnosis]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield every kind, so that an alert sees it end."""
    levels, tasks = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for one in found:
        levels[one.kind] = max(levels[one.kind], _LEVELS[one.severity])
        tasks[one.kind] += one.tasks
    yield DIAGNOSIS, [((kind,), level) for kind, level in levels.items()]
    yield DIAGNOSIS_TASKS, [((kind,), count) for kind, count in tasks.items()]


def _totals(totals: dict[str, int]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield COMPLETIONS, [((status,), totals[counter.name]) for status, counter in catalogue.BY_STATUS.items()]
    discarded = {"duplicate": catalogue.DUPLICATES, "fenced": catalogue.FENCED}
    yield DISCARDED, [((reason,), totals[counter.name]) for reason, counter in discarded.items()]
    answered, limited = totals[catalogue.CALLS.name], totals[catalogue.RATE_LIMITED.name]
    other = max(0, catalogue.calls_failed(totals) - limited)
    yield CALLS, [(("answered",), answered), (("rate_limited",), limited), (("failed",), other)]
    directions = {"input": catalogue.INPUT_TOKENS, "output": catalogue.OUTPUT_TOKENS}
    yield TOKENS, [((direction,), totals[counter.name]) for direction, counter in directions.items()]
    yield CACHED, [((), totals[catalogue.CACHED_TOKENS.name])]
    yield REASONING, [((), totals[catalogue.REASONING_TOKENS.name])]
    yield COST, [((), totals[catalogue.COST_USD_MICROS.name] / 1e6)]
    failed = totals[catalogue.ASKS_FAILED.name]
    yield ASKS, [(("answered",), totals[catalogue.ASKS.name] - failed), (("failed",), failed)]
    members = {"asked": catalogue.MEMBERS_ASKED, "spared": catalogue.MEMBERS_SPARED}
    yield ASK_MEMBERS, [((what,), totals[counter.name]) for what, counter in members.items()]
    worth = {"right": catalogue.GRADED_RIGHT, "wrong": catalogue.GRADED_WRONG, "as others": catalogue.VOTED_ALIKE,
              "otherwise": catalogue.VOTED_OTHERWISE}  # fmt: skip
    yield GRADES, [((what,), totals[counter.name]) for what, counter in worth.items()]
    yield DEAD_LETTERS, [((), totals[catalogue.DEAD_LETTERS.name])]


def _bots(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    states: dict[tuple[str, str], int] = {}
    for key in zip(view.bots.pool, view.bots.state, strict=True):
        states[key] = states.get(key, 0) + 1
    yield BOTS, list(states.items())
    spreads = [
        ((row.pool, percentile), value)
        for row in view.pools
        for percentile, value in (("10", row.spread.p10), ("50", row.spread.p50), ("90", row.spread.p90))
    ]
    yield BOT_RATE, spreads
    yield BOTS_SILENT, [((row.pool,), row.spread.silent) for row in view.pools]
    yield BOT_GINI, [((row.pool,), row.spread.gini) for row in view.pools if row.spread.gini is not None]


def _health(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    rows = view.health.pools
    yield BOTS_SUSPECTED, [((row.pool,), row.suspected) for row in rows]
    yield BOTS_KEPT_IN, [((row.pool,), row.kept_in) for row in rows]
    yield BOTS_ALIKE, [((row.pool,), row.alike) for row in rows]
    alarms, lowest = {row.pool: 0 for row in rows}, dict[str, float]()
    for one in view.diversity:
        alarms[one.pool] = alarms.get(one.pool, 0) + one.alarm
        if one.share_of_usual is not None:
            lowest[one.pool] = min(lowest.get(one.pool, one.share_of_usual), one.share_of_usual)
    yield DIVERSITY_ALARMS, [((pool,), count) for pool, count in alarms.items()]
    yield DIVERSITY_SCORE, [((pool,), share) for pool, share in lowest.items()]


def _errors(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    errors = view.errors
    worst = [row.total for row in errors.rows[:TOP_BOTS]] + [0] * TOP_BOTS
    yield TOP_FAILURES, [((str(rank),), worst[rank - 1]) for rank in range(1, TOP_BOTS + 1)]
    yield TOP_SHARE, [((), worst[0] / errors.failures if errors.failures else 0.0)]
    yield RECENT_ERRORS, [((), view.recent.failed_share)]
    yield HOUR_FAILURES, [((kind,), count) for kind, count in errors.types.items()]
    yield TOOL_ERRORS, [((one.tool, kind), count) for one in view.tools for kind, count in one.types.items()]


def _pools(pools: Iterable[PoolView]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    rows = tuple(pools)
    yield HOUR_ERRORS, [((row.pool,), row.failed / row.completions if row.completions else 0.0) for row in rows]
    yield HOUR_COMPLETIONS, [((row.pool,), row.completions) for row in rows]
    yield DURATION, [sample for row in rows for sample in _durations(row.pool, row.durations)]
    yield FALLBACKS, [((row.pool, str(rung)), count) for row in rows for rung, count in row.by_rung.items()]
    yield RUNG, [((row.pool,), row.ladder.rung) for row in rows if row.ladder and row.ladder.rung is not None]
    yield WAITING, [((row.pool, priority), count) for row in rows for priority, count in row.backlog.items()]
    yield PARKED, [((row.pool,), row.parked) for row in rows]
    yield OLDEST, [((row.pool,), row.oldest_s or 0.0) for row in rows]
    drains = ((row.pool, 0.0 if not row.drain.tasks else row.drain.left_s) for row in rows if row.drain is not None)
    yield DRAIN, [((pool,), left_s) for pool, left_s in drains if left_s is not None]
    yield IN_FLIGHT, [((row.pool,), row.in_flight) for row in rows]
    yield POOL_WORKERS, [((row.pool,), row.workers) for row in rows]
    yield OPEN, [((row.pool,), int(row.is_open and not row.is_held)) for row in rows]


def _waits(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    tasks: dict[tuple[str, str], int] = {}
    opens: dict[tuple[str, str], float] = {}
    for line in view.waits:
        key = (line.pool, line.cause)
        tasks[key] = tasks.get(key, 0) + line.tasks
        if line.opens_at is not None:
            opens[key] = max(opens.get(key, 0.0), line.opens_at - view.at)
    yield BY_CAUSE, list(tasks.items())
    yield OPENS, list(opens.items())


def _durations(pool: str, durations: Durations) -> Iterator[Sample]:
    for phase in ("queued", "limited", "ran"):
        quantiles = getattr(durations, phase)
        for name, ms in (("50", quantiles.p50), ("90", quantiles.p90), ("99", quantiles.p99)):
            if ms is not None:
                yield (pool, phase, name), ms / 1000


def _unanswered(workers: Iterable[WorkerReport], limits: Iterable[LimitView]) -> dict[str, int]:
    """Return the calls of all workers that have had no answer for far longer than usual, by limit."""
    found = dict.fromkeys((row.limit for row in limits), 0)
    for worker in workers:
        for limit, (calls, _) in worker.unanswered.items():
            found[limit] = found.get(limit, 0) + calls
    return found


def _doubted(workers: Iterable[WorkerReport], limits: Iterable[LimitView]) -> dict[str, int]:
    """Return the calls of all workers that wait until it is known that their API answers, by limit."""
    found = dict.fromkeys((row.limit for row in limits), 0)
    for limit, calls in doubted_in(workers).items():
        found[limit] = found.get(limit, 0) + calls
    return found


def _limits(limits: Iterable[LimitView]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    rows = tuple(limits)
    requests = [((row.limit, "requests"), row.used_rpm / row.rpm) for row in rows if row.rpm]
    tokens = [((row.limit, "tokens"), row.used_tpm / row.tpm) for row in rows if row.tpm]
    flying = [((row.limit, "in flight"), row.in_flight / row.most_in_flight) for row in rows if row.most_in_flight]
    longs = [
        ((row.limit, long.label), long.used / long.limit) for row in rows for long in row.long if long.used is not None
    ]
    days = [(row.limit, row.used_requests, row.requests_per_day) for row in rows if row.requests_per_day]
    money = [(row.limit, row.used_usd, row.usd_per_day) for row in rows if row.usd_per_day]
    for metric, row_of_day in ((LIMIT_DAY_REQUESTS, days), (LIMIT_DAY_USD, money)):
        used = [((limit, "used"), number) for limit, number, _ in row_of_day]
        yield metric, [*used, *(((limit, "allowed"), number) for limit, _, number in row_of_day)]
    shares = [((limit, kind), used / allowed) for kind, of_kind in (("requests of the day", days),
              ("money of the day", money)) for limit, used, allowed in of_kind]  # fmt: skip
    yield LIMIT_USED, [*requests, *tokens, *flying, *longs, *shares]
    yield LIMIT_WAITING, [((row.limit,), row.waiting) for row in rows]
    yield LIMIT_HELD, [((row.limit,), row.held_s) for row in rows]
    yield LIMIT_REFUSED, [((row.limit,), row.refused) for row in rows]
    yield BREAKER, [((row.limit,), get_args(BreakerState).index(row.breaker)) for row in rows]
