"""The price lists: of models whose vendors sell caches and lanes in different ways, as they were in November 2026."""

from __future__ import annotations

from benchmarks.cost.world import PriceTable

#: What is read from the cache costs a tenth; `flex` and batches cost half.
GPT_5 = PriceTable("gpt-5", "openai", {"input": 1.25, "cached": 0.125, "output": 10.0})
#: What is read from the cache costs a quarter; the same lanes.
O3 = PriceTable("o3", "openai", {"input": 2.0, "cached": 0.5, "output": 8.0})
#: Writing to the cache costs a quarter more, twice for an hour; batches, but no `flex`.
SONNET = PriceTable(
    "claude-sonnet-5", "anthropic",
    {"input": 2.0, "cached": 0.2, "cache_write": 2.5, "cache_write_1h": 4.0, "output": 10.0}, flex=None,
)  # fmt: skip
#: What is read from the cache costs half: beside the three, to show where the levers reach less.
GPT_4O = PriceTable("gpt-4o", "openai", {"input": 2.5, "cached": 1.25, "output": 10.0}, flex=None)
