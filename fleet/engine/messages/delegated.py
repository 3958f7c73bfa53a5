"""A producer's delegation: where it comes from, and the header that its messages carry by it (docs/keys.md).

Workers check what is signed here: `fleet/engine/process/delegations.py`. Who has no delegation, and no pool that takes
signed tasks only, pays a look at a variable for each task.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet import config
from fleet.config import Settings
from fleet.config.scopes import serves
from fleet.config.secret_files import read_secret
from fleet.engine.messages.envelope import NO_CANVAS, plain
from fleet.errors import NotDelegated
from fleet.models import BotTask
from fleet.quoting import quote
from fleet.vault.delegation import TOKEN, Chain, Token
from fleet.vault.delegations import seal_secret
from fleet.vault.sources import file_mark
from fleet.vault.warrant import digest, seal, sign

#: Variable with a delegation, or with the path of a file that holds one.
VARIABLE = "FLEET_DELEGATION"
#: Stands for the signature of a task that is worked for where it is submitted: no message can hold it.
LOCAL = object()
#: Field of a request whose message was checked here: what follows its task may be sealed. No message can hold it.
WARRANTED = "fleet_warranted"

_chosen: ContextVar[Token | None] = ContextVar("fleet_delegation", default=None)


class Chains(list[Chain]):
    """The delegations by which the messages of one task under way came: its calls get what all of them allow."""


@dataclass(frozen=True, slots=True, eq=False)
class Warranted:
    """What this process knows of a message that it has checked itself.

    Args:
        chain: Of the delegation that it was signed by.
        follows: True when what follows its task is as it was signed.
        under_way: Of all messages of its task that are under way here; None: its pool is not delegated.
    """

    chain: Chain
    follows: bool
    under_way: Chains | None = None


@contextmanager
def delegation(spelt: str) -> Iterator[None]:
    """Submit, within this block, by another delegation than that of the process.

    Args:
        spelt: The delegation, or the path of a file that holds it.

    Raises:
        ConfigurationError: It is none.
    """
    token = _chosen.set(_token(spelt))
    try:
        yield
    finally:
        _chosen.reset(token)


def delegation_here() -> Token | None:
    """Return the delegation by which tasks are submitted here; None: there is none.

    Raises:
        ConfigurationError: The variable, or the file that it names, holds none.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    spelt = os.environ.get(VARIABLE)
    return _token(spelt) if spelt else None


def takes_signed_only(pool: str, settings: Settings) -> bool:
    """True for a pool that a task which names none must not be sent to from here: nobody could sign it."""
    if not settings.pools[pool].delegated:
        return False
    token = delegation_here()
    return token is None or not serves(token.scope.pools, pool)


def warrant(task_id: str, fields: Mapping[str, Any], pool: str, canvas: Any, settings: Settings) -> str | None:
    """Return the header of a message that is submitted here; None: it needs none, and has none.

    What a canvas follows is signed in other pools too: its worker must know that what follows was meant.

    Args:
        task_id: Its id.
        fields: Of its task, as they are queued.
        pool: That it is for.
        canvas: What follows the task.
        settings: Pools.

    Raises:
        NotDelegated: The pool takes signed tasks only, and there is no delegation here that signs for it.
    """
    token = delegation_here()
    is_delegated = pool in settings.pools and settings.pools[pool].delegated
    if token is None:
        if is_delegated:
            raise NotDelegated(
                f"expected a delegation for pool {quote(pool)}, got none: ask for one (`fleet keys delegate`), and set "
                f"{VARIABLE} to its file"
            )
        return None
    if is_delegated:
        _check(token, pool)
    elif not (canvas or serves(token.scope.pools, pool)):
        return None
    return sign(token, task_id, pool, *digests(fields, pool, canvas))


def warrant_of(task_id: str, task: BotTask, pool: str, settings: Settings) -> str | None:
    """As `warrant`, for a task that nothing follows."""
    if delegation_here() is None and not settings.pools[pool].delegated:
        return None
    return warrant(task_id, fields_of(task), pool, None, settings)


def sealed(task_id: str, fields: Mapping[str, Any], pool: str, canvas: Any, followed: object) -> str | None:
    """Return the header of a message that a worker sends because it follows a task; None: nobody has signed that.

    Args:
        task_id, fields, pool, canvas: As `warrant`.
        followed: What this process knows of the task that it follows.
    """
    if not isinstance(followed, Warranted) or not followed.follows:
        return None
    secret = seal_secret(config.current())
    return None if secret is None else seal(secret, followed.chain.text, task_id, pool, *digests(fields, pool, canvas))


def digests(fields: Mapping[str, Any], pool: str, canvas: Any) -> tuple[bytes, bytes]:
    """Return the digests of what a task asks and of what follows it.

    Args:
        fields: Those of its task that are not the usual ones, in JSON.
        pool: That it is for.
        canvas: What follows it, by the names of `NO_CANVAS`.
    """
    asked = {name: value for name, value in fields.items() if name != "expires_at"} | {"pool": pool}
    follows = {name: canvas[name] for name in NO_CANVAS if canvas.get(name)} if canvas else {}
    return digest(asked), digest(plain(follows)) if follows else b""


def fields_of(task: BotTask) -> dict[str, Any]:
    """Return the fields of a task that are not the usual ones, in JSON."""
    return task.model_dump(mode="json", exclude_defaults=True)


def _check(token: Token, pool: str) -> None:
    ends = min(block.until for block in token.blocks)
    if not serves(token.scope.pools, pool):
        raise NotDelegated(f"expected a delegation for pool {quote(pool)}, got {token.blocks[-1].id}, for others")
    if ends <= time.time():
        raise NotDelegated(
            f"expected a delegation that holds, got {token.blocks[-1].id}, which has ended: get a new one"
        )


def _token(spelt: str) -> Token:
    if spelt.strip().startswith(TOKEN):
        return _read(spelt, None)
    path = Path(spelt).expanduser()
    return _read(str(path), file_mark(path))


@lru_cache(maxsize=16)
def _read(spelt: str, mark: object) -> Token:
    """Return a token; with another mark its file is another one."""
    if mark is None and spelt.strip().startswith(TOKEN):
        return Token.read(spelt, f"variable {VARIABLE}")
    return Token.read(read_secret(Path(spelt), setting=VARIABLE), f"file {spelt}")
