"""Every Redis key that Fleet names, one function each, with its type and life.

State keys of a pool share the hash tag `{fleet:POOL}` (`pools.py`), those of the whole fleet `{fleet}`, so that a
script may touch them together on a cluster; each limit has one of its own, the broker needs none. kombu names the
lists of a queue's priorities, and its own. With `redis.prefix` every key begins with it: `use_prefix` sees to that.
So they are called as `keys.NAME(...)`, never imported by name nor kept.
"""

from __future__ import annotations

from fleet import config
from fleet.store.keys.pools import (
    answers as answers,
)
from fleet.store.keys.pools import (
    bot_claims as bot_claims,
)
from fleet.store.keys.pools import (
    bot_leases as bot_leases,
)
from fleet.store.keys.pools import (
    bot_rows as bot_rows,
)
from fleet.store.keys.pools import (
    bot_tasks as bot_tasks,
)
from fleet.store.keys.pools import (
    bots as bots,
)
from fleet.store.keys.pools import (
    errors as errors,
)
from fleet.store.keys.pools import (
    health as health,
)
from fleet.store.keys.pools import (
    norms as norms,
)
from fleet.store.keys.pools import (
    pool_failures as pool_failures,
)
from fleet.store.keys.pools import (
    pool_reaped as pool_reaped,
)
from fleet.store.keys.pools import (
    pool_recent as pool_recent,
)
from fleet.store.keys.pools import (
    pool_totals as pool_totals,
)
from fleet.store.keys.pools import (
    probation as probation,
)
from fleet.store.keys.pools import (
    put_out_before as put_out_before,
)
from fleet.store.keys.pools import (
    quarantine_reasons as quarantine_reasons,
)
from fleet.store.keys.pools import (
    quarantined as quarantined,
)
from fleet.store.keys.pools import (
    series as series,
)
from fleet.store.keys.pools import (
    sketch as sketch,
)
from fleet.store.keys.pools import (
    skills as skills,
)
from fleet.store.keys.pools import (
    specialists as specialists,
)
from fleet.store.limit_keys import LimitKeys
from fleet.store.prefix import plain_builders, prefixed

#: Hash tag of what no pool has for itself.
TAG = "{fleet}"
#: Life of bot and signal keys that nobody touches any more, in seconds (7 days).
STATE_TTL_S = 7 * 24 * 3600


def queue(pool: str) -> str:
    """Celery queue of a pool; kombu keeps one list per priority step."""
    return f"fleet.{pool}"


def lists(queue: str) -> str:
    """List: a queue's most urgent messages; the names of its other lists begin so (`list_key`). On the broker."""
    return queue


def result(task_id: str) -> str:
    """String (JSON), expires by `results.expires_s`: Celery's own result key, so any Celery client can read it."""
    return f"celery-task-meta-{task_id}"


def paid(task_id: str) -> str:
    """String, expires with the results: what a revoked task has cost is counted; its value tells which submission."""
    return f"fleet:paid:{task_id}"


def former(what: str, pool: str) -> str:
    """A pool's key as releases up to 0.2 named it: a worker moves what is there (`process/duties/moving`).

    Of kinds: their name stands behind the pool's.
    """
    return f"{TAG}:{what}:{pool}"


def counted_pools() -> str:
    """Set: pools that have ever counted anything, so that the fleet's sums keep those that are gone."""
    return f"{TAG}:pools"


def reaped() -> str:
    """Sorted set, token -> time (s): what releases up to 0.2 had in place of `pool_reaped`."""
    return f"{TAG}:reaped"


def totals() -> str:
    """Hash, counter name -> integer: what no pool counts, and what releases up to 0.2 counted of all; no TTL."""
    return f"{TAG}:signals:totals"


def recent() -> str:
    """String (packed): the last 1,000 completions of the fleet, as releases up to 0.2 kept them; expires."""
    return f"{TAG}:signals:recent"


def failures() -> str:
    """List, newest first: the last 1,000 failed tasks of the fleet, likewise; `seconds|JSON`."""
    return f"{TAG}:signals:failures"


def resources() -> str:
    """String (packed): what all workers used in the last minutes."""
    return f"{TAG}:signals:resources"


def backlogs() -> str:
    """Hash, minute since 1970 -> JSON of each pool's waiting tasks; empty while, or if, its writer is not done."""
    return f"{TAG}:signals:backlogs"


def events() -> str:
    """Stream, about 1,000 entries: what happened to the fleet, fields `event` and what the event says."""
    return f"{TAG}:signals:events"


def event_quiet(name: str) -> str:
    """String, expires: an event that was recorded and is not recorded again while this lives."""
    return f"{TAG}:signals:quiet:{name}"


def workers() -> str:
    """Hash, `worker name|process id` -> JSON of its last report (CPU, memory, slots, queues, settings, time)."""
    return f"{TAG}:signals:workers"


def fleets() -> str:
    """Hash, digest of pools' names -> Redis time and JSON: fleets that use these keys; also on the broker."""
    return f"{TAG}:signals:fleets"


def limit(name: str) -> str:
    """String (packed numbers): state of one `provider/model/key`. Keys of one model share a tag, models spread."""
    model, _, key = name.rpartition("/")
    return f"fleet:limit:{{{model}}}:{key}"


def limit_keys(name: str, tenant: str = "") -> LimitKeys:
    """Return all keys of one limit; only the last one is the tenant's own."""
    parts = ("facts", "queue", "due", "log", "leases", "open", f"bots:{tenant}")
    return LimitKeys(limit(name), *(f"{limit(name)}:{part}" for part in parts))


def bell() -> str:
    """Stream, one entry: wakes idle workers when something was queued. On the broker, like all up to `poison`."""
    return "fleet:bell"


def waiting(step: int | str) -> str:
    """Sorted set, expires: queues that may have messages of a priority (`take.lua`, `look.lua`). "": how all begin."""
    return f"fleet:waiting:{step}"


def binding(exchange: str) -> str:
    """Set, kombu's own: which queues an exchange sends to. Exchange "": what all these names begin with."""
    return f"_kombu.binding.{exchange}"


def consumed(digest: str) -> str:
    """Set, expires: names of the queues that consumers of the same queues take from."""
    return f"fleet:queues:{digest}"


def consumed_looked(digest: str) -> str:
    """String, expires within a second: somebody has looked at all those queues."""
    return f"{consumed(digest)}:looked"


def unacked() -> str:
    """Hash, delivery tag -> list key, newline, message: what workers hold."""
    return "fleet:unacked"


def unacked_index() -> str:
    """Sorted set, delivery tag -> Unix time at which its lease was renewed last."""
    return "fleet:unacked_index"


def parked() -> str:
    """Hash, task id -> list key, newline, reason, newline, message: what waits in Redis until a time, of all queues."""
    return "fleet:parked"


def parked_order(queue: str) -> str:
    """Sorted set beside a queue, task id -> opening time (Unix s). Queue "": how all these begin."""
    return f"{parked()}:{queue}"


def openings() -> str:
    """Sorted set, queue -> opening time of what opens first there: one look tells a take whether anything is due."""
    return "fleet:openings"


def ends() -> str:
    """Sorted set, queue -> the soonest end (Unix s) of a task that waits there: when to look for what is over."""
    return "fleet:ends"


def over() -> str:
    """List: messages of tasks whose end had passed when a take met them; they wait for their result `Expired`."""
    return "fleet:over"


def revoked() -> str:
    """Sorted set, task id -> Unix time at which the mark may go: tasks that must not start."""
    return "fleet:revoked"


def swept() -> str:
    """String, expires with the tenth lease: when lost messages were put back last, and until when none are."""
    return "fleet:unacked_swept"


def unreadable() -> str:
    """List: messages that are none."""
    return "fleet:unreadable"


def suspects() -> str:
    """Hash, SHA-1 of a message that waits and is suspect -> id of the process whose death made it so, and its list."""
    return "fleet:suspects"


def poison() -> str:
    """List: messages that an earlier release found to be poison; the janitor buries them."""
    return "fleet:poison"


def submitted(task_id: str) -> str:
    """String, expires with the result: the mark of an idempotency key (`orphan_mark.lua`). On the broker.

    The main one of several has a note in its place that names another broker (`home.lua`); so for markers with a life.
    """
    return f"fleet:submitted:{task_id}"


def epochs() -> str:
    """Hash, list key of a queue or ring of its flows -> how often it was filled from empty: it had been emptied."""
    return "fleet:epochs"


def turn(duty: str) -> str:
    """String, expires: a worker has the next turn at a duty ("marks", rooms of a queue); or where its last stopped."""
    return f"fleet:turn:{duty}"


def passed_on(task_id: str) -> str:
    """String, expires with the results: a message of the inbox that was moved to its pool's queue. On the broker."""
    return f"fleet:passed_on:{task_id}"


def followed(task_id: str) -> str:
    """String, expires with the results: what follows a task in its canvas was sent. On the broker."""
    return f"fleet:followed:{task_id}"


def follows(task_id: str) -> str:
    """String, expires with the results: a task that follows another one was queued. On the broker."""
    return f"fleet:follows:{task_id}"


def gate(queue: str) -> str:
    """String: the lowest priority of a queue that may be taken ("-1": none); absent: open. On the broker."""
    return f"fleet:gate:{queue}"


def room(queue: str) -> str:
    """String, expires within seconds: how many more tasks of each priority may be taken (`take.lua`). On the broker."""
    return f"{gate(queue)}:room"


def unserved() -> str:
    """String (JSON list), expires within a minute: pools that no worker can serve, as workers see it. On the broker."""
    return "fleet:unserved"


def hold(queue: str) -> str:
    """String (JSON of a `Wait`), expires when it opens: why a queue's tasks wait, set by Fleet. On the broker."""
    return f"{gate(queue)}:hold"


def breaker(name: str) -> str:
    """Hash, expires: breaker and retry budget of one `provider/model/key`, with the tag of its limit."""
    return f"{limit(name)}:breaker"


def replayed(task_id: str, died_us: str) -> str:
    """String, expires with the dead letters: one death of a task that was queued again. On the broker."""
    return f"fleet:replayed:{task_id}:{died_us}"


def dead_letters() -> str:
    """Hash, task id -> head line and JSON of a task that failed for good. This and the next three live equally long."""
    return f"{TAG}:dead:letters"


def dead_letter_bodies() -> str:
    """Hash, task id -> message body (JSON), from which a dead letter is queued again."""
    return f"{TAG}:dead:bodies"


def dead_letter_order() -> str:
    """Sorted set, all scores 0, `scope|microseconds|task id`: dead letters by time, over all, by pool, by reason."""
    return f"{TAG}:dead:order"


def dead_letter_bytes() -> str:
    """String: bytes that dead letters and their bodies take."""
    return f"{TAG}:dead:bytes"


def answer_counts() -> str:
    """Hash, `pool|kind` -> answers ever fingerprinted."""
    return f"{TAG}:diversity:counts"


def diversity_states() -> str:
    """Hash, `pool|kind` -> JSON: what is normal for a class, how it stands; `|pool|kind` -> its alarm's time."""
    return f"{TAG}:diversity:states"


def diversity_leader() -> str:
    """String, expires: the process that watches the classes."""
    return f"{TAG}:diversity:leader"


def remedies() -> str:
    """Hash, bot name -> `rung|generation`: bots that answer like others, and what is done about them."""
    return f"{TAG}:diversity:remedies"


def remedies_version() -> str:
    """String: grows with every change of the remedies."""
    return f"{TAG}:diversity:version"


def lessons() -> str:
    """Hash, `provider/model|what`, expires: what models refuse and how they count (`engine/answers/lessons.py`)."""
    return f"{TAG}:lessons"


def probe(digest: str) -> str:
    """String, expires within a minute: one process tries once more what a model refuses."""
    return f"{lessons()}:{digest}"


def verdicts() -> str:
    """Hash, `pool|process id` -> Unix time, expires: when validators gave their last verdicts (`answers/peers.py`)."""
    return f"{TAG}:verdicts"


def write_probe() -> str:
    """String, lives a minute: whether the state Redis takes writes at all."""
    return f"{TAG}:probe"


_BUILDERS = plain_builders(globals(), besides=("queue",))  # names of queues are the same for clients of every fleet


def use_prefix(prefix: str) -> None:
    """Let every key of this process begin with `prefix` ("": as they are). Reading the settings does this."""
    globals().update(prefixed(_BUILDERS, prefix, of_celery=("result",)))


config.on_load(lambda settings: use_prefix(settings.redis.prefix))
