"""Taking back what waits: tasks that are cancelled, revoked, or whose end has passed leave their lists and parked sets.

They move to the unacked store like any taken message, and are acknowledged once whoever waits has been told. If the
process dies in between, their leases run out and they come back: neither lost nor begun. What becomes of them, their
results, is not here: `outcomes/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, cast

import redis

from fleet.engine.messages import weight
from fleet.engine.messages.envelope import TASK_NAME, task_id_in
from fleet.engine.messages.expiry import ISO_TIME
from fleet.engine.messages.fair.flows import flows_of
from fleet.engine.messages.queues import PRIORITY_STEPS, list_key, lists_of
from fleet.engine.transport import leases
from fleet.engine.transport.withdrawal.reading import Stride, peek, peek_parked
from fleet.store import keys
from fleet.store.client import Script, run_script, run_script_each
from fleet.store.running.brokers import Anywhere, at_each, each, in_turn

WITHDRAW = Script.beside(
    __file__,
    "withdraw.lua",
    keys="list unacked index suspects revoked parked order",
    argv="is_parked home skip count most most_bytes reply_bytes prefix mark mark_prefix bot_task wanted ids*",
    using=[ISO_TIME],
)
CLAIM = Script.beside(__file__, "claim_over.lua", keys="ends", argv="claim_s")
SEEK = Script.beside(
    __file__,
    "seek_end.lua",
    keys="ends seen lists*",
    argv="queue count step_bytes most_bytes settled_s life_s",
    using=[ISO_TIME],
)
RENEW = Script.beside(__file__, "renew_claim.lua", keys="ends", argv="queue claimed claim_s")
FINISH = Script.beside(__file__, "finish_walk.lua", keys="ends", argv="queue claimed next_at pause_s")

#: Which tasks: all, those with the given ids, or those whose end has passed and those that were revoked.
Wanted = Literal["all", "ids", "over"]

#: Messages withdrawn in one step (count), and bytes of them: a step holds Redis up for about 5 ms at most.
WITHDRAW_MOST, REPLY_BYTES = 100, 2_000_000
#: The same where others stay between them (count): each is found from the end of the list, 0.1 ms in one of 100,000.
PICKED_MOST = 20
#: Messages looked at in one step at first and at most (count), and the bytes that a step aims at.
FIRST_STRETCH, LONGEST_STRETCH, STRETCH_BYTES = 64, 500, 2_000_000
#: What lies in a list where a message was withdrawn; and how many such places a walk leaves behind it before it removes
#: them, which looks at all messages of the walk (count).
GONE, GONE_MOST = b"withdrawn", 1000
#: Messages of a short flow at most, and short flows that are walked through in one round trip (count).
SHORT, SHORT_AT_ONCE = 16, 50
#: Flows whose lengths are asked for in one round trip (count).
LENGTHS_AT_ONCE = 1000
#: Messages that one step looks at for ends at most (count).
SOUGHT_MOST = 1000
#: Seconds for which it is known how far a queue was looked at for ends.
SOUGHT_LIFE_S = 3600
#: Seconds until a walk whose process died is begun anew.
CLAIM_S = 60.0
#: Longest pause between two walks through one queue, in seconds.
LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A message that this process holds under `tag` until it acknowledges it."""

    tag: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a step found, after looking at `looked_at` messages; `next_end`: the soonest end among those that stay.

    It has `left` empty places in the list.
    """

    found: tuple[Withdrawn, ...]
    looked_at: int
    next_end: float | None
    left: int = 0


@at_each(in_turn)
def withdraw(client: redis.Redis, queue: str, wanted: Wanted, ids: Collection[str] = ()) -> Iterator[Stretch]:
    """Withdraw what is wanted of a queue, step by step, its lists first, then what is parked. O(messages) in all.

    Queues move meanwhile: a message that is taken, opened or put back during the walk may be missed. Repeat the walk
    until it finds none. Each step's messages must be acknowledged (`acknowledge`) within a lease.

    Args:
        client: Of the broker.
        queue: Its name.
        wanted: Which tasks.
        ids: Of those that are wanted, with "ids".
    """
    lists, flows, parked = _places(client, queue)
    for place in lists:
        yield from _walk(client, place, wanted, ids)
    for short, long in _by_length(client, flows):
        for start in range(0, len(short), SHORT_AT_ONCE):
            yield from _walk_short(client, short[start : start + SHORT_AT_ONCE], wanted, ids)
        for place in long:
            yield from _walk(client, place, wanted, ids)
    yield from _walk(client, parked, wanted, ids)


@at_each(in_turn)
def withdraw_matching(
    client: redis.Redis, queue: str, matches: Callable[[bytes], bool], *, is_meant: bool = True
) -> Iterator[Stretch]:
    """Withdraw those messages of a queue that match, as `withdraw`; they are read here, since only Python can tell.

    With `is_meant` False they stay: what is found has no tags.
    """
    lists, flows, parked = _places(client, queue)
    for place in chain(lists, _matching(client, flows, matches), [parked]):
        skip, gone, stride = 0, 0, Stride()
        while messages := _peek(client, place, skip, stride.count):
            chosen = [message for message in messages if matches(message)]
            found: tuple[Withdrawn, ...] = tuple(Withdrawn("", message) for message in chosen)
            if is_meant and chosen:
                steps = list(_take_back(client, place, chosen, skip, stride.count))
                found, left = tuple(one for step in steps for one in step.found), sum(step.left for step in steps)
                gone, skip = gone + left, skip - len(found) + left
            yield Stretch(found, len(messages), None)
            skip += len(messages)
            stride.read(messages)
            if gone >= GONE_MOST:
                skip -= _remove_gone(client, place.key, gone, skip)
                gone = 0
        if gone:
            _remove_gone(client, place.key, gone, skip)


def withdraw_over(client: redis.Redis) -> Iterator[Stretch]:
    """Withdraw what takes have put aside because its end has passed, as `withdraw`; several processes may at once."""
    while True:
        stretch, _ = _step(client, WaitingPlace("", keys.over(), keys.over()), "all", (), skip=0, count=WITHDRAW_MOST)
        if not stretch.found:
            return
        yield stretch


def _take_back(
    client: redis.Redis, place: WaitingPlace, chosen: Sequence[bytes], skip: int, read: int
) -> Iterator[Stretch]:
    """Withdraw messages that were `read` behind `skip` others a moment ago; some of those may have been taken since."""
    count = max(1, min(4 * PICKED_MOST, STRETCH_BYTES // max(map(len, chosen))))
    ids = [task_id for message in chosen if (task_id := task_id_in(message)) is not None]
    skip, left = max(0, skip - read), read + min(skip, read)
    while left > 0:
        stretch, _ = _step(client, place, "ids", ids, skip=skip, count=min(left, count))
        yield stretch
        if stretch.looked_at == 0:
            return
        skip += stretch.looked_at - len(stretch.found) + stretch.left
        left -= stretch.looked_at


@dataclass(frozen=True, slots=True)
class WaitingPlace:
    """Where messages of a queue wait: a list, a flow of it (`home` is its list), or what is parked beside it."""

    queue: str
    key: str
    home: str
    is_parked: bool = False


def _peek(client: redis.Redis, place: WaitingPlace, skip: int, count: int) -> list[bytes]:
    return peek_parked(client, place.queue, skip, count) if place.is_parked else peek(client, place.key, skip, count)


def _places(client: redis.Redis, queue: str) -> tuple[list[WaitingPlace], Iterator[WaitingPlace], WaitingPlace]:
    """Return a queue's lists, the most urgent first, their flows, to which messages move, and what is parked.

    The flows are read once they are asked for: after a walk through the lists.
    """
    lists = [WaitingPlace(queue, key, key) for key, _ in lists_of(queue)]
    return lists, _flows(client, queue), WaitingPlace(queue, list_key(queue, 0), list_key(queue, 0), is_parked=True)


def _flows(client: redis.Redis, queue: str) -> Iterator[WaitingPlace]:
    for flow in flows_of(client, [queue]).get(queue, ()):
        yield WaitingPlace(queue, flow.key, flow.place)


def _by_length(
    client: redis.Redis, flows: Iterator[WaitingPlace]
) -> Iterator[tuple[list[WaitingPlace], list[WaitingPlace]]]:
    """Yield the short and the long ones of some flows at a time; there may be one for each of 100,000 tenants."""
    while some := list(islice(flows, LENGTHS_AT_ONCE)):
        with client.pipeline(transaction=False) as pipe:
            for place in some:
                pipe.llen(place.key)
            lengths = pipe.execute()
        known = list(zip(some, lengths, strict=True))
        yield (
            [place for place, length in known if 0 < length <= SHORT],
            [place for place, length in known if length > SHORT],
        )


def _matching(
    client: redis.Redis, flows: Iterator[WaitingPlace], matches: Callable[[bytes], bool]
) -> Iterator[WaitingPlace]:
    """Yield the long flows, and those short ones in which something matches."""
    for short, long in _by_length(client, flows):
        for start in range(0, len(short), SHORT_AT_ONCE):
            some = short[start : start + SHORT_AT_ONCE]
            with client.pipeline(transaction=False) as pipe:
                for place in some:
                    pipe.lrange(place.key, 0, -1)
                yield from (
                    place for place, found in zip(some, pipe.execute(), strict=True) if any(map(matches, found))
                )
        yield from long


def _walk_short(
    client: redis.Redis, places: Sequence[WaitingPlace], wanted: Wanted, ids: Collection[str]
) -> Iterator[Stretch]:
    """Walk through short flows in one round trip; what one of them has left is walked through by itself."""
    most_bytes = REPLY_BYTES // len(places)
    calls = [_call(place, wanted, ids, skip=0, count=SHORT, reply_bytes=most_bytes) for place in places]
    steps = [_stretch_in(reply)[0] for reply in run_script_each(client, WITHDRAW, calls)]
    for place, step in zip(places, steps, strict=True):
        if step.left:
            _remove_gone(client, place.key, step.left, step.looked_at)
    ends = [step.next_end for step in steps if step.next_end is not None]
    found = tuple(one for step in steps for one in step.found)
    yield Stretch(found, sum(step.looked_at for step in steps), min(ends, default=None))
    for place, step in zip(places, steps, strict=True):
        if sum(len(one.message) for one in step.found) > most_bytes:  # it stopped there
            yield from _walk(client, place, wanted, ids)


def _walk(client: redis.Redis, place: WaitingPlace, wanted: Wanted, ids: Collection[str]) -> Iterator[Stretch]:
    skip, count, gone = 0, FIRST_STRETCH, 0
    while True:
        stretch, size = _step(client, place, wanted, ids, skip=skip, count=count)
        gone += stretch.left
        skip += stretch.looked_at - len(stretch.found) + stretch.left
        if gone >= GONE_MOST or (gone and not stretch.looked_at):
            skip -= _remove_gone(client, place.key, gone, skip)
            gone = 0
        if stretch.looked_at == 0:
            return
        yield stretch
        longest = WITHDRAW_MOST if wanted == "all" else LONGEST_STRETCH
        if len(stretch.found) == _most(wanted):  # no more of them would be looked at
            longest = min(longest, stretch.looked_at + stretch.looked_at // 4)
        count = min(longest, max(FIRST_STRETCH // 4, STRETCH_BYTES * stretch.looked_at // max(1, size)))


def _most(wanted: Wanted) -> int:
    return WITHDRAW_MOST if wanted == "all" else PICKED_MOST


def _remove_gone(client: redis.Redis, place: str, count: int, skip: int) -> int:
    """Remove empty places among the first `skip` of a list, from its nearer end, and return how many."""
    is_near_head = skip < client.llen(place) / 2
    return client.lrem(place, -count if is_near_head else count, cast("Any", GONE))


def _step(
    client: redis.Redis, place: WaitingPlace, wanted: Wanted, ids: Collection[str], *, skip: int, count: int
) -> tuple[Stretch, int]:
    return _stretch_in(run_script(client, WITHDRAW, *_call(place, wanted, ids, skip=skip, count=count)))


def _call(
    place: WaitingPlace, wanted: Wanted, ids: Collection[str], *, skip: int, count: int, reply_bytes: int = REPLY_BYTES
) -> tuple[list[Any], list[Any]]:
    return WITHDRAW.call(
        list=place.key, unacked=keys.unacked(), index=keys.unacked_index(), suspects=keys.suspects(),
        revoked=keys.revoked(), parked=keys.parked(), order=keys.parked_order(place.queue),
        is_parked=int(place.is_parked), home=place.home, skip=skip, count=count, most=_most(wanted),
        most_bytes=weight.MAX_MESSAGE_BYTES, reply_bytes=reply_bytes, prefix=leases.Holdings().next_prefix(),
        mark=leases.SUSPECT, mark_prefix=keys.submitted(""), bot_task=f'"{TASK_NAME}"', wanted=wanted, ids=tuple(ids),
    )  # fmt: skip


def _stretch_in(reply: Any) -> tuple[Stretch, int]:
    """Return what a step found, and the bytes that it looked at."""
    looked_at, size, soonest, left, *rows = reply
    found = tuple(Withdrawn(tag.decode(), message) for tag, message in zip(rows[::2], rows[1::2], strict=True))
    return Stretch(found, int(looked_at), float(soonest) if soonest else None, int(left)), int(size)


def acknowledge(where: Anywhere, withdrawn: Sequence[Withdrawn]) -> None:
    """Forget messages whose tasks have ended, at the broker that has them; the others know nothing of their tags."""
    if withdrawn:
        call = leases.take_call("", (), wanted=0, acks=[one.tag for one in withdrawn])
        for client in each(where):
            run_script(client, leases.TAKE, *call)


def seek_end(client: redis.Redis, queue: str) -> Iterator[bool]:
    """Look whether tasks that only their messages tell an end of wait there; if so, have the queue walked through then.

    A walk that runs, or is due within a minute, stays as it is: it sees all ends. While a queue stands each of its
    messages is looked at once, step by step; whoever looks next goes on where the last one stopped.

    Returns:
        After each step, whether it has found a sooner end than was known.
    """
    while True:
        call = SEEK.call(
            ends=keys.ends(), seen=keys.turn(f"ends:seen:{queue}"),
            lists=[list_key(queue, step) for step in PRIORITY_STEPS], queue=queue, count=SOUGHT_MOST,
            step_bytes=STRETCH_BYTES, most_bytes=weight.MAX_MESSAGE_BYTES, settled_s=max(CLAIM_S, LONGEST_PAUSE_S),
            life_s=SOUGHT_LIFE_S,
        )  # fmt: skip
        found, is_more, _ = run_script(client, SEEK, *call)
        yield bool(found)
        if not is_more:
            return


def claim(client: redis.Redis) -> tuple[str, str] | None:
    """Claim a queue in which something is over: its name, and what `finish` wants to know; None: there is none."""
    reply: list[Any] = run_script(client, CLAIM, *CLAIM.call(ends=keys.ends(), claim_s=CLAIM_S))
    return (reply[0].decode(), reply[1].decode()) if reply else None


def renew(client: redis.Redis, claimed: tuple[str, str]) -> tuple[str, str]:
    """Renew a claim while its walk goes on; return it. One that was lost stays lost: somebody else walks, too."""
    queue, at = claimed
    call = RENEW.call(ends=keys.ends(), queue=queue, claimed=at, claim_s=CLAIM_S)
    return queue, run_script(client, RENEW, *call).decode() or at


def finish(client: redis.Redis, claimed: tuple[str, str], next_end: float | None, pause_s: float) -> None:
    """End a claim: the queue is walked through again at `next_end` (Unix s), but not within `pause_s`."""
    queue, at = claimed
    call = FINISH.call(
        ends=keys.ends(), queue=queue, claimed=at, next_at="" if next_end is None else repr(next_end), pause_s=pause_s
    )
    run_script(client, FINISH, *call)
