"""Every figure against the ledger: what a provider was asked and billed, and what is stored."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from fleet import config, submit_many
from fleet.cli.main import main
from fleet.engine.operations.overview import open_overview
from fleet.signals.metrics import exposition
from fleet.store.client import connect
from tests.engine.conftest import StartWorker
from tests.http_server import Handler, serving
from tests.waiting import wait_until
from tests.worker_process import QUICK_LEASES

#: Generous: the machine may be slow.
WAIT_S = 60.0
#: Tokens that each answer is billed.
BILLED = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
#: What each costs, in micro-dollars.
EACH_USD_MICROS = 20 * 0.3 + 5 * 0.7
#: Tokens of a prompt with its persona at most.
MOST_SENT_TOKENS = 200
#: Calls that the cancel cuts: nobody heard an answer.
CUT = 2


class Provider(Handler):
    """Answers, refuses what says `refuse-it`, and lets what says `hang-it` wait. Counts all calls."""

    asked: Counter[str]
    let_go: threading.Event

    def do_POST(self) -> None:
        said = self.body().decode()
        kind = next((word for word in ("refuse", "hang") if f"{word}-it" in said), "answer")
        self.asked[kind] += 1
        if kind == "hang":
            self.let_go.wait(WAIT_S)
        choice = {"message": {"role": "assistant", "content": "It is forty-two."}, "finish_reason": "stop"}
        answer: dict[str, Any] = {"choices": [choice], "usage": BILLED}
        if kind == "refuse":
            answer = {"error": {"message": "content policy", "type": "invalid_request_error", "code": "content_filter"}}
        self.send(400 if kind == "refuse" else 200, answer)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, fleet_env: None) -> Iterator[type[Provider]]:
    class Asked(Provider):
        asked, let_go = Counter(), threading.Event()

    with serving(Asked) as url:
        tables = {
            "PROVIDERS": {"house": {"kind": "openai", "base_url": f"{url}/v1"}},
            "POOLS": {name: {"bots": 4, "provider": "house", "model": "m-1"} for name in ("one", "two")},
            "PRICES": {"house/m-1": {"input_usd_per_mtok": 0.3, "output_usd_per_mtok": 0.7}},
            "LIMITS": {"house/m-1": {"usd_per_day": 5}},
            "HEALTH": {"watch": False},
            "DIVERSITY": {"watch": False},
        }
        for name, table in tables.items():
            monkeypatch.setenv(f"FLEET_{name}", json.dumps(table))
        config.current.cache_clear()
        yield Asked
        Asked.let_go.set()


def faces() -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Return what the page, `fleet stats --json` and Prometheus say."""
    told = CliRunner().invoke(main, ["stats", "--json", "--bots"])
    with open_overview(config.current()) as overview:
        view = overview.read()
    families = text_string_to_metric_families(exposition(view).decode())
    samples = {f"{one.name}{sorted(one.labels.values())}": one.value for family in families for one in family.samples}
    return view.model_dump(), json.loads(told.stdout), samples


def same(expected: float, *figures: float) -> None:
    """Check that all figures say the same."""
    assert set(figures) == {expected}, figures


def stored(client: redis.Redis) -> tuple[list[dict[str, Any]], int]:
    """Return the results in Redis, and how many tasks are revoked."""
    metas = [json.loads(client.get(key) or "") for key in client.scan_iter("celery-task-meta-*")]  # type: ignore[arg-type]
    return [meta["result"] for meta in metas if meta["status"] == "SUCCESS"], len(
        [meta for meta in metas if meta["status"] == "REVOKED"]
    )


def test_every_surface_says_what_the_results_and_the_provider_say_and_a_kill_costs_the_calls_in_flight(
    start_worker: StartWorker, provider: type[Provider], redis_url: str, tmp_path: Path
) -> None:
    with connect(redis_url) as client:
        worker = start_worker("-c", "8", app=QUICK_LEASES)
        answered = [{"prompt": f"answer {n}", "pool": ("one", "two")[n % 2]} for n in range(24)]
        refused = [{"prompt": f"refuse-it {n}", "pool": "one"} for n in range(3)]
        hanging = list(submit_many([{"prompt": f"hang-it {n}", "pool": "two"} for n in range(2)]))
        wait_until(lambda: provider.asked["hang"] == 2, WAIT_S, "two are asked")
        CliRunner().invoke(main, ["pools", "pause", "one"])
        waiting = list(submit_many({"prompt": "never", "pool": "one"} for _ in range(3)))
        ids = [*hanging, *waiting]
        assert CliRunner().invoke(main, ["cancel", *ids, "--running", "--yes"]).exit_code == 0
        CliRunner().invoke(main, ["pools", "resume", "one"])
        list(submit_many([*answered, *refused]))
        wait_until(lambda: len(stored(client)[0]) == 27 and stored(client)[1] == 5, WAIT_S,
                   lambda: f"27 results and 5 revoked; got {stored(client)}; log:\n{worker.log}")  # fmt: skip
        wait_until(lambda: faces()[0]["totals"]["revoked"] == 2, WAIT_S, "the cancelled calls are counted")

        results, _ = stored(client)
        view, stats, metrics = faces()
        totals, bots = view["totals"], view["bots"]
        failed = len([one for one in results if one["status"] == "failed"])
        completed = sum(metrics[f"fleet_completions_total['{name}']"] for name in ("ok", "degraded", "failed"))
        assert (len(results), failed, provider.asked) == (27, 3, {"answer": 24, "refuse": 3, "hang": 2})
        minutes = {name: sum(column) for name, column in view["minutes"].items()}
        same(27, totals["completions"], stats["completions"]["total"], stats["totals"]["completions"], completed,
             minutes["completions"], sum(view["hours"]["completions"]), sum(bots["completions"]),
             sum(pool["completions"] for pool in view["pools"]), view["recent"]["completions"])  # fmt: skip
        same(3, totals["failed"], stats["completions"]["failed"], stats["errors"]["failures"], minutes["failed"],
             view["errors"]["failures"], sum(bots["failed"]), metrics["fleet_completions_total['failed']"])  # fmt: skip
        same(29, totals["attempts"], minutes["calls"], stats["resources"]["attempts"], provider.asked.total())
        calls = {name: metrics[f"fleet_provider_calls_total['{name}']"] for name in ("failed", "rate_limited")}
        same(CUT + 3, totals["calls_failed"], stats["errors"]["calls"], stats["totals"]["calls_failed"],
             sum(bots["calls_failed"]), minutes["calls_failed"], sum(calls.values()))  # fmt: skip
        tokens = sum(one["usage"]["input_tokens"] + one["usage"]["output_tokens"] for one in results)
        cut = minutes["tokens"] - tokens  # what a cut call has used nobody says: what was sent counts
        assert tokens == 24 * 25 and 0 <= cut <= CUT * MOST_SENT_TOKENS
        same(tokens + cut, sum(bots["tokens"]), totals["input_tokens"] + totals["output_tokens"])
        paid = totals["cost_usd_micros"]
        assert 24 * EACH_USD_MICROS <= paid <= 24 * EACH_USD_MICROS + CUT * MOST_SENT_TOKENS * 0.3
        same(paid, view["cost"]["total_usd_micros"], stats["resources"]["cost_usd_micros"],
             round(metrics["fleet_cost_usd_total[]"] * 1e6))  # fmt: skip
        assert abs(view["cost"]["day_usd_micros"] - paid) <= 2, "each pool's is rounded by itself"
        (budget,) = view["cost"]["budgets"]
        assert paid - 2 <= budget["used_usd_micros"], "what was cut counts as what it had reserved"

        lost = list(submit_many({"prompt": f"hang-it {n}", "pool": "two"} for n in range(3)))
        wait_until(lambda: provider.asked["hang"] == 5, WAIT_S, "three more are asked")
        worker.kill()
        provider.let_go.set()
        second = start_worker("-c", "8", app=QUICK_LEASES)
        wait_until(lambda: len(stored(client)[0]) == 30, WAIT_S, lambda: f"they are done; log:\n{second.log}")
        view, stats, _ = faces()
        assert view["totals"]["completions"] == stats["completions"]["total"] == 30 == 27 + len(lost)
        assert 0 <= provider.asked.total() - view["totals"]["attempts"] <= 3
        assert abs(view["totals"]["cost_usd_micros"] - paid - 3 * EACH_USD_MICROS) <= 2
