"""One walk through the keys of the state Redis (SCAN, in small steps): results, chords, shares of limits, the bill.

What comes while it goes on may be missed, so walk again until nothing is found. Memory does not grow with the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import cast

import redis

from fleet.economy.bill.renaming import holds_rows_by_tenant, rename_row, rows_of_tenant
from fleet.economy.cache.reading import drop, kept_in
from fleet.economy.lanes.jobs import Enrolled
from fleet.engine.messages.follower import fields_of
from fleet.engine.operations.erasure.tracks import is_chord_of, is_result_of, names_scope, note_renamed
from fleet.engine.outcomes.cancelling import AskedFor, Selection
from fleet.roster.grading import ENDS
from fleet.store import answer_keys, cache_keys, erasure_keys, job_keys, keys, lane_keys
from fleet.store.client import Script, run_script
from fleet.store.running.brokers import Anywhere, each

REPLACE_FIELD = Script.beside(__file__, "replace_field.lua", keys="rows", argv="field before after")

#: Keys that Redis looks at in one step, and results read in one round trip (count): some MB if answers are long.
STEP, READ_AT_ONCE = 1000, 100


class StateWalk:
    """What a walk erases, and counts by where it lay.

    Args:
        state: Client of the Redis with the results.
        broker: Client of the Redis with the messages: marks of submissions lie there.
        chosen: Which tasks.
        pseudonym: What the tenant is called from now on; empty: by no tenant's name is anything looked for.
        is_meant: False: everything is counted and nothing changed.
    """

    def __init__(
        self, state: redis.Redis, broker: Anywhere, chosen: Selection, pseudonym: str, *, is_meant: bool
    ) -> None:
        self._state = state
        self._broker = broker
        self._chosen = chosen
        self._tenant = chosen.tenant if pseudonym else None
        self._pseudonym = pseudonym
        self._is_meant = is_meant
        self.found = Counter[str]()

    def go(self) -> None:
        """Walk through all keys once. O(keys), and reads each result."""
        cursor = self._state.scan_iter(count=STEP)
        while names := [bytes(name).decode("utf-8", "replace") for name in islice(cursor, STEP)]:
            self._results([name for name in names if name.startswith(keys.result(""))])
            for name in names:
                if name.startswith(erasure_keys.chord_parts("").removesuffix(".j")) and name.endswith(".j"):
                    self._chord(name)
                elif name.startswith(cache_keys.kept_answers("")):
                    self._cached(name.removeprefix(cache_keys.kept_answers("")))
                elif name.startswith(lane_keys.batched("")):
                    self._batched(name)
                elif name.startswith(job_keys.then("")):
                    self._follower(name)
                elif self._tenant is not None:
                    self._named(name, self._tenant)

    def erase_results(self, task_ids: Sequence[str]) -> int:
        """Remove results and marks of tasks by their ids, and return how many results there were."""
        if not task_ids or not self._is_meant:
            return 0
        for client in each(self._broker):
            with client.pipeline(transaction=False) as pipe:
                for task_id in task_ids:
                    for key in (keys.submitted, keys.passed_on, keys.followed, keys.follows):
                        pipe.unlink(key(task_id))
                pipe.execute()
        with self._state.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.unlink(keys.result(task_id))
            for task_id in task_ids:
                pipe.unlink(*(answer_keys.graded(task_id + end) for end in ENDS.values()))
            return sum(pipe.execute()[: len(task_ids)])

    def _results(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), READ_AT_ONCE):
            some = names[start : start + READ_AT_ONCE]
            with self._state.pipeline(transaction=False) as pipe:
                for name in some:
                    pipe.get(name)
                stored = pipe.execute(raise_on_error=False)
            ids = [
                name.removeprefix(keys.result(""))
                for name, raw in zip(some, stored, strict=True)
                if isinstance(raw, bytes) and is_result_of(raw, self._chosen)
            ]
            self.found["results"] += len(ids)
            self.erase_results(ids)

    def _chord(self, name: str) -> None:
        if any(
            is_chord_of(bytes(member), self._chosen) for member, _ in self._state.zscan_iter(name, count=READ_AT_ONCE)
        ):
            self.found["chords"] += 1
            if self._is_meant:
                self._state.unlink(name)

    def _follower(self, name: str) -> None:
        """Erase the task that was to follow a job: that job ends without it."""
        fields = fields_of(cast("bytes | None", self._state.get(name)))
        if self._chosen.applies(AskedFor({}, fields), fields.get("pool", "")):
            self._unlink(name, "tasks that follow jobs")

    def _batched(self, name: str) -> None:
        """Erase what goes, or went, in a batch: of the tenant, or of a task that has its result, so that nobody waits.

        What the vendor keeps of it is deleted when its batch ends, as always.
        """
        asked = cast("bytes | None", self._state.hget(name, "asked"))
        task_id = name.removeprefix(lane_keys.batched(""))
        is_tenants = asked is not None and bool(self._tenant) and Enrolled.from_json(asked).tenant == self._tenant
        if is_tenants or self._state.exists(keys.result(task_id)):
            self._unlink(name, "requests in batches")

    def _cached(self, kind: str) -> None:
        """Erase answers that are kept for equal tasks, by the result that they come from."""
        for some in kept_in(self._state, kind):
            digests = [digest for digest, answer in some if is_result_of(answer, self._chosen)]
            self.found["kept answers"] += len(digests)
            if self._is_meant:
                drop(self._state, kind, digests)

    def _named(self, name: str, tenant: str) -> None:
        """Erase what names a tenant."""
        of_limit = name.startswith(keys.limit("").partition("{")[0])
        if of_limit and name.endswith(f":bots:{tenant}"):
            self._unlink(name, "shares of limits")
        elif of_limit and name.endswith(":open"):
            self._notes(name, tenant)
        elif name.startswith(keys.event_quiet("")) and names_scope(name, f"tenant:{tenant}"):
            self._unlink(name, "events")
        elif holds_rows_by_tenant(name):
            for row in rows_of_tenant(self._state, name, tenant):
                self.found["rows of the bill"] += 1
                if self._is_meant:
                    rename_row(self._state, name, row, self._pseudonym)

    def _unlink(self, name: str, what: str) -> None:
        self.found[what] += 1
        if self._is_meant:
            self._state.unlink(name)

    def _notes(self, name: str, tenant: str) -> None:
        """Give calls that are not billed yet the pseudonym."""
        for field, note, renamed in self._notes_of(name, tenant):
            self.found["calls without a bill yet"] += 1
            if self._is_meant:
                replace_field(self._state, name, field, note, renamed)

    def _notes_of(self, name: str, tenant: str) -> Iterator[tuple[bytes, bytes, bytes]]:
        for field, note in self._state.hscan_iter(name, count=STEP):
            renamed = note_renamed(bytes(note), tenant, self._pseudonym)
            if renamed is not None:
                yield field, note, renamed


def replace_field(client: redis.Redis, key: str, field: bytes, before: bytes, after: bytes) -> bool:
    """Put a text in the place of another one; False when that has changed since it was read."""
    return bool(
        run_script(client, REPLACE_FIELD, *REPLACE_FIELD.call(rows=key, field=field, before=before, after=after))
    )
