"""The classes' windows, states and remedies in Redis. Every read and write of this department stands here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.config import Settings
from fleet.diversity.fingerprint import Fingerprint
from fleet.diversity.state import ClassState
from fleet.models import Remedy
from fleet.store import keys
from fleet.store.client import Script, Store

#: Task classes that are watched at most, over all pools: bounds what a producer who invents kinds can fill.
MAX_CLASSES = 100
#: Answers that are kept of all classes together, about: one takes about 0.8 kB and 4 kB at most, 80 to 400 MB. A class
#: that would take it beyond that is not recorded.
MOST_ANSWERS = 100_000
#: Windows that are kept of a class: the newest, and one to look back at when a look came late.
KEPT_WINDOWS = 2
#: Answers per bot in a window of a large pool, and the largest window: 2,000 answers are compared in 0.2 s.
ANSWERS_PER_BOT, LARGEST_WINDOW = 2, 2000
#: Life of the leader's lease, in turns.
LEASE_TURNS = 4

_RECORD = Script.beside(__file__, "record.lua", keys="answers counts", argv="packed field kept life_s most")
_ATTEND = Script.beside(__file__, "attend.lua", keys="leader version remedies", argv="me lease_ms known")
_RESIGN = Script.beside(__file__, "resign.lua", keys="leader", argv="me")
_SAVE = Script.beside(__file__, "save.lua", keys="states", argv="field before after alarm_field alarm_at life_s")
_PRESCRIBE = Script.beside(__file__, "prescribe.lua", keys="remedies version", argv="life_s pairs*")


@dataclass(frozen=True, slots=True)
class Duty:
    """What a process is told at its turn: whether it leads, and the remedies if they have changed."""

    leads: bool
    version: int
    remedies: dict[str, Remedy]


@dataclass(frozen=True, slots=True)
class Stored:
    """A class's state with the bytes that it was read from: they guard its replacement."""

    state: ClassState
    raw: bytes = b""


class Windows:
    """All task classes of the fleet.

    Args:
        store: State Redis.
        settings: Pools, and the size of a window.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def size(self, pool: str) -> int:
        """Return the answers of a full window of a pool."""
        bots = self._settings.pools[pool].bots
        return min(LARGEST_WINDOW, max(self._settings.diversity.window, ANSWERS_PER_BOT * bots))

    def record(self, pool: str, kind: str, answer: Fingerprint) -> None:
        """Add an answer to its class's window. Nobody waits for it; one that is lost is not made up for."""
        kept = KEPT_WINDOWS * self.size(pool)
        most = max(1, min(MAX_CLASSES, MOST_ANSWERS // kept))
        recorded = _RECORD.call(
            answers=keys.answers(pool, kind), counts=keys.answer_counts(), packed=answer.pack(), kept=kept,
            life_s=keys.STATE_TTL_S, most=most, field=f"{pool}|{kind}",
        )  # fmt: skip
        self._store.send(_RECORD, *recorded)

    async def attend(self, me: str, known_version: int) -> Duty:
        """Ask to lead, and for new remedies. One round trip."""
        lease_ms = round(self._settings.diversity.every_s * LEASE_TURNS * 1000)
        question = _ATTEND.call(
            leader=keys.diversity_leader(), version=keys.remedies_version(), remedies=keys.remedies(),
            me=me, lease_ms=lease_ms, known=known_version,
        )  # fmt: skip
        leads, version, flat = await self._store.run(_ATTEND, *question)
        remedies = {
            bot.decode(): Remedy(rung=int(rung), generation=int(generation))
            for bot, packed in zip(flat[::2], flat[1::2], strict=True)
            for rung, generation in [packed.split(b"|")]
        }
        return Duty(bool(leads), version, remedies)

    def resign(self, me: str) -> None:
        """Give up the lead, if this process has it."""
        self._store.send(_RESIGN, *_RESIGN.call(leader=keys.diversity_leader(), me=me))

    async def classes(self) -> dict[tuple[str, str], int]:
        """Return the number of answers of each class whose pool is configured."""
        flat = await self._store.command("HGETALL", keys.answer_counts())
        counts = {}
        for field, count in zip(flat[::2], flat[1::2], strict=True):
            pool, _, kind = field.decode().partition("|")
            if pool in self._settings.pools:
                counts[pool, kind] = int(count)
        return counts

    async def states(self) -> dict[tuple[str, str], Stored]:
        """Return the states of all classes; one that another version wrote begins anew."""
        flat = await self._store.command("HGETALL", keys.diversity_states())
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        found = {}
        for field, raw in fields.items():
            pool, _, kind = field.decode().partition("|")
            if pool:
                found[pool, kind] = Stored(read_state(pool, kind, raw, fields.get(alarm_field(field), b"")), raw)
        return found

    async def answers(self, pool: str, kind: str) -> list[Fingerprint]:
        """Return the newest answers of a class, the oldest of them first."""
        packed = await self._store.command("LRANGE", keys.answers(pool, kind), 0, -1)
        return [Fingerprint.unpack(one) for one in reversed(packed)]

    async def save(self, stored: Stored, state: ClassState) -> bool:
        """Replace a class's state; False when somebody else did so first.

        The time of its alarm stands beside it, so that a worker of an earlier release can read the state.
        """
        field = f"{state.pool}|{state.kind}"
        change = _SAVE.call(
            states=keys.diversity_states(), field=field, before=stored.raw,
            after=state.model_dump_json(exclude={"alarm_at"}), alarm_field=alarm_field(field.encode()),
            alarm_at=repr(state.alarm_at) if state.alarm_at else "", life_s=keys.STATE_TTL_S,
        )  # fmt: skip
        return bool(await self._store.run(_SAVE, *change))

    async def prescribe(self, remedies: Mapping[str, Remedy]) -> int:
        """Replace all remedies; return their new version."""
        pairs = [part for bot, one in remedies.items() for part in (bot, f"{one.rung}|{one.generation}")]
        prescribed = _PRESCRIBE.call(
            remedies=keys.remedies(), version=keys.remedies_version(), life_s=keys.STATE_TTL_S, pairs=pairs
        )
        version = await self._store.run(_PRESCRIBE, *prescribed)
        return int(version)

    async def forget(self, pool: str, kind: str) -> None:
        """Forget what is normal for a class, and its remedies: it is learnt anew."""
        await self._store.command("HDEL", keys.diversity_states(), *fields_of(pool, kind))

    async def drop_silent(self) -> None:
        """Drop the classes whose answers have expired, so that new ones find room."""
        for pool, kind in await self.classes():
            if not await self._store.command("EXISTS", keys.answers(pool, kind)):
                await self._store.command("HDEL", keys.answer_counts(), f"{pool}|{kind}")
                await self.forget(pool, kind)


def alarm_field(field: bytes) -> bytes:
    """Return where the time of a class's alarm stands, beside its state in `field`; no pool has this name."""
    return b"|" + field


def fields_of(pool: str, kind: str) -> tuple[bytes, bytes]:
    """Return the fields of a class in `keys.diversity_states()`."""
    field = f"{pool}|{kind}".encode()
    return field, alarm_field(field)


def read_state(pool: str, kind: str, raw: bytes, alarm_at: bytes = b"") -> ClassState:
    """Return a state as Redis has it, with the time of its alarm, or a fresh one when it cannot be read."""
    try:
        state = ClassState.model_validate_json(raw)
        return state.but(alarm_at=float(alarm_at)) if state.alarm and alarm_at else state
    except ValueError:
        return ClassState(pool=pool, kind=kind)
