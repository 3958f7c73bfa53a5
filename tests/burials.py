"""Keep a dead letter without finishing its task: the function of the finishing script, run alone."""

from __future__ import annotations

import redis

from fleet.config import Settings
from fleet.engine.outcomes.dead_letters import RECORD, Burial, letter_constants, letter_keys, record_arguments
from fleet.store import keys
from fleet.store.client import run_script


def keep(client: redis.Redis, burial: Burial, settings: Settings) -> None:
    """Keep what `bury` returned."""
    call = RECORD.call(
        result=keys.result(burial.letter.task_id), **letter_keys(), totals=keys.totals(),
        **letter_constants(settings), **record_arguments(burial, settings.pools),
    )  # fmt: skip
    run_script(client, RECORD, *call)
