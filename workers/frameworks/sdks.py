"""Clients of vendors' SDKs over a bot's own HTTP client: without retries, a key or an address of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from fleet.errors import BotFunctionFailed, ConfigurationError
from fleet.quoting import listed
from fleet.workers.frameworks.clients import KINDS

#: Stands for an address and a key: the road puts in the pool's. The name is one that never resolves (RFC 2606).
ADDRESS, KEY = "https://fleet.invalid", "fleet"
#: What the road decides.
_OURS = frozenset({"api_key", "base_url", "http_client", "max_retries", "organization", "project", "timeout"})


def openai_client(name: str, http_client: Callable[[Any], Any], options: Mapping[str, Any]) -> Any:
    """Return a client of OpenAI's SDK.

    Args:
        name: Of its class.
        http_client: Makes the HTTP client of a kind.
        options: Of the class.

    Raises:
        ConfigurationError: The SDK is not installed.
        BotFunctionFailed: An option is the road's.
    """
    sdk = _sdk("openai", options)
    return getattr(sdk, name)(
        **options, api_key=KEY, base_url=f"{ADDRESS}/v1", max_retries=0, timeout=None,
        http_client=http_client(_kind_of(sdk)),
    )  # fmt: skip


def anthropic_client(name: str, http_client: Callable[[Any], Any], options: Mapping[str, Any]) -> Any:
    """Return a client of Anthropic's SDK; as `openai_client`."""
    sdk = _sdk("anthropic", options)
    return getattr(sdk, name)(
        **options, api_key=KEY, base_url=ADDRESS, max_retries=0, timeout=None, http_client=http_client(_kind_of(sdk))
    )


def _sdk(name: str, options: Mapping[str, Any]) -> ModuleType:
    if taken := sorted(_OURS & options.keys()):
        raise BotFunctionFailed(
            f"bot.{name}(): expected options that are not the pool's, got {listed(taken, len(taken))}: leave them out"
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"bot.{name}(): expected its SDK to be installed: pip install {name}") from error


def _kind_of(sdk: ModuleType) -> str:
    """Return the library of HTTP that an SDK sends with."""
    bases = {base.__module__.partition(".")[0] for base in sdk.DefaultHttpxClient.__mro__}
    return next(kind for kind in KINDS if kind in bases)
