"""Which lanes an API has for tasks, as the settings say. What a lane costs decides later."""

from __future__ import annotations

from fleet.config import Settings
from fleet.economy.lanes.choice import LANES_OF, LATER, USUAL, WINDOW_OF, Lane


def lanes_of_api(settings: Settings, api: str) -> set[Lane]:
    """Return the lanes that calls to `provider/model` may take.

    A limit that counts a day's money or requests is asked before each call: what is answered hours later would slip
    past it, so nothing under it goes in a batch, or in the background.
    """
    found = set(LANES_OF.get(settings.provider_named(api.partition("/")[0]).kind, USUAL))
    limit = settings.limits_in_use.get(api)
    has_day = limit is not None and (limit.usd_per_day or limit.requests_per_day)
    if has_day:
        return found - LATER
    wanted = {"batch": settings.lanes.batches, **dict.fromkeys(WINDOW_OF, settings.lanes.background)}
    return {lane for lane in found if wanted.get(lane, True)}
