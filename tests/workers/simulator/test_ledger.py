"""The ledger: what it sums, what it bills, what it does not show."""

from __future__ import annotations

from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.ledger import Ledger, key_label


def ledger() -> Ledger:
    return Ledger(SimulatorOptions())


def test_only_served_calls_are_billed_and_cut_ones_stand_apart() -> None:
    book = ledger()
    account = book.account("one")
    account.calls += 2
    account.serve(1000, 100, matched=True)
    account.cut_off(2000, 200, matched=False)
    total = book.report()["total"]
    assert (total["input_tokens"], total["output_tokens"], total["billed_usd_micros"]) == (1000, 100, 210)
    assert (total["cut_input_tokens"], total["cut_output_tokens"], total["cut_billed_usd_micros"]) == (2000, 200, 420)
    assert total["unmatched"] == 1
    assert total["in_flight"] == 0


def test_money_is_rounded_once_over_all_calls_and_not_call_by_call() -> None:
    book = ledger()
    for _ in range(10):
        book.account("one").serve(3, 0, matched=True)  # 0.45 micro-dollars each
    assert book.report()["total"]["billed_usd_micros"] == 4


def test_the_total_is_the_sum_of_the_keys() -> None:
    book = ledger()
    for key in ("one", "two"):
        book.account(key).calls += 1
        book.account(key).serve(10, 5, matched=True)
    report = book.report()
    assert set(report["keys"]) == {key_label("one"), key_label("two")}
    for name, value in report["total"].items():
        assert abs(value - sum(line[name] for line in report["keys"].values())) <= (1 if "usd" in name else 0)


def test_a_key_is_never_shown() -> None:
    book = ledger()
    book.account("sk-live-0123456789abcdef").reject()
    assert "0123456789" not in str(book.report())
    assert key_label("sk-live-0123456789abcdef").startswith("sk-l..")


def test_a_call_in_flight_at_a_reset_does_not_appear_afterwards() -> None:
    book = ledger()
    before = book.account("one")
    before.calls += 1
    book.reset()
    before.serve(10, 5, matched=True)
    assert book.report()["total"]["calls"] == book.report()["total"]["served"] == 0
