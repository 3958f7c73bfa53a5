"""What a holder of a delegation, or a client of Redis, may write into a chain."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fleet.config import load
from fleet.config.scopes import ScopeSettings
from fleet.engine.messages.delegated import digests, fields_of
from fleet.engine.messages.envelope import DELEGATION
from fleet.engine.process.delegations import Delegations
from fleet.errors import NotDelegated
from fleet.models import BotTask
from fleet.vault.delegation import Link, Token, delegate, read_chain
from fleet.vault.signing import new_secret, public_of, signer, word
from fleet.vault.warrant import sign

ROOT = new_secret()
UNTIL = int(time.time()) + 3600


def chosen(parent: Token, text: str, secret: str) -> Token:
    """Return the token that a holder makes who signs whatever text he likes."""
    from fleet.vault.delegation import _BLOCK, _links

    links = [*_links(parent.chain), (text, word(signer(parent.secret).sign(_BLOCK + text.encode())))]
    return Token(word(json.dumps(links).encode()), secret)


def link(id: str, own: str, scope: ScopeSettings) -> str:
    return Link(id, "me", public_of(own), UNTIL, scope).text()


def test_a_link_that_takes_the_id_of_another_neither_lifts_its_cap_nor_counts_in_its_place() -> None:
    parent = delegate(ROOT, "simulator", "team", ScopeSettings(requests_per_day=10), UNTIL)
    victim = delegate(ROOT, "simulator", "victim", ScopeSettings(requests_per_day=10), UNTIL)
    (first,) = parent.blocks
    for id in (first.id, victim.blocks[0].id):
        own = new_secret()
        token = chosen(parent, link(id, own, ScopeSettings(requests_per_day=10**9)), own)
        counted = read_chain(token.chain, (public_of(ROOT),)).counted
        assert counted[first.id].requests_per_day == 10 and len(counted) == 2
        assert victim.blocks[0].id not in counted


@pytest.mark.parametrize(
    "change",
    [{"until": float("inf")}, {"id": "x" * 400}, {"id": "a.b"}, {"id": "0123456789ab\n"}, {"scope": [[]]}, {"key": 1}],
)
def test_whatever_stands_in_a_link_it_is_refused_and_not_stumbled_over(change: dict[str, Any]) -> None:
    parent, own = delegate(ROOT, "simulator", "team", ScopeSettings(), UNTIL), new_secret()
    text = json.dumps(json.loads(link("0123456789ab", own, ScopeSettings())) | change)
    with pytest.raises(NotDelegated):
        read_chain(chosen(parent, text, own).chain, (public_of(ROOT),))


def test_a_second_message_of_a_task_leaves_the_scope_of_the_first_as_it_is() -> None:
    settings = load(
        vault={"delegation_keys": [public_of(ROOT)]},
        pools={"research": {"delegated": True}},
    )
    worker, task = Delegations(settings), BotTask(prompt="x", pool="research")
    parent = delegate(ROOT, "simulator", "team", ScopeSettings(pools=("research",), requests_per_day=10), UNTIL)
    child = parent.delegate("me", ScopeSettings(models=("small",)), UNTIL)

    def taken(token: Token) -> dict[str, Any]:
        request: dict[str, Any] = {
            DELEGATION: sign(token, "t", "research", *digests(fields_of(task), "research", None))
        }
        worker.check("t", task, "research", request)
        return request

    first, second = taken(child), taken(parent)
    assert worker.scope_of("t") == child.scope and len(worker.scopes_of("t")) == 2
    again = taken(child)
    del second, again
    assert worker.scope_of("t") == child.scope and worker.scopes_of("t")
    del first
    assert worker.scope_of("t") is None and not worker.scopes_of("t")
