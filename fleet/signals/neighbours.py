"""Another fleet in the same Redis: each leaves a mark there, made of the names of its pools, and sees the others'.

Two fleets that share keys take each other's messages. Workers of one fleet whose settings differ otherwise are no
matter of this module.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable
from typing import Any

import redis

from fleet.config import Settings
from fleet.quoting import quote
from fleet.store import keys
from fleet.store.client import Script, Store, run_script

_MARK = Script.beside(__file__, "mark.lua", keys="fleets", argv="fleet about stale_s life_s")

#: Seconds between two marks of a worker, and after which a fleet without one is gone.
MARK_EVERY_S, STALE_S = 10.0, 30
#: Names of pools that are told (count).
NAMED = 5


async def leave_mark(store: Store, settings: Settings) -> str | None:
    """Leave this fleet's mark; return what to say if another fleet's is there.

    Raises:
        StoreUnavailable: When Redis does not answer.
    """
    about = json.dumps({"pools": sorted(settings.pools)[: NAMED + 1], "host": socket.gethostname()})
    return stranger_line(await store.run(_MARK, *_call(settings, about)), settings)


async def lift_mark(store: Store, settings: Settings) -> None:
    """Take this fleet's mark away; a worker of it that goes on leaves it anew."""
    await store.command("HDEL", keys.fleets(), _digest(settings))


def look_for_strangers(clients: Iterable[redis.Redis], settings: Settings) -> str | None:
    """Return what to say if another fleet uses one of these Redis servers.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    lines = (stranger_line(run_script(client, _MARK, *_call(settings, "")), settings) for client in clients)
    return next((line for line in lines if line), None)


def stranger_line(others: Iterable[bytes], settings: Settings) -> str | None:
    """Return what to say of other fleets, given what each says of itself; None when there is none."""
    told = [_told(json.loads(other)) for other in others]
    if not told:
        return None
    return (
        f"another fleet uses this Redis ({'; '.join(sorted(told)[:NAMED])}), and each takes the other's messages: "
        f"expected the pools {_named(sorted(settings.pools))} alone; set `redis.prefix` in the fleet.toml of one of "
        "them, or, if it is one fleet, give all its processes the same pools"
    )


def _told(mark: dict[str, Any]) -> str:
    return f"pools {_named(mark['pools'])} on {quote(mark['host'])}"


def _named(pools: list[str]) -> str:
    return ", ".join(pools[:NAMED]) + (", ..." if len(pools) > NAMED else "")


def _digest(settings: Settings) -> str:
    names = "\n".join(sorted(settings.pools))
    return hashlib.sha1(names.encode(), usedforsecurity=False).hexdigest()[:16]


def _call(settings: Settings, about: str) -> tuple[list[Any], list[Any]]:
    return _MARK.call(
        fleets=keys.fleets(), fleet=_digest(settings), about=about, stale_s=STALE_S, life_s=keys.STATE_TTL_S
    )
