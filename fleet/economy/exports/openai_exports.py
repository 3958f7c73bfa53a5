"""OpenAI's exports: `organization/usage/completions` and `organization/costs` as JSON, and the dashboard's two CSVs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.economy.exports.export import Billed, ProviderExport, day_between, evenly_rounded
from fleet.economy.exports.fields import ExportRow, objects

#: Marks of a result in JSON.
USAGE, COSTS = "organization.usage.completions.result", "organization.costs.result"
#: Column -> class of usage.
_CLASSES = {
    "input_tokens": "input_tokens", "output_tokens": "output_tokens", "input_cached_tokens": "cached_tokens",
    "input_cache_write_tokens": "cache_write_tokens",
}  # fmt: skip
#: Columns of sounds and images: whether other counts hold them, too, differs by the age of the export.
_APART = ("input_audio_tokens", "output_audio_tokens", "input_image_tokens", "output_image_tokens")


@dataclass(frozen=True, slots=True)
class ExportBucket:
    """Results of one piece of time."""

    since_s: float
    until_s: float
    results: Sequence[ExportRow]


def read_openai(pages: Iterable[Mapping[str, Any]]) -> ProviderExport:
    """Return an export of pages of either API. Raises `UnreadableExport`."""
    kept = list(pages)
    buckets = list(_buckets(kept))
    is_costs = any(row.text("object") == COSTS or row.has("amount") for bucket in buckets for row in bucket.results)
    other = {row.text("object") for bucket in buckets for row in bucket.results} - {USAGE, COSTS, ""}
    notes = [f"{name.rpartition('organization.')[2]}: not compared, since it is no call of a model" for name in other]
    partial = bool(kept and kept[-1].get("has_more"))
    kind = "OpenAI costs (organization/costs)" if is_costs else "OpenAI usage (organization/usage/completions)"
    return _export(kind, buckets, sorted(notes), is_costs=is_costs, is_partial=partial)


def read_openai_csv(rows: Iterable[ExportRow], *, is_costs: bool) -> ProviderExport:
    """Return an export of the dashboard's CSV, of costs or of activity. Raises `UnreadableExport`."""
    buckets = [ExportBucket(row.time("start_time"), row.time("end_time"), [row]) for row in rows]
    what = "costs" if is_costs else "usage"
    return _export(f"OpenAI {what} (CSV of the dashboard)", buckets, [], is_costs=is_costs, is_partial=False)


def _buckets(pages: Iterable[Mapping[str, Any]]) -> Iterator[ExportBucket]:
    number = 0
    for page in pages:
        for told in objects(page.get("data"), "data"):
            number += 1
            bucket = ExportRow(told, f"bucket {number}")
            results = objects(told.get("results") or told.get("result"), f"bucket {number}, results")
            rows = [ExportRow(result, f"bucket {number}") for result in results]
            yield ExportBucket(bucket.time("start_time"), bucket.time("end_time"), rows)


def _export(
    kind: str, buckets: Sequence[ExportBucket], notes: Sequence[str], *, is_costs: bool, is_partial: bool
) -> ProviderExport:
    read = _cost if is_costs else _usage
    lines = [
        read(row, day_between(bucket.since_s, bucket.until_s))
        for bucket in buckets
        for row in bucket.results
        if row.text("object") in (USAGE, COSTS, "") and (row.has("amount") or row.has("amount_value")) == is_costs
    ]
    apart = [name for name in _APART if any(row.count(name) for bucket in buckets for row in bucket.results)]
    notes = [*notes, *(f"{name}: not compared" for name in apart)]
    since_s = min((bucket.since_s for bucket in buckets), default=0.0)
    until_s = max((bucket.until_s for bucket in buckets), default=0.0)
    return ProviderExport(kind, "openai", since_s, until_s, evenly_rounded(lines), tuple(notes), is_partial)


def _usage(row: ExportRow, day: str) -> Billed:
    usage = {name: row.count(column) for column, name in _CLASSES.items() if row.has(column)}
    calls = row.count("num_model_requests") if row.has("num_model_requests") else None
    return Billed(day, row.text("model"), row.text("api_key_id"), calls=calls, usage=usage)


def _cost(row: ExportRow, day: str) -> Billed:
    """An item is a model and what of it: `gpt-4o-mini-2024-07-18, input`; else something that is no model."""
    amount, name = (row.inner("amount"), "value") if row.has("amount") else (row, "amount_value")
    currency = amount.text("currency", "amount_currency") or "usd"
    if currency.lower() != "usd":
        raise amount.wrong("currency" if name == "value" else "amount_currency", "usd")
    item = row.text("line_item")
    model = item.partition(",")[0] if "," in item else item
    rounding = amount.rounding_picos(name) if name == "amount_value" else 0  # the API tells all decimals, but no zeros
    return Billed(day, model, row.text("api_key_id"), usd_picos=amount.picos(name), rounding_picos=rounding)
