"""LLM APIs behind `fleet.workers.ports.Provider`: OpenAI-compatible (so is the simulator), Anthropic, all others.

`make_provider` builds one from its settings. Keys (`fleet/vault/`), retries, limits and money are not here.
"""

from __future__ import annotations

from fleet.config import ProviderSettings
from fleet.config.certificates import certificate_of
from fleet.errors import ConfigurationError, FleetError
from fleet.quoting import brief, quote
from fleet.workers.ports import Lessons, Provider
from fleet.workers.providers.addresses import parse_base_url
from fleet.workers.providers.anthropic import Anthropic
from fleet.workers.providers.models import make_models
from fleet.workers.providers.openai_compatible import OpenAICompatible, Simulated

__all__ = ["check_model", "make_provider"]

#: Roots of the vendors' own APIs.
_OPENAI_URL = "https://api.openai.com/v1"
_ANTHROPIC_URL = "https://api.anthropic.com"


def make_provider(
    settings: ProviderSettings, *, base_url: str | None = None, name: str = "", lessons: Lessons | None = None
) -> Provider:
    """Return the adapter for a provider. Opens no connection yet.

    Args:
        settings: The provider's table in fleet.toml.
        base_url: Root of the API, before `settings.base_url`; for the local simulator, where it listens.
        name: The provider's name under [providers].
        lessons: What models refuse; None: what this adapter finds out itself.

    Raises:
        ConfigurationError: When the address is none, a simulator has no address, or an extra is not installed.
    """
    url = base_url or settings.base_url
    if settings.kind == "pydantic-ai":
        return make_models(url, timeout_s=settings.timeout_s, name=name, lessons=lessons)
    if settings.kind == "anthropic":
        root, takes_tokens = parse_base_url(url or _ANTHROPIC_URL, strip_path="/v1"), settings.exchange is not None
        return Anthropic(root, name=name, lessons=lessons, takes_tokens=takes_tokens)
    if settings.kind == "simulator" and not url:
        raise ConfigurationError("simulator: expected the address where it listens, got none: set its `base_url`")
    made = Simulated if settings.kind == "simulator" else OpenAICompatible
    api = made(parse_base_url(url or _OPENAI_URL, default_path="/v1"), name=name, lessons=lessons)
    api.certificate = certificate_of(settings)
    return api


async def check_model(settings: ProviderSettings, model: str, *, key: str) -> None:
    """Look whether calls to a model can be made at all, and load what they take; opens no connection.

    Args:
        settings: The provider's table in fleet.toml.
        model: What it is asked for.
        key: The API's; empty: none.

    Raises:
        ConfigurationError: When there is no such vendor, no SDK for it, or no address; also for whatever an SDK raises
            as it is loaded, such as for a file of certificates that is missing.
    """
    if settings.kind == "pydantic-ai":
        models = make_models(settings.base_url, timeout_s=settings.timeout_s)
        try:
            models.check(model, api_key=key)
        except FleetError:
            raise
        except Exception as error:  # SDKs raise anything at all
            raise ConfigurationError(
                f"model {quote(model)}: expected an SDK that loads, got {type(error).__name__}: {brief(str(error))}"
            ) from error
        finally:
            await models.close()
