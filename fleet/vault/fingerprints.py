"""The fingerprint of a key: what people and Redis know it by."""

from __future__ import annotations

import hashlib

#: Hexadecimal digits that are kept: 16 bits tell keys of one provider apart, and nothing of a key (as the breakers'
#: fingerprints). One new key in 65,536 has the fingerprint of a revoked one: `fleet keys` says so, and takes another.
DIGITS = 4


def key_fingerprint(provider: str, secret: str) -> str:
    """Return the fingerprint of a provider's key; empty for none. It is the same under whatever label the key lies.

    Args:
        provider: Its name under [providers], or `provider/label`.
        secret: The key.
    """
    return hashlib.sha256(f"{provider.partition('/')[0]}\n{secret}".encode()).hexdigest()[:DIGITS] if secret else ""
