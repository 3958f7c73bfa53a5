"""What the Fleet tab, `fleet top` and `fleet stats` show, as frozen values. Composed by `Overview`.

Tables that grow with bots or minutes are columns: lists of equal length, one entry per bot or minute. Times are Unix
seconds, money is micro-dollars.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.config import tool_of
from fleet.frozen import Frozen
from fleet.models import Persona
from fleet.signals.ahead.brokers_view import BrokerView
from fleet.signals.ahead.budget_view import BudgetScopeView
from fleet.signals.ahead.dead_view import DeadGroup
from fleet.signals.ahead.outlook import Drain
from fleet.signals.ahead.scaling_view import ScalingView
from fleet.signals.bot_table import BotState, BotTable
from fleet.signals.cost_view import Costs
from fleet.signals.crew import Trouble
from fleet.signals.diagnosis.finding import CallVerdict, Diagnosis
from fleet.signals.health_view import ClassDiversity, FleetHealth
from fleet.signals.jobs.view import JobsView
from fleet.signals.limit_view import LimitView
from fleet.signals.marks import ChartMark
from fleet.signals.money.bill_view import BillView
from fleet.signals.recorder import WorkerReport
from fleet.signals.rollouts.view import RolloutView
from fleet.signals.rungs import LadderView
from fleet.signals.spans import Span, Trends
from fleet.signals.spread import Verdict
from fleet.signals.tenants.view import TenantsView
from fleet.waits import Cause

EventLevel = Literal["info", "warning", "error"]


class Series(Frozen):
    """Figures over time in columns, one entry a minute or an hour, the oldest first; the last one still runs."""

    at: tuple[int, ...] = Field(description="Start of each.")
    completions: tuple[int, ...]
    ok: tuple[int, ...]
    degraded: tuple[int, ...]
    failed: tuple[int, ...]
    calls: tuple[int, ...] = Field(description="Calls sent to providers, answered or not.")
    calls_failed: tuple[int, ...]
    rate_limited: tuple[int, ...]
    tokens: tuple[int, ...]
    cost_usd_micros: tuple[int, ...]
    cpu_percent: tuple[float, ...] = Field(description="Of all workers, on average; 100 is one core.")
    rss_mb: tuple[float, ...]
    busy: tuple[float, ...] = Field(description="Slots at work, on average.")


class Recent(Frozen):
    """The last 1,000 completions of the fleet, fewer when it has not done so many."""

    completions: int
    failed: int
    span_s: float = Field(description="Seconds from the first of them to now.")
    per_s: float
    failed_share: float
    bots: int = Field(description="Different bots among them.")
    ran_p50_ms: float | None = Field(None, description="Exact quantiles of the time that they ran; None without any.")
    ran_p99_ms: float | None = None
    failed_by_api: dict[str, int] = Field(default_factory=dict, description='By provider/model; "-": none.')
    failed_by_type: dict[str, int] = Field(default_factory=dict, description="By error type.")


class Quantiles(Frozen):
    """Durations of the last hour in milliseconds, each at most 2% off (see `sketch.py`). None without tasks."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


class Durations(Frozen):
    """Where the time of tasks goes."""

    queued: Quantiles = Field(description="Waiting in the queue.")
    limited: Quantiles = Field(description="Waiting for grants of the limiter.")
    ran: Quantiles = Field(description="The rest: provider calls and the bot's own work.")


class BotSpread(Frozen):
    """How completions of the last hour lie over bots."""

    bots: int
    silent: int = Field(description="Bots that completed nothing in the last hour.")
    min: float
    p10: float
    p50: float
    p90: float
    max: float
    gini: float | None = Field(description="0: all equal, near 1: one does everything; None without completions.")
    jain: float | None = Field(description="1: all equal, 1/bots: one does everything; None without completions.")


class TaskLine(Frozen):
    """One of the last tasks of a bot."""

    task_id: str = Field(description="Cut to 36 characters.")
    at: float
    status: Literal["ok", "degraded", "failed"]
    ran_ms: int


class FailureLine(Frozen):
    """One failed task."""

    task_id: str
    at: float
    pool: str
    bot: str
    api: str
    type: str


class BotErrors(Frozen):
    """Errors of a bot by API and type, since counting began."""

    api: str
    type: str
    failures: int
    calls: int


class HealthTest(Frozen):
    """One of the sequential tests on a bot."""

    name: str = Field(
        description="What it looks for: bad answers, avoids work, slow; by kind wrong answers, answers otherwise."
    )
    share: float = Field(description="Of its last tasks.")
    evidence: float
    enough: float = Field(description="Evidence that ends in a quarantine.")


class SkillLine(Frozen):
    """How a bot does one task class."""

    kind: str
    good: float = Field(description="Share of its last tasks.")
    tasks: int
    better: float | None = Field(description="Than its pool, at least; None: it is no specialist.")


class GradeLine(Frozen):
    """How often a bot's answers of one task class are right, or what most others say."""

    kind: str
    of: str = Field(
        description="grades: right ones; votes: those that most others gave; shadows: that another bot gave."
    )
    right: float = Field(description="Share of its latest grades.")
    least: float = Field(description="With 95% at least this.")
    most: float = Field(description="With 95% at most this.")
    grades: int
    usual: float = Field(description="The same of its pool.")


class QuarantineLine(Frozen):
    """Why a bot takes no new task, and until when."""

    since: float
    until: float | None = Field(description="Unix time; None: until it is released.")
    by: str
    reason: str


class HealthView(Frozen):
    """What is known of a bot's health."""

    quarantine: QuarantineLine | None
    probation_tasks_left: int | None = Field(description="To do well until it is fully back; None: not on probation.")
    remedy: int | None = Field(description="What is done because it answers like others: see diversity.")
    judged_tasks: int
    quarantines: int = Field(description="Lately; each makes the next one longer.")
    tests: tuple[HealthTest, ...]
    skills: tuple[SkillLine, ...]
    grades: tuple[GradeLine, ...] = ()


class BotDetail(Frozen):
    """One bot, opened."""

    name: str
    pool: str
    api: str
    state: BotState
    persona: Persona
    load: int
    completions: int
    failed: int
    calls_failed: int
    per_hour: int
    last_at: float
    cost_usd_micros: int
    tokens: int
    mean_ms: int
    tasks: tuple[TaskLine, ...] = Field(description="Its last tasks, the newest first; at most 4.")
    failures: tuple[FailureLine, ...] = Field(description="Its own among the last 1,000, newest first; at most 20.")
    errors: tuple[BotErrors, ...]
    health: HealthView


class MatrixRow(Frozen):
    """A bot's failures, one number per API of the matrix."""

    bot: str
    counts: tuple[int, ...]
    total: int


class ErrorMatrix(Frozen):
    """Failures of tasks, bot x API: the fleet's last 1,000, none older than an hour."""

    failures: int
    since: float = Field(description="Start of the window.")
    apis: tuple[str, ...] = Field(description="Columns, the worst first.")
    api_totals: tuple[int, ...]
    rows: tuple[MatrixRow, ...] = Field(description="The 50 worst bots.")
    rows_left_out: int
    types: dict[str, int]
    verdict: Verdict
    last: tuple[FailureLine, ...] = Field(description="The 20 newest.")


class FailedRequests(Frozen):
    """Requests to one tool API that were not answered as they should be, since counting began."""

    tool: str = Field(description="As `tools/NAME`.")
    failed: int
    types: dict[str, int] = Field(description="By type of error, the most first.")


class PoolView(Frozen):
    """One pool."""

    pool: str
    api: str = Field(description="provider/model")
    bots: int
    workers: int = Field(0, description="Live workers that serve it.")
    in_flight: int = Field(description="Tasks in hand of its bots: a bot may have several.")
    busy_bots: int = Field(0, description="Bots that have any.")
    backlog: dict[str, int] = Field(description="Waiting tasks by priority, the most urgent first.")
    waiting: int
    parked: int = Field(0, description="Tasks that wait for their time (ETA, countdown), in no list and no worker.")
    next_opens_s: float | None = Field(None, description="Seconds until the first of them opens; None: none is parked.")
    oldest_s: float | None = Field(description="Age of the oldest of the next tasks; None: nothing waits.")
    gate: str = Field(description="open, closed, or the lowest priority that is taken.")
    is_open: bool
    is_held: bool = Field(False, description="Fleet itself holds its tasks back: see the view's `waits`.")
    gate_left_s: float | None = Field(description="Seconds until the gate opens by itself; None: it stays.")
    simulated: bool
    ladder: LadderView | None = Field(None, description="Who serves it; None: it has no fallback ladder.")
    by_rung: dict[int, int] = Field(default_factory=dict, description="Tasks that each fallback has served so far.")
    drain: Drain | None = Field(None, description="When what waits will be gone.")
    completions: int = Field(description="Of the last hour, as failed, calls, ... below.")
    failed: int
    calls: int
    rate_limited: int
    tokens: int
    cost_usd_micros: int
    spread: BotSpread
    durations: Durations


class WaitLine(Frozen):
    """One reason for which tasks of a pool wait. Those of a pool share its waiting tasks out: none is counted twice."""

    pool: str
    cause: Cause
    about: str = Field("", description="The provider/model/key, pool or setting behind it.")
    told: str = Field("", description="What the other side said.")
    opens_at: float | None = Field(None, description="Unix time of the next try; None: nobody knows.")
    probe_every_s: float = Field(0.0, description="Then one task goes ahead, and one more that often; 0: all go.")
    tasks: int = Field(0, description="Tasks that wait for it.")
    parked: int = Field(0, description="Those of them that are parked one by one; of many, by a sample.")
    in_slots: int = Field(0, description="Tasks beside these that have begun, and wait for it in their slots: a tool.")
    is_lasting: bool = Field(False, description="It does not pass by itself: somebody must do something.")
    line: str = Field(description="All of it in one line, the count and the time left out.")
    advice: str = Field("", description="What to do.")

    @property
    def short(self) -> str:
        """What they wait for, in a word or two: the cause, or which tool."""
        tool = tool_of(self.about)
        return f"tool {tool}" if tool else self.cause


class EventView(Frozen):
    """Something that happened to the fleet."""

    id: str = Field(description="Grows with time; ask for what came after it.")
    at: float
    name: str = Field(description="One of the catalogue's events.")
    level: EventLevel
    fields: dict[str, str] = Field(description="For programs: times as ISO 8601.")
    said: str = Field("", description="The fields in words, those of `subjects` left out: they lead somewhere.")

    @property
    def subjects(self) -> tuple[str, ...]:
        """The bot and the task that it is about."""
        return tuple(f"{name} {self.fields[name]}" for name in ("bot", "task") if name in self.fields)

    @property
    def whole(self) -> str:
        """All of it in words."""
        return ", ".join(filter(None, (*self.subjects, self.said)))


class ResourcesView(Frozen):
    """What workers use now."""

    workers: tuple[WorkerReport, ...]
    troubles: tuple[Trouble, ...] = Field((), description="What is wrong with the workers as a crew.")
    slots: int
    busy: int
    cpu_percent: float
    rss_mb: float
    redis_mb: float = Field(description="Memory of the state Redis.")


#: How a key may stand: it serves, it is replaced just now (workers have different ones), calls with it wait.
KEY_STATES = ("serves", "changes", "waits")


class KeyUse(Frozen):
    """What is used today of what a key's scope allows."""

    line: str = Field(description="In words: `2 of 5 requests`.")
    share: float = Field(description="Of what is allowed.")


class KeyView(Frozen):
    """A key as the workers have it, and its scope; never the key."""

    key: str = Field(description="`provider`, `provider/label` or `tools/NAME`.")
    state: str = Field(description="One of `KEY_STATES`.")
    fingerprints: tuple[str, ...] = Field((), description="Of what workers have: several while they change it.")
    source: str = Field("", description="Where it comes from.")
    made_at: float | None = Field(None, description="Unix time in seconds of the newest version; None: unknown.")
    expires_at: float | None = Field(None, description="Unix time in seconds at which the first token ends.")
    workers: int = Field(0, description="Processes that have it.")
    waits: str = Field("", description="Why calls with it wait, or why its source gives none just now.")
    scope: str = Field("", description="Whom it serves now, in words; empty: everybody.")
    used: tuple[KeyUse, ...] = ()


class FleetView(Frozen):
    """The fleet at one time: everything that the page shows."""

    at: float
    simulated: bool
    totals: dict[str, int] = Field(description="Every counter of the catalogue, by its name; and `calls_failed`.")
    minutes: Series = Field(description="The last 60 minutes.")
    hours: Series = Field(description="The last 24 hours.")
    spans: tuple[Span, ...] = Field((), description="Sums of the last 15 minutes, hour and day.")
    trends: Trends | None = Field(None, description="The last minute beside its hour.")
    marks: tuple[ChartMark, ...] = Field((), description="What happened, for the charts; the oldest first.")
    recent: Recent
    durations: Durations
    spread: BotSpread
    bots: BotTable
    errors: ErrorMatrix
    tools: tuple[FailedRequests, ...] = Field((), description="Tools of whose requests some failed, the worst first.")
    pools: tuple[PoolView, ...]
    limits: tuple[LimitView, ...]
    waits: tuple[WaitLine, ...] = Field((), description="Why tasks wait, the reasons with the most tasks first.")
    headline: str = Field(
        "", description="How many wait, and what most of them wait for; empty: none does, or findings say it."
    )
    cost: Costs
    budgets: tuple[BudgetScopeView, ...] = Field(
        (), description="Of fleet, pools, tenants, bots and runs; of many of a kind the fullest."
    )
    keys: tuple[KeyView, ...] = Field((), description="Of providers and tools, as workers have them.")
    bill: BillView = Field(BillView(), description="What every call has cost.")
    events: tuple[EventView, ...] = Field(description="The newest first.")
    resources: ResourcesView
    scaling: ScalingView | None = Field(None, description="How many slots are wanted; None: nobody decides.")
    brokers: tuple[BrokerView, ...] = Field((), description="Where there are several: what waits at each.")
    neighbour: str = Field("", description="What to say if another fleet uses this Redis.")
    outlook: str = Field("", description="What waits long for its turn though nothing is wrong; empty: nothing does.")
    diagnoses: tuple[Diagnosis, ...] = Field((), description="What is wrong, worst first; empty: all is well.")
    health: FleetHealth = Field(FleetHealth(), description="Bad bots: pool by pool, and the worst five.")
    diversity: tuple[ClassDiversity, ...] = Field((), description="Sameness of answers by class, alarms first.")
    verdict: CallVerdict = Field(CallVerdict(), description="Who is behind what fails now, by calls.")
    dead: tuple[DeadGroup, ...] = Field((), description="Dead letters by pool and reason, the most first.")
    jobs: JobsView = Field(JobsView(), description="Many tasks with one end.")
    rollouts: tuple[RolloutView, ...] = Field((), description="What is tried in pools, and what went back lately.")
    tenants: TenantsView = Field(TenantsView(), description="Who waits, of pools whose tasks have tenants.")
    suspects: int = Field(0, description="Tasks whose worker died while they ran: they wait to run apart, or do so.")
