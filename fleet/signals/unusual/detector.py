"""Tells sustained use far beyond the usual from bursts, batches and days that begin. Pure: time comes as looks.

A CUSUM (Page 1954; as an e-detector: Shin, Ramdas and Rinaldo 2022) on counts. Each look adds the logarithm of how much
likelier its count is at ten times the usual rate than at the usual rate, divided by the overdispersion of these counts
(quasi-likelihood, McCullagh and Nelder 1989). That is measured on looks, minutes and five minutes, because batches come
together. A bot is weighed against what the others of its pool do at the same time: that grows with their load, while a
thief adds the same on a busy day. One look counts for a quarter of what an alarm takes at most, so no batch of any size
makes one.

Usual is the larger of a short average without its spikes and of the same hour on the days before. What is under
suspicion teaches nothing. Weaknesses: use that takes more than half an hour to grow fourfold becomes usual; the first
busy hour raises no alarm; rates are estimates, so the e-detector's bound on false alarms holds only nearly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: Seconds from one look to the next, and looks of a minute.
LOOK_S, LOOKS_A_MINUTE = 5.0, 12
#: Times the usual rate that are looked for. Evidence grows beyond 3.9 times.
SOUGHT = 10.0
#: Looks that an alarm takes at least.
FEWEST_LOOKS = 4
#: Half lives in minutes: of the usual rate, of how far counts scatter.
RATE_HALF_MIN, SCATTER_HALF_MIN = 30.0, 120.0
#: Minutes with a call until a rate is known well enough to accuse anybody: who is idle at first shows nothing.
WARM_MIN = 60
#: The least that is taken for usual, in calls a minute: who asks for fewer than four times this is never accused.
LEAST_A_MINUTE = 1.0
#: Lengths in looks over which it is measured how far counts scatter.
SCALES = (1, LOOKS_A_MINUTE, 5 * LOOKS_A_MINUTE)
#: Of a bot the first two count, for what lasts longer the others of its pool do too. So far off may its few calls show
#: how much its minutes scatter: three standard errors of two hours.
ROUGHLY = 1.4
#: Weight of a new day in what is usual for its hour.
NEWEST_DAY = 0.3
#: Days over which one false alarm is thought acceptable, of all that is watched together.
FALSE_ALARM_DAYS = 30.0
#: Deviations beyond which a count teaches no more about how far counts scatter: one batch must not blind us for hours.
MOST_OFF = 10.0
#: Deviations by which the peak of an hour on earlier days has to stand out to be tolerated.
SURELY = 3.0

_HOUR_MIN = 60


def threshold(watched: int) -> float:
    """Return the evidence (natural logarithm) that makes an alarm where so many keys and bots are watched."""
    return math.log(max(1, watched) * FALSE_ALARM_DAYS * 86_400 / LOOK_S)


@dataclass(slots=True)
class Usual:
    """What is usual for one key or bot, and the evidence that it isn't kept to.

    Args:
        rate: Calls of a look, as they are on average.
        minutes: Of which it has learnt, and those of them that had a call.
        evidence: That more is asked: see `threshold`.
        scatter: Mean squares of what counts were off, and of what they were expected to be, by scale.
        hours: Calls of a look in each hour of the day (UTC), on days before; below 0: not known.
        peaks: The most calls that five minutes of it had.
        looks: That it has learnt of, with the sums of what isn't a whole minute or five yet, and of the hour that runs.
        dues: What was expected in place of those sums.
        knows_days: Whether it remembers hours of earlier days: a bot does not, for it is measured by its pool as well.
    """

    rate: float = 0.0
    minutes: int = 0
    busy_minutes: int = 0
    evidence: float = 0.0
    scatter: list[float] = field(default_factory=lambda: [0.0] * (2 * len(SCALES)))
    hours: list[float] = field(default_factory=lambda: [-1.0] * 24)
    peaks: list[float] = field(default_factory=lambda: [0.0] * 24)
    looks: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * len(SCALES))
    dues: list[float] = field(default_factory=lambda: [0.0] * len(SCALES))
    hour: int = -1
    hour_sum: float = 0.0
    hour_looks: int = 0
    hour_peak: float = 0.0
    knows_days: bool = True

    def expected(self, hour: int) -> float:
        """Return the usual calls of a look in an hour of the day."""
        if not self.knows_days:
            return max(self.rate, LEAST_A_MINUTE / LOOKS_A_MINUTE)
        known = max(self.hours[hour], self.hours[(hour + 1) % 24])
        if self.hours[hour] < 0:  # an hour that no day has shown yet: as the busiest that is known
            known = max(self.hours)
        return max(self.rate, known, LEAST_A_MINUTE / LOOKS_A_MINUTE)

    @property
    def overdispersion(self) -> float:
        """Return how many times their mean counts scatter, 1 at least."""
        pairs = zip(self.scatter[::2], self.scatter[1::2], strict=True)
        ratios = [off / due if due > 0 else 1.0 for off, due in pairs]
        return max(1.0, *ratios) if self.knows_days else max(1.0, ratios[0], ratios[1] / ROUGHLY)

    @property
    def is_warm(self) -> bool:
        """True when it is known well enough to accuse anybody."""
        return self.busy_minutes >= WARM_MIN

    def look(self, calls: float, *, hour: int, alarm_at: float, growth: float = 1.0) -> float:
        """Learn of the calls of one look.

        Args:
            calls: That were asked for since the last look, scaled to `LOOK_S`.
            hour: Of the day (UTC), 0 to 23.
            alarm_at: Evidence that makes an alarm.
            growth: How many times as much as usual all the others of its pool do: no reproach to one of them.

        Returns:
            The evidence now.
        """
        expected = self.expected(hour)
        if self.is_warm:
            self._weigh(calls, expected, max(1.0, growth), hour, alarm_at)
        if self.evidence < alarm_at / 2:
            self._learn(calls, expected * max(1.0, growth), hour)
        return self.evidence

    def _weigh(self, calls: float, expected: float, growth: float, hour: int, alarm_at: float) -> None:
        """Weigh what a thief adds to the usual against what all others do as well: that grows, the thief's doesn't."""
        dispersion = self.overdispersion
        peak = self.peaks[hour] if self.knows_days else 0.0
        usual = max(expected, (peak - SURELY * math.sqrt(dispersion * peak)) / SCALES[-1])
        added = (SOUGHT - 1) * usual
        gained = (calls * math.log1p((SOUGHT - 1) / growth) - added) / dispersion
        self.evidence = min(2 * alarm_at, max(0.0, self.evidence + min(gained, alarm_at / FEWEST_LOOKS)))

    def _learn(self, calls: float, expected: float, hour: int) -> None:
        self.looks += 1
        dispersion = self.overdispersion
        for place, looks in enumerate(SCALES):
            self.sums[place] += calls
            self.dues[place] += expected
            if self.looks % looks == 0:
                self._learn_sum(place, looks, self.dues[place], dispersion)
                self.sums[place] = self.dues[place] = 0.0
        if not self.knows_days:
            return
        if hour != self.hour:
            self._end_hour()
            self.hour = hour
        self.hour_sum += calls
        self.hour_looks += 1

    def _learn_sum(self, place: int, looks: int, due: float, dispersion: float) -> None:
        total = self.sums[place]
        if self.minutes or place == 1:
            weight = 1 - 0.5 ** (looks / LOOKS_A_MINUTE / SCATTER_HALF_MIN)
            mean = self.rate * looks if self.knows_days else due
            off = total - (mean if self.minutes else total)
            if self.is_warm:
                off = min(off, MOST_OFF * math.sqrt(dispersion * due))
            self.scatter[2 * place] += weight * (off * off - self.scatter[2 * place])
            self.scatter[2 * place + 1] += weight * (mean - self.scatter[2 * place + 1])
        if place == 1:
            spike = max(3 * due, due + SURELY * math.sqrt(dispersion * due)) if self.is_warm else total
            weight = max(1 / (self.minutes + 1), 1 - 0.5 ** (1 / RATE_HALF_MIN))
            self.rate += weight * (min(total, spike) / looks - self.rate)
            self.minutes += 1
            self.busy_minutes += total > 0
        elif place == len(SCALES) - 1:
            self.hour_peak = max(self.hour_peak, total)

    def _end_hour(self) -> None:
        """Remember an hour of which most was seen."""
        if self.hour >= 0 and self.hour_looks >= _HOUR_MIN * LOOKS_A_MINUTE / 2:
            mean, known = self.hour_sum / self.hour_looks, self.hours[self.hour]
            self.hours[self.hour] = mean if known < 0 else known + NEWEST_DAY * (mean - known)
            peak = self.peaks[self.hour]
            self.peaks[self.hour] = max(self.hour_peak, peak + NEWEST_DAY * (self.hour_peak - peak))
        self.hour_sum = self.hour_peak = 0.0
        self.hour_looks = 0
