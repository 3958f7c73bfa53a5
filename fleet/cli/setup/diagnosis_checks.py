"""What `fleet doctor` says of the fleet at work: the findings that the page shows, in the same words."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fleet.cli.setup.check import Check, ok, warn
from fleet.config import Settings
from fleet.engine.operations.overview import open_overview
from fleet.errors import FleetError
from fleet.signals.diagnosis.finding import ALL_WELL, Diagnosis

#: Kinds of which another check tells already, with more of what to change.
_TOLD_ELSEWHERE = ("settings_differ", "releases_differ", "pool_unserved", "clock_off", "redis_memory")


def read_diagnoses(settings: Settings) -> tuple[Diagnosis, ...] | None:
    """Return what is wrong, worst first; None: Redis does not answer."""
    try:
        with open_overview(settings) as overview:
            return overview.read().diagnoses
    except FleetError:
        return None


def alert_checks(settings: Settings, variables: Collection[str]) -> Iterator[Check]:
    """Yield whether a webhook that is to be told can be told; `variables`: those of the environment that are set."""
    name = settings.alerts.webhook_env
    if name is not None and name in variables:
        yield ok("alerts: webhook", f"variable {name}; `fleet alerts test` sends it a message")
    elif name is not None:
        advice = f"Set {name} where Flower, or `fleet alerts watch`, runs, or take webhook_env out of [alerts]."
        yield warn("alerts: webhook", f"no variable {name} here", advice)


def diagnosis_checks(found: tuple[Diagnosis, ...] | None) -> Iterator[Check]:
    """Yield a finding for each that nobody else tells; that no worker runs is no fault while nothing waits for one."""
    if found is None:
        return
    told = [one for one in found if one.kind not in _TOLD_ELSEWHERE]
    if not told:
        yield ok("fleet: diagnosis", ALL_WELL)
    for one in told:
        name = f"fleet: {one.kind.replace('_', ' ')}"
        if one.severity == "info" or (one.kind == "no_worker" and one.severity == "warning"):
            yield ok(name, one.sentence)
        else:
            helps = "; ".join(filter(None, (one.help.advice, one.help.command)))
            yield warn(name, one.sentence, f"{helps[:1].upper()}{helps[1:]}.")
