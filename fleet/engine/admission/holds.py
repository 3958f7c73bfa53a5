"""Holds: Fleet's own gates. A queue is held for a reason of all its tasks, and opens by itself.

`take.lua` reads a hold with every take, beside the operator's gate (`gates.py`): of the two the stricter one wins. A
worker runs the calls over its `Store`; people, who have a plain client, call `lift`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from fleet.engine.messages.queues import PRIORITY_STEPS
from fleet.store import keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import at_each, total
from fleet.waits import Wait

PUT_HOLD = Script.beside(__file__, "put_hold.lua", keys="hold", argv="wait beyond_ms probes")
LIFT = Script.beside(__file__, "lift.lua", keys="bell holds*", argv="about causes waiting_prefix priorities queues*")

#: Milliseconds that a hold lives behind its opening when it lets probes through, or has no opening: who has put it and
#: still has the reason renews it by then, and if all of them died the queue opens.
BEYOND_MS = 600_000
#: The same in intervals of its probes, if that is longer: two of them may fail to be heard of.
BEYOND_PROBES = 3


def hold_call(queue: str, wait: Wait) -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `put_hold.lua`, which replies 1 when the queue is held by this, else 0."""
    return PUT_HOLD.call(hold=keys.hold(queue), wait=wait.to_json(), beyond_ms=BEYOND_MS, probes=BEYOND_PROBES)


def lift_call(queues: Sequence[str], *, about: str = "", cause: str = "") -> tuple[list[Any], list[Any]]:
    """Return KEYS and ARGV of `lift.lua`, which replies the number of holds lifted.

    Args:
        queues: Whose holds.
        about: Only those about this `provider/model/key`, pool or setting; "": about anything.
        cause: Only those of this cause, or of one of several with blanks between; "": of any.
    """
    return LIFT.call(
        bell=keys.bell(), holds=map(keys.hold, queues), about=about, causes=cause, waiting_prefix=keys.waiting(""),
        priorities=len(PRIORITY_STEPS), queues=queues,
    )  # fmt: skip


@at_each(total)
def lift(broker: redis.Redis, queues: Sequence[str], *, about: str = "", cause: str = "") -> int:
    """Lift holds through a plain client, and return how many; arguments as of `lift_call`."""
    return int(run_script(broker, LIFT, *lift_call(queues, about=about, cause=cause)))
