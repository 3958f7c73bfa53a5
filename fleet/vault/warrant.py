"""What a message carries of a delegation: its producer's signature, or the seal of the worker that sent it. Pure.

Signed are the task's id, its pool, a digest of what it asks and one of what follows it. Its end (`expires_at`) is not:
an operator's replay may set another one, and a delegation has an end of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import NotDelegated
from fleet.quoting import quote
from fleet.vault.delegation import Chain, Token
from fleet.vault.signing import signer, unword, verifier, word

#: What is signed of tasks, and sealed by workers: another format is another.
_TASK, _SEAL = b"fleet-task/1\n", b"fleet-seal/1\n"
#: How a header begins that its producer has signed, and one that a worker has sealed for what follows its own task.
SIGNED, SEALED = "s1", "w1"
#: Characters of a header: more is none of ours.
MOST_CHARS = 16_384
#: Halves of surrogate pairs, and what stands for them.
_BROKEN = re.compile("[\ufffd\ud800-\udfff]+")
#: Bytes of the secret that workers seal with.
SEAL_BYTES = 32


@dataclass(frozen=True)
class Warrant:
    """A message's header, taken apart; nothing of it is checked.

    Args:
        kind: `SIGNED` or `SEALED`.
        chain: Of its holder, as it travels.
        canvas: Digest of what follows its task; empty: nothing.
        proof: Signature or seal.
    """

    kind: str
    chain: str
    canvas: bytes
    proof: bytes = field(repr=False)

    @classmethod
    def of(cls, header: object) -> Warrant:
        """Read a header, whatever a client has written there.

        Raises:
            NotDelegated: It is none.
        """
        if header is None:
            raise NotDelegated("expected a task that its producer has signed by a delegation, got one without")
        try:
            if not isinstance(header, str) or len(header) > MOST_CHARS:
                raise ValueError
            kind, chain, canvas, proof = header.split(".")
            if kind not in (SIGNED, SEALED):
                raise ValueError
            return cls(kind, chain, bytes.fromhex(canvas), unword(proof))
        except ValueError as error:
            raise NotDelegated(
                f"expected the signature of a delegation, got {quote(type(header).__name__)} of another form"
            ) from error

    def check(self, chain: Chain, task_id: str, pool: str, task: bytes, canvas: bytes, *, seal: bytes | None) -> None:
        """Refuse what its holder, or a worker, has not signed just so.

        Args:
            chain: Its own, checked.
            task_id: Of the message.
            pool: That it is delivered for.
            task: Digest of what it asks.
            canvas: Digest of what follows it; empty: nothing, which an operator's replay leaves of any.
            seal: The secret of workers; None: this one has none.

        Raises:
            NotDelegated: It is signed otherwise.
        """
        if canvas and canvas != self.canvas:
            raise NotDelegated("expected what follows the task as it was signed, got something else")
        told = _told(task_id, pool, task, self.canvas)
        if self.kind == SEALED:
            if seal is None or not hmac.compare_digest(_sealed(seal, self.chain, told), self.proof):
                raise NotDelegated("expected a task that a worker of this fleet has sent, got another one's seal")
            return
        from cryptography.exceptions import InvalidSignature

        try:
            verifier(chain.holder.key).verify(self.proof, _TASK + told)
        except InvalidSignature:
            raise NotDelegated(
                "expected the task as its producer has signed it (its id, its pool and what it asks), got it changed"
            ) from None


def sign(token: Token, task_id: str, pool: str, task: bytes, canvas: bytes) -> str:
    """Return the header of a message.

    Args:
        token: Of its producer.
        task_id: Its id.
        pool: Its pool.
        task: Digest of what is asked.
        canvas: Digest of what follows it; empty: nothing does.
    """
    signature = signer(token.secret).sign(_TASK + _told(task_id, pool, task, canvas))
    return ".".join((SIGNED, token.chain, canvas.hex(), word(signature)))


def seal(secret: bytes, chain: str, task_id: str, pool: str, task: bytes, canvas: bytes) -> str:
    """Return the header of a message that a worker sends because a signed task is followed by it.

    Args:
        secret: Of the workers.
        chain: Of the task that it follows.
        task_id, pool, task, canvas: As `sign`.
    """
    proof = _sealed(secret, chain, _told(task_id, pool, task, canvas))
    return ".".join((SEALED, chain, canvas.hex(), word(proof)))


def digest(value: Any) -> bytes:
    """Return what stands for a value of JSON, whatever the order of its names and the way it is written."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if "\\ud" in text or "\\ufffd" in text:  # half a surrogate pair may be queued as a replacement character
        plain = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        text = _BROKEN.sub("?", plain)
    return hashlib.sha256(text.encode()).digest()


def _told(task_id: str, pool: str, task: bytes, canvas: bytes) -> bytes:
    return json.dumps([task_id, pool, task.hex(), canvas.hex()]).encode()


def _sealed(secret: bytes, chain: str, told: bytes) -> bytes:
    return hmac.new(secret, _SEAL + chain.encode() + b"\n" + told, hashlib.sha256).digest()
