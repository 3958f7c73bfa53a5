"""`fleet run --dry-run` without a Redis: what it reads, what it leaves alone, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet import config
from fleet.cli.main import main
from fleet.cli.run.answers import RunNote
from fleet.cli.run.weighing import Scales
from fleet.config import PersonaSettings, PoolSettings, Settings
from fleet.conversation import Message
from fleet.lessons import UNMEASURED
from fleet.models import BotTask
from fleet.workers.bot.persona import make_bot
from fleet.workers.bot.window import cut, room_of
from fleet.workers.context import count_message_tokens

pytestmark = pytest.mark.usefixtures("fleet_home")


def dry_run(*arguments: str, stdin: str | None = None) -> Result:
    config.current.cache_clear()
    return CliRunner().invoke(main, ["run", *arguments, "--dry-run"], input=stdin)


def told(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    done = dry_run(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_it_sends_nothing_starts_no_redis_and_says_that_nothing_is_learnt(tmp_path: Path, fleet_home: Path):
    source = write(tmp_path / "in.jsonl", *({"prompt": f"What is {n}?", "kind": "sum"} for n in range(50)))
    done = dry_run(source, "-o", str(tmp_path / "out.jsonl"))
    assert done.exit_code == 0, done.output
    assert "50 to ask" in done.stdout and "nothing is learnt" in done.stdout and "too few answers" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["in.jsonl"]
    assert not (fleet_home / "redis.json").exists()


def test_a_tier_that_there_is_not_is_refused_before_anything_is_read_or_sent(tmp_path: Path):
    source = write(tmp_path / "in.jsonl", {"prompt": "x"}, {"prompt": "y", "tier": "nope"})
    refused = dry_run(source, "--tier", "nope")
    assert refused.exit_code == 2 and "--tier: expected one of standard, flex, priority" in refused.stderr
    assert told(source, "--tier", "flex")["wrong"] == 1


def test_lines_that_are_answered_are_left_out_and_tell_of_the_others(tmp_path: Path):
    tasks = [{"prompt": f"What is {n}?"} for n in range(100)]
    source, out = write(tmp_path / "in.jsonl", *tasks), tmp_path / "out.jsonl"
    whole = told(source)
    assert (whole["lines"], whole["answered"], whole["tasks"], whole["learnt"]) == (100, 0, 100, False)
    assert whole["guessed"] == [{"model": "simulator/simulated-1", "kind": "default", "tasks": 100}]

    from fleet.cli.run.entries import LineFormat, read_questions

    usage = {"input_tokens": 80, "output_tokens": 30}
    with Path(source).open("rb") as lines:
        answers = [
            {"id": one.id, "line": one.line, "asked": one.asked, "status": status, "usage": usage,
             "cost_usd_picos": 30_000_000}
            for one, status in zip(read_questions(lines, LineFormat()), ["ok"] * 9 + ["failed"], strict=False)
        ]  # fmt: skip
    before = write(out, *answers, '{"torn')
    RunNote.of(Path(source), prompt_field=None, id_field="id").write(Path(f"{out}.run"))
    rest = told(source, "-o", before)
    assert (rest["lines"], rest["answered"], rest["tasks"], rest["guessed"]) == (100, 10, 90, [])
    assert rest["output_tokens"]["expected"] == pytest.approx(90 * 30, rel=0.02)
    assert rest["input_tokens"]["expected"] == pytest.approx(90 * 80, rel=0.05)
    assert out.read_text().endswith('{"torn'), "OUT was changed"
    assert told(source, "-o", before, "--retry-failed")["tasks"] == 91
    assert told(source, "-o", before, "--overwrite")["tasks"] == 100


def test_wrong_lines_are_counted_by_what_is_wrong_as_a_run_would(tmp_path: Path):
    wrong = ['{"prompt": 1}\n', "not json\n", '{"prompt": "x", "pool": "nowhere"}\n', '{"prompt": "x", "n": 0}\n']
    found = told(write(tmp_path / "in.jsonl", {"prompt": "fine"}, "\n", *wrong))
    assert (found["lines"], found["wrong"], found["tasks"]) == (5, 4, 1)
    assert found["wrong_by_field"] == {"pool": 1, "prompt": 1, "n": 1, "line": 1}
    many = [f'{{"secret {n}": 1}}\n' for n in range(1000)]
    many += [f'{{"messages": [{{"role": "robot {n}", "content": "x"}}]}}\n' for n in range(10)]
    assert told(write(tmp_path / "many.jsonl", *many))["wrong_by_field"] == {"line": 1000, "messages": 10}


def test_a_pipe_and_the_options_of_the_command_line_count_too():
    one = told("-", "--max-output-tokens", "7", stdin='"a"\n"b"\n')
    assert one["tasks"] == 2
    assert (one["output_tokens"]["low"], one["output_tokens"]["high"]) == (2, 3 * 14)  # each of three bots at most


def test_without_out_only_a_dry_run_goes(tmp_path: Path):
    done = CliRunner().invoke(main, ["run", write(tmp_path / "in.jsonl", {"prompt": "x"})])
    assert done.exit_code == 2
    assert "-o OUT" in done.stderr


def test_models_without_a_price_and_days_that_are_too_small_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_PROVIDERS", '{"house": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}')
    pools = {
        "dear": {"provider": "house", "model": "big", "max_output_tokens": 10},
        "free": {"provider": "house", "model": "small"},
    }
    monkeypatch.setenv("FLEET_POOLS", json.dumps(pools))
    monkeypatch.setenv("FLEET_PRICES", '{"house/big": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1000}}')
    monkeypatch.setenv("FLEET_LIMITS", '{"house/big": {"usd_per_day": 0.2}, "house/small": {"requests_per_day": 12}}')
    lines = [{"prompt": "x", "pool": "dear"}] * 100 + [{"prompt": "y", "pool": "free"}] * 20
    source = write(tmp_path / "in.jsonl", *lines)
    found = told(source)
    assert found["unpriced"] == [{"model": "house/small", "tier": None, "tasks": 20}]
    assert {stop["of"]: stop["after"] for stop in found["stops"]}[20] in (11, 12)
    assert 0 < {stop["of"]: stop["after"] for stop in found["stops"]}[100] < 100
    text = " ".join(dry_run(source).stdout.split())
    assert "house/small has no price: what it costs is not counted" in text
    assert "at the day's budget of house/big ($0.20) after about" in text


def test_budgets_of_tenants_and_of_all_bots_of_a_pool_end_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FLEET_PRICES", '{"simulator/simulated-1": {"input_usd_per_mtok": 0, "output_usd_per_mtok": 1}}')
    monkeypatch.setenv("FLEET_POOLS", json.dumps({"a": {"bots": 2}, "b": {"bots": 2}}))
    each = {"usd_in_all": 0.0000001 * 512 * 100}
    cents = {
        "tenant:*": each,
        "tenant:rich": {"usd_per_day": 1},
        "bot:a-001": each,
        "bot:a-002": each,
        "bot:b-001": each,
    }
    monkeypatch.setenv("FLEET_BUDGETS", json.dumps(cents))
    tasks = [
        {"prompt": "Hello", "pool": pool, "tenant": tenant}
        for pool in "ab" for tenant, count in (("ann", 300), ("bob", 3), ("rich", 300)) for _ in range(count)
    ]  # fmt: skip
    source = write(tmp_path / "in.jsonl", *tasks)
    found = told(source)
    stops = {
        stop["about"].partition(" (")[0]: (stop["after"], stop["of"], stop["opens_in_s"]) for stop in found["stops"]
    }
    assert set(stops) == {"the budget of tenant:ann", "the budgets of the 2 bots of a"}  # b-002 has no budget
    (ann_after, ann_of, _), (bots_after, bots_of, opens) = stops.values()
    assert (ann_of, bots_of, opens, found["seconds"]) == (600, 603, None, None)
    assert 0 < ann_after < bots_after < 600
    assert "not in the figures" not in dry_run(source).stderr
    monkeypatch.setenv("FLEET_POOLS", json.dumps({"a": {"fallback": [{"answer": "Later."}]}, "b": {}}))
    assert "what rungs of the fallback ladder of a cost" in dry_run(source).stderr


def test_budgets_and_max_usd_end_it_after_so_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = [{"prompt": "word " * 900, "max_output_tokens": 1}] * 100  # about 1,000 tokens at $0.15 a million
    source = write(tmp_path / "in.jsonl", *lines)
    budgets = {
        "fleet": {"usd_per_month": 0.012},
        "pool:review": {"usd_per_hour": 0.001},
        "tenant:*": {"usd_per_day": 1},
    }
    monkeypatch.setenv("FLEET_BUDGETS", json.dumps(budgets))
    stops = {stop["about"]: stop for stop in told(source, "--max-usd", "0.006")["stops"]}
    assert set(stops) == {"--max-usd ($0.0060)", "the budget of fleet ($0.0120 a month)",
                          "the budget of pool:review ($0.0010 an hour)"}  # fmt: skip
    assert 35 < stops["--max-usd ($0.0060)"]["after"] < 45
    assert stops["--max-usd ($0.0060)"]["opens_in_s"] is None
    assert 75 < stops["the budget of fleet ($0.0120 a month)"]["after"] < 85
    assert stops["the budget of pool:review ($0.0010 an hour)"]["of"] in (29, 30, 31)
    assert told(source, "--max-usd", "0.006")["seconds"] is None
    assert told(source, "--max-usd", "5", "--pool", "writing")["seconds"] is not None


@pytest.mark.parametrize("words", [5, 3000, 20_000])
def test_a_task_weighs_what_its_bots_would_send(words: int):
    pool = PoolSettings(bots=84, persona=PersonaSettings(temperatures=()))
    settings = Settings(pools={"a": pool})
    task = BotTask(prompt="word " * words, max_output_tokens=100)
    sent = []
    for index in range(1, 85):
        persona = make_bot("a", index, pool.persona).persona
        room = room_of(persona.context_window_tokens, 100, UNMEASURED)
        system = Message(role="system", content=persona.system_prompt)
        sent.append(count_message_tokens(cut((system, *task.conversation()), room, 0)[0]))
    weighed = Scales(settings).weigh(task)
    assert weighed.input_tokens == pytest.approx(sum(sent) / len(sent), rel=0.2 if words < 10 else 0.02)
