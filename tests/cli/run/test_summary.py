"""The closing summary of `fleet run`, and its progress line."""

from __future__ import annotations

from typing import Any

from fleet.cli.run.progress import progress_line
from fleet.cli.run.summary import Summary


def record(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    return {"status": "ok", "error": None, "usage": usage, "cost_usd_micros": 7, "attempts": 1, **fields}


NOTHING = {"input_tokens": 0, "output_tokens": 0}


def summary_of(*records: dict[str, Any]) -> Summary:
    summary = Summary()
    for one in records:
        summary.add(one)
    return summary


def test_sums_are_over_all_records() -> None:
    failed = record(status="failed", error={"type": "BadRequest"}, usage=None, cost_usd_micros=None, attempts=0)
    sums = summary_of(record(), record(status="degraded"), failed).as_dict(new=2, wall_s=4.0)
    assert (sums["done"], sums["done_before"], sums["ok"], sums["degraded"], sums["failed"]) == (3, 1, 1, 1, 1)
    assert sums["failed_by_reason"] == {"BadRequest": 1}
    assert (sums["input_tokens"], sums["output_tokens"], sums["cost_usd_micros"]) == (20, 10, 14)
    assert sums["without_price"] == 0
    assert sums["per_s"] == 0.5


def test_the_cost_says_what_is_not_in_it() -> None:
    text = "\n".join(summary_of(record(), record(cost_usd_micros=None)).lines(new=2, wall_s=1.0))
    assert "$0.000007 plus 1 answer of models without a price" in text
    assert "simulator" not in text


def test_calls_that_failed_are_no_answers_without_a_price() -> None:
    failed = record(status="failed", error={"type": "KeyRejected"}, usage=NOTHING, cost_usd_micros=None, attempts=4)
    text = "\n".join(summary_of(record(), failed).lines(new=2, wall_s=1.0))
    assert "$0.000007" in text and "without a price" not in text


def test_tasks_far_below_a_micro_dollar_add_up() -> None:
    cheap = [record(cost_usd_micros=0, cost_usd_picos=420_000) for _ in range(1000)]
    sums = summary_of(*cheap).as_dict(new=1000, wall_s=1.0)
    assert (sums["cost_usd_micros"], sums["cost_usd_picos"]) == (420, 420_000_000)
    assert "cost      $0.000420" in summary_of(*cheap).lines(new=1000, wall_s=1.0)


def test_cached_and_thinking_tokens_are_shown_where_there_are_some() -> None:
    usage = {"input_tokens": 100, "cached_tokens": 75, "output_tokens": 20, "reasoning_tokens": 5}
    assert "tokens    100 in (75% cached), 20 out (25% thinking)" in summary_of(record(usage=usage)).lines(
        new=1, wall_s=1
    )
    assert "tokens    10 in, 5 out" in summary_of(record()).lines(new=1, wall_s=1)


def test_simulated_answers_are_named_and_not_said_to_be_billed() -> None:
    text = "\n".join(summary_of(record(simulated=True)).lines(new=1, wall_s=1.0))
    assert "not billed" in text
    assert "by the simulator: 1 of 1" in text


def test_what_was_cut_from_prompts_and_left_out_is_said() -> None:
    sums = summary_of(record(), record(cut_tokens=1200, left_out=["seed"]), record(cut_tokens=34, left_out=[]))
    assert sums.as_dict(new=3, wall_s=1.0)["cut"] == 2
    assert sums.as_dict(new=3, wall_s=1.0)["cut_tokens"] == 1234
    assert sums.as_dict(new=3, wall_s=1.0)["left_out"] == {"seed": 1}
    text = "\n".join(sums.lines(new=3, wall_s=1.0))
    assert "cut       2 prompts to fit a context window: 1,234 tokens" in text
    assert "left out  seed in 1 task: the model refuses it" in text
    assert "cut " not in "\n".join(summary_of(record()).lines(new=1, wall_s=1.0))


def test_a_progress_line_knows_the_time_left_only_with_a_total() -> None:
    assert progress_line(done=50, total=150, rate=10.0, note="2 failed") == "50 of 150, 10.0/s, 10 s left, 2 failed"
    assert progress_line(done=50, total=None, rate=10.0, note="") == "50, 10.0/s"
