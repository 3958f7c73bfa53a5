"""A tenant's name where it stands beside money or deeds: it becomes a pseudonym there, and amounts stay.

The pseudonym is a keyed digest under a random secret that Redis forgets after a day: until then a second run gives the
same one, and after that nobody can tell whose it was, nor try names.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import Counter
from typing import cast

import redis

from fleet.config.budgets import NAMED
from fleet.economy.bill.unknown import read_unknown, written
from fleet.economy.budgets import drop_budget
from fleet.economy.contexts import documents
from fleet.engine.operations.erasure.state_walk import replace_field
from fleet.engine.operations.erasure.tracks import names_scope
from fleet.store import bill_keys, erasure_keys, keys

#: Seconds for which a second run finds the same pseudonym.
SALT_LIFE_S = 86_400
#: Characters of a pseudonym that tell it from others: 48 bits.
DIGEST_CHARS = 12
#: Kind of scope of a tenant's budget.
_KIND = NAMED[1]


def pseudonym_of(state: redis.Redis, tenant: str) -> str:
    """Return what a tenant is called once it is forgotten."""
    state.set(erasure_keys.salt(), secrets.token_bytes(32), nx=True, ex=SALT_LIFE_S)
    salt = cast("bytes | None", state.get(erasure_keys.salt())) or secrets.token_bytes(32)
    return f"forgotten-{hmac.new(salt, tenant.encode(), hashlib.sha256).hexdigest()[:DIGEST_CHARS]}"


def erase_name(state: redis.Redis, tenant: str, pseudonym: str, *, is_meant: bool) -> Counter[str]:
    """Erase a tenant's name from unknown calls, budgets and events; return how often it stood where.

    Args:
        state: Plain client of the state Redis.
        tenant: Whose.
        pseudonym: What stands there from now on.
        is_meant: False: it is counted, and nothing changed.
    """
    found = Counter[str]()
    found["calls of unknown cost"] = _unknown(state, tenant, pseudonym, is_meant)
    found["budgets"] = _budgets(state, f"{_KIND}:{tenant}", f"{_KIND}:{pseudonym}", is_meant)
    found["events"] = _events(state, tenant, is_meant)
    found["shared documents"] = _documents(state, tenant, is_meant)
    return found


def _documents(state: redis.Redis, tenant: str, is_meant: bool) -> int:
    theirs = [one.id for one in documents.listed(state) if one.tenant == tenant]
    for one in theirs if is_meant else ():
        documents.remove(state, one)
    return len(theirs)


def _unknown(state: redis.Redis, tenant: str, pseudonym: str, is_meant: bool) -> int:
    count = 0
    for one in read_unknown(state):
        if one.entry.tenant == tenant:
            count += 1
            renamed = written(one.entry._replace(tenant=pseudonym)).encode()
            if is_meant:
                replace_field(state, bill_keys.unknown(), one.entry.id.encode(), one.written, renamed)
    return count


def _budgets(state: redis.Redis, scope: str, renamed: str, is_meant: bool) -> int:
    """Remove a tenant's budget and what it has spent; in reservations of its calls the scope gets another name."""
    live = state.hexists(bill_keys.budgets_live(), scope)
    spent = state.exists(bill_keys.spent(scope))
    shares = state.zscore(bill_keys.budget_shares(_KIND), scope) is not None
    count = int(bool(live) or bool(spent) or shares)
    if count and is_meant:
        drop_budget(state, scope)
        state.unlink(bill_keys.spent(scope))
    for key in (bill_keys.reservations(), bill_keys.lapsed()):
        for field, text in state.hscan_iter(key):
            quoted = json.dumps(scope).encode()
            if quoted in text:
                count += 1
                if is_meant:
                    replace_field(state, key, field, text, bytes(text).replace(quoted, json.dumps(renamed).encode()))
    return count


def _events(state: redis.Redis, tenant: str, is_meant: bool) -> int:
    """Remove events that name a tenant: what an operator cancelled, and what was said of its budget."""
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", state.xrange(keys.events()))
    named = [at for at, fields in rows if _names(fields, tenant)]
    if named and is_meant:
        state.xdel(keys.events(), *cast("list[str]", named))
    return len(named)


def _names(fields: dict[bytes, bytes], tenant: str) -> bool:
    if fields.get(b"tenant") == tenant.encode():
        return True
    return any(names_scope(value.decode("utf-8", "replace"), f"{_KIND}:{tenant}") for value in fields.values())
