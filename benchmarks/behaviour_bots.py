"""Bad bots, through a real fleet: who is found, how soon, what becomes of tasks, who is not accused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import ceil
from statistics import mean, median
from typing import Any

from benchmarks.behaviour_fleet import running_fleet
from benchmarks.behaviour_simulator import Pool
from benchmarks.behaviour_watch import Figure, Watch

#: Bad bots of 100: 20 and 40, of the three kinds.
TWENTY = {"errors": 7, "avoidance": 7, "slow": 6}
FORTY = {"errors": 14, "avoidance": 13, "slow": 13}
#: Tasks of each bot while all are good, so that it is known what is usual.
LEARNT = 5
#: Tasks of each bot before some turn bad late.
LATE = 110
#: Rounds of the comparison of two pools.
ROUNDS = 4
#: Most tasks that a bad bot may begin until it is out, in the middle; the issue's bar.
FEW = 12
#: Seconds of an outage, and of the calm after it.
OUTAGE_S, CALM_S = 5.0, 4.0


def found(tasks: int, seed: int) -> list[Figure]:
    """100 bots of which 20 are bad, beside 80 good ones; and bots that are bad from their very first task."""
    mixed, good, fresh = Pool("mixed"), Pool("good", bots=80, coolest=1.0), Pool("fresh")
    with running_fleet(mixed, good, fresh, seed=seed) as fleet:
        fleet.run("mixed", LEARNT * mixed.bots)
        fleet.drain()
        fleet.simulator.post("bad", **TWENTY, seed=seed)
        at_first = Watch(fleet, fresh)
        fleet.run("fresh", max(500, tasks // 25), look=at_first.look)
        unknown = fleet.drain()
        fleet.wrong.clear()
        fleet.simulator.post("bad", **TWENTY, seed=seed)  # the same bots, counted anew
        fleet.run("good", LEARNT * good.bots)
        fleet.drain()
        watch, answers = Watch(fleet, mixed), Counter[str]()
        calls, rates, good_rates = 0, list[float](), list[float]()
        for _ in range(ROUNDS):
            before = fleet.simulator.calls
            rates.append(fleet.run("mixed", tasks // ROUNDS, look=watch.look))
            calls += fleet.simulator.calls - before
            answers += fleet.drain()
            good_rates.append(fleet.run("good", tasks // ROUNDS // 5))
            fleet.drain()
        bad = fleet.simulator.bad(mixed)
    share = sum(one["calls"] for one in bad.values()) / calls
    ratio = mean(rates) / mean(good_rates)
    return [
        *_how_soon("20 of 100 bad", watch, sum(TWENTY.values())),
        *(_one_kind(kind, watch, bad) for kind in TWENTY),
        _nobody_good("20 of 100 bad", watch, f"{tasks:,} tasks"),
        Figure("20 of 100 bad: their share of the calls", "< 2%", f"{share:.2%}", share < 0.02),
        _all_good("20 of 100 bad", answers, fleet.wrong),
        Figure(
            "20 of 100 bad: tasks/s, of the 80 good bots' alone",
            ">= 0.95",
            f"{ratio:.3f} ({mean(rates):.0f} of {mean(good_rates):.0f})",
            ratio >= 0.95,
        ),
        Figure("bad from the very first task: out", "", f"{len(at_first.until_out)} of {sum(TWENTY.values())}"),
        Figure("bad from the very first task: answers", "", _spelled(unknown)),
        _nobody_good("bad from the very first task", at_first, f"{unknown.total():,} tasks"),
    ]


def crowd(tasks: int, seed: int) -> list[Figure]:
    """40 of 100 bots are bad: more than may be out."""
    pool = Pool("crowd")
    with running_fleet(pool, seed=seed) as fleet:
        fleet.run("crowd", LEARNT * pool.bots)
        before = fleet.run("crowd", tasks // 12)
        fleet.drain()
        fleet.simulator.post("bad", **FORTY, seed=seed)
        watch = Watch(fleet, pool)
        during = fleet.run("crowd", tasks // 6, look=watch.look)
        answers = fleet.drain()
    return [
        Figure("40 of 100 bad: most out at a time", "<= 35", str(watch.most_out), watch.most_out <= 35),
        Figure("40 of 100 bad: alarms of the cap", ">= 1", str(watch.alarms), watch.alarms >= 1),
        Figure("40 of 100 bad: bad bots found", "", f"{len(watch.until_out)} of {sum(FORTY.values())}"),
        _nobody_good("40 of 100 bad", watch, f"{tasks // 6:,} tasks"),
        _all_good("40 of 100 bad", answers, fleet.wrong),
        Figure("40 of 100 bad: tasks/s, of before", "", f"{during / before:.2f} ({during:.0f} of {before:.0f})"),
    ]


def outage(tasks: int, seed: int) -> list[Figure]:
    """The provider fails in ways that all bots share."""
    pool = Pool("outage")
    with running_fleet(pool, seed=seed) as fleet:
        fleet.run("outage", LEARNT * pool.bots)
        troubles: dict[str, tuple[str, dict[str, Any]]] = {
            "all calls answered with a 5xx": ("failures", {"error_rate": 1}),
            "half of the calls answered with a 5xx": ("failures", {"error_rate": 0.5}),
            "no call answered": ("failures", {"hang_rate": 1}),
            "all answers empty": ("bad", {"errors": 1.0, "error_share": 1, "answers": "empty"}),
            "half of all answers refusals": ("bad", {"errors": 1.0, "answers": "refusal"}),
            "all answers 4 times as late": ("bad", {"slow": 1.0}),
        }
        figures = []
        for name, (path, mode) in troubles.items():
            fleet.drain()
            watch = Watch(fleet, pool)
            fleet.simulator.post(path, **mode)
            fleet.feed_for("outage", OUTAGE_S, look=watch.look)
            accused = [*watch.until_out, *watch.good_out]  # where the mode makes all of them bad, none of them is
            fleet.simulator.post("failures", error_rate=0, hang_rate=0)
            fleet.simulator.post("bad")
            after = Watch(fleet, pool)
            fleet.feed_for("outage", CALM_S, look=after.look)
            answers = fleet.drain()
            figures.append(_nobody(f"{name} for {OUTAGE_S:.0f} s: bots accused", accused + after.good_out))
            figures.append(Figure(f"{name} for {OUTAGE_S:.0f} s: answers", "", _spelled(answers)))
    return figures


def turns(tasks: int, seed: int) -> list[Figure]:
    """Bots turn bad after many good tasks, and then good again."""
    pool, twenty = Pool("turns"), sum(TWENTY.values())
    with running_fleet(pool, seed=seed) as fleet:
        fleet.run("turns", LATE * pool.bots)
        fleet.simulator.post("bad", **TWENTY, seed=seed)
        late = Watch(fleet, pool)
        fleet.feed("turns", lambda: len(late.until_out) == twenty, "all bad bots out", look=late.look)
        healed = fleet.simulator.post("bad", errors=twenty, error_share=0, seed=seed)  # the same bots, all good now
        back = Watch(fleet, pool)
        assert len(healed["bad"]) == twenty
        fleet.feed("turns", lambda: len(back.until_back) == twenty, "all recovered bots back", look=back.look)
        answers = fleet.drain()
    return [
        *_how_soon(f"bad after {LATE} good tasks", late, twenty),
        _nobody_good(f"bad after {LATE} good tasks", late, f"{LATE * pool.bots:,} tasks and more"),
        Figure("recovered: back", f"{twenty}", f"{len(back.until_back)} of {twenty}", len(back.until_back) == twenty),
        Figure("recovered: tasks until fully back, median / most", "", _median_most(back.until_back.values())),
        _nobody("recovered: out again before that", back.reasons),
        _all_good("bad late, and recovered", answers, fleet.wrong),
    ]


def _how_soon(name: str, watch: Watch, bad: int) -> list[Figure]:
    counts = sorted(watch.until_out.values())
    middle = median(counts) if counts else float("inf")
    p95 = counts[ceil(0.95 * len(counts)) - 1] if counts else 0
    return [
        Figure(f"{name}: bad bots out", f"{bad}", f"{len(counts)} of {bad}", len(counts) == bad),
        Figure(f"{name}: tasks until out, median", f"<= {FEW}", f"{middle:g}", middle <= FEW),
        Figure(
            f"{name}: tasks until out, mean / p95 / most",
            "",
            f"{mean(counts or [0]):.1f} / {p95} / {max(counts, default=0)}",
        ),
    ]


def _one_kind(kind: str, watch: Watch, bad: dict[str, dict[str, object]]) -> Figure:
    counts = [count for bot, count in watch.until_out.items() if bad[bot]["kind"] == kind]
    return Figure(f"of these {kind}: out, tasks until out: median / most", "", f"{len(counts)}, {_median_most(counts)}")


def _median_most(counts: Iterable[int]) -> str:
    counts = list(counts)
    return f"{median(counts):g} / {max(counts)}" if counts else "-"


def _nobody_good(name: str, watch: Watch, when: str) -> Figure:
    return _nobody(f"{name}: good bots out in {when}", watch.good_out)


def _nobody(name: str, accused: list[str]) -> Figure:
    return Figure(name, "0", str(len(accused)) + (f" ({accused[0]})" if accused else ""), not accused)


def _all_good(name: str, answers: Counter[str], wrong: list[str]) -> Figure:
    lacking = answers.total() - answers["good"]
    example = f"; {wrong[0]}" if wrong else ""
    return Figure(
        f"{name}: tasks without a good answer", "0", f"{lacking} ({_spelled(answers)}{example})", lacking == 0
    )


def _spelled(answers: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in answers.most_common())
