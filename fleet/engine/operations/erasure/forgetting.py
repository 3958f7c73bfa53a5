"""`fleet forget`: everything that holds the words of a tenant, or of some tasks, is found and erased, in small steps.

Safe to kill and to run again: nothing is remembered between two runs but the secret of the pseudonym. What comes while
it goes on is found by a repeated look, or told as what came meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from fleet.config import Settings
from fleet.economy.bill.export import export_of
from fleet.engine.operations.erasure.messages import MessageEraser, Messages
from fleet.engine.operations.erasure.names import erase_name, pseudonym_of
from fleet.engine.operations.erasure.state_walk import StateWalk
from fleet.engine.operations.erasure.tracks import is_letter_of
from fleet.engine.outcomes.cancelling import Canceller, Selection
from fleet.engine.outcomes.dead_letter_office import DeadLetterOffice, Filed
from fleet.errors import ConfigurationError
from fleet.signals import catalogue
from fleet.signals.events import record_deed
from fleet.store import keys
from fleet.store.running.brokers import Anywhere, each

#: Looks at what is stored, at most (count): what ends or is billed during one is met by the next.
LOOKS_MOST = 5
#: Bodies of dead letters read in one round trip (count): each is 7 MB at most.
BODIES_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure met.

    Args:
        pseudonym: What the tenant is called on the bill from now on; empty: no tenant was named.
        messages: What waited and what workers held.
        found: What was stored, by where: how many of each.
        unreadable: Dead letters and messages of which nobody can say whose they are.
        meanwhile: Tasks that were submitted while it went on, and wait.
        slow_commands: Entries of the logs of slow commands, which quote prompts; None: this user may not touch them.
    """

    pseudonym: str
    messages: Messages
    found: Counter[str]
    unreadable: Counter[str]
    meanwhile: int
    slow_commands: int | None = 0

    @property
    def is_complete(self) -> bool:
        """False when something is left that another run would erase."""
        return not self.messages.running and not self.meanwhile


class Eraser:
    """Erases words. Blocks.

    Args:
        broker: Plain client of the Redis with the messages.
        state: Plain client of the Redis with the results; the same one when there is one Redis.
        settings: Pools, bounds, and where the bill is exported to.
        canceller: Ends what waits.
    """

    def __init__(self, broker: Anywhere, state: redis.Redis, settings: Settings, canceller: Canceller) -> None:
        self._broker = broker
        self._state = state
        self._settings = settings
        self._messages = MessageEraser(broker, state, settings, canceller)
        self._canceller = canceller
        self._office = DeadLetterOffice(state, broker, settings)

    def count(self, chosen: Selection) -> Erasure:
        """Return what `erase` would meet, and change nothing."""
        found, unreadable = self._look(chosen, "-" if chosen.tenant else "", is_meant=False)
        return Erasure("", self._messages.count(chosen), found, unreadable, 0)

    def erase(
        self, chosen: Selection, *, stop: Callable[[Sequence[str]], None] | None, wait_s: float, by: str
    ) -> Erasure:
        """Erase everything that is meant. O(all keys), and reads each result and dead letter.

        Args:
            chosen: Which tasks; with a tenant also everything else that names it.
            stop: Has workers stop tasks by their ids; None: what runs goes on, and is waited for.
            wait_s: Seconds for which that is waited for.
            by: Who wants it, for the event.

        Raises:
            redis.RedisError: When Redis does not answer; what is erased by then stays so.
            ConfigurationError: When exported lines cannot be rewritten. Everything else is done by then.
        """
        pseudonym = pseudonym_of(self._state, chosen.tenant) if chosen.tenant else ""
        messages = self._messages.erase(chosen, stop=stop, wait_s=wait_s)
        found, unreadable = Counter[str](), Counter[str]()
        for _ in range(LOOKS_MOST):
            new, unreadable = self._look(chosen, pseudonym, is_meant=True)
            found += new
            if not new.total():
                break
        meanwhile = self._canceller.count(chosen).waiting
        done = Erasure(
            pseudonym, messages, found, unreadable, meanwhile, empty_slow_logs(self._state, *each(self._broker))
        )
        self._note(done, chosen, by)
        found["exported lines"] = self._export(chosen, pseudonym, is_meant=True)
        return done

    def _look(self, chosen: Selection, pseudonym: str, *, is_meant: bool) -> tuple[Counter[str], Counter[str]]:
        """Erase what is stored; return how many of what were met, and how many of what cannot be told."""
        walk = StateWalk(self._state, self._broker, chosen, pseudonym, is_meant=is_meant)
        unreadable = self._letters(chosen, walk, is_meant)
        walk.go()
        if chosen.tenant and pseudonym:
            walk.found += erase_name(self._state, chosen.tenant, pseudonym, is_meant=is_meant)
        if not is_meant:
            walk.found["exported lines"] = self._export(chosen, pseudonym, is_meant=False)
        return walk.found, unreadable

    def _letters(self, chosen: Selection, walk: StateWalk, is_meant: bool) -> Counter[str]:
        """Erase dead letters, each after its result: by the letter alone it is known whose a refused one is."""
        unreadable = Counter(
            {"messages that are none": sum(client.llen(keys.unreadable()) for client in each(self._broker))}
        )
        page = list[Filed]()
        for filed in self._office.walk():
            page.append(filed)
            if len(page) == BODIES_AT_ONCE:
                self._erase_letters(chosen, walk, page, unreadable, is_meant)
                page = []
        self._erase_letters(chosen, walk, page, unreadable, is_meant)
        return unreadable

    def _erase_letters(
        self, chosen: Selection, walk: StateWalk, page: Sequence[Filed], unreadable: Counter[str], is_meant: bool
    ) -> None:
        if not page:
            return
        bodies = self._office.bodies([filed.letter.task_id for filed in page])
        for filed, body in zip(page, bodies, strict=True):
            is_meant_one = is_letter_of(filed.letter, body or b"", chosen)
            if is_meant_one is None:
                unreadable["dead letters without a body"] += 1
            if not is_meant_one:
                continue
            walk.found["dead letters"] += 1
            if is_meant:
                walk.found["results"] += walk.erase_results([filed.letter.task_id])
                self._state.unlink(keys.paid(filed.letter.task_id))
                self._office.purge(filed.letter.task_id, died_us=filed.died_us)

    def _export(self, chosen: Selection, pseudonym: str, *, is_meant: bool) -> int:
        export = export_of(self._settings.bill)
        if export is None or not chosen.tenant:
            return 0
        try:
            return export.rename_tenant(chosen.tenant, pseudonym, is_meant=is_meant)
        except OSError as error:
            raise ConfigurationError(
                f"bill.export: expected files that can be rewritten, got {error.strerror or error}; everything else is "
                "erased: correct that, then run the command again on this host"
            ) from error

    def _note(self, done: Erasure, chosen: Selection, by: str) -> None:
        """Record who did it; never whose words they were."""
        whose = {"tenant": done.pseudonym} if done.pseudonym else {}
        by_what = [name for name, is_given in (("tenant", chosen.tenant), ("metadata", chosen.metadata)) if is_given]
        counts = " ".join(f"{name.replace(' ', '_')}={count}" for name, count in sorted(done.found.items()) if count)
        record_deed(
            self._state, catalogue.WORDS_ERASED, by, **whose, chosen_by="+".join(by_what) or "tasks",
            waiting=done.messages.waiting, held=len(done.messages.held), stored=counts,
            left=len(done.messages.running) + done.meanwhile,
        )  # fmt: skip


def empty_slow_logs(*clients: redis.Redis) -> int | None:
    """Empty the logs of slow commands: each entry quotes the first 128 bytes of what a command was given.

    Nobody can tell whose those are, so all go. Returns how many there were; None: the user of a URL may not do that.

    Raises:
        redis.RedisError: When Redis does not answer.
    """
    count = 0
    for client in dict.fromkeys(clients):
        try:
            count += int(client.execute_command("SLOWLOG", "LEN"))  # type: ignore[no-untyped-call]
            client.execute_command("SLOWLOG", "RESET")  # type: ignore[no-untyped-call]
        except redis.exceptions.NoPermissionError:
            return None
    return count


def rewrite_files(client: redis.Redis) -> str:
    """Have Redis write its files on disk anew, without what was erased; return what it does, in the background.

    Raises:
        redis.RedisError: When Redis does not answer, or the user of the URL may not do this.
    """
    facts = client.info("persistence")
    if facts.get("aof_enabled"):
        client.bgrewriteaof()
        return "append-only file"
    client.bgsave()
    return "snapshot"
