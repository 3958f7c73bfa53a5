"""`fleet bill check` on a real Redis: what it finds, what it resolves and what it leaves alone."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet.cli.main import main
from fleet.economy.bill.unknown import read_unknown
from fleet.economy.bill.writer import Writer
from fleet.economy.exports import checking
from fleet.entries import Entry
from fleet.store.client import Store, connect
from fleet.usage import Usage
from fleet.workers.simulator import SimulatorOptions
from fleet.workers.simulator.ledger import Ledger, Served
from tests.economy.bill.calls import AT_S, entry, in_store, total

START = int(AT_S) // 86_400 * 86_400
DAY = datetime.fromtimestamp(AT_S, UTC).strftime("%Y-%m-%d")
LIMIT = "openai/gpt-5/default"


class Killed(BaseException):
    """Stands for a process that ends right there."""


def fleet(*words: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, words)), catch_exceptions=False, prog_name="fleet")


@pytest.fixture(autouse=True)
def redis_of_the_test(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_REDIS__URL", redis_url)


def enter(redis_url: str, *entries: Entry) -> None:
    async def body(store: Store) -> None:
        writer = Writer(store)
        for one in entries:
            writer.enter(one)
        await writer.close()

    in_store(redis_url, body)


def unknown(number: int, picos: int | None, **fields: Any) -> Entry:
    usual = {"limit": LIMIT, "state": "unknown", "usage": Usage(), "usd_picos": picos}
    return entry(number, **{**usual, **fields})


@pytest.fixture
def three_calls(redis_url: str) -> None:
    """One settled call of 1,000 pico-dollars, and two of which nobody knows the cost."""
    enter(redis_url, entry(1, limit=LIMIT, usd_picos=1000), unknown(2, 300), unknown(3, 100))


def written(path: Path, text: str, *, at_s: float = START + 86_400 + checking.LAG_S) -> Path:
    """Write a file that seems to be of a time at which the day of the calls has been counted in full."""
    path.write_text(text)
    os.utime(path, (at_s, at_s))
    return path


def costs(tmp_path: Path, picos: int, *, model: str = "gpt-5-2025-08-07", has_more: bool = False) -> Path:
    amount = {"value": "VALUE", "currency": "usd"}
    result = {"object": "organization.costs.result", "amount": amount, "line_item": f"{model}, input"}
    bucket = {"object": "bucket", "start_time": START, "end_time": START + 86_400, "results": [result]}
    page = {"object": "page", "data": [bucket], "has_more": has_more}
    text = json.dumps(page).replace('"VALUE"', f"{picos // 10**12}.{picos % 10**12:012d}")
    return written(tmp_path / "costs.json", text)


@pytest.mark.usefixtures("three_calls")
def test_one_command_brings_the_difference_to_0_and_a_second_one_changes_nothing(
    redis_url: str, tmp_path: Path
) -> None:
    path = costs(tmp_path, 1203)
    looked = fleet("bill", "check", path, "--dry-run", "--json")
    assert (looked.exit_code, json.loads(looked.stdout)["difference_usd_picos"]) == (0, 203)
    assert total(redis_url).unknown_calls == 2
    told = json.loads(fleet("bill", "check", path, "--json").stdout)
    assert (told["resolved_calls"], told["resolved_usd_picos"], told["difference_usd_picos"]) == (2, 203, 0)
    assert [cell["verdict"] for cell in told["cells"]] == ["explained"] and told["left"] == []
    sums = total(redis_url)
    assert (sums.calls, sums.unknown_calls, sums.usd_picos, sums.unknown_usd_picos) == (3, 0, 1203, 0)
    (deed,) = json.loads(fleet("events", "--name", "bill_resolved", "--json").stdout)["events"]
    assert deed["fields"].items() >= {"calls": "2", "by": getuser(), "host": gethostname()}.items()
    again = fleet("bill", "check", path)
    assert len(json.loads(fleet("events", "--name", "bill_resolved", "--json").stdout)["events"]) == 1
    assert again.exit_code == 0 and "no difference is left" in again.stdout and "resolved" not in again.stdout
    assert total(redis_url) == sums


@pytest.mark.usefixtures("three_calls")
def test_what_unknown_calls_do_not_explain_is_said_and_left_alone(redis_url: str, tmp_path: Path) -> None:
    before = total(redis_url)
    for picos, why in ((1401, "reserved for the unknown ones"), (999, "less was billed")):
        result = fleet("bill", "check", costs(tmp_path, picos))
        assert result.exit_code == 1 and why in result.stdout and "OpenAI costs" in result.stdout
        assert total(redis_url) == before


def test_costs_of_zero_beside_an_exact_one_do_not_hide_a_difference(redis_url: str, tmp_path: Path) -> None:
    enter(redis_url, entry(1, limit=LIMIT, usd_picos=10**12))
    path = costs(tmp_path, 1_012_000_000_000)
    page = json.loads(path.read_text())
    results = page["data"][0]["results"]
    page["data"][0]["results"] = [*results, *({**results[0], "amount": {"value": 0, "currency": "usd"}} for _ in "abc")]
    result = fleet("bill", "check", written(path, json.dumps(page)))
    assert result.exit_code == 1 and "differs" in result.stdout and "+$0.012" in result.stdout


@pytest.mark.usefixtures("three_calls")
def test_a_file_that_is_only_a_part_resolves_nothing(redis_url: str, tmp_path: Path) -> None:
    result = fleet("bill", "check", costs(tmp_path, 1200, has_more=True))
    assert result.exit_code == 1 and "more belongs to it" in result.stdout
    assert total(redis_url).unknown_calls == 2


@pytest.mark.usefixtures("three_calls")
def test_calls_that_are_newer_than_the_file_are_left_alone(redis_url: str, tmp_path: Path) -> None:
    path = costs(tmp_path, 1000)
    os.utime(path, (AT_S - 1, AT_S - 1))
    result = fleet("bill", "check", path)
    assert "2 unknown calls are newer than the file" in result.stdout
    assert total(redis_url).unknown_calls == 2


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        ("day,model,usd_picos\n{day},gpt-5,1000\n", (), 0),
        ("day,model,provider,usd_picos\n{day},gpt-5,openai,1000\n", (), 0),
        ("day,usd_picos\n{day},1000\n", (), 2),
        ("day,usd_picos\n{day},1000\n", ("--provider", "openai"), 0),
        ("day,model,usd_picos\n{day},gpt-6,1000\n", (), 2),
    ],
    ids=["by its models", "by its providers", "by nothing", "by --provider", "a model that nobody has"],
)
def test_unknown_calls_of_a_provider_that_a_plain_file_is_not_about_stay_unknown(
    redis_url: str, tmp_path: Path, text: str, words: tuple[str, ...], code: int
) -> None:
    enter(redis_url, entry(1, limit=LIMIT, usd_picos=1000), unknown(2, 300, limit="anthropic/claude-x/default"))
    path = written(tmp_path / "plain.csv", text.format(day=DAY))
    result = fleet("bill", "check", path, *words)
    assert result.exit_code == code and (total(redis_url).unknown_calls, total(redis_url).usd_picos) == (1, 1000)
    assert ("not compared, since the file is not about them: calls of anthropic" in result.stdout) == (code == 0)
    assert ("expected --provider NAME" in result.stderr) == (code == 2)


@pytest.mark.parametrize("theirs", ["gpt-5", "claude-x"])
def test_an_export_says_nothing_of_a_model_that_two_providers_have_or_of_another_vendors(
    redis_url: str, tmp_path: Path, theirs: str
) -> None:
    enter(redis_url, unknown(2, 300), unknown(3, 400, limit="azure/gpt-5/default"))
    result = fleet("bill", "check", costs(tmp_path, 0, model=theirs))
    assert result.exit_code == 2 and "here are calls of azure, openai" in result.stderr
    assert total(redis_url).unknown_calls == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--key", "k1=openai", "--key", "k2=openai"), "expected a key of the file (k1), got 'k2'"),
        (("--provider", "anthropic"), "expected lines of anthropic, got 1 of others"),
        (("--provider", "anthropic", "--key", "k1=anthropic"), "expected lines of anthropic, got 1 of others"),
        (("--provider", "anthropic", "--key", "k1=openai"), "expected one of anthropic, got 'openai'"),
        (("--key", "k1=elsewhere"), "expected one of anthropic, openai"),
        (("--since", "2098-01-01"), f"the file is of {DAY} to {DAY}"),
        (("--until", "2020-01-01"), f"the file is of {DAY} to {DAY}"),
    ],
)
@pytest.mark.usefixtures("three_calls")
def test_a_file_of_which_nothing_is_left_to_compare_is_refused_and_resolves_nothing(
    redis_url: str, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    enter(redis_url, unknown(4, 500, limit="anthropic/claude-x/default"))
    path = written(tmp_path / "plain.csv", f"day,model,key,provider,usd_picos\n{DAY},gpt-5,k1,openai,1000\n")
    result = fleet("bill", "check", path, *words)
    assert result.exit_code == 2 and says in " ".join(result.stderr.split())
    assert (total(redis_url).unknown_calls, total(redis_url).usd_picos) == (3, 1000)


@pytest.mark.parametrize(
    ("words", "code"), [((), 0), (("--since", "T19:00"), 0), (("--until", "T19:00"), 2), (("--since", "T01:00"), 0)]
)
def test_a_time_within_a_day_means_the_whole_day(
    redis_url: str, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    enter(redis_url, entry(1, limit=LIMIT, usd_picos=1000), unknown(2, 300))
    at_day = [word.replace("T", f"{DAY}T") for word in words]
    result = fleet("bill", "check", costs(tmp_path, 1000), *at_day, "--dry-run", "--json")
    assert result.exit_code == code
    if not code:
        (cell,) = json.loads(result.stdout)["cells"]
        assert (cell["verdict"], cell["usd_picos"], cell["unknown_calls"]) == ("explained", 1000, 1)


@pytest.mark.usefixtures("three_calls")
def test_a_day_that_a_provider_may_not_have_counted_in_full_resolves_nothing(redis_url: str, tmp_path: Path) -> None:
    path, due_s = costs(tmp_path, 1000), START + 86_400 + checking.LAG_S
    for at_s in (AT_S + 3600, due_s - 1):
        os.utime(path, (at_s, at_s))
        result = fleet("bill", "check", path)
        assert result.exit_code == 1 and "too early" in result.stdout and "no difference" not in result.stdout
        assert total(redis_url).unknown_calls == 2
    os.utime(path, (due_s, due_s))
    assert fleet("bill", "check", path).exit_code == 0
    assert (total(redis_url).unknown_calls, total(redis_url).usd_picos) == (0, 1000)
    os.utime(path, (AT_S + 3600, AT_S + 3600))
    assert fleet("bill", "check", path).exit_code == 0  # what agrees is not too early


def test_tokens_alone_resolve_calls_at_our_prices(redis_url: str, tmp_path: Path) -> None:
    limit = "simulator/simulated-1/default"
    enter(redis_url, entry(1), unknown(2, 10_000_000, limit=limit))
    path = written(tmp_path / "usage.csv", f"day,model,input_tokens,output_tokens\n{DAY},simulated-1,30,3\n")
    told = json.loads(fleet("bill", "check", path, "--json").stdout)
    assert told["resolved_calls"] == 1
    sums = total(redis_url)
    assert (sums.usage.input_tokens, sums.usage.output_tokens, sums.unknown_calls) == (30, 3, 0)
    assert sums.usd_picos == 420_000 + 10 * 150_000 + 2 * 600_000  # at what the simulator bills by default


def test_two_providers_at_one_simulator_are_told_apart_by_their_keys(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_A", "sk-a")
    monkeypatch.setenv("KEY_B", "sk-b")
    table = '[providers.{0}]\nkind = "openai"\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "KEY_{1}"\n'
    (tmp_path / "fleet.toml").write_text(table.format("a", "A") + table.format("b", "B"))
    monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
    from fleet import config

    config.current.cache_clear()
    clock = [AT_S]
    book = Ledger(SimulatorOptions(), now_s=lambda: clock[0])
    for key in ("sk-a", "sk-b", "sk-of-another"):
        book.account(key).calls += 1
        book.serve(book.account(key), Served("m", 10, 0))
    enter(redis_url, entry(1, limit="a/m/default", usd_picos=1_500_000, usage=Usage(input_tokens=10)))
    enter(redis_url, unknown(2, 2_000_000, limit="b/m/default"))
    path, clock[0] = tmp_path / "ledger.json", AT_S + 60
    path.write_text(json.dumps(book.report()))
    told = json.loads(fleet("bill", "check", path, "--json").stdout)
    assert [(cell["account"], cell["verdict"]) for cell in told["cells"]] == [
        ("a/default", "agrees"), ("b/default", "explained"),
    ]  # fmt: skip
    assert any("not among those of this fleet" in note for note in told["notes"])
    assert total(redis_url).usd_picos == 3_000_000


@pytest.mark.usefixtures("three_calls")
def test_a_check_that_dies_after_any_call_is_finished_by_the_next_one(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = costs(tmp_path, 1203), checking.resolve

    def dying(client: Any, before: Any, settled: Entry) -> None:
        real(client, before, settled)
        raise Killed

    monkeypatch.setattr(checking, "resolve", dying)
    with pytest.raises(Killed):
        fleet("bill", "check", path)
    assert total(redis_url).unknown_calls == 1
    monkeypatch.setattr(checking, "resolve", real)
    assert fleet("bill", "check", path).exit_code == 0
    sums = total(redis_url)
    assert (sums.usd_picos, sums.unknown_calls, sums.calls) == (1203, 0, 3)


def test_two_checks_at_once_resolve_each_call_once(redis_url: str, tmp_path: Path) -> None:
    enter(redis_url, *(unknown(number, 100 + number) for number in range(40)))
    path = costs(tmp_path, 2000)
    both = [threading.Thread(target=_checked, args=(redis_url, path)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    sums = total(redis_url)
    assert (sums.usd_picos, sums.unknown_calls, sums.unknown_usd_picos, sums.calls) == (2000, 0, 0, 40)


def _checked(redis_url: str, path: Path) -> None:
    from fleet.economy.exports.matching import Scope, provider_of
    from fleet.economy.exports.reading import read_export

    with connect(redis_url) as client, checking.alone(client) as stay:
        found = checking.check(
            client,
            read_export(path),
            lambda limits: Scope(frozenset(map(provider_of, limits))),
            lambda *_: None,
            exported_s=START + 2 * 86_400,
        )
        checking.apply(client, found, now_s=AT_S, stay=stay)


def test_an_entry_that_settled_since_it_was_read_keeps_its_own_amount(redis_url: str, tmp_path: Path) -> None:
    from fleet.economy.exports.matching import Scope, provider_of
    from fleet.economy.exports.reading import read_export

    enter(redis_url, unknown(1, 500))
    with connect(redis_url) as client:
        found = checking.check(
            client,
            read_export(costs(tmp_path, 90)),
            lambda limits: Scope(frozenset(map(provider_of, limits))),
            lambda *_: None,
            exported_s=START + 2 * 86_400,
        )
        (before,) = read_unknown(client)
        checking.resolve(client, before, before.entry._replace(state="settled", usd_picos=77))
        assert checking.apply(client, found, now_s=AT_S) == []
    assert total(redis_url).usd_picos == 77


@pytest.mark.usefixtures("three_calls")
def test_csv_has_a_line_for_each_cell_in_pico_dollars(tmp_path: Path) -> None:
    result = fleet("bill", "check", costs(tmp_path, 1203), "--csv", "--dry-run")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["day"], row["model"], row["usd_picos"], row["their_usd_picos"]) == (DAY, "gpt-5", "1000", "1203")
    assert (row["difference_usd_picos"], row["unknown_calls"], row["verdict"]) == ("203", "2", "explained")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--provider", "gpt"), "expected one of"),
        (("--key", "openai"), "expected ID=PROVIDER"),
        (("--key", "k=openai"), "expected a key of the file (it has none)"),
        (("--json", "--csv"), "got both"),
        (("--since", "soon"), "expected a time like"),
    ],
)
@pytest.mark.usefixtures("three_calls")
def test_wrong_use_says_what_was_expected(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = fleet("bill", "check", costs(tmp_path, 1), *words)
    assert result.exit_code == 2 and says in result.stderr


def test_a_file_that_is_no_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no export")
    result = fleet("bill", "check", path)
    assert result.exit_code == 2 and "expected an export of OpenAI or Anthropic" in result.stderr
