"""A fingerprint of a provider's settings and key: another one than a breaker was opened with closes it at once."""

from __future__ import annotations

import hashlib

from fleet.config import ProviderSettings, ToolSettings

#: Hexadecimal digits that are kept. 16 bits tell a change, and nothing of the key: of all keys one in 65,536 has the
#: same, so that even a short one cannot be found by trying. A change that is not seen costs one pause of the cadence.
DIGITS = 4


def fingerprint_of(provider: ProviderSettings | ToolSettings, api_key: str) -> str:
    """Return the fingerprint of one provider, or tool API, as this process is configured."""
    text = f"{provider.model_dump_json()}\n{api_key}"
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
