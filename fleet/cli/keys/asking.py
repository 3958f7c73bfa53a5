"""What a provider's API says to its key: one GET for its list of models, which costs nothing."""

from __future__ import annotations

from fleet.config import Settings
from fleet.errors import KeyMissing
from fleet.vault import read_key
from fleet.workers.providers.listing import list_models


async def ask_with_key(name: str, settings: Settings, model: str) -> tuple[bool, str]:
    """Return whether a key is taken, and what to say of that.

    Args:
        name: The provider.
        settings: Everything.
        model: One that is wanted there.
    """
    provider = settings.provider_named(name)
    if provider.kind == "simulator" and provider.base_url is None:
        return True, "the local simulator takes any key"
    try:
        key = read_key(name, settings, model)
    except KeyMissing as error:
        return False, str(error)
    found = await list_models(provider, model, key=key)
    if not found.url:
        return True, "not asked: this vendor has no list that a key opens"
    if found.status is None:
        return False, f"no answer: {found.trouble or 'unknown'}"
    if found.status in (401, 403):
        return False, f"refused with {found.status}{f': {found.said}' if found.said else ''}"
    if found.status >= 400:
        return False, f"it answered {found.status}: this tells nothing of the key"
    return True, "taken" if key else "answered without a key"
