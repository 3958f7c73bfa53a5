"""From decoded windows to what people see: series, spreads, quantiles, the error matrix. Pure; no Redis, no clock."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from fleet.money import whole_micros
from fleet.quoting import duration, with_clocks
from fleet.signals import catalogue
from fleet.signals.ahead.outlook import usd
from fleet.signals.bot_table import BotState, BotTable, HealthColumns
from fleet.signals.catalogue import ERROR_NAMES, EVENTS, ErrorField
from fleet.signals.crew import Trouble
from fleet.signals.recorder import WorkerReport
from fleet.signals.series import spent_in
from fleet.signals.sketch import quantiles
from fleet.signals.spread import gini_index, jain_index, share_of, verdict_of
from fleet.signals.view import (
    BotSpread,
    Durations,
    ErrorMatrix,
    EventView,
    FailedRequests,
    FailureLine,
    MatrixRow,
    Quantiles,
    Recent,
    ResourcesView,
    Series,
)
from fleet.signals.windows import (
    STATUSES,
    BotRows,
    Failure,
    Period,
    RecentEntry,
    ResourcePeriod,
    names_by_checksum,
    resource_hours,
    resources_of,
)

#: Seconds in a field of an event.
_NUMBER = re.compile(r"\d+(\.\d+)?")
#: Minutes that are shown.
MINUTES_SHOWN = 60
#: Status of a failed task in the windows.
FAILED = STATUSES.index("failed")
#: Bots in the error matrix, newest failures beside it.
MATRIX_ROWS, LAST_FAILURES = 50, 20


@dataclass(frozen=True, slots=True)
class PoolWindows:
    """What was read of one pool: its minutes and hours, bots from number 0 (nobody), durations as counts."""

    series: array[float]
    rows: BotRows
    sketches: tuple[array[int], array[int], array[int]]


def minutes_shown(sums: Mapping[int, Period], resources: bytes, *, now_s: float) -> Series:
    """Return the last hour by minutes; `sums` are those of all pools by their number."""
    current = int(now_s // 60)
    numbers = list(range(current - MINUTES_SHOWN + 1, current + 1))
    return _series(60, numbers, [sums[number] for number in numbers], resources_of(resources), now_s)


def hours_shown(sums: Mapping[int, Period], resources: bytes, *, now_s: float) -> Series:
    """Return the last day by hours; `sums` are those of all pools by their number."""
    return _series(3600, list(sums), list(sums.values()), resource_hours(resources), now_s)


def _series(
    unit_s: int,
    numbers: Sequence[int],
    periods: Sequence[Period],
    resources: Mapping[int, ResourcePeriod],
    now_s: float,
) -> Series:
    nothing = ResourcePeriod(0, 0, 0, 0, 0)
    used = [resources.get(number, nothing) for number in numbers]
    lengths_s = [float(unit_s)] * (len(numbers) - 1) + [max(1.0, now_s - numbers[-1] * unit_s)]
    rows = list(zip(used, lengths_s, strict=True))
    return Series(
        at=tuple(number * unit_s for number in numbers),
        completions=tuple(int(period.completions) for period in periods),
        ok=tuple(int(period.ok) for period in periods),
        degraded=tuple(int(period.degraded) for period in periods),
        failed=tuple(int(period.failed) for period in periods),
        calls=tuple(int(period.calls) for period in periods),
        calls_failed=tuple(int(period.calls_failed) for period in periods),
        rate_limited=tuple(int(period.rate_limited) for period in periods),
        tokens=tuple(int(period.input_tokens + period.output_tokens) for period in periods),
        cost_usd_micros=tuple(whole_micros(period.cost_usd_micros) for period in periods),
        cpu_percent=tuple(round(100 * period.cpu_s / length_s, 1) for period, length_s in rows),
        rss_mb=tuple(round(period.rss_mb_s / length_s, 1) for period, length_s in rows),
        busy=tuple(round(period.busy_s / length_s, 1) for period, length_s in rows),
    )


def spent_today(pool: PoolWindows, *, now_s: float) -> int:
    """Return micro-dollars since midnight UTC."""
    return whole_micros(spent_in(pool.series, range(int(now_s // 86_400) * 24, int(now_s // 3600) + 1)))


def recent_shown(entries: Sequence[RecentEntry], *, apis: Iterable[str], now_s: float) -> Recent:
    """Return the last completions summed up; `apis` are the names that theirs may have."""
    failures = [entry for entry in entries if entry.status == FAILED]
    span_s = max(0.001, now_s - min((entry.at for entry in entries), default=now_s))
    ran = sorted(entry.ran_ms for entry in entries)
    api_of, type_of = names_by_checksum(apis), names_by_checksum(ERROR_NAMES)
    return Recent(
        completions=len(entries),
        failed=len(failures),
        span_s=round(span_s, 3),
        per_s=round(len(entries) / span_s, 3) if entries else 0.0,
        failed_share=len(failures) / len(entries) if entries else 0.0,
        bots=len({(entry.pool, entry.bot) for entry in entries if entry.bot}),
        ran_p50_ms=share_of(ran, 0.5) if ran else None,
        ran_p99_ms=share_of(ran, 0.99) if ran else None,
        failed_by_api=dict(Counter(api_of[entry.api] for entry in failures).most_common()),
        failed_by_type=dict(Counter(type_of[entry.error] for entry in failures).most_common()),
    )


def durations_of(pools: Iterable[PoolWindows]) -> Durations:
    """Return the quantiles of durations over pools."""
    parts = list(zip(*(pool.sketches for pool in pools), strict=True))
    queued, limited, ran = (_quantiles(_merged(part)) for part in parts)
    return Durations(queued=queued, limited=limited, ran=ran)


def _merged(sketches: Sequence[array[int]]) -> array[int]:
    return sketches[0] if len(sketches) == 1 else array("Q", map(sum, zip(*sketches, strict=True)))


_NO_QUANTILES = Quantiles(count=0, p50=None, p90=None, p99=None)


def _quantiles(counts: array[int]) -> Quantiles:
    if not any(counts):  # of a thousand pools most are idle
        return _NO_QUANTILES
    p50, p90, p99 = quantiles(counts, (0.5, 0.9, 0.99))
    return Quantiles(count=sum(counts), p50=p50, p90=p90, p99=p99)


def spread_shown(per_hour: Sequence[int]) -> BotSpread:
    """Return how the completions of the last hour lie over bots; one number per bot."""
    order = sorted(per_hour)
    return BotSpread(
        bots=len(order),
        silent=order.count(0),
        min=order[0] if order else 0,
        p10=share_of(order, 0.1),
        p50=share_of(order, 0.5),
        p90=share_of(order, 0.9),
        max=order[-1] if order else 0,
        gini=gini_index(order),
        jain=jain_index(order),
    )


def bot_table(
    names: Mapping[str, Sequence[str]],
    pools: Mapping[str, BotRows],
    loads: Mapping[str, int],
    out: Mapping[str, BotState],
    *,
    health: HealthColumns,
    now_s: float,
) -> BotTable:
    """Return every bot.

    Args:
        names: Bots of each pool.
        pools: Their rows, the first bot first.
        loads: Tasks in hand, of bots that have any.
        out: State of the bots that are not simply idle or busy.
        health: How healthy they are, in the order of `names`.
        now_s: Unix time.
    """
    everyone = tuple(chain.from_iterable(names.values()))
    carried = tuple(map(loads.get, everyone, repeat(0)))
    rows = BotRows(*(tuple(chain.from_iterable(columns)) for columns in zip(*pools.values(), strict=True)))
    return BotTable.model_construct(  # ours: checking 120,000 numbers would take as long as all the rest
        name=everyone,
        pool=tuple(chain.from_iterable(repeat(pool, len(bots)) for pool, bots in names.items())),
        state=tuple(out.get(bot) or ("busy" if load else "idle") for bot, load in zip(everyone, carried, strict=True)),
        load=carried,
        completions=rows.completions,
        failed=rows.failed,
        calls_failed=rows.calls_failed,
        per_hour=tuple(rows.per_hour(now_s)),
        last_at=rows.last_at,
        cost_usd_micros=tuple(map(whole_micros, rows.cost_usd_micros)),
        tokens=tuple(map(int, rows.tokens)),
        mean_ms=tuple(rows.mean_ms()),
        **health._asdict(),
    )


def tool_errors(totals: Mapping[bytes, int], tools: Collection[str]) -> tuple[FailedRequests, ...]:
    """Return the failed requests of tool APIs, the worst first; of those only that `tools` names, as `tools/NAME`."""
    types = defaultdict[str, Counter[str]](Counter)
    for tool, kind, count in catalogue.tool_errors_in(totals):
        if tool in tools:
            types[tool][kind] += count
    found = (FailedRequests(tool=tool, failed=n.total(), types=dict(n.most_common())) for tool, n in types.items())
    return tuple(sorted(found, key=lambda one: (-one.failed, one.tool)))


def failure_shown(failure: Failure) -> FailureLine:
    """Return a failure as the page shows it."""
    return FailureLine(**failure._asdict())


def by_rung(totals: Mapping[bytes, int], pool: str, *, rungs: int) -> dict[int, int]:
    """Return how many tasks each rung of a pool's fallback ladder has served, by its number."""
    names = {number: catalogue.fallbacks_of(pool, number).name.encode() for number in range(1, rungs + 1)}
    return {number: int(totals.get(name, 0)) for number, name in names.items()}


def matrix_of(failures: Sequence[Failure], *, since: float, bots: int, apis: int) -> ErrorMatrix:
    """Return failures as a matrix bot x API with a verdict.

    Args:
        failures: Newest first.
        since: Start of their window.
        bots: Bots in the fleet.
        apis: APIs in use.
    """
    by_api = Counter(failure.api for failure in failures)
    columns = [api for api, _ in by_api.most_common()]
    cells = Counter((failure.bot, failure.api) for failure in failures)
    by_bot = Counter(failure.bot for failure in failures)
    worst = sorted(by_bot.items(), key=lambda item: (-item[1], item[0]))
    fields = Counter(ErrorField(failure.bot, failure.api, failure.type) for failure in failures)
    return ErrorMatrix(
        failures=len(failures),
        since=since,
        apis=tuple(columns),
        api_totals=tuple(by_api[api] for api in columns),
        rows=tuple(
            MatrixRow(bot=bot, counts=tuple(cells[bot, api] for api in columns), total=total)
            for bot, total in worst[:MATRIX_ROWS]
        ),
        rows_left_out=max(0, len(worst) - MATRIX_ROWS),
        types=dict(Counter(failure.type for failure in failures).most_common()),
        verdict=verdict_of(fields, bots=bots, apis=apis),
        last=tuple(map(failure_shown, failures[:LAST_FAILURES])),
    )


def events_of(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> tuple[EventView, ...]:
    """Return entries of the stream as the page shows them; one of another version counts as information."""
    return tuple(_event(entry_id, fields) for entry_id, fields in entries)


def _event(entry_id: bytes, raw: dict[bytes, bytes]) -> EventView:
    fields = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}
    name = fields.pop("event", "")
    level = EVENTS[name].level if name in EVENTS else "info"
    at = int(entry_id.partition(b"-")[0]) / 1000
    said = ", ".join(filter(None, (_said(key, text, at) for key, text in fields.items() if key not in ("bot", "task"))))
    return EventView(id=entry_id.decode(), at=at, name=name, level=level, fields=fields, said=said)


def _said(name: str, text: str, at: float) -> str:
    """Return a field of an event in words: `hold_s 12` is `hold 12 s`, times and money are told as everywhere."""
    words = name.replace("_", " ")
    if name == "percent":
        return f"{text}% of it is used"
    if name == "gate":  # of a pool that is paused: wholly, or what is less urgent
        return text.removeprefix("closed").removeprefix(", ") if text.startswith("closed") else f"only {text}"
    if name.startswith("usd_") and _NUMBER.fullmatch(text):
        return f"{usd(float(text))} {words.removeprefix('usd ')}"
    if words == "s" or words.endswith(" s"):
        return f"{words[:-1].strip() or 'for'} {duration(float(text)) if _NUMBER.fullmatch(text) else text}"
    return f"{words} {with_clocks(text, at)}"


def resources_view(
    workers: Sequence[WorkerReport], heard: Sequence[WorkerReport], troubles: tuple[Trouble, ...], redis_bytes: int
) -> ResourcesView:
    """Return what workers use now.

    Args:
        workers: All that are not given up yet, with those that have died a moment ago.
        heard: Those of them that still report: they alone have slots.
        troubles: What is wrong with them as a crew.
        redis_bytes: Memory of the state Redis.
    """
    return ResourcesView(
        # what is right or wrong about queues and settings is told; they would make up most of the page's figures
        workers=tuple(worker.model_copy(update={"queues": None, "settings": {}}) for worker in workers),
        troubles=troubles,
        slots=sum(worker.slots for worker in heard),
        busy=sum(worker.busy for worker in heard),
        cpu_percent=round(sum(worker.cpu_percent for worker in heard), 1),
        rss_mb=round(sum(worker.rss_mb for worker in heard), 1),
        redis_mb=round(redis_bytes / 2**20, 1),
    )
