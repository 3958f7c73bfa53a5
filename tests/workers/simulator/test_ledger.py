"""The ledger: what it sums, what it bills, what it does not show."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fleet.config import PriceSettings
from fleet.economy.rates import configured_rates
from fleet.usage import Usage
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.ledger import Classes, Ledger, Served, key_label

#: Prices that differ in each class, one of them no whole number of pico-dollars a token.
PRICES = {
    "input_usd_per_mtok": 0.15, "output_usd_per_mtok": 0.60, "cached_usd_per_mtok": 0.0375,
    "cache_write_usd_per_mtok": 0.1875, "cache_write_1h_usd_per_mtok": 0.2999995,
}  # fmt: skip


def ledger() -> Ledger:
    return Ledger(SimulatorOptions(), now_s=lambda: 0.0)


def serve(book: Ledger, key: str, *, given: int, made: int) -> None:
    book.account(key).calls += 1
    book.serve(book.account(key), Served("m", given, made))


def test_only_served_calls_are_billed_and_cut_ones_stand_apart() -> None:
    book = ledger()
    serve(book, "one", given=1000, made=100)
    book.account("one").calls += 1
    book.cut_off(book.account("one"), Served("m", 2000, 200, matched=False))
    total = book.report()["total"]
    assert (total["input_tokens"], total["output_tokens"], total["billed_usd_micros"]) == (1000, 100, 210)
    assert (total["cut_input_tokens"], total["cut_output_tokens"], total["cut_billed_usd_micros"]) == (2000, 200, 420)
    assert (total["billed_usd_picos"], total["cut_billed_usd_picos"]) == (210 * 10**6, 420 * 10**6)
    assert total["unmatched"] == 1
    assert total["in_flight"] == 0


def test_money_is_exact_and_micro_dollars_are_rounded_once_over_all_calls() -> None:
    book = ledger()
    for _ in range(10):
        serve(book, "one", given=3, made=0)  # 0.45 micro-dollars each
    total = book.report()["total"]
    assert (total["billed_usd_picos"], total["billed_usd_micros"]) == (4_500_000, 5)


@pytest.mark.parametrize("tier", [None, "flex", "priority"])
def test_each_class_and_tier_is_billed_to_the_pico_dollar_as_fleet_prices_it(tier: str | None) -> None:
    book = Ledger(SimulatorOptions(**PRICES))
    used = Classes(cached=1024, written=256, written_long=37, thinking=11, tier=tier)
    for number in range(7):
        book.serve(book.account("one"), Served("m", 2000 + number, 31, used))
    factor = {"flex": Fraction(1, 2), "priority": Fraction(2)}.get(tier or "", Fraction(1))
    priced = {name: float(Fraction(str(price)) * factor) for name, price in PRICES.items()}
    rates = configured_rates(PriceSettings(**priced), None)
    assert rates is not None
    usage = {"cached_tokens": 1024, "cache_write_tokens": 293, "cache_write_1h_tokens": 37, "reasoning_tokens": 11}
    ours = sum(rates.cost_usd_picos(Usage(input_tokens=2000 + n, output_tokens=31, **usage)) for n in range(7))
    total = book.report()["total"]
    assert total["billed_usd_picos"] == ours
    assert {name: total[name] for name in usage if name in total} | {"reasoning_tokens": total["thinking_tokens"]} == {
        name: count * 7 for name, count in usage.items()
    }


def test_the_total_is_the_sum_of_the_keys_and_of_the_lines_by_day_model_and_tier() -> None:
    now_s = [0.0]
    book = Ledger(SimulatorOptions(), now_s=lambda: now_s[0])
    for now_s[0] in (0.0, 86_400.0):
        for key in ("one", "two"):
            serve(book, key, given=10, made=5)
            book.serve(book.account(key), Served("other", 10, 5, Classes(tier="flex")))
            book.cut_off(book.account(key), Served("other", 10, 5, Classes(tier="flex")))
    report = book.report()
    assert set(report["keys"]) == {key_label("one"), key_label("two")}
    for name, value in report["total"].items():
        assert abs(value - sum(line[name] for line in report["keys"].values())) <= (1 if "micros" in name else 0)
    lines = report["usage"]
    assert len(lines) == 8 and {line["day"] for line in lines} == {"1970-01-01", "1970-01-02"}
    for name in ("served", "cut", "input_tokens", "billed_usd_picos", "cut_billed_usd_picos"):
        assert sum(line[name] for line in lines) == report["total"][name] > 0
    flex = [line for line in lines if line["tier"] == "flex"]
    assert {line["model"] for line in flex} == {"other"}
    assert {line["billed_usd_picos"] for line in flex} == {line["cut_billed_usd_picos"] for line in flex}


def test_a_key_is_never_shown() -> None:
    book = ledger()
    book.account("sk-live-0123456789abcdef").reject()
    serve(book, "sk-live-0123456789abcdef", given=1, made=1)
    assert "0123456789" not in str(book.report())
    assert key_label("sk-live-0123456789abcdef").startswith("sk-l..")


def test_a_call_in_flight_at_a_reset_does_not_appear_afterwards() -> None:
    book = ledger()
    before = book.account("one")
    before.calls += 1
    book.reset()
    book.serve(before, Served("m", 10, 5))
    assert book.report()["total"]["calls"] == book.report()["total"]["served"] == 0
