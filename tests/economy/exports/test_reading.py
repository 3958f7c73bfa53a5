"""Exports of providers: each kind is recognised by what stands in it, and read into Fleet's classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.economy.exports.export import Billed, ProviderExport, UnreadableExport, model_name
from fleet.economy.exports.reading import read_export
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.ledger import Classes, Ledger, Served, key_label

#: 2026-11-28 and the day after it, Unix time.
DAY, NEXT = 1_795_824_000, 1_795_910_400


def read(tmp_path: Path, told: Any) -> ProviderExport:
    path = tmp_path / "export"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return read_export(path)


def bucket(*results: dict[str, Any], start: int = DAY, end: int = NEXT) -> dict[str, Any]:
    return {"object": "bucket", "start_time": start, "end_time": end, "results": list(results)}


def page(*buckets: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "page", "data": list(buckets), "has_more": has_more, "next_page": None}


OPENAI_USAGE = {
    "object": "organization.usage.completions.result", "input_tokens": 5000, "output_tokens": 1000,
    "input_cached_tokens": 4000, "input_cache_write_tokens": 500, "input_audio_tokens": 3, "num_model_requests": 5,
    "project_id": None, "user_id": None, "api_key_id": "key_abc", "model": "gpt-4o-mini-2024-07-18", "batch": False,
    "service_tier": "default",
}  # fmt: skip


def test_openais_usage_is_read_and_what_is_not_compared_is_said(tmp_path: Path) -> None:
    other = {"object": "organization.usage.embeddings.result", "input_tokens": 9, "num_model_requests": 1}
    told = read(tmp_path, page(bucket(OPENAI_USAGE, other)))
    usage = {"input_tokens": 5000, "output_tokens": 1000, "cached_tokens": 4000, "cache_write_tokens": 500}
    assert told.lines == (Billed("2026-11-28", "gpt-4o-mini-2024-07-18", "key_abc", calls=5, usage=usage),)
    assert (told.vendor, told.since_s, told.until_s, told.has_amounts) == ("openai", DAY, NEXT, False)
    assert "organization/usage/completions" in told.kind
    assert any("embeddings" in note for note in told.notes) and any("audio" in note for note in told.notes)


def test_openais_costs_are_read_to_the_pico_dollar_and_a_currency_is_no_number(tmp_path: Path) -> None:
    def cost(value: str, item: str | None, currency: str = "usd") -> str:
        return (
            f'{{"object": "organization.costs.result", "amount": {{"value": {value}, "currency": "{currency}"}}, '
            f'"line_item": {json.dumps(item)}, "project_id": null}}'
        )

    def pages(*costs: str) -> str:
        results = ", ".join(costs)
        return f'{{"object": "page", "data": [{{"start_time": {DAY}, "end_time": {NEXT}, "results": [{results}]}}]}}'

    told = read(tmp_path, pages(cost("0.123456789012", "gpt-4o-mini-2024-07-18, input"), cost("6e-05", None)))
    assert [(line.model, line.usd_picos) for line in told.lines] == [
        ("gpt-4o-mini-2024-07-18", 123_456_789_012), ("", 60_000_000),
    ]  # fmt: skip
    assert told.lines[0].rounding_picos == 0
    with pytest.raises(UnreadableExport, match="expected usd, got 'eur'"):
        read(tmp_path, pages(cost("1", None, "eur")))


def test_a_page_of_several_says_so_and_pages_may_follow_each_other_in_one_file(tmp_path: Path) -> None:
    assert read(tmp_path, page(bucket(OPENAI_USAGE), has_more=True)).is_partial
    second = page(bucket(OPENAI_USAGE, start=NEXT, end=NEXT + 86_400))
    for text in (
        json.dumps([page(bucket(OPENAI_USAGE), has_more=True), second]),
        json.dumps(page(bucket(OPENAI_USAGE), has_more=True)) + "\n" + json.dumps(second, indent=1),
    ):
        told = read(tmp_path, text)
        assert (len(told.lines), told.is_partial, told.until_s) == (2, False, NEXT + 86_400)


def test_buckets_of_an_hour_are_of_their_day_and_those_of_a_week_of_none(tmp_path: Path) -> None:
    hours = [bucket(OPENAI_USAGE, start=DAY + 3600 * n, end=DAY + 3600 * (n + 1)) for n in (0, 23)]
    assert {line.day for line in read(tmp_path, page(*hours)).lines} == {"2026-11-28"}
    assert not read(tmp_path, page(bucket(OPENAI_USAGE, end=DAY + 7 * 86_400))).by_day


def test_the_csvs_of_openais_dashboard_are_read(tmp_path: Path) -> None:
    head = "start_time,end_time,start_time_iso,end_time_iso"
    costs = read(
        tmp_path,
        f"\ufeff{head},amount_value,amount_currency,line_item,project_id,api_key_id\n"
        f'{DAY},{NEXT},2026-11-28T00:00:00+00:00,x,0.5,usd,"gpt-5, output",proj_1,key_abc\n',
    )
    assert costs.lines == (Billed("2026-11-28", "gpt-5", "key_abc", usd_picos=5 * 10**11, rounding_picos=5 * 10**9),)
    usage = read(
        tmp_path,
        f"{head},num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n{DAY},{NEXT},x,x,2,gpt-5,10,3,\n",
    )
    assert usage.lines == (Billed("2026-11-28", "gpt-5", calls=2, usage={"input_tokens": 10, "output_tokens": 3}),)


def anthropic(*results: dict[str, Any]) -> dict[str, Any]:
    times = {"starting_at": "2026-11-28T00:00:00Z", "ending_at": "2026-11-29T00:00:00Z"}
    return {"data": [{**times, "results": list(results)}], "has_more": False, "next_page": None}


def test_anthropics_usage_is_read_into_our_classes_where_all_input_is_one(tmp_path: Path) -> None:
    result = {
        "uncached_input_tokens": 100,
        "cache_creation": {"ephemeral_1h_input_tokens": 30, "ephemeral_5m_input_tokens": 20},
        "cache_read_input_tokens": 850, "output_tokens": 40, "server_tool_use": {"web_search_requests": 2},
        "api_key_id": "apikey_1", "workspace_id": None, "model": "claude-haiku-4-5-20251001",
        "service_tier": "standard", "context_window": "0-200k",
    }  # fmt: skip
    told = read(tmp_path, anthropic(result))
    assert told.lines[0].usage == {
        "input_tokens": 1000, "output_tokens": 40, "cached_tokens": 850, "cache_write_tokens": 50,
        "cache_write_1h_tokens": 30, "web_searches": 2,
    }  # fmt: skip
    assert (told.vendor, told.since_s, told.until_s, told.lines[0].day) == ("anthropic", DAY, NEXT, "2026-11-28")


def test_anthropics_costs_are_in_cents(tmp_path: Path) -> None:
    result = {"amount": "123.78912", "currency": "USD", "model": "claude-opus-5", "cost_type": "tokens"}
    (line,) = read(tmp_path, anthropic(result)).lines
    assert (line.usd_picos, line.rounding_picos) == (1_237_891_200_000, 0)


def test_zeros_and_short_amounts_do_not_make_a_file_coarser_than_it_is(tmp_path: Path) -> None:
    exact = [{"object": "organization.costs.result", "amount": {"value": value}} for value in (0, 0, 0, 2, 1.5)]
    assert {line.rounding_picos for line in read(tmp_path, page(bucket(*exact))).lines} == {0}
    cents = [{"amount": value, "currency": "USD", "model": "m"} for value in ("0", "7", "1.25")]
    assert {line.rounding_picos for line in read(tmp_path, anthropic(*cents)).lines} == {0}
    for text in (
        "day,usd\n" + "2026-11-28,0\n" * 3 + "2026-11-28,0.0001\n",
        "start_time,end_time,amount_value\n" + f"{DAY},{NEXT},0\n" * 3 + f"{DAY},{NEXT},0.0001\n",
    ):
        assert [line.rounding_picos for line in read(tmp_path, text).lines] == [50_000_000] * 4


def test_the_csvs_of_anthropics_console_are_read_and_their_costs_are_rounded_to_cents(tmp_path: Path) -> None:
    usage = read(
        tmp_path,
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
        "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
        "usage_output_tokens,web_search_count,inference_geo,speed\n"
        '2026-11-28,claude-opus-5,bots,Default,standard,≤ 200k,"1,000",20,30,850,40,0,,\n',
    )
    assert usage.lines[0].usage["input_tokens"] == 1900 and usage.lines[0].key == "bots"
    costs = read(
        tmp_path,
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n"
        "2026-11-28,Claude Haiku 4.5,Default,bots,message,≤ 200k,input_no_cache,0.05,0.05,token\n",
    )
    assert (costs.lines[0].usd_picos, costs.lines[0].rounding_picos) == (5 * 10**10, 5 * 10**9)
    assert (costs.since_s, costs.until_s) == (DAY, NEXT)


@pytest.mark.parametrize(
    "text",
    [
        "day,model,key,provider,calls,input_tokens,output_tokens,usd,colour\n2026-11-28,m,k,p,2,10,3,0.000001,red\n",
        '{"day": "2026-11-28", "model": "m", "key": "k", "provider": "p", "calls": 2, "input_tokens": 10, '
        '"output_tokens": 3, "usd": 0.000001, "colour": "red"}\n',
        "day;model;key;provider;calls;input_tokens;output_tokens;usd_picos;colour\n"
        "2026-11-28T23:59:59Z;m;k;p;2;10;3;1000000;red\n",
    ],
    ids=["csv", "json lines", "semicolons"],
)
def test_a_plain_file_is_read_and_a_column_that_is_not_known_is_said(tmp_path: Path, text: str) -> None:
    told = read(tmp_path, text)
    (line,) = told.lines
    usage = {"input_tokens": 10, "output_tokens": 3}
    assert (line.day, line.model, line.key, line.provider, line.calls) == ("2026-11-28", "m", "k", "p", 2)
    assert (line.usage, line.usd_picos) == (usage, 10**6)
    assert told.notes == ("column 'colour': not known, not compared",)


def test_the_simulators_ledger_is_read_with_what_was_cut(tmp_path: Path) -> None:
    book = Ledger(SimulatorOptions(), now_s=lambda: float(DAY))
    account = book.account("sk-one")
    account.calls += 3
    book.serve(account, Served("m", 100, 10, Classes(tier="flex")))
    book.cut_off(account, Served("m", 50, 5))
    told = read(tmp_path, book.report())
    assert told.vendor == "simulator" and told.is_partial  # a call is in flight
    total = book.report()["total"]
    assert sum(line.usd_picos or 0 for line in told.lines) == total["billed_usd_picos"] + total["cut_billed_usd_picos"]
    assert {line.key for line in told.lines} == {key_label("sk-one")}
    assert sum(line.usage["input_tokens"] for line in told.lines) == 150


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an empty file"),
        ("{", "line 1: expected JSON"),
        ("[1]", "expected JSON objects"),
        ('{"data": [{"results": []}]}', "start_time"),
        ("a,b\n1,2\n", "expected an export of OpenAI or Anthropic"),
        ("day,usd\n2026-11-28,much\n", "line 2: usd: expected a number, got 'much'"),
        ("day,calls,usd\n2026-11-28,1.5,1\n", "line 2: calls: expected a whole number"),
        ("day,usd\nyesterday,1\n", "line 2: day: expected a date"),
        ("day,usd\n2026-11-28,NaN\n", "a number that can be"),
        ("day,usd\n2026-11-28,1e999999\n", "a number that can be"),
        ("day,usd\n", "expected lines of usage or costs, got none"),
        ('{"simulator": true}', "GET /ledger"),
        ("[" * 100_000, "expected JSON"),
        ('{"day": "2026-11-28", "usd": ' + "1" * 5000 + "}", "expected JSON"),
        ('{"day": "2026-11-28", "usd": 1e99999999999999999999}', "expected JSON"),
        ('{"data": [5, {"start_time": 1, "end_time": 2}]}', "data: expected a list of objects, got 5"),
        ('{"data": [{"start_time": 1, "end_time": 2}]} {"data": 5}', "data: expected a list of objects, got 5"),
        ('{"data": [{"start_time": 1, "end_time": 2, "results": 5}]}', "bucket 1, results: expected a list"),
        ('{"data": [{"start_time": 1, "end_time": 2, "results": [[]]}]}', "bucket 1, results: expected a list"),
        ('{"data": [5, {"starting_at": 1, "ending_at": 2}]}', "data: expected a list of objects, got 5"),
        ('{"data": [{"starting_at": 1, "ending_at": 2, "results": "no"}]}', "bucket 1, results: expected a list"),
        (
            '{"data": [{"starting_at": 1, "ending_at": 2, "results": [{"cache_creation": 5}]}]}',
            "cache_creation: expected an object",
        ),
        ('{"simulator": true, "usage": [5], "period": {"since_s": 1, "until_s": 2}}', "usage: expected a list"),
        ('{"simulator": true, "usage": [], "period": 5}', "period: expected an object"),
        ('{"simulator": true, "usage": [], "period": {"since_s": 1, "until_s": 2}, "total": 5}', "total: expected"),
        (
            '{"simulator": true, "usage": [{"day": "x", "billed_usd_picos": 1, "cut_billed_usd_picos": 1}]}',
            "day: expected a date",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_place_and_reason(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UnreadableExport, match=r".") as raised:
        read(tmp_path, text)
    assert says in str(raised.value) and len(str(raised.value)) < 1000


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_bytes(b"day,usd\n\xff")
    with pytest.raises(UnreadableExport, match="UTF-8"):
        read_export(path)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"), ("GPT-4o mini", "gpt-4o-mini"), ("gpt-4-0613", "gpt-4"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"), ("Claude Haiku 4.5", "claude-haiku-4-5"),
        ("Claude 3.5 Sonnet 2024-10-22", "claude-3-5-sonnet"), ("claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
        ("gpt-5", "gpt-5"), ("simulated-1", "simulated-1"),
    ],
)  # fmt: skip
def test_models_are_the_same_whichever_snapshot_or_spelling(told: str, name: str) -> None:
    assert model_name(told) == name
