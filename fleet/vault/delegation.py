"""Delegations: a narrower scope of a key, handed on as a token whose holder can sign tasks within it, and nothing else.

A token is a chain of blocks and the holder's own secret. Each block names a scope, its end and its holder's public key,
and is signed by the holder before it; the first one by the fleet's root. Whoever holds a token can hand on a narrower
one without asking anybody, and what a chain allows is what all of its blocks allow: adding one widens nothing. Workers
know the root's public key alone, with which nobody can sign. The idea is that of Biscuit tokens (biscuitsec.org), ours
has scopes instead of a logic. Pure: no files, no Redis, no clock.

Weakness: a signed task that is queued again under its own id, after its result is gone, is the same task to everybody.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from pydantic import ValidationError

from fleet.config.scopes import ScopeSettings, serves
from fleet.errors import ConfigurationError, NotDelegated
from fleet.quoting import quote
from fleet.vault.scopes import narrowed
from fleet.vault.signing import new_secret, public_of, signer, unword, verifier, word

#: What a token's text begins with, and what is signed of blocks: another format is another.
TOKEN, _BLOCK = "fleet-delegation/1:", b"fleet-block/1\n"
#: Blocks of a chain, and characters of one: more is none of ours.
MOST_BLOCKS, MOST_BLOCK_CHARS = 5, 1000
#: Bytes of a block's id.
ID_BYTES = 6
#: How one is written: it gets into names of counters.
_ID = re.compile(f"[0-9a-f]{{{2 * ID_BYTES}}}")
#: Characters of a holder's name.
MOST_NAME_CHARS = 64


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain.

    Args:
        id: By which it is listed and revoked.
        to: For whom it was made.
        key: Public key of its holder, base64.
        until: Unix time in whole seconds from when it holds no more.
        scope: What it allows.
        provider: Whose key it is of; the first block's counts.
    """

    id: str
    to: str
    key: str
    until: int
    scope: ScopeSettings
    provider: str = ""

    def text(self) -> str:
        """Return it as it is signed."""
        scope = self.scope.model_dump(mode="json", exclude_none=True)
        told = {"id": self.id, "to": self.to, "key": self.key, "until": self.until, "scope": scope}
        return json.dumps(told | ({"provider": self.provider} if self.provider else {}), separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Link:
        """Read what `text` wrote. Raises ValueError, TypeError, KeyError and OverflowError for something else."""
        told: Any = json.loads(text)
        if not _ID.fullmatch(str(told["id"])):
            raise ValueError("no id")
        return cls(
            str(told["id"]), str(told["to"]), str(told["key"]), int(told["until"]),
            ScopeSettings.model_validate(told["scope"]), str(told.get("provider", "")),
        )  # fmt: skip


@dataclass(frozen=True)
class Chain:
    """Blocks that were checked against a root.

    Args:
        blocks: The root's own first.
        text: As it travels.
    """

    blocks: tuple[Link, ...]
    text: str = field(repr=False)

    @cached_property
    def scope(self) -> ScopeSettings:
        """What all of its blocks allow."""
        return narrowed(*(block.scope for block in self.blocks))

    @property
    def ids(self) -> tuple[str, ...]:
        """Of its blocks: whoever revokes one revokes the chain."""
        return tuple(block.id for block in self.blocks)

    @cached_property
    def counted(self) -> dict[str, ScopeSettings]:
        """The scope of each block by the name that its daily caps count under: its id after those before it.

        A holder chooses the ids of the blocks that he makes; so none counts in the place of his parents or of others.
        """
        return {".".join(self.ids[: place + 1]): block.scope for place, block in enumerate(self.blocks)}

    @property
    def until(self) -> int:
        """Unix time in seconds from when it holds no more: its shortest block's."""
        return min(block.until for block in self.blocks)

    @property
    def provider(self) -> str:
        """Whose key it is of."""
        return self.blocks[0].provider

    @property
    def holder(self) -> Link:
        """Who may sign by it."""
        return self.blocks[-1]


@dataclass(frozen=True)
class Token:
    """What a holder has. Its secret is in no repr.

    Args:
        chain: As it travels.
        secret: The holder's own, base64.
    """

    chain: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """Return it as it lies in a file: one word, a secret."""
        return f"{TOKEN}{self.chain}.{self.secret}"

    @classmethod
    def read(cls, text: str, where: str) -> Token:
        """Read what `text` gave.

        Args:
            text: One word.
            where: Where it came from, for the error; the word is not quoted.

        Raises:
            ConfigurationError: It is something else.
        """
        spelt = text.strip()
        try:
            if not spelt.startswith(TOKEN):
                raise ValueError
            token = cls(*spelt.removeprefix(TOKEN).split("."))
            holder = token.blocks[-1]
            if public_of(token.secret) != holder.key:
                raise ValueError
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise ConfigurationError(
                f"expected a delegation, as `fleet keys delegate` prints it, in {where}, got something else or a part"
            ) from error
        return token

    @property
    def blocks(self) -> tuple[Link, ...]:
        """Its blocks, unchecked: a producer knows no root, workers check."""
        return tuple(Link.of(text) for text, _ in _links(self.chain))

    @cached_property
    def scope(self) -> ScopeSettings:
        """What it allows, as it says itself."""
        return narrowed(*(block.scope for block in self.blocks))

    def delegate(self, to: str, scope: ScopeSettings, until: int) -> Token:
        """Return a token for somebody else, which allows what both allow.

        Raises:
            ConfigurationError: It was handed on too often; the name or the scope is too long.
        """
        blocks = self.blocks
        if len(blocks) >= MOST_BLOCKS:
            raise ConfigurationError(f"expected a delegation handed on less than {MOST_BLOCKS} times, got that many")
        narrow = narrowed(self.scope, scope)
        return _linked(self.secret, self.chain, to, narrow, min(until, *(block.until for block in blocks)), "")


def delegate(root: str, provider: str, to: str, scope: ScopeSettings, until: int) -> Token:
    """Return the first token of a chain.

    Args:
        root: The fleet's secret.
        provider: Whose key it is of.
        to: For whom it is.
        scope: What it allows.
        until: Unix time in whole seconds from when it holds no more.
    """
    return _linked(root, "", to, scope, until, provider)


def read_chain(text: str, roots: Collection[str]) -> Chain:
    """Return a chain whose signatures are those of one of the roots and of each holder in turn.

    Raises:
        NotDelegated: It is something else.
    """
    try:
        return _chain(text, tuple(roots))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, ValidationError) as error:
        raise NotDelegated(
            "expected a delegation that this fleet has made, got one that another fleet has made, or that was changed"
        ) from error


def check_chain(chain: Chain, pool: str | None, tenant: str, now_s: float, revoked: Mapping[str, float]) -> None:
    """Refuse what a chain does not allow any more, or never did.

    Args:
        chain: Checked.
        pool: That a task is for; None: one that takes unsigned tasks, too.
        tenant: Of the task; empty: none.
        now_s: Unix time in seconds.
        revoked: From when delegations hold no more, by id.

    Raises:
        NotDelegated: Its end has come, it or one before it is revoked, or its scope is another one.
    """
    if now_s >= chain.until:
        raise NotDelegated(f"expected a delegation that holds, got {chain.holder.id}, which has ended: get a new one")
    gone = next((id for id in chain.ids if revoked.get(id, now_s + 1) <= now_s), None)
    if gone is not None:
        which = "which is revoked" if gone == chain.holder.id else f"whose parent {gone} is revoked"
        raise NotDelegated(f"expected a delegation that holds, got {chain.holder.id}, {which}")
    pools, tenants = chain.scope.pools, chain.scope.tenants
    if pool is not None and not serves(pools, pool):
        raise NotDelegated(f"expected a delegation for pool {quote(pool)}, got {chain.holder.id}, which is for others")
    if not serves(tenants, tenant):
        raise NotDelegated(
            f"expected a task of a tenant of delegation {chain.holder.id}, got one of another or of none"
        )


def _linked(secret: str, chain: str, to: str, scope: ScopeSettings, until: int, provider: str) -> Token:
    if not 0 < len(to) <= MOST_NAME_CHARS or not to.isprintable():
        raise ConfigurationError(f"expected a name of 1 to {MOST_NAME_CHARS} printable characters, got {quote(to)}")
    own = new_secret()
    text = Link(secrets.token_hex(ID_BYTES), to, public_of(own), until, scope, provider).text()
    if len(text) > MOST_BLOCK_CHARS:
        raise ConfigurationError(f"expected a scope of at most {MOST_BLOCK_CHARS} characters, got {len(text)}")
    signature = signer(secret).sign(_BLOCK + text.encode())
    links = [*_links(chain), (text, word(signature))] if chain else [(text, word(signature))]
    return Token(word(json.dumps(links, separators=(",", ":")).encode()), own)


def _links(chain: str) -> list[tuple[str, str]]:
    found = json.loads(unword(chain))
    if not isinstance(found, list) or not 0 < len(found) <= MOST_BLOCKS:
        raise ValueError("no chain")
    return [(str(text), str(signature)) for text, signature in found]


@lru_cache(maxsize=1024)
def _chain(text: str, roots: tuple[str, ...]) -> Chain:
    from cryptography.exceptions import InvalidSignature

    links = _links(text)
    blocks = tuple(Link.of(block) for block, _ in links)
    verifier(blocks[-1].key)  # with which a task is checked: no key is found out here
    for root in roots:
        try:
            for by, (block, signature) in zip((root, *(one.key for one in blocks)), links, strict=False):
                verifier(by).verify(unword(signature), _BLOCK + block.encode())
        except InvalidSignature:
            continue
        return Chain(blocks, text)
    raise ValueError("signed by nobody that is known")
