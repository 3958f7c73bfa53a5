"""Who is suspect: a task that had really begun in a process that is really gone. And who is cleared again.

A process is known by a random id, which its delivery tags and its reports carry. That a lease ran out is no death by
itself: the process may be cut off, or stand still. Then its tasks are suspects until it is heard of again; suspects run
apart (`fleet/engine/process/suspects/apart.py`), which harms none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import redis

from fleet.engine.messages.queues import PRIORITY_SEPARATOR, list_key, pool_of, queue_of
from fleet.engine.transport import leases
from fleet.engine.transport.held import Tag
from fleet.signals.recorder import split_reports
from fleet.store import flow_keys, keys
from fleet.store.client import Script, connect, run_script, run_script_each, store_errors
from fleet.store.running.brokers import at_each, total

LAPSED = Script.beside(__file__, "lapsed.lua", keys="index unacked swept", argv="lease_s most quiet_s")
BEGUN = Script.beside(__file__, "begun.lua", keys="reaped claims", argv="tokens*")
ABSOLVE = Script.beside(__file__, "absolve.lua", keys="suspects parked", argv="process queue separator fair")

#: Leases for which nothing is swept after a time without sweeps. A worker that lives renews within 2.5 s plus at most
#: 1.25 s to connect again; a longer period would hold up tasks whose workers all died, past 15 s in all.
QUIET_LEASES = 0.6
#: Most messages put back by one sweep (count).
SWEEP_MOST = 5000
#: Tokens looked for in one step (count): bounds the time that the script holds Redis.
ASKED_AT_ONCE = 500
#: Seconds that a sweep waits for the state Redis: the consumer's thread stands still for so long.
ASK_S = 1.0
#: Seconds for which a report shows that its process lives.
HEARD_S = leases.LEASE_S


def lapsed_call(lease_s: float = leases.LEASE_S) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `lapsed.lua`."""
    return LAPSED.call(
        index=keys.unacked_index(), unacked=keys.unacked(), swept=keys.swept(),
        lease_s=lease_s, most=SWEEP_MOST, quiet_s=lease_s * QUIET_LEASES,
    )  # fmt: skip


class Witness:
    """Knows from the state Redis which tasks had begun, and which processes report.

    Args:
        state_url: The state Redis.
        pools: Names of all pools.
    """

    def __init__(self, state_url: str, pools: Iterable[str]) -> None:
        self._url = state_url
        self._pools = tuple(pools)
        self._client: redis.Redis | None = None

    def dead_of(self, lapsed: Mapping[str, str]) -> dict[str, str]:
        """Return tag -> id of the process that is gone: as it is when its bot was checked out, so that the task had
        begun; with `leases.UNKNOWN` before it otherwise.

        Args:
            lapsed: Tag -> key of the list that its message was taken from.

        Raises:
            StoreUnavailable: When the state Redis does not answer: then nobody knows.
        """
        with store_errors(self._url):
            client = self._client = self._client or connect(self._url, timeout_s=ASK_S)
            living = {leases.process_id(), *_reporting(client)}
            found = [(text, tag) for text in lapsed if (tag := Tag.parse(text)) is not None]
            gone = {text: tag.process for text, tag in found if tag.process not in living}
            begun = set(self._begun(client, {tag: lapsed[tag] for tag in gone}))
            return {tag: died if tag in begun else leases.UNKNOWN + died for tag, died in gone.items()}

    def _begun(self, client: redis.Redis, lists: Mapping[str, str]) -> Iterator[str]:
        """Ask of each pool for its own tasks only, in one round trip: there may be a thousand pools."""
        by_pool: dict[str, list[str]] = {}
        for tag, place in lists.items():
            for pool in self._pools_of(place):
                by_pool.setdefault(pool, []).append(tag)
        calls = [
            BEGUN.call(reaped=reaped, claims=claims, tokens=tags[start : start + ASKED_AT_ONCE])
            for pool, tags in by_pool.items()
            for start in range(0, len(tags), ASKED_AT_ONCE)
            for reaped, claims in (
                (keys.pool_reaped(pool), keys.bot_claims(pool)), (keys.reaped(), keys.former("claims", pool)),
            )
        ]  # fmt: skip
        return (tag.decode() for begun in run_script_each(client, BEGUN, calls) for tag in begun)

    def _pools_of(self, place: str) -> Sequence[str]:
        """Return the pool that a list belongs to; of another queue, where plain clients may have put anything, all."""
        pool = pool_of(queue_of(place)[0]) if place else None
        return [pool] if pool in self._pools else self._pools


def _reporting(client: redis.Redis) -> Iterator[str]:
    seconds, _ = client.time()
    reports, _ = split_reports(cast("dict[bytes, bytes]", client.hgetall(keys.workers())), now_s=seconds)
    return (report.process for report in reports if report.process and abs(seconds - report.at) < HEARD_S)


#: Who is asked about messages that were left behind; None: nothing is known, nobody is suspected.
_witness: Witness | None = None


def ask(witness: Witness) -> None:
    """Ask this one from now on. For the settings of a process that takes messages."""
    global _witness
    _witness = witness


def dead_of(lapsed: Mapping[str, str]) -> dict[str, str]:
    """Return tag -> id of the process that died while the task ran; as `Witness.dead_of`."""
    return {} if _witness is None or not lapsed else _witness.dead_of(lapsed)


def sweep(client: redis.Redis, lease_s: float) -> tuple[int, int]:
    """Put back the messages that nobody has renewed for a lease.

    Returns:
        How many, and how many of them as suspects.

    Raises:
        StoreUnavailable: When the state Redis does not answer: they wait until it does.
        redis.RedisError: When the broker does not.
    """
    found = [part.decode() for part in run_script(client, LAPSED, *lapsed_call(lease_s))]
    lapsed = dict(zip(found[::2], found[1::2], strict=True))
    if not lapsed:
        return 0, 0
    call = leases.restore_call(lapsed, lapsed_s=lease_s, dead=dead_of(lapsed))
    restored, suspected = run_script(client, leases.RESTORE, *call)
    return restored, suspected


def absolve_call(process: str) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `absolve.lua` for a process that lives after all."""
    return ABSOLVE.call(
        suspects=keys.suspects(), parked=keys.parked(), process=process, queue="", separator=PRIORITY_SEPARATOR, fair=""
    )


def stale_call() -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `absolve.lua` for messages that wait nowhere any more."""
    return ABSOLVE.call(
        suspects=keys.suspects(),
        parked=keys.parked(),
        process="",
        queue="",
        separator=PRIORITY_SEPARATOR,
        fair=flow_keys.stem(),
    )


def forget_call(queue: str) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `absolve.lua` for a queue whose messages are gone."""
    return ABSOLVE.call(
        suspects=keys.suspects(),
        parked=keys.parked(),
        process="",
        queue=list_key(queue, 0),
        separator=PRIORITY_SEPARATOR,
        fair="",
    )


@at_each(total)
def count_suspects(client: redis.Redis) -> int:
    """Return how many messages that wait are suspect."""
    return int(client.hlen(keys.suspects()))
