"""What `benchmarks.behaviour` sees of a fleet: who was out, how soon, who came back; and the lines of its tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.behaviour_fleet import Fleet
from benchmarks.behaviour_simulator import Pool
from benchmarks.bench import print_table


@dataclass(frozen=True)
class Figure:
    """One line of the table; `holds` is None where there is no bar."""

    name: str
    bar: str
    measured: str
    holds: bool | None = None

    def row(self) -> list[str]:
        return [self.name, self.bar, self.measured, {None: "", True: "yes", False: "NO"}[self.holds]]


def print_figures(title: str, figures: list[Figure]) -> None:
    print_table(title, ["figure", "bar", "measured", "holds"], [figure.row() for figure in figures])


@dataclass
class Watch:
    """Who was out since it was made, seen by looking often.

    Attributes:
        until_out: Tasks that a bad bot began until it was out for the first time, by name.
        reasons: Why a bad bot was quarantined, each time.
        good_out: Names of good bots that were quarantined, as often as they were, with the reason.
        most_out: Most bots that were out at a time.
        alarms: How often the cap was reported.
        until_back: Tasks that a bad bot began until its probation ended, by name.
    """

    fleet: Fleet
    pool: Pool
    until_out: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    good_out: list[str] = field(default_factory=list)
    most_out: int = 0
    alarms: int = 0
    until_back: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._place = self.fleet.now()

    def look(self) -> None:
        from fleet.roster import read_quarantined

        self.most_out = max(self.most_out, len(read_quarantined(self.fleet.redis, [self.pool.name])))
        events = self.fleet.events("bot_quarantined", "bot_released", "quarantine_cap", after=self._place)
        if not events:
            return
        self._place = events[-1]["id"]
        bad = self.fleet.simulator.bad(self.pool)
        for event in events:
            if event["pool"] == self.pool.name:
                self._note(event, bad)

    def _note(self, event: dict[str, str], bad: dict[str, dict[str, Any]]) -> None:
        bot = event["bot"]
        if event["event"] == "quarantine_cap":
            self.alarms += 1
        elif event["event"] == "bot_released":
            self.until_back.setdefault(bot, bad[bot]["tasks"] if bot in bad else 0)
        elif bot in bad:
            self.until_out.setdefault(bot, bad[bot]["tasks"])
            self.reasons.append(f"{bot}: {event['reason']}, after {bad[bot]['tasks']} tasks")
        else:
            self.good_out.append(f"{bot}: {event['reason']}")
