"""How scopes meet, and which keys a call may use. Pure: who asks, and what becomes of a refusal, is elsewhere.

Scopes only ever narrow: two of them give what both allow (a meet, in the sense of lattices), so no chain widens one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, TypeVar

from fleet.config.scopes import CAPPED, EVERYTHING, NAMED, ScopeAsk, ScopeSettings, covers, serves
from fleet.quoting import quote

#: Names that a refusal tells, at most.
_MOST_TOLD = 6


class Scoped(Protocol):
    """A key, as far as its scope goes."""

    @property
    def scope(self) -> ScopeSettings | None:
        """Whom it serves; None: everybody."""
        ...


K = TypeVar("K", bound=Scoped)


@dataclass(frozen=True, slots=True)
class ScopeRefusal:
    """No key serves a call.

    Args:
        what: The part of a scope that shuts it out: `pools`, `tenants`, ...
        told: In words. A tenant is not named: the words go into logs.
    """

    what: str
    told: str


def allowed(keys: Sequence[K], ask: ScopeAsk) -> tuple[K, ...] | ScopeRefusal:
    """Return those keys that a call may use, in their order; why none may, when none does.

    A tenant that a key is bound to (`tenants` of its scope) uses only such keys, and nobody else uses them.

    Args:
        keys: All keys of its provider.
        ask: The call.
    """
    bound = [key for key in keys if _tenants(key) is not None and serves(_tenants(key), ask.tenant)]
    left = bound or [key for key in keys if _tenants(key) is None]
    if not left:
        return ScopeRefusal(
            "tenants", "expected a task of a tenant that a key is bound to, got one of another or of none"
        )
    for what, names in _asked(ask):
        serving = [key for key in left if all(serves(getattr(key.scope or EVERYTHING, what), name) for name in names)]
        if not serving:
            return ScopeRefusal(what, _told(what, names, left))
        left = serving
    return tuple(left)


def _tenants(key: Scoped) -> tuple[str, ...] | None:
    return None if key.scope is None else key.scope.tenants


def _asked(ask: ScopeAsk) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Yield each part of scopes that has a say in a call, but for tenants, with the names that it must allow."""
    single = (("pools", ask.pool), ("bots", ask.bot), ("models", ask.model), ("hosts", ask.host))
    yield from ((what, (name,)) for what, name in single if name)
    if ask.tools:
        yield "tools", ask.tools


def _told(what: str, names: tuple[str, ...], keys: Sequence[Scoped]) -> str:
    served = sorted({name for key in keys for name in getattr(key.scope or EVERYTHING, what) or ()})
    more = f" and {len(served) - _MOST_TOLD} more" if len(served) > _MOST_TOLD else ""
    listed = ", ".join(served[:_MOST_TOLD]) or f"no {what} at all"
    outside = [name for name in names if not any(serves(getattr(key.scope, what), name) for key in keys if key.scope)]
    return f"{what}: expected of those that the key serves ({listed}{more}), got {quote((outside or list(names))[0])}"


def narrowed(*scopes: ScopeSettings | None) -> ScopeSettings:
    """Return what all of these scopes allow; of numbers the least."""
    return reduce(_met, (scope for scope in scopes if scope is not None), EVERYTHING)


def is_within(narrow: ScopeSettings, wide: ScopeSettings) -> bool:
    """True when one scope allows nothing that the other does not."""
    for what in NAMED:
        mine, theirs = getattr(narrow, what), getattr(wide, what)
        if theirs is not None and (mine is None or not all(any(covers(one, name) for one in theirs) for name in mine)):
            return False
    for what, _ in CAPPED:
        mine, theirs = getattr(narrow, what), getattr(wide, what)
        if theirs is not None and (mine is None or mine > theirs):
            return False
    return True


def widening(narrow: ScopeSettings, wide: ScopeSettings) -> tuple[str, ...]:
    """Return the parts of one scope that allow more than those of the other."""
    parts = [*NAMED, *(what for what, _ in CAPPED)]
    return tuple(
        what for what in parts
        if not is_within(ScopeSettings(**{what: getattr(narrow, what)}), ScopeSettings(**{what: getattr(wide, what)}))
    )  # fmt: skip


def _met(one: ScopeSettings, other: ScopeSettings) -> ScopeSettings:
    found: dict[str, object] = {what: _both(getattr(one, what), getattr(other, what)) for what in NAMED}
    for what, _ in CAPPED:
        said = [number for number in (getattr(one, what), getattr(other, what)) if number is not None]
        found[what] = min(said, default=None)
    return ScopeSettings.model_validate(found)


def _both(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the patterns of what both sets of patterns stand for: of two that overlap, the narrower one."""
    if one is None or other is None:
        return other if one is None else one
    met = [mine for mine in one if any(covers(theirs, mine) for theirs in other)]
    met += [theirs for theirs in other if any(covers(mine, theirs) for mine in one)]
    return tuple(dict.fromkeys(met))
