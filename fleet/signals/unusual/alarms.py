"""Alarms about unusual use as they lie in Redis: one JSON each. Who changes one says what it was: see `swap.lua`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import redis

from fleet.config import KEY_LABEL, TOOLS
from fleet.quoting import counted
from fleet.signals.unusual.watch import Overuse
from fleet.store import vault_keys
from fleet.store.client import Script, run_script

#: What was done about an alarm, from the mildest.
STAGES = ("alarm", "throttled", "suspended")
#: An operator has ended it, and the worker that looks has not heard of it yet.
RESUMED = "resumed"
#: The command that ends one, before its name.
RESUME = "fleet keys resume"
#: A throttled key may do so many times its usual.
THROTTLED_TIMES = 2.0

SWAP = Script.beside(__file__, "swap.lua", keys="alarms", argv="name before after")


@dataclass(frozen=True, slots=True)
class Alarm:
    """A key or bot that is asked for far more than usual.

    Args:
        kind: `key` or `bot`.
        name: Of it.
        since: Unix time (s) of the alarm.
        usual_rpm: Calls a minute that are usual.
        rpm: Calls a minute that were asked for.
        most_rpm: Calls a minute that it may make whatever is usual, if that is what it has passed.
        stage: What was done about it.
        held: By limit of a throttled key: rpm that an operator had set on it, and rpm that it is held to; -1: none.
    """

    kind: str
    name: str
    since: float
    usual_rpm: float
    rpm: float
    most_rpm: float | None = None
    stage: str = "alarm"
    held: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, suspect: Overuse, now_s: float) -> Alarm:
        """Return an alarm that begins."""
        return cls(suspect.kind, suspect.name, now_s, suspect.usual_rpm, suspect.rpm, suspect.most_rpm)

    @property
    def field_name(self) -> str:
        """Its field in Redis."""
        return field_of(self.kind, self.name)

    @property
    def held_rpm(self) -> float:
        """Calls a minute that a throttled key may make."""
        return self.most_rpm or THROTTLED_TIMES * self.usual_rpm

    @property
    def told(self) -> str:
        """What is unusual, in words."""
        asked = f"{counted(round(self.rpm), 'request')} a minute"
        if self.most_rpm is not None:
            return f"{asked}, [keys.anomaly] allows {self.most_rpm:,.0f}"
        return f"{asked}, {self.usual_rpm:,.0f} are usual"

    @property
    def done(self) -> str:
        """What was done about it, in words; empty: nothing."""
        if self.kind == "bot":
            return "it is quarantined" if self.stage == "suspended" else ""
        return {
            "throttled": f"it is held to {sum(rpm for _, rpm in self.held.values()):,.0f} a minute",
            "suspended": "its calls wait until it is resumed",
        }.get(self.stage, "")

    @property
    def command(self) -> str:
        """The command that ends it."""
        return f"{RESUME} {self.name}"


def field_of(kind: str, name: str) -> str:
    """Return the field in Redis of an alarm about a key or bot."""
    return f"{kind} {name}"


def key_of(limit: str) -> str:
    """Return the name by which `fleet keys` knows the key of a `provider/model/key`."""
    provider, _, rest = limit.partition("/")
    model, _, label = rest.rpartition("/")
    if provider == TOOLS:
        return f"{TOOLS}/{model}"
    return provider if label == KEY_LABEL else f"{provider}/{label}"


def packed_of(alarm: Alarm | None) -> bytes:
    """Return an alarm as it is kept; None: nothing."""
    return b"" if alarm is None else json.dumps(asdict(alarm)).encode()


def swap(client: redis.Redis, field_name: str, before: bytes, after: Alarm | None) -> bool:
    """Write an alarm down, or (None) take it away; False, and nothing is done: it isn't what it was any more.

    Args:
        client: Plain client of the state Redis.
        field_name: Of the alarm.
        before: What was read; empty: nothing.
        after: What it shall be.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    call = SWAP.call(alarms=vault_keys.unusual(), name=field_name, before=before, after=packed_of(after))
    return bool(run_script(client, SWAP, *call))


def read_packed(client: redis.Redis) -> dict[str, bytes]:
    """Return all that lies there, by field; raises `redis.RedisError` when Redis does not answer."""
    rows: Mapping[bytes, bytes] = client.hgetall(vault_keys.unusual())  # type: ignore[assignment]
    return {name.decode("utf-8", "replace"): told for name, told in rows.items()}


def read_alarms(client: redis.Redis) -> tuple[Alarm, ...]:
    """Return all alarms that hold, the oldest first; raises `redis.RedisError` when Redis does not answer."""
    return alarms_of(read_packed(client).values())


def alarms_of(rows: Iterable[bytes]) -> tuple[Alarm, ...]:
    """Return the alarms that hold, the oldest first; what cannot be read, or was resumed, is left out."""
    found = (alarm for packed in rows if (alarm := alarm_in(packed)) is not None and alarm.stage in STAGES)
    return tuple(sorted(found, key=lambda one: one.since))


def alarm_in(packed: bytes) -> Alarm | None:
    """Return what `swap` wrote; None: it is something else, as of another release."""
    try:
        return Alarm(**json.loads(packed))
    except (ValueError, TypeError):
        return None
