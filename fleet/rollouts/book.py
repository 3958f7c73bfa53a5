"""Rollouts in Redis: which runs in a pool, what has come of it, which are over. Decided by one script each.

Who gives tasks the new setting, and looks whether it is worse: `engine/answers/rollouts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal
from zlib import crc32

import redis
from pydantic import Field, ValidationError

from fleet.frozen import Lasting
from fleet.rollouts.comparing import ArmSums, Cohort, Compared, cohorts_in, compare
from fleet.store import answer_keys
from fleet.store.client import Script, run_script

#: Rollouts that are over and are kept (count).
MOST_PAST = 50
#: Seconds that rollouts are kept after the last task of one (90 days).
LIFE_S = 90 * 86_400
#: How rollouts end.
Ending = Literal["back", "stopped", "finished"]

_START = Script.beside(__file__, "start.lua", keys="running", argv="pool rollout life_s")
FINISH = Script.beside(__file__, "finish.lua", keys="running past", argv="pool id now most life_s")
COUNT = Script.beside(__file__, "count.lua", keys="counts running past", argv="life_s fields*")


class Rollout(Lasting):
    """A new persona or model that a share of a pool's tasks gets."""

    id: str = Field(description="12 hexadecimal digits.")
    pool: str
    persona: str = Field("", description="Archetype, or what a persona of one's own is called; empty: as it was.")
    prompt: str = Field("", description="System prompt of a persona of one's own.")
    model: str = Field("", description="Model of the pool's provider; empty: as it was.")
    share: float = Field(description="Of the pool's tasks, 0..1.")
    dearer: float = Field(0.1, description="How much more a task may cost: 0.1 is a tenth.")
    in_tokens: bool = Field(False, description="Costs are counted in tokens: a model of its pool has no price.")
    since: float = Field(description="Unix time in seconds.")
    by: str = ""
    ended: Ending | None = None
    ended_at: float | None = None
    ended_by: str = ""
    why: str = ""

    @property
    def what(self) -> str:
        """What is new, in a few words."""
        parts = [f"persona {self.persona}" * bool(self.persona), f"model {self.model}" * bool(self.model)]
        return " and ".join(filter(None, parts))

    def takes(self, task_id: str) -> bool:
        """True when a task gets the new setting: the same one, however often it is asked."""
        return crc32(f"{self.id}:{task_id}".encode()) < self.share * 2**32

    def over(self, how: Ending, *, at: float, by: str = "", why: str = "") -> Rollout:
        """Return it as it is when it is over."""
        return self.model_copy(update={"ended": how, "ended_at": at, "ended_by": by, "why": why})


class RolloutState(Lasting):
    """A rollout and what has come of it."""

    rollout: Rollout
    cohorts: tuple[Cohort, ...] = ()

    @property
    def new(self) -> ArmSums:
        return sum((one.new for one in self.cohorts), ArmSums())

    @property
    def old(self) -> ArmSums:
        return sum((one.old for one in self.cohorts), ArmSums())

    @property
    def compared(self) -> tuple[Compared, ...]:
        return compare(self.cohorts, share=self.rollout.share, dearer=self.rollout.dearer)


def state_of(rollout: Rollout, fields: Mapping[bytes, bytes]) -> RolloutState:
    """Return how a rollout stands, from its hash `answer_keys.rollout`."""
    return RolloutState(rollout=rollout, cohorts=cohorts_in(fields))


def worse(state: RolloutState) -> str:
    """Say what is worse under the new setting; empty: nothing is, as far as is known."""
    found = [one for one in state.compared if one.is_worse]
    return "; ".join(_TOLD[one.aspect](one) for one in found)


_TOLD = {
    "success": lambda one: (
        f"{one.new or 0:.1%} of its tasks have a good first answer, {one.old or 0:.1%} of the others"
    ),
    "cost": lambda one: f"an answer costs {(one.new or 0) / max(1e-9, one.old or 0):.2f} times as much",
    "diversity": lambda one: f"its answers are {one.new or 0:.0%} alike, those of the others {one.old or 0:.0%}",
}


def start(client: redis.Redis, rollout: Rollout) -> Rollout | None:
    """Start a rollout; return the one that runs in its pool already, then nothing is changed."""
    call = _START.call(
        running=answer_keys.rollouts(), pool=rollout.pool, rollout=rollout.model_dump_json(), life_s=LIFE_S
    )
    found = run_script(client, _START, *call)
    return _read(found) if found else None


def end(client: redis.Redis, rollout: Rollout, now: Rollout) -> bool:
    """End a rollout that runs; False: somebody was first."""
    return bool(run_script(client, FINISH, *finish_call(rollout, now)))


def finish_call(rollout: Rollout, now: Rollout) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `FINISH`.

    Args:
        rollout: As it runs.
        now: As it is over.
    """
    return FINISH.call(
        running=answer_keys.rollouts(), past=answer_keys.past_rollouts(), pool=rollout.pool, id=rollout.id,
        now=now.model_dump_json(), most=MOST_PAST, life_s=LIFE_S,
    )  # fmt: skip


def count_call(rollout: Rollout, fields: Mapping[str, float]) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `COUNT`."""
    return COUNT.call(
        counts=answer_keys.rollout(rollout.id), running=answer_keys.rollouts(), past=answer_keys.past_rollouts(),
        life_s=LIFE_S, fields=[str(part) for pair in fields.items() for part in pair],
    )  # fmt: skip


def read_running(flat: Iterable[bytes]) -> dict[str, Rollout]:
    """Return the rollouts that run, by pool, from the reply of HGETALL; what cannot be read is passed over."""
    found = (_read(raw) for raw in list(flat)[1::2])
    return {one.pool: one for one in found if one is not None}


def read_rollouts(client: redis.Redis, *, past: int = MOST_PAST) -> list[RolloutState]:
    """Return the rollouts that run, then those that are over, the newest first. Two round trips.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.hvals(answer_keys.rollouts())
        pipe.lrange(answer_keys.past_rollouts(), 0, past - 1)
        live, over = pipe.execute()
    rollouts = [one for raw in (*live, *over) if (one := _read(raw)) is not None]
    if not rollouts:
        return []
    with client.pipeline(transaction=False) as pipe:
        for one in rollouts:
            pipe.hgetall(answer_keys.rollout(one.id))
        return [state_of(one, fields) for one, fields in zip(rollouts, pipe.execute(), strict=True)]


def _read(raw: bytes) -> Rollout | None:
    try:
        return Rollout.model_validate_json(raw)
    except ValidationError:  # of a later release
        return None
