"""Random chains of delegations, each link of which tries to get more than it was given: how many succeed."""

from __future__ import annotations

import random

from fleet.config.scopes import CAPPED, NAMED, ScopeAsk, ScopeSettings
from fleet.vault.delegation import Token, delegate, read_chain
from fleet.vault.scopes import ScopeRefusal, allowed, is_within
from fleet.vault.signing import new_secret, public_of

#: Names that scopes are made of: some begin others, some overlap.
_PATTERNS = ("a", "ab", "abc", "b", "a*", "ab*", "abc*", "b*", "*")
#: Names that calls have.
_NAMES = ("", "a", "ab", "abc", "abcd", "b", "bc", "c")


class _Key:
    def __init__(self, scope: ScopeSettings) -> None:
        self.scope = scope


def random_scope(rng: random.Random) -> ScopeSettings:
    """Return some scope; each part of it is unlimited as often as not."""
    parts: dict[str, object] = {
        what: tuple(rng.sample(_PATTERNS, rng.randint(0, 3))) if rng.random() < 0.5 else None for what in NAMED
    }
    parts |= {what: rng.randint(1, 1000) if rng.random() < 0.5 else None for what, _ in CAPPED}
    return ScopeSettings.model_validate(parts)


def widened(chains: int, seed: int = 0) -> int:
    """Return how many of so many random chains allow a call, or a number a day, that a link of theirs does not.

    Half of the chains are handed on by their holders as they should be. The others are forged by the last holder, who
    signs a link that names whatever scope he likes, and an end beyond his own. Each is then asked for as a worker does.
    """
    rng, root = random.Random(seed), new_secret()
    roots, bad = (public_of(root),), 0
    for _ in range(chains):
        token = delegate(root, "p", "first", random_scope(rng), until=rng.randint(100, 1000))
        links = [token.blocks[0]]
        for _ in range(rng.randint(1, 3)):
            scope, until = random_scope(rng), rng.randint(100, 1000)
            token = forged(token, scope, until) if rng.random() < 0.5 else token.delegate("next", scope, until)
            links.append(token.blocks[-1])
        chain = read_chain(token.chain, roots)
        ask = ScopeAsk(*(rng.choice(_NAMES) for _ in range(5)), tools=tuple(rng.sample(_NAMES[1:], rng.randint(0, 2))))
        passes = not isinstance(allowed([_Key(chain.scope)], ask), ScopeRefusal)
        bad += (
            (passes and any(isinstance(allowed([_Key(link.scope)], ask), ScopeRefusal) for link in links))
            or any(not is_within(chain.scope, link.scope) for link in links)
            or chain.until > min(link.until for link in links)
        )
    return bad


def forged(token: Token, scope: ScopeSettings, until: int) -> Token:
    """Return a token whose last link names a scope and an end that its maker did not have: nobody can stop him."""
    from fleet.vault.delegation import _linked

    return _linked(token.secret, token.chain, "forger", scope, until, "")
