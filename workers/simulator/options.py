"""How a simulator behaves, as one frozen value with its checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_args

from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.workers.simulator.limits import Mode
from fleet.workers.simulator.wires.limit_headers import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """Limits, failures, answers and prices of one simulator.

    Args:
        rpm: Requests per minute and key and model.
        tpm: Tokens per minute and key and model, input and output together.
        burst: Share of a minute that may go at once, in mode "bucket".
        mode: How calls are counted: "bucket", "sliding" (any minute) or "fixed" (minutes of the clock).
        rpd: Requests per day and key and model; None: not limited by the day. Headers then tell of the day's requests.
        in_flight: Calls of a key at the same time; None: no limit.
        headers: How limits are told in headers.
        minute_s: Seconds that a minute of `rpm` and `tpm` lasts; below 60 to compress time in benchmarks.
        seed: Decides every latency, failure and generated answer.
        latency_ms: Median time to an answer; 0 answers at once.
        error_rate: Share of admitted calls answered with a 5xx.
        hang_rate: Share of admitted calls never answered.
        cut_rate: Share of admitted calls whose connection is closed in the middle of the body.
        flex_busy_rate: Share of calls of the tier `flex` that are refused for want of capacity.
        agents: Every model that is offered tools acts as an agent's: `rich/acting.py`.
        loop_share: Share of the bots (system prompt and temperature) whose agents make the same call for ever.
        answers: JSONL file of recorded answers, or None to generate all.
        answer_field: Where the answer stands in a record, dots between levels. Of several fields, commas between them,
            voices (system prompt and temperature) get one each, in turn: bots of different models.
        question_field: Where the question stands in a record.
        input_usd_per_mtok: Price of a million input tokens in US dollars.
        output_usd_per_mtok: Price of a million output tokens in US dollars.
        cached_usd_per_mtok: Price of a million input tokens read from the prefix cache; None: as other input.
        cache_write_usd_per_mtok: Price of a million input tokens written to it for 5 minutes; None: as other input.
        cache_write_1h_usd_per_mtok: The same for those that are kept for an hour.
        cache_places: Places of prompts that the prefix caches remember, one in 512 characters (150 bytes each).
        cache_machine_rpm: Calls a minute that begin alike, with one `prompt_cache_key`, that one machine takes on
            OpenAI's wires; others have caches of their own. About 15 there; None: any number.
        flex_factor: Price of the tier `flex` against the standard one.
        priority_factor: Price of the tier `priority` against the standard one.
        batch_factor: Price of a batch against the standard one.
        batch_cached_factor: The same for what is read from the prefix cache in a batch; None: `batch_factor`.
            1: batches give no discount on it, as with some models.
        background_2h_factor: Price of a background response with a window of two hours against the standard one.
        background_8h_factor: The same with eight hours.
        clock_speed: Seconds of the provider's clock in a real one. It has windows, lives of files and caches, and the
            delays of batches.
        batch_median_s: Seconds of the clock that half of the batches take at most.
        batch_p95_s: Seconds that 95% of them take at most.
        batch_queue_tokens: Input tokens of a key and model that may wait in OpenAI's batches; None: no limit.
        admin_token: Lets its holder use the ledger and the switches from elsewhere; None: only this machine may.

    Raises:
        ConfigurationError: When a value is out of its range.
    """

    rpm: int = 6000
    tpm: int = 3_000_000
    burst: float = 0.05
    mode: Mode = "bucket"
    rpd: int | None = None
    in_flight: int | None = None
    headers: Family = "both"
    minute_s: float = 60.0
    seed: int = 0
    latency_ms: float = 0.0
    error_rate: float = 0.0
    hang_rate: float = 0.0
    cut_rate: float = 0.0
    flex_busy_rate: float = 0.0
    agents: bool = False
    loop_share: float = 0.0
    answers: Path | None = None
    answer_field: str = "answer"
    question_field: str = "question"
    input_usd_per_mtok: float = 0.15
    output_usd_per_mtok: float = 0.60
    cached_usd_per_mtok: float | None = None
    cache_write_usd_per_mtok: float | None = None
    cache_write_1h_usd_per_mtok: float | None = None
    cache_places: int = 100_000
    cache_machine_rpm: int | None = None
    flex_factor: float = 0.5
    priority_factor: float = 2.0
    batch_factor: float = 0.5
    batch_cached_factor: float | None = None
    background_2h_factor: float = 0.7
    background_8h_factor: float = 0.6
    clock_speed: float = 1.0
    batch_median_s: float = 600.0
    batch_p95_s: float = 7200.0
    batch_queue_tokens: int | None = None
    admin_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigurationError(f"{one.name}: expected a finite number, got {quote(value)}")
        self._check("rpm", self.rpm >= 1, "at least 1")
        self._check("tpm", self.tpm >= 1, "at least 1")
        self._check("cache_places", self.cache_places >= 0, "0 or more")
        self._check("mode", self.mode in get_args(Mode), f"one of {', '.join(get_args(Mode))}")
        self._check("headers", self.headers in get_args(Family), f"one of {', '.join(get_args(Family))}")
        for name in ("rpd", "in_flight", "batch_queue_tokens", "cache_machine_rpm"):
            self._check(name, getattr(self, name) is None or getattr(self, name) >= 1, "at least 1, or nothing")
        self._check("burst", 0 < self.burst <= 1, "a share above 0, at most 1")
        self._check("minute_s", self.minute_s > 0, "more than 0 seconds")
        self._check("latency_ms", self.latency_ms >= 0, "0 or more")
        for name in ("error_rate", "hang_rate", "cut_rate", "flex_busy_rate", "loop_share"):
            self._check(name, 0 <= getattr(self, name) <= 1, "a share from 0 to 1")
        for one in fields(self):
            if one.name.endswith(("_usd_per_mtok", "_factor")) and getattr(self, one.name) is not None:
                self._check(one.name, getattr(self, one.name) >= 0, "0 or more")
        self._check("clock_speed", self.clock_speed > 0, "more than 0")
        self._check("batch_median_s", self.batch_median_s >= 0, "0 seconds or more")
        self._check("batch_p95_s", self.batch_p95_s >= self.batch_median_s, "at least batch_median_s")
        failing = self.error_rate + self.hang_rate + self.cut_rate
        if failing > 1:
            raise ConfigurationError(
                f"expected error_rate, hang_rate and cut_rate to be at most 1 together, got {failing:g}"
            )

    def _check(self, name: str, fits: bool, expected: str) -> None:
        if not fits:
            raise ConfigurationError(f"{name}: expected {expected}, got {quote(getattr(self, name))}")
