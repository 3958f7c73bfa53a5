"""Several brokers: pools are spread over them by a rule, and what is asked of "the broker" is asked of each.

A message goes to the broker of its queue (`home`). Everything else goes to all of them and is put together
(`at_each`): a pool whose rule has changed may still have messages where it was before, and they are served there. With
one broker there is no `Brokers`, but its plain client or store: nothing is asked twice, and nothing costs more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from itertools import chain
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar

import redis

from fleet.errors import StoreUnavailable
from fleet.quoting import quote
from fleet.store.client import Store
from fleet.store.patience import patiently

#: Name of the broker of the inbox, of remote control and events, and of the pools that no rule sends elsewhere.
MAIN = "main"

C = TypeVar("C")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, eq=False)
class Brokers(Generic[C]):
    """Clients of several brokers.

    Args:
        clients: By the brokers' names, the main one first: those that answer.
        homes: Queue -> name of its broker, as far as that is not the main one.
        away: Name -> why it does not answer.
        urls: Where they are, by name.
    """

    clients: Mapping[str, C]
    homes: Mapping[str, str]
    away: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def main(self) -> C:
        """That of the inbox."""
        return self.clients[MAIN]

    def of(self, queue: str) -> C:
        """Return the client of a queue's broker.

        Raises:
            StoreUnavailable: When it does not answer.
        """
        return self.of_name(self.homes.get(queue, MAIN))

    def of_name(self, name: str) -> C:
        """Return the client of a broker; raises as `of`."""
        client = self.clients.get(name)
        if client is None:
            raise StoreUnavailable(f"broker {quote(name)} (redis.brokers.{name}): {self.away.get(name)}")
        return client


Anywhere: TypeAlias = redis.Redis | Brokers[redis.Redis]
AnyStore: TypeAlias = Store | Brokers[Store]


def each(where: C | Brokers[C]) -> Sequence[C]:
    """Return the clients of all brokers, the main one first."""
    return tuple(where.clients.values()) if isinstance(where, Brokers) else (where,)


def all_of(where: C | Brokers[C]) -> Mapping[str, C]:
    """Return the clients of all brokers by name.

    Raises:
        StoreUnavailable: When one of them does not answer.
    """
    if not isinstance(where, Brokers):
        return {MAIN: where}
    for name in where.away:
        where.of_name(name)
    return where.clients


def main_of(where: C | Brokers[C]) -> C:
    """Return the client of the main broker."""
    return where.main if isinstance(where, Brokers) else where


def home(where: C | Brokers[C], queue: str) -> C:
    """Return the client of a queue's broker.

    Raises:
        StoreUnavailable: When it does not answer.
    """
    return where.of(queue) if isinstance(where, Brokers) else where


def named(where: C | Brokers[C], name: str) -> C:
    """Return the client of a broker by its name; the main one's for a name that is none."""
    return where.clients.get(name, where.main) if isinstance(where, Brokers) else where


def others(where: C | Brokers[C], queue: str) -> Sequence[C]:
    """Return the clients of the brokers that are not a queue's: it may have had one of them before."""
    if not isinstance(where, Brokers):
        return ()
    own = where.homes.get(queue, MAIN)
    return tuple(client for name, client in where.clients.items() if name != own)


def by_home(where: C | Brokers[C], queues: Iterable[str]) -> Sequence[tuple[C, Sequence[str]]]:
    """Return the clients of the queues' brokers, each with its queues."""
    if not isinstance(where, Brokers):
        return ((where, tuple(queues)),)
    found: dict[str, tuple[C, list[str]]] = {}
    for queue in queues:
        found.setdefault(where.homes.get(queue, MAIN), (where.of(queue), []))[1].append(queue)
    return tuple(found.values())


def at_each(
    merge: Callable[[Sequence[R]], R],
) -> Callable[[Callable[Concatenate[redis.Redis, P], R]], Callable[Concatenate[Anywhere, P], R]]:
    """Have a function of one broker's client do its work at each of several, and put together what it returns.

    Args:
        merge: Puts it together.
    """

    def decorate(function: Callable[Concatenate[redis.Redis, P], R]) -> Callable[Concatenate[Anywhere, P], R]:
        @wraps(function)
        def run(where: Anywhere, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if not isinstance(where, Brokers):
                return function(where, *args, **kwargs)
            return merge([function(one, *args, **kwargs) for one in where.clients.values()])

        return run

    return decorate


async def ask_each(where: AnyStore, ask: Callable[[Store], Awaitable[R]]) -> list[R]:
    """Return what each broker's store answers; one of several that does not answer is left out.

    Not for what ends or removes something when nothing is found: see `ask_any`.

    Raises:
        StoreUnavailable: When none answers.
    """
    return list((await ask_by_name(where, ask)).values())


async def ask_by_name(where: AnyStore, ask: Callable[[Store], Awaitable[R]]) -> dict[str, R]:
    """Return as `ask_each` what each broker's store answers, by the brokers' names."""
    if not isinstance(where, Brokers):
        return {MAIN: await ask(where)}
    found = dict[str, R]()
    failed: StoreUnavailable | None = None
    for name, store in where.clients.items():
        try:
            found[name] = await ask(store)
        except StoreUnavailable as error:
            failed = error
    if failed is not None and not found:
        raise failed
    return found


async def reach_branches(where: AnyStore, act: Callable[[Store], Coroutine[Any, Any, object]]) -> None:
    """Do something at each broker beside the main one; where one is away, as soon as it answers.

    Args:
        where: The brokers; of one alone nothing is asked.
        act: Does it; safe to repeat.
    """
    if isinstance(where, Brokers):
        branches = [store for name, store in where.clients.items() if name != MAIN]
        await asyncio.gather(*(patiently(partial(act, store)) for store in branches))


async def ask_any(where: AnyStore, ask: Callable[[Store], Awaitable[object]]) -> bool:
    """True when one of the brokers says yes: no more are asked then.

    Raises:
        StoreUnavailable: When none does, and one does not answer: it may be the one.
    """
    failed: StoreUnavailable | None = None
    for store in each(where):
        try:
            if await ask(store):
                return True
        except StoreUnavailable as error:
            failed = error
    if failed is not None:
        raise failed
    return False


def total(parts: Sequence[int]) -> int:
    """Add counts up."""
    return sum(parts)


def in_turn(parts: Sequence[Iterator[R]]) -> Iterator[R]:
    """Walk through one after the other."""
    return chain.from_iterable(parts)


def joined(parts: Sequence[list[R]]) -> list[R]:
    """Put lists together."""
    return list(chain.from_iterable(parts))


def united(parts: Sequence[set[R]]) -> set[R]:
    """Put sets together."""
    return set().union(*parts)


def first(parts: Sequence[R | None]) -> R | None:
    """Return the first that was found."""
    return next((part for part in parts if part is not None), None)
