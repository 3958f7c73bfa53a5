"""python -m benchmarks.situations: everything that can be wrong is played on a real fleet, and the page must say it.

Of each situation: the sentence, the seconds from the fleet's own finding (its event; else the deed) until the page
says it, those from the deed, and the calls that failed until then. Pictures of each, light, dark and on a phone, stay
in build/screenshots. All of it happens to one fleet in one hour, and nothing is made up but who waited in the minutes
before a backlog that grows, and the state of bots that answer alike. Needs the dev extra, chromium and
chromium-driver.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks.bench import print_table
from benchmarks.situations_stage import LATENCY_MS, POOLS, Stage
from fleet.cli.operate.top_view import frame
from fleet.diversity import ClassState
from fleet.diversity.state import Pairs, Reading, Trial
from fleet.models import Remedy, bot_name
from fleet.roster import quarantine, release
from fleet.store import keys
from tests.dashboard.browser import SCREENSHOTS

#: Seconds that a situation gets until the page says it; a slow answer and a backlog need their minutes before.
SAID_WITHIN_S = 90.0
#: Seconds after which what was undone must have gone from the page.
GONE_WITHIN_S = 75.0
LOOKS = (("light", 1440, "light"), ("dark", 1440, "dark"), ("phone", 360, "light"))
#: Columns and lines of the terminals in which `fleet top` is drawn.
TERMINALS, TERMINAL_LINES = (60, 80, 120, 200), 40
#: Sentences that a situation is known by.
SAID = "return [...document.querySelectorAll('#diagnosis .said')].map((node) => node.textContent)"
BAD = "bad answers: 45% of its last tasks, 5% is usual"


@dataclass(frozen=True)
class Situation:
    """One thing that is wrong.

    Args:
        name: Of its pictures.
        says: What the page's sentence begins with.
        play: Brings it about.
        undo: Ends it.
        event: Of the fleet's own finding; empty: the deed is what is found.
    """

    name: str
    says: str
    play: Callable[[Stage], object]
    undo: Callable[[Stage], object] = lambda stage: None
    event: str = ""


@dataclass(frozen=True)
class Played:
    """What came of a situation; seconds are None when it was never said."""

    name: str
    sentence: str
    after_finding_s: float | None
    after_deed_s: float | None
    failed_calls: int

    @property
    def row(self) -> list[str]:
        times = ["never" if s is None else f"{s:.1f}" for s in (self.after_finding_s, self.after_deed_s)]
        return [self.name, self.sentence, *times, f"{self.failed_calls:,}"]


def _change(*names: str, **options: float) -> Callable[[Stage], None]:
    """Change options of providers."""

    def work(stage: Stage) -> None:
        for name in names:
            stage.providers[name].change(**options)

    return work


def _odd(provider: str, name: str) -> Callable[[Stage], None]:
    def switch(stage: Stage) -> None:
        simulator = stage.providers[provider].simulator
        simulator.odd_mode = type(simulator.odd_mode).read({"name": name, "share": "1"} if name else {"name": ""})

    return switch


def _reset(*apis: str) -> Callable[[Stage], None]:
    def undo(stage: Stage) -> None:
        for api in apis:
            stage.cli("limits", "reset-breaker", api)

    return undo


def _both(*steps: Callable[[Stage], object]) -> Callable[[Stage], None]:
    def work(stage: Stage) -> None:
        for step in steps:
            step(stage)

    return work


def _start(name: str, *options: str, **env: str) -> Callable[[Stage], None]:
    return lambda stage: stage.start(name, *options, env=env)


def _kill(*names: str) -> Callable[[Stage], None]:
    return _both(*(lambda stage, name=name: stage.kill(name) for name in names))


def _budget(share: float) -> Callable[[Stage], None]:
    """Set the day's budget of alpha so that this share of it is used."""

    def work(stage: Stage) -> None:
        (limit,) = (one for one in stage.read().limits if one.limit.startswith("alpha/"))
        used = limit.used_usd or 0.01
        stage.cli("limits", "set", "alpha/m-1", "--usd-per-day", f"{used / share:.6f}")

    return work


def _limits(*arguments: str) -> Callable[[Stage], None]:
    return lambda stage: stage.cli("limits", "set", "alpha/m-1", *arguments)


def _out(pool: str, count: int) -> Callable[[Stage], None]:
    def work(stage: Stage) -> None:
        for number in range(1, count + 1):
            quarantine(stage.client, pool, bot_name(pool, number), by="health", reason=BAD, for_s=900)

    return work


def _back(pool: str, count: int) -> Callable[[Stage], None]:
    return _both(*(lambda stage, n=n: release(stage.client, pool, bot_name(pool, n)) for n in range(1, count + 1)))


def _collapse(stage: Stage) -> None:
    state = ClassState(
        pool="research", kind="default", phase="treating", alarm=True, alarm_at=time.time(), flagged=(5, 6, 7, 8),
        remedies={5: Remedy(rung=1, generation=1), 6: Remedy(rung=1, generation=1)},
        readings={
            "across": Reading(score=9.0, near_share=0.6, usual_score=180.0, usual_near_share=0.01, fallen=True),
            "within": Reading(score=100.0, near_share=0.1, usual_score=110.0, usual_near_share=0.1),
        },
        trial=Trial(
            aspect="across", rung=1, since=9, counted=9, treated=(5, 6), control=(7, 8), alike=0.4,
            treated_pairs=Pairs(total=4.0, count=100), control_pairs=Pairs(total=39.0, count=100),
        ), verdict="remedy 1: did not help",
    )  # fmt: skip
    stage.client.hset(keys.answer_counts(), "research|default", 1000)
    stage.client.hset(keys.diversity_states(), "research|default", state.model_dump_json())


def _grow(stage: Stage) -> None:
    """Let 12,000 tasks wait for two slots, and ten minutes in which there were ever more."""
    for name in ("w1", "w2"):
        stage.stop(name)
    stage.start("w1", "-c", "2")
    minute, most = int(time.time() // 60), 12_000
    stage.queue("research", most, priority="low")
    rows: Any = {minute - ago: json.dumps({"research": most - 1000 * ago}) for ago in range(11, -1, -1)}
    stage.client.hset(keys.backlogs(), mapping=rows)


def _near_memory(stage: Stage) -> None:
    used = int(stage.client.info("memory")["used_memory"])
    stage.client.config_set("maxmemory", int(used / 0.9))


SITUATIONS = (
    Situation("all-well", "", lambda stage: stage.feed(True)),
    Situation("provider-down", "alpha/m-1 is down", _change("alpha", error_rate=1.0),
              _change("alpha", error_rate=0.0), "breaker_opened"),
    Situation("all-apis-down", "All 3 APIs in use are down", _change("alpha", "beta", "gamma", error_rate=1.0),
              _change("alpha", "beta", "gamma", error_rate=0.0), "breaker_opened"),
    Situation("provider-slow", "beta/m-2 is slow", _change("beta", latency_ms=8 * LATENCY_MS),
              _change("beta", latency_ms=LATENCY_MS)),
    Situation("provider-hangs", "alpha/m-1 answers nothing", _change("alpha", hang_rate=1.0),
              _change("alpha", hang_rate=0.0)),
    Situation("provider-refusing", "gamma/m-3 refuses all calls", _odd("gamma", "429-in-a-200"), _odd("gamma", ""),
              "provider_limited"),
    Situation("key-dead", "The key of alpha/m-1 is not taken", _odd("alpha", "dead-key"),
              _both(_odd("alpha", ""), _reset("alpha/m-1")), "breaker_opened"),
    Situation("out-of-money", "The account of beta/m-2 is out of money", _odd("beta", "credit-too-low"),
              _both(_odd("beta", ""), _reset("beta/m-2")), "breaker_opened"),
    Situation("budget-near", "Our budget of alpha/m-1 is used to", _budget(0.88), _limits("--reset")),
    Situation("budget-used", "Our budget of alpha/m-1 is used up", _budget(1.02), _limits("--reset")),
    Situation("limit-saturated", "alpha/m-1 runs at our limit", _limits("--rpm", "120"), _limits("--reset")),
    Situation("bots-bad", "8 of 40 bots of research are quarantined", _out("research", 8), _back("research", 8)),
    Situation("bots-all-out", "All 20 bots of review are quarantined", _out("review", 20), _back("review", 20)),
    Situation("bots-alike", "Bots of research answer alike", _collapse,
              lambda stage: stage.cli("diversity", "relearn", "research", "default")),
    Situation("pool-paused", "Pool writing is paused", lambda stage: stage.cli("pools", "pause", "writing"),
              lambda stage: stage.cli("pools", "resume", "writing"), "pool_paused"),
    Situation("worker-lost", "Worker ", _kill("w2"), _start("w2")),
    Situation("worker-hung", "Worker ", lambda stage: stage.hang("w2"), _both(_kill("w2"), _start("w2"))),
    Situation("settings-differ", "Workers ", _start("w3", FLEET_POOLS__REVIEW__MAX_ATTEMPTS="7"),
              lambda stage: stage.stop("w3")),
    Situation("clock-off", "The clock of host ", _start("w3", CLOCK_AHEAD_S="90"),
              lambda stage: stage.stop("w3")),
    Situation("pool-unserved", "No live worker serves pool",
              _both(_kill("w1", "w2"), _start("w1", "-Q", keys.queue("research"))), _start("w2")),
    Situation("no-worker", "No worker lives", _kill("w1", "w2"), _both(_start("w1"), _start("w2"))),
    Situation("prompts-failing", "Prompts of drafts fail on every bot", lambda stage: stage.queue("drafts", 30)),
    Situation("dead-letters", " failed for good",
              lambda stage: stage.queue("research", 120, deadline_s=0.05)),
    Situation("redis-near-full", "Redis uses 9", _near_memory, lambda stage: stage.client.config_set("maxmemory", 0)),
    Situation("backlog-grows", "The backlog of research grows", _grow,
              _both(_start("w2"), lambda stage: stage.cli("cancel", "--pool", "research", "--yes"))),
)  # fmt: skip


@click.command()
@click.option("--only", default="", help="Names of situations, separated by commas.")
def main(only: str) -> None:
    """Play the situations."""
    chosen = [one for one in SITUATIONS if not only or one.name in only.split(",")]
    with tempfile.TemporaryDirectory(prefix="fleet-stage-", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        stage = Stage(Path(folder), stack)
        rows = [one.row for one in _play_all(stage, chosen, with_first_run=not only)]
    columns = ["situation", "what the page says", "s after the finding", "s after the deed", "failed calls"]
    print_table(f"{len(rows)} situations on a fleet of {sum(bots for bots, *_ in POOLS.values())} bots", columns, rows)


def _play_all(stage: Stage, chosen: list[Situation], *, with_first_run: bool) -> Iterator[Played]:
    if with_first_run:
        _pictures(stage, "first-run")
        yield Played("first-run", stage.page.text("#first-run h2"), 0.0, 0.0, 0)
    stage.feed(True)
    stage.wait_for_work()
    for situation in chosen:
        played = _play(stage, situation)
        click.echo(" | ".join(played.row), err=True)
        yield played
        situation.undo(stage)
        _wait(lambda: bool(_sentence(stage, "")) and not stage.waiting, GONE_WITHIN_S)  # all well again


def _play(stage: Stage, situation: Situation) -> Played:
    failed, began_s = stage.unanswered, time.time()
    situation.play(stage)
    deed_s = max(began_s, time.time() - 1.0)  # a command takes its time until it has done it
    is_said = _wait(lambda: _sentence(stage, situation.says), SAID_WITHIN_S)
    said_s, calls = time.time(), stage.unanswered - failed
    found_s = _found_at(stage, situation.event, began_s) or deed_s
    sentence = _sentence(stage, situation.says)
    _pictures(stage, situation.name)
    if not is_said:
        return Played(situation.name, f"{sentence or stage.page.texts('#diagnosis .said')}", None, None, calls)
    return Played(situation.name, sentence, max(0.0, said_s - found_s), max(0.0, said_s - began_s), calls)


def _sentence(stage: Stage, says: str) -> str:
    """Return the sentence on the page that says it; of no finding: that all is well."""
    found = [str(one) for one in stage.page.script(SAID)]
    if not says:
        return "" if found else stage.page.text("#all-well")
    return next((one for one in found if says in one), "")


def _found_at(stage: Stage, event: str, since_s: float) -> float | None:
    """Return when the fleet found it, by its event: the last one, since of several APIs all must be found."""
    entries: Any = stage.client.xrevrange(keys.events(), count=100) if event else []
    times = [int(one.split(b"-")[0]) / 1000 for one, fields in entries if event.encode() in fields.values()]
    return next((at for at in times if at >= since_s), None)


def _wait(condition: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _pictures(stage: Stage, name: str) -> None:
    for look, width, theme in LOOKS:
        stage.page.look(width=width, height=1000, theme=theme)
        time.sleep(1.2)  # one reading at this width: charts and matrix are drawn anew
        stage.page.picture(f"situation-{name}-{look}")
    stage.page.look()
    view = stage.read()
    for width in TERMINALS:
        with io.StringIO() as text:
            drawn = frame(view, width=width, height=TERMINAL_LINES, sort="evidence", pool=None, window="1h")
            Console(file=text, width=width).print(drawn)
            (SCREENSHOTS / f"situation-{name}-top-{width}.txt").write_text(text.getvalue())


if __name__ == "__main__":
    main()
