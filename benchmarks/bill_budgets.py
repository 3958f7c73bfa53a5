"""100 callers at once under each budget: how much is overspent, and whether a task waits that could have been paid.

Beside it LiteLLM's proxy, whose budget is that of its one deployment.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bench import PATIENCE_S, until
from benchmarks.bill_fleet import PRICES, Fleet, Provider, prices_of, running
from fleet.cli.exit_codes import EXIT_WAITS
from fleet.economy.budgets.keeper import MOST_AGAIN_S

#: Callers at once, in each of two worker processes half of them; tasks of a cell, and US dollars that it may spend.
CALLERS, TASKS, USD = 100, 300, 0.04
#: Median time to an answer, in milliseconds.
LATENCY_MS = 150
#: Longest answer: the most that a call may cost is far from what it does.
MOST_TOKENS = 400
#: Seconds without an answer after which a cell is at rest: tasks that were refused for what is in flight ask again a
#: second later, those of a tenant or a run after up to twice the longest time that their keeper lets them wait.
REST_S, REST_OF_ONE_S = 4.0, 2 * MOST_AGAIN_S + 3.0
#: An hour's budget opens anew when the hour ends: its cell begins at least so long (s) before.
BEFORE_HOUR_S = 90.0
PERIODS = {"hour": "usd_per_hour", "day": "usd_per_day", "month": "usd_per_month", "in all": "usd_in_all"}
SCOPES = ("pool", "tenant", "bot")
PICOS = 10**12
#: What the fleet expects of a call may be so many times what it would of all calls of a cell together.
SWAYS = 1.5
#: Share of a budget that may be overspent while it is still learnt what a call costs; without reservations, 100 callers
#: overspend this one by 104 to 151%.
LEARNING = 0.05


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one budget.

    Args:
        what: Whose, and for how long.
        spent_picos: By the provider's ledger, in 10^-12 dollars.
        dearest_picos: What the dearest call has cost.
        expected_picos: What the fleet expects of a call at the end.
        waiting: Tasks without an answer.
        exit_code: Of `fleet run`; None: it was not run.
    """

    what: str
    spent_picos: int
    dearest_picos: int
    expected_picos: int
    waiting: int
    exit_code: int | None = None

    @property
    def over_picos(self) -> int:
        """What was overspent."""
        return max(0, self.spent_picos - round(USD * PICOS))

    @property
    def falsely_blocked(self) -> int:
        """Tasks that wait though what is left pays for what a call is expected to cost."""
        return self.waiting if round(USD * PICOS) - self.spent_picos >= self.expected_picos else 0

    @property
    def most_over_picos(self) -> int:
        """What may be overspent: what calls in flight can cost beyond what is reserved for them, as it is learnt."""
        return CALLERS * max(0, self.dearest_picos - self.expected_picos) + round(LEARNING * USD * PICOS)

    @property
    def is_kept(self) -> bool:
        """True when no more than that was overspent, nothing waits for no reason, and `fleet run` says what waits."""
        is_told = self.exit_code in (None, EXIT_WAITS)
        return self.over_picos <= self.most_over_picos and not self.falsely_blocked and self.waiting > 0 and is_told


#: What a cell is called on the command line: `tenant/in-all`, and `run`.
CELLS = (*(f"{scope}/{period.replace(' ', '-')}" for scope in (*SCOPES, "fleet") for period in PERIODS), "run")


def try_all(only: str = "") -> Iterator[Kept]:
    """Run every budget, and yield what became of it.

    Args:
        only: Those of `CELLS` that begin so.
    """
    provider = Provider("--latency-ms", str(LATENCY_MS), "--seed", "5")
    every = [(scope, period) for scope in (*SCOPES, "fleet") for period in PERIODS if is_meant(scope, period, only)]
    cells = [one for one in every if one[0] != "fleet"]
    try:
        if cells or "run".startswith(only):
            with running(_settings(cells), provider) as fleet:
                for scope, period in cells:
                    yield _cell(fleet, scope, period)
                if "run".startswith(only):
                    yield _run(fleet)
        for scope, period in every[len(cells) :]:
            with running(_settings([(scope, period)]), provider) as fleet:
                yield _cell(fleet, scope, period)
    finally:
        provider.stop()


def is_meant(scope: str, period: str, only: str) -> bool:
    """True when the name of a cell begins so."""
    return f"{scope}/{period.replace(' ', '-')}".startswith(only)


def _name(scope: str, period: str) -> str:
    return f"{scope}-{period.replace(' ', '-')}"


def _settings(cells: list[tuple[str, str]]) -> str:
    os.environ["BILL_KEY"] = "sk-budget"
    tables = [
        f"[worker]\nslots = {CALLERS // 2}\n[health]\nwatch = false\n"
        '[providers.api]\nkind = "openai"\nbase_url = "{url}"\napi_key_env = "BILL_KEY"\n'
    ]
    for scope, period in [*cells, ("run", "in all")]:
        name = _name(scope, period)
        bots = 1 if scope == "bot" else CALLERS
        tables.append(
            f'[pools.{name}]\nbots = {bots}\nprovider = "api"\nmodel = "mini"\nmax_output_tokens = {MOST_TOKENS}\n'
        )
        about = {"pool": f"pool:{name}", "tenant": f"tenant:{name}", "bot": f"bot:{name}-001", "fleet": "fleet"}.get(
            scope
        )
        if about:
            tables.append(f'[budgets."{about}"]\n{PERIODS[period]} = {USD}\n')
    return "".join(tables) + prices_of("api/mini")


def _tasks(scope: str, period: str) -> list[dict[str, Any]]:
    name = _name(scope, period)
    tenant = {"tenant": name} if scope == "tenant" else {}
    return [{"prompt": f"Write about subject {n}.", "pool": name, "kind": "prose", **tenant} for n in range(TASKS)]


def _cell(fleet: Fleet, scope: str, period: str) -> Kept:
    if period == "hour":
        until(lambda: time.time() % 3600 < 3600 - BEFORE_HOUR_S, "the next hour", every_s=1.0)
    fleet.provider.wait_quiet()
    fleet.provider.reset()
    ids = fleet.submit(_tasks(scope, period))
    _rest(lambda: len(fleet.results(ids)), REST_OF_ONE_S if scope == "tenant" else REST_S)
    kept = _kept(fleet, f"{scope}, {period}", fleet.results(ids), TASKS)
    # Else they would spend their money in another cell's time as soon as there is some.
    ended = fleet.command("cancel", "--pool", _name(scope, period), "--yes")
    if ended.returncode:
        raise RuntimeError(f"cancel of {scope}, {period}: exit code {ended.returncode}: {ended.stderr[-500:]}")
    return kept


def _run(fleet: Fleet) -> Kept:
    """The same through `fleet run --max-usd`, which ends when nothing goes on."""
    fleet.provider.wait_quiet()
    fleet.provider.reset()
    source, target = fleet.home / "run.jsonl", fleet.home / "answers.jsonl"
    source.write_text("\n".join(json.dumps(task) for task in _tasks("run", "in all")))
    done = fleet.command("run", str(source), "-o", str(target), "--max-usd", str(USD))
    results = [json.loads(line) for line in target.read_text().splitlines()]
    kept = _kept(fleet, "run, --max-usd", [one for one in results if one.get("status") == "ok"], TASKS)
    return replace(kept, exit_code=done.returncode)


def _kept(fleet: Fleet, what: str, results: list[dict[str, Any]], tasks: int) -> Kept:
    fleet.provider.wait_quiet()
    spent = int(fleet.provider.ledger()["total"]["billed_usd_picos"])
    costs = [result["cost_usd_picos"] for result in results if result.get("cost_usd_picos")]
    mean = statistics.fmean(costs) if costs else 0.0
    # As the limiter learns: three mean deviations above the mean. What it has learnt forgets, so it sways around that.
    expected = mean + 3 * statistics.fmean(abs(cost - mean) for cost in costs) if costs else 0.0
    expected = min(max(expected, _learnt_picos(fleet)), SWAYS * expected)
    return Kept(what, spent, max(costs, default=0), round(expected), tasks - len(results))


def _learnt_picos(fleet: Fleet) -> float:
    """Return what the fleet expects of the next call: a share of its longest answer's cost; a prompt costs little."""
    from fleet.store import keys

    learnt: Any = fleet.redis.hget(keys.limit_keys("api/mini/default").facts, "q:prose")
    words = (learnt or b"").split()
    share = float(words[4]) + 3 * float(words[5]) if len(words) == 6 else 1.0
    return share * MOST_TOKENS * PRICES["output_usd_per_mtok"] * 1e6


def _rest(done: Callable[[], int], rest_s: float) -> None:
    """Wait until no answer has come for so many seconds."""
    most, since, end = -1, time.monotonic(), time.monotonic() + PATIENCE_S
    while time.monotonic() - since < rest_s or most == 0:
        count = done()
        if count > most:
            most, since = count, time.monotonic()
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s for the first answers of a cell")
        time.sleep(0.1)


def try_litellm(program: str, home: Path) -> Kept:
    """Let as many callers ask LiteLLM's proxy, whose deployment has the same budget, until it refuses all of them."""
    provider = Provider("--latency-ms", str(LATENCY_MS), "--seed", "5")
    try:
        with _proxy(program, provider.url, home) as url:
            return _asked(url, provider)
    finally:
        provider.stop()


@contextmanager
def _proxy(program: str, url: str, home: Path) -> Iterator[str]:
    from benchmarks.storm import KEY, lives, open_port

    port = open_port()
    given, made = (PRICES[f"{name}_usd_per_mtok"] / 1e6 for name in ("input", "output"))
    costs = {"input_cost_per_token": given, "output_cost_per_token": made}
    told = {
        "model": "openai/mini",
        "api_base": f"{url}/v1",
        "api_key": "x",
        "max_budget": USD,
        "budget_duration": "1d",
        **costs,
    }
    settings = {"model_list": [{"model_name": "mini", "litellm_params": told}], "router_settings": {"num_retries": 0}}
    (home / "litellm.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [program, "--config", str(home / "litellm.yaml"), "--port", str(port), "--host", "127.0.0.1"]
    with (home / "litellm.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=home, env={**os.environ, "LITELLM_MASTER_KEY": KEY}
        )
    try:
        end = time.monotonic() + 120
        while not lives(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"LiteLLM's proxy did not start:\n{(home / 'litellm.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _asked(url: str, provider: Provider) -> Kept:
    left, lock, answered = list(range(TASKS)), threading.Lock(), []

    def caller() -> None:
        while True:
            with lock:
                if not left:
                    return
                number = left.pop()
            if _ask(url, f"Write about subject {number}."):
                answered.append(number)

    threads = [threading.Thread(target=caller, daemon=True) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = provider.ledger()["total"]
    dearest = round(max(1, total["billed_usd_picos"]) / max(1, total["served"]))
    return Kept("LiteLLM's proxy, a day", int(total["billed_usd_picos"]), dearest, dearest, TASKS - len(answered))


def _ask(url: str, prompt: str) -> bool:
    from benchmarks.storm import KEY

    body = {"model": "mini", "messages": [{"role": "user", "content": prompt}], "max_tokens": MOST_TOKENS}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except OSError:
        return False
    return True
