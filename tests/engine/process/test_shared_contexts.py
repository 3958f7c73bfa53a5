"""Tasks that name documents, through a real worker and the simulator: who gets them, and what they wait for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet import config
from fleet.cli.main import main
from fleet.economy.contexts.reads import counts_in
from fleet.models import BotResult
from fleet.store import context_keys
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.every import every
from tests.waiting import wait_until
from tests.workers.simulator.running import running, send, total

WAIT_S = 60
KEY = "test-key"
CONFIG = """
[providers.api]
kind = "{kind}"
base_url = "{url}"
api_key_env = "CONTEXT_KEY"

[pools.research]
bots = 30
provider = "api"
model = "simulated-1"
max_output_tokens = 100
[pools.research.persona]
context_windows_tokens = [2048, 4096, 32768]

[limits."api/simulated-1"]
rpm = 1000000
"""
SENTENCE = "The harbour of Oland has nine cranes and a pilot who knows the tides of the northern sound. "


def fleet(*words: str, stdin: str | None = None, code: int = 0) -> str:
    result = CliRunner().invoke(main, words, input=stdin, catch_exceptions=False, prog_name="fleet")
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def kind() -> str:
    """The wire that is spoken; a test may have others."""
    return "openai"


@pytest.fixture
def url(kind: str, fleet_env: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A simulator, and settings that name it."""
    monkeypatch.setenv("CONTEXT_KEY", KEY)
    with running(latency_ms=200) as url:
        (tmp_path / "fleet.toml").write_text(CONFIG.format(kind=kind, url=f"{url}/v1" if kind == "openai" else url))
        monkeypatch.setenv("FLEET_CONFIG", str(tmp_path / "fleet.toml"))
        config.current.cache_clear()
        yield url
        for one in json.loads(fleet("context", "--json"))["contexts"]:
            fleet("context", "remove", one["id"])
    config.current.cache_clear()


def submit(count: int, **fields: Any) -> list[Any]:
    from fleet.engine.tasks import submit_task

    return [submit_task.delay(f"What is {n}+{n}?", pool="research", **fields) for n in range(count)]


def results(handles: list[Any]) -> list[BotResult]:
    return [handle.get(timeout=WAIT_S) for handle in handles]


def test_only_bots_with_room_for_the_documents_get_the_task_and_where_none_has_it_is_refused(
    url: str, start_worker: StartWorker
) -> None:
    stored = json.loads(fleet("context", "add", "-", "--json", stdin=SENTENCE * 250))["contexts"][0]
    huge = fleet("context", "add", "-", stdin=SENTENCE * 3000).strip()
    start_worker()
    done = results(submit(20, context=stored["id"]))
    assert every(one.status == "ok" and one.answer == str(2 * n) for n, one in enumerate(done))
    assert every(int(str(one.bot)[-3:]) % 3 == 0 for one in done), "the windows go round: each third is large"
    assert every(one.usage.input_tokens > stored["tokens"] * 0.8 and not one.cut_tokens for one in done)
    before = total(url)["calls"]
    (refused,) = results(submit(1, context=huge))
    assert refused.error is not None and refused.error.type == "DocumentsTooLarge"
    assert "32,768" in refused.error.message and refused.error.blame == "prompt"
    assert total(url)["calls"] == before
    (plain,) = results(submit(1))
    assert plain.status == "ok"


def test_a_task_that_names_a_missing_document_waits_alone_says_why_and_goes_on_when_it_is_added(
    url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "handbook.md").write_text(SENTENCE)
    added = fleet("context", "add", str(tmp_path / "handbook.md")).strip()
    fleet("context", "remove", added)
    start_worker()
    (waiting,) = submit(1, context=added)

    def told() -> Any:
        return json.loads(fleet("why", waiting.id, "--json"))

    wait_until(lambda: told()["state"] == "parked", WAIT_S, lambda: str(told()))
    assert (told()["cause"], told()["about"]) == ("document", added), told()
    assert "fleet context add" in fleet("why", waiting.id)
    assert every(one.status == "ok" for one in results(submit(5))), "others go on"
    assert fleet("context", "add", str(tmp_path / "handbook.md")).strip() == added
    assert results([waiting])[0].answer == "0"


def test_a_line_of_a_file_names_documents_and_each_is_told_with_its_file(
    url: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "rules.md").write_text(SENTENCE * 250)
    stored = json.loads(fleet("context", "add", str(tmp_path / "rules.md"), "--json"))["contexts"][0]
    again = CliRunner().invoke(main, ["context", "add", "-"], input=SENTENCE * 250, prog_name="fleet")
    assert stored["name"] == "rules.md" and stored["id"] in again.stderr and "rules.md" in again.stderr
    assert "rules.md" in fleet("context")
    start_worker()
    lines = [{"prompt": "What is 1+1?", "context": [stored["id"]]}, {"prompt": "What is 2+2?"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fleet("run", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--pool", "research")
    answered = {one["line"]: one for one in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert [answered[n]["answer"] for n in (1, 2)] == ["2", "4"]
    assert answered[1]["usage"]["input_tokens"] > stored["tokens"] * 0.8 > answered[2]["usage"]["input_tokens"]


def test_a_tenants_documents_are_its_own_and_go_with_it(url: str, start_worker: StartWorker) -> None:
    theirs = fleet("context", "add", "-", "--tenant", "acme", stdin=SENTENCE).strip()
    start_worker()
    ours, others = results(submit(1, context=theirs, tenant="acme") + submit(1, context=theirs, tenant="bolt"))
    assert ours.status == "ok"
    assert others.error is not None and others.error.type == "InvalidTask" and "own tenant" in others.error.message
    would = json.loads(fleet("forget", "--tenant", "acme", "--dry-run", "--json"))
    assert would["stored"]["shared documents"] == 1
    fleet("forget", "--tenant", "acme", "--yes")
    assert json.loads(fleet("context", "--json"))["contexts"] == []
    fleet("context", "show", theirs, code=2)


def test_a_document_that_is_not_stored_is_refused_at_the_command_line(url: str, tmp_path: Path) -> None:
    missing = "ctx-" + "0" * 24
    result = CliRunner().invoke(main, ["submit", "Hello", "--context", missing], prog_name="fleet")
    assert result.exit_code == 2 and missing in result.stderr and "--context" in result.stderr
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "Hello", "context": [missing]}))
    told = json.loads(fleet("run", str(tmp_path / "in.jsonl"), "--dry-run", "--json"))
    assert told["wrong"] == 1, told
    for wrong in (b"\xff\xfe\x00", b""):
        (tmp_path / "bad").write_bytes(wrong)
        fleet("context", "add", str(tmp_path / "bad"), code=1)
    fleet("context", "add", str(tmp_path / "nowhere"), code=2)
    fleet("context", "remove", missing, code=2)


def cold_reads(done: list[BotResult], url: str, tokens: int) -> int:
    """Return how many calls read nothing of the document from the cache; the ledger has counted the same."""
    ledger = total(url)
    assert ledger["cached_tokens"] == sum(one.usage.cached_tokens for one in done)
    assert ledger["calls"] == len(done)
    return sum(one.usage.cached_tokens < tokens / 2 for one in done)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_hundred_bots_on_a_cold_document_of_20_000_tokens_pay_for_it_twice_at_most(
    url: str, start_worker: StartWorker, redis_url: str
) -> None:
    stored = json.loads(fleet("context", "add", "-", "--json", stdin=SENTENCE * 1100))["contexts"][0]
    assert 19_000 < stored["tokens"] < 28_000
    workers = [start_worker(), start_worker()]
    done = results(submit(100, context=stored["id"]))
    assert every(one.status == "ok" for one in done), workers[0].log
    assert len({one.bot for one in done}) == 10, "all that have the room"
    assert cold_reads(done, url, 10_000) <= 2
    assert sum(one.parked > 0 for one in done) > 10, "the others wait in Redis"
    assert max(one.parked for one in done) < 10
    later = results(submit(20, context=stored["id"]))
    assert every(one.usage.cached_tokens > 10_000 and not one.parked for one in later)

    def counted() -> dict[str, int]:
        with connect(redis_url) as client:
            rows = [client.hgetall(key) for key in client.scan_iter(context_keys.reads(0)[:-1] + "*")]
        found = Counter[str]()
        for row in rows:
            for (document, _), what, calls in counts_in(row):
                found[what] += calls * (document == stored["id"])
        return dict(found)

    wait_until(lambda: sum(counted().values()) == 120, WAIT_S, lambda: str(counted()))
    assert counted() == {"cold": 120 - counted()["hit"], "hit": counted()["hit"]} and counted()["hit"] >= 118


def test_others_go_when_the_worker_dies_whose_task_goes_first(url: str, start_worker: StartWorker) -> None:
    stored = json.loads(fleet("context", "add", "-", "--json", stdin=SENTENCE * 200))["contexts"][0]
    send(url, "/failures?hang_rate=1", {})
    worker = start_worker()
    handles = submit(10, context=stored["id"])

    def causes() -> list[str]:
        return [str(json.loads(fleet("why", one.id, "--json"))["cause"]) for one in handles]

    wait_until(lambda: causes().count("warming") == 9, WAIT_S, lambda: f"{causes()}; log:\n{worker.log}")
    worker.kill()
    send(url, "/failures?hang_rate=0", {})
    start_worker()
    done = results(handles)
    assert every(one.status == "ok" for one in done)
    assert sum(one.usage.cached_tokens == 0 for one in done) <= 2
