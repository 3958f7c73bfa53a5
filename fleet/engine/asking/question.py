"""What is asked: the options of an ask, checked, and its members, each with a pool and a seat."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, NamedTuple, get_args

from fleet.answers import Stop, canonical
from fleet.asking import Seat
from fleet.config import Settings
from fleet.errors import InvalidTask
from fleet.models import BotResult, BotTask
from fleet.quoting import quote

#: Ways to make one answer of many that have a name.
Named = Literal["majority", "weighted", "judge"]
#: What a user's own function does: it is given the results with an answer, and returns the answer.
Aggregate = Callable[[list[BotResult]], Any]
#: Most members of an ask (count).
MOST_MEMBERS = 100
#: Name in the metadata of a member: the ask's id.
METADATA = "ask"
#: Members for which one spare bot is kept (count), as far as the pool has bots: it is asked if one fails.
MEMBERS_PER_SPARE = 2
#: Longest time that an ask may take, in seconds (a day): who asks waits for it.
MOST_DEADLINE_S = 86_400.0


@dataclass(frozen=True)
class AskTerms:
    """One ask, checked.

    Args:
        task: What each member is asked.
        n: How many members.
        aggregate: How one answer is made of theirs.
        quorum: Votes behind every outcome, although others fail, are late or are left out; None: see `least`.
        deadline_s: Seconds until there is one, or it is said that there is none.
        pools: Where members are asked, in turn; empty: in the one that the task names, or that is least loaded.
        stop: When the rest is not asked.
        at_once: How many are asked at the same time; None: as few as could decide it.
        count_by: What of an answer counts: a regular expression, or a field of a JSON answer as `.name`.
        judge: Pool of the judge; None: the first of the members'.
        right: The right answer, where it is known: the record learns from it.
    """

    task: BotTask
    n: int = 7
    aggregate: Named | str | Aggregate = "majority"
    quorum: int | None = None
    deadline_s: float = 60.0
    pools: Sequence[str] = ()
    stop: Stop = "fixed"
    at_once: int | None = None
    count_by: str | None = None
    judge: str | None = None
    right: str | None = None
    ask_id: str = field(default_factory=lambda: secrets.token_hex(6))

    def __post_init__(self) -> None:
        _check_number("n", self.n, 1, MOST_MEMBERS)
        if self.quorum is not None:
            _check_number("quorum", self.quorum, 1, self.n)
        if self.at_once is not None:
            _check_number("at_once", self.at_once, 1, self.n)
        if not (isinstance(self.deadline_s, int | float) and 0 < self.deadline_s <= MOST_DEADLINE_S):
            raise InvalidTask(
                f"deadline_s: expected more than 0 and at most {MOST_DEADLINE_S:,.0f} s, got {quote(self.deadline_s)}"
            )
        if self.stop not in get_args(Stop):
            raise InvalidTask(f"stop: expected one of {', '.join(get_args(Stop))}, got {quote(self.stop)}")
        if isinstance(self.pools, str):
            raise InvalidTask(f"pools: expected a list of names, got {quote(self.pools)}")
        for name in ("seat", "idempotency_key"):
            if getattr(self.task, name) is not None:
                raise InvalidTask(f"{name}: expected none, for each member is a task of its own; leave it out")
        _ = self.own_function, self.pattern

    @property
    def least(self) -> int:
        """How many votes make an outcome where members failed or were late: by default more than half of them."""
        return self.quorum if self.quorum is not None else self.n // 2 + 1

    @property
    def named(self) -> str:
        """The name of the aggregate."""
        return (
            self.aggregate if isinstance(self.aggregate, str) else getattr(self.aggregate, "__qualname__", "function")
        )

    @property
    def own_function(self) -> Aggregate | None:
        """The user's own function; None: the aggregate is one of Fleet's."""
        if self.aggregate in get_args(Named):
            return None
        if callable(self.aggregate):
            return self.aggregate
        return _loaded(self.aggregate)

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """What cuts out of an answer what counts."""
        if self.count_by is None or self.count_by.startswith("."):
            return None
        try:
            return re.compile(self.count_by)
        except re.error as error:
            raise InvalidTask(
                f"count_by: expected a regular expression or .FIELD, got {quote(self.count_by)}: {error}"
            ) from error

    def counted(self, answer: str) -> str | None:
        """Return the form under which an answer is counted; None when it lacks what counts."""
        by = self.count_by
        return canonical(answer, pattern=self.pattern, field=by[1:] if by and by.startswith(".") else None)


@dataclass(frozen=True, slots=True)
class Member:
    """One member: the task that is asked, and whose errors its answer is expected to share."""

    task: BotTask
    source: str


def members_of(question: AskTerms, pools: Sequence[str], settings: Settings, *, expires_at: float) -> list[Member]:
    """Return the members of an ask, dealt out to its pools in turn.

    Args:
        question: What is asked.
        pools: Where.
        settings: How many bots they have, and which models.
        expires_at: Unix time (s) after which nobody wants their answers.

    Raises:
        InvalidTask: When a pool has too few bots, or there is none of that name.
    """
    seats, taken, found = seats_of(question, pools, settings), Counter[str](), list[Member]()
    for pool in _dealt(question, pools):
        taken[pool] += 1
        seat = Seat(question.ask_id, taken[pool], seats[pool].total)
        end = min(expires_at, question.task.expires_at or expires_at)
        about = {**question.task.metadata, METADATA: question.ask_id}
        update = {"pool": pool, "seat": str(seat), "expires_at": end, "metadata": about}
        task = question.task.model_copy(update=update)
        found.append(Member(task, expected_source(pool, settings)))
    return found


def key_of(task: BotTask) -> str:
    """Return the idempotency key of a member: its seat is its own."""
    return f"ask:{task.pool}:{task.seat}"


class Seats(NamedTuple):
    """How many seats an ask has in a pool.

    Args:
        expected: Of members and the judge; the judge has the last one of these.
        total: With spare ones, for members that fail.
    """

    expected: int
    total: int


def seats_of(question: AskTerms, pools: Sequence[str], settings: Settings) -> dict[str, Seats]:
    """Return the seats of an ask, pool by pool: one spare for two members, as far as the pool has bots.

    Raises:
        InvalidTask: When a pool has too few bots, or there is none of that name.
    """
    dealt = Counter(_dealt(question, pools))
    expected = dealt + Counter([question.judge or pools[0]] if question.aggregate == "judge" else [])
    for pool, number in expected.items():
        if pool not in settings.pools:
            raise InvalidTask(f"pools: expected some of {', '.join(settings.pools)}, got {quote(pool)}")
        if (bots := settings.pools[pool].bots) < number:
            raise InvalidTask(
                f"n: expected at most as many members in pool {pool} as it has bots, {bots:,}, got {number:,}; lower "
                f"n, name more pools, or raise pools.{pool}.bots"
            )
    return {
        pool: Seats(number, min(settings.pools[pool].bots, number + (dealt[pool] + 1) // MEMBERS_PER_SPARE))
        for pool, number in expected.items()
    }


def _dealt(question: AskTerms, pools: Sequence[str]) -> list[str]:
    return [pools[number % len(pools)] for number in range(question.n)]


def expected_source(pool: str, settings: Settings) -> str:
    """Return `provider/model` of a pool, as its results will name it if nothing else serves them."""
    chosen = settings.pools[pool]
    return f"{chosen.provider}/{chosen.model}"


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidTask(f"{name}: expected a whole number from {least} to {most:,}, got {quote(value)}")


def _loaded(path: object) -> Aggregate:
    """Return the function that a dotted path names: `module:function`, or `module.function`."""
    expected = f"aggregate: expected {', '.join(get_args(Named))}, a function or its dotted path, got {quote(path)}"
    if not isinstance(path, str) or not re.fullmatch(r"[\w.]+[:.]\w+", path):
        raise InvalidTask(expected)
    module, _, name = path.rpartition(":") if ":" in path else path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidTask(f"{expected}: {error}") from error
    if not callable(found):
        raise InvalidTask(f"{expected}, which is no function")
    return found
