"""Do signals tell the truth? Every total, window and per-bot sum against the results that are stored, exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import redis

from fleet.config import Settings
from fleet.models import BotResult
from fleet.signals import catalogue, windows
from fleet.signals.catalogue import NOBODY, ErrorField
from fleet.store import keys
from tests.counted import all_counted


def untruths(client: redis.Redis, settings: Settings, results: Iterable[BotResult]) -> Iterator[str]:
    """Yield one line per signal that does not say what the results say.

    For a fleet that has come to rest, whose results have not expired and whose signals began with them. What was
    spent counts also when a result was discarded, so those figures may be above the results' sums, but must agree
    with each other.

    Args:
        client: State Redis.
        settings: Pools of the fleet.
        results: Every result there is.
    """
    stored = tuple(results)
    totals = all_counted(client)
    pools = (*settings.pools, NOBODY)
    yield from _totals(totals, stored)
    slots, rows = {}, {}
    for pool in pools:
        raw: bytes = client.get(keys.series(pool)) or b""  # type: ignore[assignment]
        slots[pool] = [windows.Period(*numbers) for numbers in windows.PERIOD.iter_unpack(raw)]
        rows[pool] = windows.bot_rows_of(client.get(keys.bot_rows(pool)) or b"", 0)  # type: ignore[arg-type]
    yield from _windows(totals, slots, stored, set(settings.pools))
    yield from _bots(totals, rows, stored)
    yield from _failures(client, pools, stored)


def _totals(totals: dict[str, int], results: tuple[BotResult, ...]) -> Iterator[str]:
    by_status = Counter(result.status for result in results)
    yield from _same("total of completions", totals.get(catalogue.COMPLETIONS.name, 0), len(results))
    for status, counter in catalogue.BY_STATUS.items():
        yield from _same(f"total of {status}", totals.get(counter.name, 0), by_status[status])
    earned = sum(result.attempts for result in results)
    if totals.get(catalogue.ATTEMPTS.name, 0) < earned:
        yield f"total of attempts is {totals.get(catalogue.ATTEMPTS.name, 0)}, the results alone had {earned}"


def _windows(
    totals: dict[str, int], slots: dict[str, list[windows.Period]], results: tuple[BotResult, ...], pools: set[str]
) -> Iterator[str]:
    everything = [slot for pool in slots.values() for slot in pool]
    names = {
        "completions": catalogue.COMPLETIONS, "ok": catalogue.OK, "degraded": catalogue.DEGRADED,
        "failed": catalogue.FAILED, "input_tokens": catalogue.INPUT_TOKENS, "output_tokens": catalogue.OUTPUT_TOKENS,
        "calls": catalogue.ATTEMPTS, "rate_limited": catalogue.RATE_LIMITED, "dead_letters": catalogue.DEAD_LETTERS,
    }  # fmt: skip
    for name, counter in names.items():
        counted = sum(getattr(slot, name) for slot in everything)
        yield from _same(f"sum of minutes and hours of {name}", counted, totals.get(counter.name, 0))
    cost = sum(slot.cost_usd_micros for slot in everything)
    yield from _same("cost by minutes and hours", round(cost, 3), round(catalogue.spent_picos(totals) / 1e6, 3))
    discarded = totals.get(catalogue.DUPLICATES.name, 0) + totals.get(catalogue.FENCED.name, 0)
    yield from _same("discarded results by minutes", sum(slot.discarded for slot in everything), discarded)
    by_pool = Counter(result.pool if result.pool in pools else NOBODY for result in results)
    for pool, found in slots.items():
        yield from _same(f"completions of {pool} by minutes", sum(slot.completions for slot in found), by_pool[pool])


def _bots(totals: dict[str, int], rows: dict[str, windows.BotRows], results: tuple[BotResult, ...]) -> Iterator[str]:
    done = Counter(result.bot for result in results if result.bot)
    failed = Counter(result.bot for result in results if result.bot and result.status == "failed")
    for pool, columns in rows.items():
        for index, (completions, failures) in enumerate(zip(columns.completions, columns.failed, strict=True)):
            if index:
                bot = f"{pool}-{index:03d}"
                yield from _same(f"completions of {bot}", completions, done.pop(bot, 0))
                yield from _same(f"failures of {bot}", failures, failed.pop(bot, 0))
    yield from (f"{bot} has {count} results and no row" for bot, count in done.items())
    tokens = totals.get(catalogue.INPUT_TOKENS.name, 0) + totals.get(catalogue.OUTPUT_TOKENS.name, 0)
    yield from _same("tokens by bots", sum(sum(columns.tokens) for columns in rows.values()), tokens)
    cost = sum(sum(columns.cost_usd_micros) for columns in rows.values())
    yield from _same("cost by bots", round(cost, 3), round(catalogue.spent_picos(totals) / 1e6, 3))


def _failures(client: redis.Redis, pools: Iterable[str], results: tuple[BotResult, ...]) -> Iterator[str]:
    expected = Counter(catalogue.error_name(result.error.type) for result in results if result.error)
    counted: Counter[str] = Counter()
    for pool in pools:
        for name, number in client.hgetall(keys.errors(pool)).items():  # type: ignore[union-attr]
            field = ErrorField.parse(name.decode())
            if field.of == "task":
                counted[field.type] += int(number)
    yield from _same("failures by type", dict(counted), dict(expected))
    listed = sum(client.llen(name) for name in (keys.failures(), *map(keys.pool_failures, pools)))
    yield from _same("failures in the list", listed, min(windows.RECENT, expected.total()))


def _same(what: str, counted: object, expected: object) -> Iterator[str]:
    if counted != expected:
        yield f"{what}: signals say {counted}, results say {expected}"
