"""`fleet bill` on a real Redis: what it shows, in which forms, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from fleet.cli.main import main
from fleet.cli.setup.checks import bill_export
from fleet.cli.setup.findings import HostFacts
from fleet.config import BillSettings, Settings
from fleet.economy.bill.reader import DIMENSIONS
from fleet.economy.bill.rows import DAYS_KEPT
from fleet.economy.bill.writer import Writer
from fleet.money import dollars_in_full
from fleet.signals.windows import MINUTES, RESOURCE
from fleet.store import keys
from fleet.store.client import Store
from fleet.usage import Usage
from tests.economy.bill.calls import AT_S, entry, in_store

DAY = datetime.fromtimestamp(AT_S, UTC).strftime("%Y-%m-%d")


def fleet(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False, prog_name="fleet")


@pytest.fixture(autouse=True)
def redis_of_the_test(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)


@pytest.fixture
def some_calls(redis_url: str) -> None:
    """Five calls: of two pools, two tenants, two hours and three models; one is unknown, one has no price."""

    async def body(store: Store) -> None:
        writer = Writer(store)
        writer.enter(entry(1, tenant="acme"))
        writer.enter(entry(2, tenant="acme", kind="sums", at_s=AT_S + 3600))
        cached = Usage(input_tokens=100, output_tokens=5, cached_tokens=90)
        writer.enter(entry(3, pool="writing", bot="writing-001", usage=cached, usd_picos=10**12 + 1, tier="flex"))
        writer.enter(entry(4, limit="openai/gpt-5/k2", state="unknown", usd_picos=5_000_000))
        writer.enter(entry(5, limit="vendor/odd/k2", usd_picos=None, tier="standard"))
        await writer.close()

    in_store(redis_url, body)


@pytest.mark.usefixtures("some_calls")
@pytest.mark.parametrize(
    ("by", "lines"),
    [
        ("pool", [("writing", 1), ("research", 4)]),
        ("bot,model", [("writing-001", "simulator/simulated-1", 1), ("research-001", "openai/gpt-5", 1),
                       ("research-001", "simulator/simulated-1", 2), ("research-001", "vendor/odd", 1)]),
        ("tenant,kind", [("", "default", 3), ("acme", "default", 1), ("acme", "sums", 1)]),
        ("provider,key", [("simulator", "default", 3), ("openai", "k2", 1), ("vendor", "k2", 1)]),
        ("tier", [("flex", 1), ("", 4)]),
        ("day", [(DAY, 5)]),
        ("hour", [(f"{DAY}T12:00Z", 4), (f"{DAY}T13:00Z", 1)]),
    ],
)  # fmt: skip
def test_the_bill_is_told_apart_by_what_is_asked(by: str, lines: list[tuple[str | int, ...]]) -> None:
    told = json.loads(fleet("bill", "--by", by, "--since", DAY, "--json").stdout)
    assert [tuple(line[name] for name in (*by.split(","), "calls")) for line in told["lines"]] == lines
    total = told["total"]
    assert (total["usd_picos"], total["usd"]) == (10**12 + 840_001, "1.000000840001")
    assert (total["unknown_usd_picos"], total["unknown_usd"]) == (5_000_000, "0.000005")
    assert (total["calls"], total["unknown_calls"], total["unpriced_calls"]) == (5, 1, 1)
    assert sum(line["usd_picos"] for line in told["lines"]) == total["usd_picos"]


@pytest.mark.usefixtures("some_calls")
def test_a_table_has_tokens_by_class_exact_amounts_and_what_is_unknown() -> None:
    shown = fleet("bill", "--since", DAY)
    (writing,) = [line for line in shown.stdout.splitlines() if line.startswith("writing")]
    assert writing.split() == ["writing", "simulator/simulated-1", "1", "0", "0", "100", "5", "90",
                               "$1.000000000001", "$0.00"]  # fmt: skip
    assert shown.stdout.splitlines()[-1].split()[:4] == ["total", "5", "1", "1"]
    assert "`fleet bill unknown` lists them" in shown.stderr and "have no price" in shown.stderr
    listed = fleet("bill", "unknown").stdout
    assert "task-4" in listed and "$0.000005" in listed and "task-3" not in listed
    (unknown,) = json.loads(fleet("bill", "unknown", "--json").stdout)["calls"]
    assert (unknown["id"], unknown["reserved_usd_picos"], unknown["limit"]) == ("t-4", 5_000_000, "openai/gpt-5/k2")


@pytest.mark.usefixtures("some_calls")
def test_csv_has_every_digit_and_a_column_for_each_class() -> None:
    rows = list(csv.DictReader(io.StringIO(fleet("bill", "--by", "pool", "--since", DAY, "--csv").stdout)))
    assert [(row["pool"], row["calls"], row["usd"], row["cached_tokens"]) for row in rows] == [
        ("writing", "1", "1.000000000001", "90"), ("research", "4", "0.00000084", "0"),
    ]  # fmt: skip


@pytest.mark.usefixtures("some_calls")
def test_lines_by_any_column_sum_to_the_same_total() -> None:
    def added(lines: list[dict[str, Any]]) -> dict[str, int]:
        return {name: sum(line[name] for line in lines) for name in whole if isinstance(whole[name], int)}

    whole = json.loads(fleet("bill", "--since", DAY, "--json").stdout)["total"]
    assert added([whole])["usd_picos"] > 10**12
    for by in (*DIMENSIONS, "pool,bot,key", "tenant,kind,hour,tier"):
        found = json.loads(fleet("bill", "--by", by, "--since", DAY, "--json").stdout)
        assert (found["total"], added(found["lines"])) == (whole, added([whole])), by


def test_no_name_in_csv_is_a_formula_of_a_spreadsheet(redis_url: str) -> None:
    names = ["=cmd()", "+1", "@x", "-1+1", "-plain", "a=b"]  # a program of one's own may name a tenant so (open_bill)

    async def body(store: Store) -> None:
        writer = Writer(store)
        for number, name in enumerate(names):
            writer.enter(entry(number, tenant=name))
        await writer.close()

    in_store(redis_url, body)
    rows = csv.DictReader(io.StringIO(fleet("bill", "--by", "tenant", "--since", DAY, "--csv").stdout))
    assert {row["tenant"] for row in rows} == {"'=cmd()", "'+1", "'@x", "'-1+1", "-plain", "a=b"}
    data = json.loads(fleet("bill", "--by", "tenant", "--since", DAY, "--json").stdout)
    assert {line["tenant"] for line in data["lines"]} == set(names)


def test_two_years_are_the_400_days_that_are_kept_and_it_says_so(redis_url: str) -> None:
    before = list(range(5, 730, 10))

    async def body(store: Store) -> None:
        writer = Writer(store)
        for day in before:
            writer.enter(entry(day, at_s=AT_S - day * 86_400, tenant=f"t{day % 3}"))
            await writer.flush(5)
        await writer.close()

    in_store(redis_url, body)
    kept = sum(day < DAYS_KEPT for day in before)
    for by in ("tenant", "bot", "day", "hour", "kind,model"):
        result = fleet("bill", "--by", by, "--since", "730d", "--json")
        assert json.loads(result.stdout)["total"]["calls"] == kept
        assert "days are kept for 400: what was before " in result.stderr


@pytest.mark.usefixtures("some_calls")
def test_only_the_hours_that_are_asked_for_count() -> None:
    hour = json.loads(fleet("bill", "--since", f"{DAY}T13:30", "--until", f"{DAY}T13:31", "--json").stdout)
    assert (hour["since"], hour["until"], hour["total"]["calls"]) == (f"{DAY}T13:00:00Z", f"{DAY}T14:00:00Z", 1)
    by_bot = json.loads(fleet("bill", "--by", "bot", "--since", f"{DAY}T13:30", "--json").stdout)
    assert (by_bot["since"], by_bot["total"]["calls"]) == (f"{DAY}T00:00:00Z", 5)


@pytest.mark.usefixtures("some_calls")
def test_by_hour_a_day_without_hours_is_a_line_of_its_own_with_the_date(redis_url: str) -> None:
    async def body(store: Store) -> None:
        writer = Writer(store)
        for hours in (0, 3):
            writer.enter(entry(10 + hours, at_s=AT_S - 20 * 86_400 + hours * 3600))
        await writer.close()

    in_store(redis_url, body)
    old = datetime.fromtimestamp(AT_S - 20 * 86_400, UTC).strftime("%Y-%m-%d")
    shown = fleet("bill", "--by", "hour", "--json")
    assert [(line["hour"], line["calls"]) for line in json.loads(shown.stdout)["lines"]] == [
        (old, 2), (f"{DAY}T12:00Z", 4), (f"{DAY}T13:00Z", 1),
    ]  # fmt: skip
    assert "whose hour is a date, are whole days" in shown.stderr
    assert "whole days" not in fleet("bill", "--by", "hour", "--since", DAY).stderr


@pytest.mark.usefixtures("some_calls")
def test_what_slots_did_in_that_time_stands_below_the_bill(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_WORKER__SLOTS", "10")
    monkeypatch.setenv("FLEET_WORKER__USD_PER_HOUR", "0.5")
    hours = b"".join(RESOURCE.struct.pack(AT_S // 3600 + n, 0, 0, 9_000, 36_000) for n in (-1, 0, 1))
    with redis.Redis.from_url(redis_url) as client:
        client.set(keys.resources(), bytes(MINUTES * RESOURCE.struct.size) + hours)
        try:
            times = ("--since", f"{DAY}T12:00", "--until", f"{DAY}T14:00")
            assert "compute: 20.0 slot-hours, 75% idle: $1.00, of which $0.75 idle" in fleet("bill", *times).stdout
            told = json.loads(fleet("bill", *times, "--json").stdout)["compute"]
            assert told == {"busy_h": 5.0, "idle_h": 15.0, "usd": 1.0, "idle_usd": 0.75}
        finally:
            client.delete(keys.resources())


def test_an_empty_bill_says_so() -> None:
    assert "the bill is empty" in fleet("bill").stdout
    assert json.loads(fleet("bill", "--json").stdout)["lines"] == []
    assert len(fleet("bill", "--csv").stdout.splitlines()) == 1
    assert fleet("bill", "unknown").stdout == "no call is unknown\n"


def test_stats_tell_of_todays_unknown_calls_and_of_those_without_a_price(redis_url: str) -> None:
    async def body(store: Store) -> None:
        writer = Writer(store)
        writer.enter(entry(1, state="unknown", usd_picos=5_000_000, at_s=time.time()))
        writer.enter(entry(2, usd_picos=None, at_s=time.time()))
        await writer.close()

    in_store(redis_url, body)
    shown = " ".join(fleet("stats").stdout.split())
    assert "bill of today: 1 of 2 calls are unknown $0.000005 is reserved for them (fleet bill unknown)" in shown
    assert "bill of today: 1 of 2 calls have no price (set [prices] in fleet.toml)" in shown
    day = json.loads(fleet("stats", "--json").stdout)["bill"]["day"]
    assert (day["calls"], day["unknown_calls"], day["unknown_usd_picos"], day["unpriced_calls"]) == (2, 1, 5_000_000, 1)


def test_doctor_says_where_calls_cannot_be_exported_to(tmp_path: Path) -> None:
    settings = Settings(bill=BillSettings(export=tmp_path / "out"))
    host = HostFacts(9, frozenset(), {}, None, tmp_path, None, 9)
    assert bill_export(Settings(), host).level == bill_export(settings, host).level == "ok"
    found = bill_export(settings, replace(host, export_trouble="it cannot be written"))
    assert found.level == "fail" and str(tmp_path) in found.found and found.advice


@pytest.mark.parametrize(
    "words",
    [("--by", "bot,tenant"), ("--by", "colour"), ("--since", "yesterday"), ("--since", "24x"), ("--csv", "--json"),
     ("--since", "1h", "--until", "2h"), ("--since", "2026-13-01"), ("--colour",), ("nothing",)],
)  # fmt: skip
def test_wrong_use_is_one_line(words: tuple[str, ...]) -> None:
    done = fleet("bill", *words)
    assert done.exit_code == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "expected" in line and "got" in line


@pytest.mark.parametrize(
    ("picos", "told"), [(0, "0.00"), (420_000, "0.00000042"), (42 * 10**10, "0.42"), (-1, "-0.000000000001")]
)
def test_dollars_are_told_in_full(picos: int, told: str) -> None:
    assert dollars_in_full(picos) == told
