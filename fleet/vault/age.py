"""How old keys are, and which are due to be replaced."""

from __future__ import annotations

from fleet.config import TOOLS, Settings
from fleet.errors import KeyMissing
from fleet.vault.book import account_of
from fleet.vault.choice import source_of, tool_source_of
from fleet.vault.sources import Secret

#: Seconds of a day.
DAY_S = 86_400.0


def due_in_s(secret: Secret, rotate_days: float | None, now_s: float) -> float | None:
    """Return the seconds until a key is due; below 0: it is; None: nobody has said when, or knows its age.

    Args:
        secret: As its source has it.
        rotate_days: How old it may get.
        now_s: Unix time in seconds.
    """
    if rotate_days is None or secret.made_at is None:
        return None
    return round(secret.made_at + rotate_days * DAY_S - now_s, 1)


def overdue_keys(settings: Settings, now_s: float) -> dict[str, float]:
    """Return for how many seconds keys have been due, by `provider`, `provider/label` or `tools/NAME`.

    One that cannot be read is told elsewhere.
    """
    sources = {
        account_of(name, label): (source_of(name, settings, "", label), days)
        for name, provider in settings.providers.items()
        for label in provider.labels
        if (days := provider.rotate_days_of(label)) is not None
    }
    sources |= {
        f"{TOOLS}/{name}": (tool_source_of(name, settings), tool.rotate_days)
        for name, tool in settings.tools.items()
        if tool.rotate_days is not None
    }
    found = {}
    for name, (source, days) in sources.items():
        try:
            due = due_in_s(source.current(), days, now_s)
        except KeyMissing:
            continue
        if due is not None and due <= 0:
            found[name] = -due
    return found
