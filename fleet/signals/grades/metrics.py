"""What Prometheus is told of grades: of answers, of second answers, of bots that may be wrong. Never bot by bot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fleet.signals import catalogue
from fleet.signals.money.metric import Metric, Sample
from fleet.signals.view import FleetView

SECOND_ANSWERS = Metric(
    "fleet_graded_second_answers", "counter", "Second answers by other bots, asked for to compare (`shadow_votes`)."
)
BOTS = Metric(
    "fleet_graded_bots",
    "gauge",
    "Bots whose answers may be wrong, or are otherwise than others': at work (doubted), or out for it.",
    ("pool", "state"),
)
GRADE_METRICS = (SECOND_ANSWERS, BOTS)
#: Tests of bots that go by grades.
_OF_GRADES = frozenset({"wrong answers", "answers otherwise"})


def grades(view: FleetView) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Yield each metric with its samples: every pool, so that an alert sees it end."""
    yield SECOND_ANSWERS, [((), view.totals[catalogue.SHADOWS.name])]
    rows = zip(view.bots.pool, view.bots.state, view.bots.test, view.bots.evidence, strict=True)
    counts = Counter(
        (pool, "out" if state == "quarantined" else "doubted")
        for pool, state, test, evidence in rows
        if test in _OF_GRADES and (state == "quarantined" or evidence > 0)
    )
    yield BOTS, [((row.pool, state), counts[row.pool, state]) for row in view.pools for state in ("doubted", "out")]
