"""Documents that many tasks share: stored once under a digest of what they say, listed, removed. By a plain client.

How a worker reads them: `shelf.py`. A document of a tenant is for that tenant's tasks alone; the id is a digest over
both, so nobody learns from an id that another tenant has the same one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import redis

from fleet.bounds import MAX_DOCUMENT_CHARS
from fleet.errors import ConfigurationError, InvalidTask
from fleet.quoting import quote
from fleet.store import context_keys
from fleet.store.client import Script, run_script

#: Documents that may be stored (count), and their bytes together: they lie in the memory of Redis.
MOST_DOCUMENTS, MOST_BYTES = 1000, 256_000_000
#: Hexadecimal digits of an id: 96 bits.
ID_DIGITS = 24
#: Characters of a document's name that are kept.
MOST_NAME_CHARS = 128

_ADD = Script.beside(__file__, "add.lua", keys="documents text", argv="id facts words most most_bytes")


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of a stored document, but for what it says.

    Args:
        id: By which tasks name it.
        name: For people: that of its file.
        tenant: Whose tasks may name it; empty: everybody's.
        chars: Its length.
        bytes: The same as UTF-8.
        tokens: By Fleet's estimate.
        added_at: Unix time in seconds.
    """

    id: str
    name: str
    tenant: str
    chars: int
    bytes: int
    tokens: int
    added_at: float


def id_of(text: str, tenant: str = "") -> str:
    """Return the id of a document: the same text of the same tenant always has the same one."""
    digest = hashlib.sha256(f"{tenant}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"ctx-{digest[:ID_DIGITS]}"


def add(client: redis.Redis, text: str, *, name: str, tokens: int, tenant: str = "") -> tuple[Document, bool]:
    """Store a document, unless it is stored already.

    Args:
        client: Plain client of the state Redis.
        text: What it says.
        name: For people.
        tokens: Of it, by estimate.
        tenant: Whose tasks may name it; empty: everybody's.

    Returns:
        It, and whether it is new.

    Raises:
        InvalidTask: It is empty, or longer than a prompt may be.
        ConfigurationError: Too many are stored.
    """
    if not text.strip():
        raise InvalidTask("expected a document that says something, got an empty one")
    if len(text) > MAX_DOCUMENT_CHARS:
        raise InvalidTask(f"expected a document of at most {MAX_DOCUMENT_CHARS:,} characters, got {len(text):,}")
    size = len(text.encode("utf-8", "replace"))
    made = Document(id_of(text, tenant), name[:MOST_NAME_CHARS], tenant, len(text), size, tokens, time.time())
    call = _ADD.call(
        documents=context_keys.documents(), text=context_keys.text(made.id), id=made.id, facts=json.dumps(asdict(made)),
        words=text.encode("utf-8", "replace"), most=MOST_DOCUMENTS, most_bytes=MOST_BYTES,
    )  # fmt: skip
    code = int(run_script(client, _ADD, *call))
    if code == -1:
        raise ConfigurationError(f"expected at most {MOST_DOCUMENTS:,} documents, got one more: remove some")
    if code < 0:
        raise ConfigurationError(f"expected at most {MOST_BYTES:,} bytes of documents, got more: remove some")
    known = find(client, made.id) if code == 0 else None
    return known or made, code == 1


def find(client: redis.Redis, context_id: str) -> Document | None:
    """Return what is known of a document; None when it is not stored."""
    return read_facts(client.hget(context_keys.documents(), context_id))


def listed(client: redis.Redis) -> Iterator[Document]:
    """Yield all documents, the newest last."""
    facts = client.hgetall(context_keys.documents())
    known = [one for raw in facts.values() if (one := read_facts(raw)) is not None]
    yield from sorted(known, key=lambda one: (one.added_at, one.id))


def text_of(client: redis.Redis, context_id: str) -> str:
    """Return what a document says.

    Raises:
        ConfigurationError: When it is not stored.
    """
    raw = client.get(context_keys.text(context_id))
    if not isinstance(raw, bytes):
        raise ConfigurationError(f"expected the id of a document of `fleet context list`, got {quote(context_id)}")
    return raw.decode("utf-8", "replace")


def remove(client: redis.Redis, context_id: str) -> bool:
    """Remove a document, whole or not at all; False when there was none. Tasks that name it wait from now on."""
    with client.pipeline(transaction=True) as pipe:
        pipe.hdel(context_keys.documents(), context_id)
        pipe.unlink(context_keys.text(context_id))
        return any(pipe.execute())


def read_facts(raw: object) -> Document | None:
    """Read what `add` wrote; fields that a later release may add are skipped. None when it is something else."""
    if not isinstance(raw, bytes):
        return None
    try:
        told = json.loads(raw)
        return Document(**{name: told[name] for name in Document.__slots__})
    except (ValueError, TypeError, KeyError):
        return None
