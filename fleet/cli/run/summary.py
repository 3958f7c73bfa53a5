"""What a run came to: counts, failures by reason, tokens, money. Fed with the records of OUT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.money import PICOS_PER_MICRO, dollars_of, micros_of
from fleet.quoting import counted, duration


class Summary:
    """Sums over answer records."""

    def __init__(self) -> None:
        self.done = 0
        self.by_status: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        #: Reason -> what the first task that failed for it was told.
        self.examples: dict[str, str] = {}
        self.input_tokens = 0
        self.output_tokens = 0
        self.cached_tokens = 0
        self.reasoning_tokens = 0
        self.cost_usd_picos = 0
        #: Answers whose model has no price: the cost is what the others cost.
        self.unpriced = 0
        self.simulated = 0
        #: Answers by rung of a fallback ladder and model.
        self.fallbacks: Counter[str] = Counter()
        #: Answers of equal tasks: they cost nothing.
        self.cached = 0
        #: Answers that were asked for once more on a faster lane, by the lane that would have been late.
        self.races: Counter[str] = Counter()
        #: Tasks whose prompt was cut, the tokens that were cut in all, and tasks that were asked without something.
        self.cut = self.cut_tokens = 0
        self.left_out: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        return self.by_status["failed"]

    def add(self, record: Mapping[str, Any]) -> None:
        """Count one record."""
        self.done += 1
        self.by_status[str(record.get("status"))] += 1
        if error := record.get("error"):
            reason = str(error.get("type"))
            self.reasons[reason] += 1
            self.examples.setdefault(reason, str(error.get("message") or ""))
        usage = record.get("usage") or {}
        self.input_tokens += usage.get("input_tokens", 0)
        self.output_tokens += usage.get("output_tokens", 0)
        self.cached_tokens += usage.get("cached_tokens", 0)
        self.reasoning_tokens += usage.get("reasoning_tokens", 0)
        cost, picos = record.get("cost_usd_micros"), record.get("cost_usd_picos")
        self.cost_usd_picos += (cost or 0) * PICOS_PER_MICRO if picos is None else picos
        is_answered = any(usage.values())  # calls that failed have no price, and need none
        self.unpriced += cost is None and is_answered and not record.get("simulated")
        self.simulated += bool(record.get("simulated"))
        served = str(record.get("served_by") or "")
        if served.startswith("fallback ") and record.get("status") != "failed":
            self.fallbacks[f"{served} ({record.get('model') or 'a text'})"] += 1
        self.cached += served == "cache"
        if served.startswith("race "):
            self.races[served.removeprefix("race ")] += 1
        self.cut += bool(record.get("cut_tokens"))
        self.cut_tokens += record.get("cut_tokens") or 0
        self.left_out.update(record.get("left_out") or ())

    def as_dict(self, *, new: int, wall_s: float) -> dict[str, Any]:
        """Return the sums as JSON-ready values.

        Args:
            new: Records written by this run; the others were in OUT before.
            wall_s: Duration of this run in seconds.
        """
        return {
            "done": self.done,
            "done_before": self.done - new,
            "ok": self.by_status["ok"],
            "degraded": self.by_status["degraded"],
            "failed": self.failed,
            "failed_by_reason": dict(self.reasons.most_common()),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "cost_usd_micros": micros_of(self.cost_usd_picos),
            "cost_usd_picos": self.cost_usd_picos,
            "without_price": self.unpriced,
            "simulated": self.simulated,
            "of_equal_tasks": self.cached,
            "fallbacks": dict(self.fallbacks.most_common()),
            "races": dict(self.races.most_common()),
            "cut": self.cut,
            "cut_tokens": self.cut_tokens,
            "left_out": dict(self.left_out.most_common()),
            "wall_s": round(wall_s, 3),
            "per_s": round(new / wall_s, 1) if wall_s > 0 else 0.0,
        }

    def lines(self, *, new: int, wall_s: float) -> Iterator[str]:
        """Yield the summary for a person."""
        before = f" ({self.done - new:,} of them before)" if self.done > new else ""
        yield f"done      {self.done:,}{before}: {self.by_status['ok']:,} ok, {self._others()}"
        for reason, count in self.reasons.most_common():
            first = self.examples[reason]
            yield f"          {count:,} x {reason}{f', the first: {first}' if first else ''}"
        yield f"tokens    {self._tokens()}"
        yield f"cost      {self._cost()}"
        if new:
            yield f"time      {duration(wall_s)}, {new / max(wall_s, 1e-9):,.1f} tasks/s"
        if self.cut:
            prompts = counted(self.cut, "prompt")
            yield f"cut       {prompts} to fit a context window: {self.cut_tokens:,} tokens (`cut_tokens` of a result)"
        for name, count in self.left_out.most_common():
            yield f"left out  {name} in {counted(count, 'task')}: the model refuses it"
        for rung, count in self.fallbacks.most_common():
            yield f"fallback  {counted(count, 'answer')} of {rung}"
        if self.cached:
            yield f"equal     {counted(self.cached, 'task')} got the answer of an equal one, for nothing"
        for lane, count in self.races.most_common():
            yield f"raced     {counted(count, 'answer')} of {lane} would have been late: both calls are on the bill"
        if self.simulated:
            yield f"answered  by the simulator: {self.simulated:,} of {self.done:,}"

    def _others(self) -> str:
        return f"{self.by_status['degraded']:,} degraded, {self.failed:,} failed"

    def _tokens(self) -> str:
        cached = f" ({self.cached_tokens / self.input_tokens:.0%} cached)" if self.cached_tokens else ""
        thinking = f" ({self.reasoning_tokens / self.output_tokens:.0%} thinking)" if self.reasoning_tokens else ""
        return f"{self.input_tokens:,} in{cached}, {self.output_tokens:,} out{thinking}"

    def _cost(self) -> str:
        known = f"${dollars_of(self.cost_usd_picos):,.6f}"
        if self.simulated:
            known += " (simulated answers are not billed)" if self.simulated == self.done else " (simulated ones too)"
        if not self.unpriced:
            return known
        return f"{known} plus {counted(self.unpriced, 'answer')} of models without a price ([prices] in fleet.toml)"
