"""Ours beside theirs: what calls of unknown cost explain, to the last pico-dollar, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.economy.exports.explaining import explained, resolutions_of, spread
from fleet.economy.exports.export import Billed, ProviderExport, Vendor
from fleet.economy.exports.matching import Cell, Finding, Ours, Scope, cells_of
from fleet.entries import Entry
from fleet.usage import Usage

#: 2026-11-28 and the day after it, Unix time.
DAY, NEXT = 1_795_824_000, 1_795_910_400
FIRST, SECOND = "2026-11-28", "2026-11-29"
LIMIT = "openai/gpt-5/default"
EVERYTHING = Scope(frozenset({"openai"}))


def export(*lines: Billed, vendor: Vendor = "openai") -> ProviderExport:
    return ProviderExport("a test's", vendor, DAY, NEXT + 86_400, lines)


def entry(name: str, picos: int | None, *, at_s: float = DAY + 1, limit: str = LIMIT) -> Entry:
    return Entry(name, "t", "p", "b", "", "k", "", limit, "", Usage(), picos, "unknown", at_s)


def billed(picos: int | None = None, *, day: str = FIRST, rounding: int = 0, key: str = "", **usage: int) -> Billed:
    return Billed(day, "gpt-5-2025-08-07", key, usage=usage, usd_picos=picos, rounding_picos=rounding)


def ours(picos: int = 0, *, day: str = FIRST, limit: str = LIMIT, **usage: int) -> Ours:
    return Ours(day, limit, 1, usage, picos)


def findings(told: ProviderExport, mine: list[Ours], unknown: list[Entry], scope: Scope = EVERYTHING) -> list[Finding]:
    cells = cells_of(told, mine, unknown, scope)
    return explained(cells, told.classes, lambda model, usage, tier: usage.total_tokens * 10)


def verdicts(found: list[Finding]) -> list[str]:
    return [finding.verdict for finding in found]


def amounts(found: list[Finding]) -> dict[str, int | None]:
    return {one.settled.id: one.settled.usd_picos for one in resolutions_of(found)}


def test_a_difference_within_what_was_reserved_is_spread_exactly_over_the_unknown_calls() -> None:
    unknown = [entry("a", 100), entry("b", 50), entry("c", 51)]
    found = findings(export(billed(1100, input_tokens=10, output_tokens=7)), [ours(1000, input_tokens=3)], unknown)
    assert verdicts(found) == ["explained"]
    assert amounts(found) == {"a": 50, "b": 25, "c": 25}
    settled = [one.settled for one in resolutions_of(found)]
    assert {one.state for one in settled} == {"settled"}
    assert (sum(one.usage.input_tokens for one in settled), sum(one.usage.output_tokens for one in settled)) == (7, 7)


@pytest.mark.parametrize(
    ("theirs", "reserved", "verdict", "why"),
    [
        (1000, [], "agrees", ""),
        (1000, [5], "explained", "1 unknown call"),
        (1005, [5], "explained", "1 unknown call"),
        (1006, [5], "differs", "reserved for the unknown ones"),
        (999, [5], "differs", "less was billed"),
        (1001, [], "differs", "another user of the key"),
        (1001, [None, 5], "differs", "without a price"),
    ],
)
def test_what_unknown_calls_cannot_explain_is_said_and_resolves_nothing(
    theirs: int, reserved: list[int | None], verdict: str, why: str
) -> None:
    unknown = [entry(str(number), picos) for number, picos in enumerate(reserved)]
    found = findings(export(billed(theirs)), [ours(1000)], unknown)
    assert verdicts(found) == [verdict] and why in found[0].why
    assert len(resolutions_of(found)) == (len(reserved) if verdict == "explained" else 0)


def test_an_unknown_call_that_nobody_billed_has_cost_nothing() -> None:
    found = findings(export(billed(5, day=SECOND)), [ours(5, day=SECOND)], [entry("a", 70)])
    assert verdicts(found) == ["explained", "agrees"]
    assert amounts(found) == {"a": 0}


def test_calls_near_midnight_agree_over_the_days_and_not_day_by_day() -> None:
    told = export(billed(90, day=FIRST), billed(120, day=SECOND))
    found = findings(told, [ours(100, day=FIRST), ours(100, day=SECOND)], [entry("a", 30)])
    assert verdicts(found) == ["explained", "explained"] and "midnight" in found[0].why
    assert amounts(found) == {"a": 10}
    assert verdicts(findings(told, [ours(100), ours(100, day=SECOND)], [])) == ["differs", "differs"]


def test_a_day_that_is_too_early_takes_no_part_in_what_other_days_explain() -> None:
    told = export(billed(130, day=FIRST), billed(60, day=SECOND))
    cells = cells_of(told, [ours(100), ours(100, day=SECOND)], [entry("a", 30), entry("b", 9, at_s=NEXT)], EVERYTHING)
    found = explained(cells, told.classes, lambda *_: None, lambda cell: cell.place.day == SECOND)
    assert verdicts(found) == ["explained", "too early"] and amounts(found) == {"a": 30}


def test_a_file_without_amounts_is_compared_by_tokens_which_must_fit_what_was_reserved() -> None:
    told = export(billed(input_tokens=100, output_tokens=20))
    mine = [ours(900, input_tokens=80, output_tokens=10)]
    assert amounts(findings(told, mine, [entry("a", 200), entry("b", 100)])) == {"a": 200, "b": 100}
    assert verdicts(findings(told, mine, [entry("a", 200), entry("b", 99)])) == ["differs"]
    assert verdicts(findings(told, mine, [])) == ["differs"]
    assert verdicts(findings(told, [ours(900, input_tokens=101, output_tokens=10)], [entry("a", 900)])) == ["differs"]
    assert verdicts(findings(told, [ours(900, input_tokens=100, output_tokens=20)], [])) == ["agrees"]


def test_amounts_that_fit_do_not_hide_tokens_that_do_not() -> None:
    found = findings(export(billed(100, input_tokens=5)), [ours(100, input_tokens=6)], [entry("a", 9)])
    assert verdicts(found) == ["differs"] and "input_tokens" in found[0].why


def test_a_file_that_rounds_to_cents_resolves_nothing_that_is_below_its_rounding() -> None:
    cent = 10**10
    coarse = export(billed(5 * cent, rounding=cent // 2))
    assert verdicts(findings(coarse, [ours(5 * cent - 7)], [entry("a", 1000)])) == ["rounded"]
    assert verdicts(findings(coarse, [ours(5 * cent - 7)], [])) == ["agrees"]
    assert amounts(findings(coarse, [ours(2 * cent)], [entry("a", 4 * cent)])) == {"a": 3 * cent}
    assert verdicts(findings(coarse, [ours(4 * cent)], [])) == ["differs"]


def test_keys_are_compared_apart_where_the_file_tells_them_and_somebody_has_said_whose_they_are() -> None:
    told = export(billed(10, key="key_a"), billed(20, key="key_b"), billed(99, key="key_of_another"))
    scope = Scope(frozenset({"one", "two"}), {"key_a": "one/default", "key_b": "two/default"})
    mine = [
        ours(10, limit="one/gpt-5/default"),
        ours(20, limit="two/gpt-5/default"),
        ours(7, limit="three/gpt-5/default"),
    ]
    assert verdicts(findings(told, mine, [], scope)) == ["agrees", "agrees"]
    assert verdicts(findings(told, mine, [], Scope(frozenset({"one", "two"})))) == ["differs"]
    of_another = [entry("a", 5, limit="two/gpt-5/second")]
    assert verdicts(findings(told, mine, of_another, scope)) == ["agrees", "agrees"]
    named = export(
        *(replace(line, provider=name) for line, name in zip(told.lines, ("one", "two", "two"), strict=True))
    )
    assert verdicts(findings(named, mine, of_another, scope)) == ["agrees", "agrees"]


def test_a_provider_of_which_the_file_tells_no_key_is_compared_with_all_of_its_keys() -> None:
    keyless = [replace(billed(picos), provider="one") for picos in (10, 21)]
    mine = [ours(10, limit="one/gpt-5/default"), ours(20, limit="one/gpt-5/second"), ours(5, limit="two/gpt-5/default")]
    of_second = [entry("a", 3, limit="one/gpt-5/second")]
    other = replace(billed(5, key="default"), provider="two")
    for told in (export(*keyless), export(*keyless, other)):
        found = findings(told, mine, of_second, Scope(frozenset(line.provider for line in told.lines)))
        assert [(one.cell.place.account, one.verdict) for one in found] == [
            ("one", "explained"), ("two/default", "agrees"),
        ][: len(found)]  # fmt: skip
        assert amounts(found) == {"a": 1}
    beside = export(*keyless, replace(billed(20, key="second"), provider="one"))  # here the others are of `default`
    assert verdicts(
        findings(beside, [ours(31, limit="one/gpt-5/default"), mine[1]], [], Scope(frozenset({"one"})))
    ) == ["agrees", "agrees"]


def test_a_file_that_does_not_tell_models_is_compared_with_all_of_them() -> None:
    told = export(Billed(FIRST, "", usd_picos=30))
    cells = cells_of(told, [ours(10), ours(20, limit="openai/gpt-5-mini/default")], [], EVERYTHING)
    assert [(cell.usd_picos, cell.their_usd_picos) for cell in cells] == [(30, 30)]


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**13), min_size=1, max_size=30))
def test_shares_are_whole_sum_up_exactly_and_leave_what_can_be_spread_again(total: int, weights: list[int]) -> None:
    total = min(total, sum(weights))
    shares = spread(total, weights)
    assert sum(shares) == total and min(shares) >= 0
    assert [share for share, weight in zip(shares, weights, strict=True) if share > weight] == []


@given(st.data())
def test_a_check_that_dies_between_two_calls_ends_at_the_same_difference_when_it_is_repeated(
    data: st.DataObject,
) -> None:
    picos = data.draw(st.lists(st.integers(0, 1000), min_size=1, max_size=12))
    unknown = [entry(str(number), reserved) for number, reserved in enumerate(picos)]
    theirs = data.draw(st.integers(0, sum(picos)))
    given_, cached = sorted((data.draw(st.integers(0, 999)), data.draw(st.integers(0, 999))), reverse=True)
    told = export(billed(theirs, input_tokens=given_, cached_tokens=cached))
    mine: list[Ours] = []
    while unknown:
        found = findings(told, mine, unknown)
        assert verdicts(found) == ["explained"]
        done = resolutions_of(found)[: data.draw(st.integers(1, len(unknown)))]
        for one in done:
            usage = one.settled.usage
            assert usage.cached_tokens <= usage.input_tokens
            mine.append(
                ours(one.settled.usd_picos or 0, input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens)
            )
        unknown = [one for one in unknown if one not in [settled.before for settled in done]]
    assert verdicts(findings(told, mine, [])) == ["agrees"]


def test_cells_of_days_add_up() -> None:
    one, other = Cell(("d", "a", "m")), Cell(("e", "a", "m"))  # type: ignore[arg-type]
    one.add_ours(ours(5, input_tokens=1))
    other.add_theirs(replace(billed(7, input_tokens=2), calls=3))
    one.add(other)
    assert (one.usd_picos, one.their_usd_picos, one.their_calls, one.calls) == (5, 7, 3, 1)
    assert one.differences(("input_tokens",)) == {"input_tokens": 1} and one.difference_usd_picos == 2
