"""What a provider's API says to its key: one GET for its list of models, which costs nothing."""

from __future__ import annotations

from fleet.cli.keys.places import KeyPlace
from fleet.errors import KeyMissing
from fleet.workers.providers.listing import list_models


async def ask_with_key(place: KeyPlace) -> tuple[bool, str]:
    """Return whether a key is taken, and what to say of that."""
    if place.tool:
        return True, "not asked: nobody knows which request to a tool costs nothing"
    provider = place.settings.provider_named(place.provider)
    if provider.kind == "simulator" and provider.base_url is None:
        return True, "the local simulator takes any key"
    try:
        key = place.source().current().value
    except KeyMissing as error:
        return False, str(error)
    model = place.model
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
