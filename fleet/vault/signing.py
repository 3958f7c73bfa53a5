"""Ed25519 signatures (RFC 8032) and how keys and signatures are written: base64 for URLs, one word each.

Ed25519 because workers, who hold its public half alone, must not be able to sign; a check takes about 0.1 ms.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from functools import lru_cache
from typing import Any


def new_secret() -> str:
    """Return a secret to sign with, base64."""
    return word(secrets.token_bytes(32))


def public_of(secret: str) -> str:
    """Return the public key of a secret, base64."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return word(signer(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


@lru_cache(maxsize=64)
def signer(secret: str) -> Any:
    """Return what signs with a secret. Raises ValueError: it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(unword(secret))


@lru_cache(maxsize=1024)
def verifier(key: str) -> Any:
    """Return what checks signatures by a public key. Raises ValueError: it is none."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(unword(key))


def word(data: bytes) -> str:
    """Return bytes as one word."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unword(text: str) -> bytes:
    """Return the bytes of a word. Raises ValueError: it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("no base64") from error
