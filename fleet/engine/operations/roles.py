"""Who may do what in Redis: the ACL rules of four roles, worked out from the builders of keys.

Pure: what is sent to a server is `fleet/cli/setup/acl.py`'s affair. The rules use key permissions and selectors, which
Redis has since 7.0 and Valkey always had: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, get_args

from celery.backends.base import KeyValueStoreBackend
from kombu.transport.redis import Channel

from fleet.config import Settings
from fleet.engine.messages.queues import task_queues
from fleet.store import (
    answer_keys,
    bill_keys,
    cache_keys,
    context_keys,
    erasure_keys,
    flow_keys,
    job_keys,
    keys,
    lane_keys,
    payout_keys,
    schedule_keys,
    vault_keys,
)

Role = Literal["producer", "worker", "dashboard", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

#: How the lists of one queue end: two bytes that no name has, and a digit (`queues.PRIORITY_SEPARATOR`).
_STEP = "[^!-~][^!-~]?"
#: The same of clients that go by Celery's guide (`queues.GUIDE_SEPARATOR`).
_GUIDE_STEP = ":[1-9]"
#: Commands of connections, and of scripts that are not yet on the server. `SCRIPT FLUSH` and `KILL` are nobody's.
_CONNECTION = ("+@connection", "+@transaction", "+script|load", "+script|exists", "+time", "+wait", "-@dangerous")
#: The modules with builders of keys.
KEYS = (
    keys, answer_keys, bill_keys, cache_keys, context_keys, erasure_keys, flow_keys, job_keys, lane_keys,
    payout_keys, schedule_keys, vault_keys,
)  # fmt: skip
#: All that reads and writes keys, and nothing that reads or changes the server; `FUNCTION FLUSH` is a write to Redis.
_WORK = ("+@read", "+@write", "+@pubsub", "-@scripting", *_CONNECTION, "-@admin", "+info")
#: What a person looks into the server with. None of these changes it: `CONFIG SET`, `FLUSHALL`, `ACL` stay refused.
_LOOK = ("+config|get", "+memory|usage", "+memory|stats", "+client|list", "+slowlog|get", "+latency|latest")
#: What `fleet forget` erases in the server itself: its log of slow commands quotes prompts.
_FORGET = ("+slowlog|len", "+slowlog|reset")
#: Scripts may name any key: what they do to it is held against the rules before this, command by command.
_SCRIPTS = "(+eval +evalsha +eval_ro +evalsha_ro ~*)"

#: What a producer may do: builders of keys, and the commands that it may use on those alone. Where it can only add, it
#: reads nobody's prompts: what is held it finds by an exact id only, and what is parked likewise.
PRODUCER: Mapping[str, str] = {
    "lists": "lpush llen exists type",
    # A task that has a tenant goes into a flow, where it can read as little.
    "flow_keys.flow": "lpush llen exists type",
    "flow_keys.old": "exists",
    "flow_keys.ring": "zadd zscore zrange zcard exists",
    "flow_keys.has": "set get mget exists",
    "flow_keys.weights": "exists",
    "result": "get mget exists ttl expire del",
    "bell": "xadd",
    "binding binding_permanent": "sadd smembers sismember exists",
    "binding_deadlines": "zadd zrem zscore",
    "waiting ends": "zadd zscore exists",
    "openings": "zadd zscore zcard zrange exists",
    # Why tasks wait is told of the inbox, too: who may queue in some pools reads ids and times of all.
    "parked_order": "zscore zcard zrange exists",
    "own_parked_order": "zadd",
    "parked": "hexists hget hset hstrlen",
    "epochs": "hget hincrby",
    "unacked": "hexists",
    "revoked": "exists zrem",
    "submitted follows": "get set exists expire ttl",
    "gate room hold unserved": "get mget exists pttl",
    "fleets workers": "hgetall hvals hlen",
    # Why its tasks wait: numbers, times and names of bots.
    "limit": "get",
    "breaker": "get hmget",
    "vault_keys.unusual": "hgetall",
    "limit_keys": "get hmget zcount zcard",
    "answer_keys.asks answer_keys.recent_asks": "lpush ltrim lrange expire",
    # What it knows of answers: workers learn it. It reads how often models are right, for weighing.
    "answer_keys.told": "lpush ltrim expire",
    "answer_keys.models": "hgetall",
    "totals": "hincrby",
    # Its jobs: how each member ended, never what it answered.
    "job_keys.job": "exists hexists hget hmget hgetall hset hsetnx hincrby expire",
    "job_keys.members job_keys.order": "getrange xread exists expire",
    "job_keys.then": "set del exists expire",
    "job_keys.due job_keys.live job_keys.listed": "zadd zrem zremrangebyscore zrevrange expire",
    "bots bot_leases quarantined probation": "zrange zrangebyscore zcount",
}
#: The same of what the dashboard writes although it only looks: its place among Celery's listeners.
DASHBOARD: Mapping[str, str] = {
    "binding binding_permanent": "sadd srem smembers exists",
    "binding_deadlines": "zadd zrem zscore",
    "bill_keys.check_turn": "set",
    "consumed consumed_looked": "set sadd smembers expire exists",
    "broadcasts": "del unlink llen exists type lpush rpop brpop expire zadd",
    "waiting": "zadd zrem",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """What one role may do.

    Args:
        role: Whose.
        words: The words of `ACL SETUSER` behind the user's name, without a password; what was there before is undone
            except passwords.
    """

    role: Role
    words: tuple[str, ...]

    @property
    def user(self) -> str:
        """The name of its user."""
        return f"fleet-{self.role}"


def rules_of(settings: Settings, *, database: int = 0, pools: Iterable[str] = ()) -> tuple[Rules, ...]:
    """Return the rules of each role, in the order of `ROLES`.

    Args:
        settings: With the prefix in force and the inbox.
        database: Number of the broker's database: broadcasts are named by it.
        pools: What the producer may submit to; empty: every pool, and the inbox of plain clients.
    """
    made: dict[Role, tuple[str, ...]] = {
        "producer": (
            f"&{keys.result('*')}", "+subscribe", "+unsubscribe", *_CONNECTION,
            *_pairs(PRODUCER, _queues(settings, pools)), _SCRIPTS,
        ),
        "worker": (*_all_keys(settings, "~"), *_channels(database), *_WORK, _SCRIPTS),
        "dashboard": (
            *_all_keys(settings, "%R~"), *_channels(database), *_WORK, *_pairs(DASHBOARD), _SCRIPTS,
        ),
        "operator": (*_all_keys(settings, "~"), *_channels(database), *_WORK, *_LOOK, *_FORGET, _SCRIPTS),
    }  # fmt: skip
    return tuple(
        Rules(role, ("on", "clearselectors", "resetkeys", "resetchannels", "-@all", *made[role])) for role in ROLES
    )


def patterns() -> dict[str, tuple[str, ...]]:
    """Return what matches the keys of each builder, by its name; of those beside `keys`, by `module.name`."""
    return {**{name: made for module in KEYS for name, made in _patterns_of(module)}, **_names_of_celery()}


def _names_of_celery() -> dict[str, tuple[str, ...]]:
    """Return the same of what Celery and kombu name themselves, from their own attributes: groups, chords, bindings."""
    before = keys.result("").removesuffix(KeyValueStoreBackend.task_keyprefix)
    return {
        "group": (f"{before}{KeyValueStoreBackend.group_keyprefix}*",),
        "chord": (f"{before}{KeyValueStoreBackend.chord_keyprefix}*",),
        "binding_permanent": (keys.lists(Channel.keyprefix_binding_permanent % "*"),),
        "broadcasts": tuple(keys.lists(name) for name in ("*.pidbox*", "celeryev.*")),
        "binding_deadlines": (keys.lists(Channel.keyprefix_binding_deadlines),),
    }


def _patterns_of(module: ModuleType) -> Iterator[tuple[str, tuple[str, ...]]]:
    before = "" if module is keys else f"{module.__name__.rpartition('.')[2]}."
    for name, plain in module._BUILDERS.items():
        wanted = [
            "*/*" if part == "name" and name in _OF_LIMITS else "*" for part in inspect.signature(plain).parameters
        ]
        built = getattr(module, name)(*wanted)
        yield before + name, (built,) if isinstance(built, str) else tuple(built)


_OF_LIMITS = ("limit", "limit_keys", "breaker")


def key_patterns(settings: Settings) -> Iterator[str]:
    """Yield patterns of all keys of a fleet."""
    return _all_keys(settings, "")


def _all_keys(settings: Settings, mark: str) -> Iterator[str]:
    """Yield rules for the keys of the whole fleet, by their stems: each pattern costs every command a little time."""
    prefix = keys.lists("")
    stems = {prefix + _stem(pattern.removeprefix(prefix)) for made in patterns().values() for pattern in made}
    stems -= {prefix + "*"}  # that of `lists`
    lists = {pattern for queue in task_queues(settings) for name in (queue.name, queue.alias) if name
             for pattern in _lists(name) if not name.startswith(keys.queue(""))}  # fmt: skip
    yield from (mark + pattern for pattern in sorted({*stems, *lists, keys.lists(keys.queue("*"))}))


def _stem(pattern: str) -> str:
    head, found, _ = pattern.partition("}:" if pattern.startswith("{") else ":")
    return f"{head}{found}*" if found else pattern


def _queues(settings: Settings, pools: Iterable[str]) -> tuple[str, ...]:
    named = tuple(keys.queue(pool) for pool in pools)
    return named or (settings.worker.inbox, *map(keys.queue, settings.pools))


def _lists(queue: str) -> tuple[str, ...]:
    """Return what matches a queue's lists, those of clients with other priority steps too."""
    return tuple(keys.lists(queue) + end for end in ("", _STEP, _GUIDE_STEP))


def _pairs(rights: Mapping[str, str], queues: Iterable[str] = ()) -> Iterator[str]:
    """Yield a selector for each row: its commands on its keys. `lists`, flows and what is parked are the queues'."""
    known = {**patterns(), **_of_queues(tuple(queues))}
    for names, commands in rights.items():
        words = (f"+{command}" for command in commands.split())
        yield f"({' '.join((*words, *(f'~{pattern}' for name in names.split() for pattern in known[name])))})"


def _of_queues(queues: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return what matches the keys of some queues: their lists, their flows, and the order of what is parked."""
    own = tuple(keys.lists(queue) + end for queue in queues for end in ("", _STEP))
    return {
        "lists": tuple(pattern for queue in queues for pattern in _lists(queue)),
        "flow_keys.flow": tuple(flow_keys.flow("*", place) for place in own),
        "flow_keys.old": tuple(flow_keys.old("*", place) for place in own),
        "flow_keys.ring": tuple(map(flow_keys.ring, own)),
        "flow_keys.has": tuple(flow_keys.has(keys.lists(queue)) for queue in queues),
        "own_parked_order": tuple(map(keys.parked_order, queues)),
    }


def _channels(database: int) -> tuple[str, ...]:
    """Return the rules for results, and for Celery's events and broadcasts.

    A subscription to a pattern is allowed only where the rule is that very pattern, so Celery's own stand here too.
    """
    names = ("*", "celery.pidbox", "celeryev/*", "celeryev/worker.*", "celeryev/task.*")
    return (f"&{keys.result('*')}", *(f"&{keys.lists('')}/{database}.{name}" for name in names))


def line_of(rules: Rules) -> str:
    """Return the line of an ACL file; the password is still missing, so nobody gets in by it."""
    return " ".join(("user", rules.user, *rules.words))
