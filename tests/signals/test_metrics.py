"""What Prometheus is told: declared names only, no label per bot, and rules and dashboards that ask for what exists."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from fleet.signals.metrics import FLEET_METRICS, WORKER_METRICS, exposition
from tests.signals.working_fleet import WorkingFleet

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "fleet.json"
KNOWN = {name for metric in (*FLEET_METRICS, *WORKER_METRICS) for name in metric.samples}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (package prometheus)")


def asked_for(text: str) -> set[str]:
    """Return the metric names that a text of expressions asks for."""
    return set(re.findall(r"\bfleet_[a-z0-9_]+", text))


def expressions() -> str:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return "\n".join(target["expr"] for panel in panels for target in panel.get("targets", ()))


def test_the_fleet_is_told_under_declared_names_and_its_figures_are_the_views(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(3, pool="a", bot=1)
    working_fleet.finish(2, pool="b", bot=2, error="BadAnswer")
    view = working_fleet.overview.read()
    families = {family.name: family for family in text_string_to_metric_families(exposition(view).decode())}
    assert set(families) == {metric.name for metric in FLEET_METRICS}
    completions = {sample.labels["status"]: sample.value for sample in families["fleet_completions"].samples}
    assert completions == {"ok": 3, "degraded": 0, "failed": 2}
    rates = {tuple(sample.labels.values()): sample.value for sample in families["fleet_bots_silent"].samples}
    assert rates == {("a",): 2, ("b",): 2}
    assert families["fleet_bot_failures_top_share"].samples[0].value == 1.0


def test_no_metric_is_labelled_by_bot_key_or_task_and_none_grows_with_bots(working_fleet: WorkingFleet) -> None:
    labels = {label for metric in (*FLEET_METRICS, *WORKER_METRICS) for label in metric.labels}
    assert not labels & {"bot", "key", "task", "task_id", "tenant"}
    working_fleet.finish(1, pool="a", bot=1, error="BadAnswer")
    few = exposition(working_fleet.overview.read()).decode()
    working_fleet.finish(1, pool="a", bot=2, error="BadAnswer")
    working_fleet.finish(1, pool="a", bot=3, error="BadAnswer")
    assert len(exposition(working_fleet.overview.read()).splitlines()) == len(few.splitlines())
    assert "a-001" not in few


@pytest.mark.parametrize("place", ["alerts", "dashboard"])
def test_rules_and_dashboards_ask_only_for_what_is_declared(place: str) -> None:
    text = ALERTS.read_text(encoding="utf-8") if place == "alerts" else expressions()
    assert asked_for(text)
    assert asked_for(text) <= KNOWN, f"not declared in metrics.py: {sorted(asked_for(text) - KNOWN)}"


def test_the_dashboard_shows_every_metric() -> None:
    shown = asked_for(expressions())
    unseen = {m.name for m in (*FLEET_METRICS, *WORKER_METRICS) if not shown & set(m.samples)}
    assert not unseen


def test_names_follow_prometheus_conventions() -> None:
    for metric in (*FLEET_METRICS, *WORKER_METRICS):
        assert re.fullmatch(r"fleet_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
        assert not re.search(r"_(ms|micros|mb|total)$", metric.name), f"{metric.name}: base units, no _total"
        assert metric.description.endswith(".")


@promtool
def test_promtool_accepts_the_rules_and_they_fire_on_shifts_only() -> None:
    rules = Path(__file__).with_name("alerts.test.yml")
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(rules)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_promtool_accepts_what_the_dashboard_serves(working_fleet: WorkingFleet) -> None:
    working_fleet.finish(3, pool="a", bot=1)
    text = exposition(working_fleet.overview.read())
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_redis_that_holds_nothing_is_told_as_zeros(client: redis.Redis, working_fleet: WorkingFleet) -> None:
    client.flushall()
    assert b"fleet_workers 0.0" in exposition(working_fleet.overview.read())


@promtool
def test_no_alert_is_even_pending_on_the_first_day_of_a_fleet_that_is_well(
    working_fleet: WorkingFleet, tmp_path: Path
) -> None:
    def told() -> dict[str, float]:
        families = text_string_to_metric_families(exposition(working_fleet.overview.read()).decode())
        samples = [sample for family in families for sample in family.samples]
        return {f"{one.name}{json.dumps(one.labels)}": one.value for one in samples}

    fresh = told()
    for pool, bot in itertools.product("ab", (1, 2, 3)):
        working_fleet.finish(12, pool=pool, bot=bot, queued_ms=10, ran_ms=200, cost_usd_micros=10)
    working_fleet.finish(3, pool="b", bot=1, error="BadAnswer", ran_ms=9000)
    working_fleet.finish(1, pool="b", bot=3, attempts=2, calls={"ProviderUnavailable": 1}, ran_ms=9000)
    worked = told()
    memory = "fleet_redis_memory_bytes{}"
    series = [
        # ten minutes without a task, then the first ones
        {"series": _selector(name), "values": _run(fresh.get(name, 0.0), 0.0, 9) + _run(now, 0.0, 1440)}
        for name, now in worked.items()
        if name != memory
    ]
    series.append({"series": "fleet_redis_memory_bytes", "values": _run(2e6, 4e4, 600) + _run(26e6, 0.0, 900)})
    minutes = [5, 12, 20, 40, 69, 75, 90, 130, 200, 400, 500, 800, 1400]
    tests = [{"expr": "ALERTS", "eval_time": f"{minute}m", "exp_samples": []} for minute in minutes]
    file = tmp_path / "first_day.test.yml"
    file.write_text(
        json.dumps(
            {
                "rule_files": [str(ALERTS)],
                "evaluation_interval": "1m",
                "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
            }
        )
    )
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _run(start: float, step: float, minutes: int) -> str:
    """Return values of so many minutes as promtool reads them."""
    return f"{start:.6f}{step:+.6f}x{minutes} "


def _selector(told: str) -> str:
    name, _, labels = told.partition("{")
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in json.loads("{" + labels).items()) + "}"
