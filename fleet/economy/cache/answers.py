"""The kept answers of a fleet, as workers look for them and keep them; and which of equal tasks is asked.

An answer is whatever bytes its caller makes of it. All of a kind lie in one hash, so that one script can bound them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet.config.savings import KindSettings
from fleet.store import cache_keys, keys
from fleet.store.client import Script, Store

_LOOK = Script.beside(
    __file__, "look.lua", keys="answers ends bytes out asking twins",
    argv="digest task priority lease_s apart_s latest latest_later",
)  # fmt: skip
_KEEP = Script.beside(
    __file__, "keep.lua", keys="answers ends bytes asking twins", argv="digest task answer keep_s most_bytes"
)
_HOLD = Script.beside(__file__, "hold.lua", keys="asking twins", argv="task priority how lease_s")
#: Codes of look.lua.
_KEPT, _FOR_ALL, _WAITS = 2, 1, -1

#: Under this name the answers are kept of all kinds that fleet.toml does not name: so they are bounded together.
OTHER_KINDS = ""
#: Bytes of a megabyte.
MB = 1_000_000
#: Seconds for which a task that is asked keeps equal ones waiting, if its process dies, and between two renewals.
LEASE_S, RENEW_EVERY_S = 10, 3.0
#: Seconds between two of the tasks that look whether it still lives: the next one is asked within 15 s of its death.
APART_S = 5.0
#: Seconds for which each of equal tasks is asked when the answer to one cannot be kept.
EACH_S = 60

#: How a task is asked for which others wait. `now`: by a process that says so again and again. `later`: it comes back
#: for its answer. `each`: its answer cannot be kept, so each is asked. `over`: it has none.
How = Literal["now", "later", "each", "over"]


@dataclass(frozen=True, slots=True)
class Twin:
    """A task that looks for an answer.

    Args:
        kind: Task class.
        digest: Of what it asks.
        pool: Where.
        task: Its id.
        priority: None waits for a less urgent one.
        latest: Until when it can wait for another one, Unix time in seconds.
        latest_later: The same where that one is asked later.
    """

    kind: str
    digest: str
    pool: str
    task: str
    priority: int = 2
    latest: float = 0.0
    latest_later: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look has found.

    Args:
        answer: It is kept; None: it is not.
        is_for_all: The task is asked for all that are equal; they wait for it.
        waits_for: The task that is asked; empty: this one need not wait.
        looks_at: When it looks again, Unix time in seconds.
    """

    answer: bytes | None = None
    is_for_all: bool = False
    waits_for: str = ""
    looks_at: float = 0.0


class AnswerCache:
    """Looks for answers and keeps them. One per process, on its loop.

    Args:
        state: Where they are.
    """

    def __init__(self, state: Store) -> None:
        self._state = state

    async def look(self, twin: Twin) -> Sight:
        """Return the answer that is kept to what a task asks, or who is asked. Safe to repeat.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        call = _LOOK.call(
            **names_of(twin.kind), **_names(twin.digest), out=keys.quarantined(twin.pool), digest=twin.digest,
            task=twin.task, priority=twin.priority, lease_s=LEASE_S, apart_s=APART_S, latest=twin.latest,
            latest_later=twin.latest_later,
        )  # fmt: skip
        code, text, at = await self._state.run(_LOOK, *call)
        if code == _KEPT:
            return Sight(bytes(text).partition(b"\n")[2])
        if code == _WAITS:
            return Sight(waits_for=text.decode(), looks_at=float(at))
        return Sight(is_for_all=code == _FOR_ALL)

    async def is_waiting(self, twin: Twin) -> bool:
        """Return whether nobody has let a task go on since it was told to wait.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        return await self._state.command("ZSCORE", cache_keys.twins(twin.digest), twin.task) is not None

    async def keep(self, twin: Twin, *, bot: str, answer: bytes, rules: KindSettings) -> list[str]:
        """Keep an answer, in the place of an older one; return the tasks that waited for it. Safe to repeat.

        Args:
            twin: Whose answer it is.
            bot: Who gave it: it is not given again while that is quarantined.
            answer: What is kept.
            rules: For how long, and how much of the kind.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        call = _KEEP.call(
            **names_of(twin.kind), **_names(twin.digest), digest=twin.digest, task=twin.task,
            answer=bot.encode() + b"\n" + answer, keep_s=rules.keep_s, most_bytes=rules.keep_mb * MB,
        )  # fmt: skip
        return [one.decode() for one in await self._state.run(_KEEP, *call)]

    async def hold(self, twin: Twin, how: How, lease_s: int = LEASE_S) -> list[str]:
        """Tell how a task is asked for which others wait; return those that are to look again.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        call = _HOLD.call(**_names(twin.digest), task=twin.task, priority=twin.priority, how=how, lease_s=lease_s)
        return [one.decode() for one in await self._state.run(_HOLD, *call)]


def names_of(kind: str) -> dict[str, str]:
    """Return the KEYS of the scripts of a task class by name."""
    return {
        "answers": cache_keys.kept_answers(kind),
        "ends": cache_keys.kept_until(kind),
        "bytes": cache_keys.kept_bytes(kind),
    }


def _names(digest: str) -> dict[str, str]:
    return {"asking": cache_keys.asking(digest), "twins": cache_keys.twins(digest)}
