"""Why a task has no result yet, in one line: for whoever has waited for it in vain. Read once, never raises."""

from __future__ import annotations

import redis

from fleet.config import Settings
from fleet.engine.operations.obstacles import headline
from fleet.engine.operations.story import tell
from fleet.engine.operations.task_facts import gather
from fleet.engine.operations.waits import look, read_limit
from fleet.errors import FleetError, StoreRefused
from fleet.quoting import brief
from fleet.store.client import store_errors
from fleet.store.private.two_redis import two_redis
from fleet.store.running.brokers import Anywhere

#: Waiting messages looked at (count): thousands of callers may give up at the same moment.
SEARCH_MOST = 2000
#: Seconds that Redis has to answer: whoever asks has waited long enough.
PATIENCE_S = 2.0


def why_no_result(task_id: str, settings: Settings) -> str:
    """Return where a task is, what it waits for and until when; what is wrong with Redis, if it does not answer."""
    try:
        with two_redis(settings, timeout_s=PATIENCE_S) as (state, broker, url):
            try:
                with store_errors(url):
                    found = gather(
                        task_id, state=state, broker=broker, settings=settings, search_most=SEARCH_MOST,
                        limit_of=lambda pool: read_limit(state, settings, pool),
                    )  # fmt: skip
            except StoreRefused:  # a producer sees no other tasks, and so not where its own one stands
                return brief(_of_pools(state, broker, settings))
            story = tell(found)
    except FleetError as error:
        return brief(str(error))
    where = f"{story.state}, pool {story.pool}" if story.pool else story.state
    lines = story.lines[-1:] if story.cause else story.lines[:2]
    return brief(f"it is {where}: {'; '.join(lines)}")


def _of_pools(state: redis.Redis, broker: Anywhere, settings: Settings) -> str:
    """Return what tasks of the pools wait for that this user of Redis may look at."""
    seen = look(state, broker, settings)
    waits = headline([line for line in seen.lines if line.tasks], seen.now_s)
    hidden = "this user of Redis may not see the task itself: ask `fleet why` as operator"
    return f"{waits or 'its pool takes tasks'}; {hidden}"
