"""Anthropic's exports: the Admin API's usage and cost reports as JSON, and the console's two CSVs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.economy.exports.export import DAY_S, Billed, ProviderExport, day_between, day_of, evenly_rounded
from fleet.economy.exports.fields import ExportRow, objects

#: Cents in a dollar: the cost report counts in them.
CENTS = 100


def read_anthropic(pages: Iterable[Mapping[str, Any]]) -> ProviderExport:
    """Return an export of pages of either report. Raises `UnreadableExport`."""
    kept = list(pages)
    lines: list[Billed] = []
    starts: list[float] = []
    ends: list[float] = []
    is_costs = False
    for number, told in enumerate((bucket for page in kept for bucket in objects(page.get("data"), "data")), 1):
        bucket = ExportRow(told, f"bucket {number}")
        starts.append(bucket.time("starting_at"))
        ends.append(bucket.time("ending_at"))
        day = day_between(starts[-1], ends[-1])
        results = objects(told.get("results"), f"bucket {number}, results")
        rows = [ExportRow(result, f"bucket {number}") for result in results]
        is_costs = is_costs or any(row.has("amount") for row in rows)
        lines += [_cost(row, day) if row.has("amount") else _usage(row, day) for row in rows]
    kind = "Anthropic costs (cost_report)" if is_costs else "Anthropic usage (usage_report/messages)"
    partial = bool(kept and kept[-1].get("has_more"))
    since_s, until_s = min(starts, default=0.0), max(ends, default=0.0)
    return ProviderExport(kind, "anthropic", since_s, until_s, tuple(lines), is_partial=partial)


def _usage(row: ExportRow, day: str) -> Billed:
    created, searched = row.inner("cache_creation"), row.inner("server_tool_use")
    long = created.count("ephemeral_1h_input_tokens") + row.count("cache_creation_1h_input_tokens")
    short = created.count("ephemeral_5m_input_tokens") + row.count("cache_creation_5m_input_tokens")
    usage = _classes(
        plain=row.count("uncached_input_tokens"), read=row.count("cache_read_input_tokens"), short=short, long=long,
        made=row.count("output_tokens"), searches=searched.count("web_search_requests"),
    )  # fmt: skip
    return Billed(day, row.text("model"), row.text("api_key_id"), usage=usage)


def _cost(row: ExportRow, day: str) -> Billed:
    if row.text("currency").upper() not in ("", "USD"):
        raise row.wrong("currency", "USD")
    amount = row.picos("amount", per_dollar=CENTS)
    return Billed(day, row.text("model", "description"), row.text("api_key_id"), usd_picos=amount)


def read_anthropic_csv(rows: Iterable[ExportRow], *, is_costs: bool) -> ProviderExport:
    """Return an export of the console's CSV, of cost or of usage. Raises `UnreadableExport`."""
    lines: list[Billed] = []
    days: list[float] = []
    for row in rows:
        days.append(row.time("usage_date_utc") // DAY_S * DAY_S)
        day, model, key = day_of(days[-1]), row.text("model_version", "model"), row.text("api_key", "api_key_id")
        if is_costs:
            amount, rounding = row.picos("cost_usd"), row.rounding_picos("cost_usd")
            lines.append(Billed(day, model, key, usd_picos=amount, rounding_picos=rounding))
        else:
            lines.append(Billed(day, model, key, usage=_console_usage(row)))
    what = "costs" if is_costs else "usage"
    since_s, until_s = min(days, default=0.0), max(days, default=-DAY_S) + DAY_S
    return ProviderExport(
        f"Anthropic {what} (CSV of the console)", "anthropic", since_s, until_s, evenly_rounded(lines)
    )


def _console_usage(row: ExportRow) -> Mapping[str, int]:
    written = row.count("usage_input_tokens_cache_write_5m") + row.count("usage_input_tokens_cache_write")
    return _classes(
        plain=row.count("usage_input_tokens_no_cache"), read=row.count("usage_input_tokens_cache_read"), short=written,
        long=row.count("usage_input_tokens_cache_write_1h"), made=row.count("usage_output_tokens"),
        searches=row.count("web_search_count"),
    )  # fmt: skip


def _classes(*, plain: int, read: int, short: int, long: int, made: int, searches: int) -> Mapping[str, int]:
    """Return the counts in Fleet's classes: all input stands in one, and its parts beside it."""
    return {
        "input_tokens": plain + read + short + long,
        "output_tokens": made,
        "cached_tokens": read,
        "cache_write_tokens": short + long,
        "cache_write_1h_tokens": long,
        "web_searches": searches,
    }
