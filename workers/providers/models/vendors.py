"""One model of pydantic-ai by its name, with our HTTP client in it and its SDK's own retries off.

Which vendors there are and what each of their models can do is pydantic-ai's knowledge; none of it stands here. What
does: which SDK is still on httpx, and the three whose classes do not take a client or an address as the others do. An
SDK is loaded with the first model of its vendor.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import anyio.to_thread
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model, infer_model
from pydantic_ai.providers import Provider, infer_provider_class

from fleet.errors import ConfigurationError
from fleet.quoting import quote
from fleet.workers.providers.addresses import parse_base_url
from fleet.workers.providers.base import CONNECT_TIMEOUT_S
from fleet.workers.providers.models.exchange import Clients, watch_botocore

#: SDKs that still send with httpx.
_ON_HTTPX = frozenset({"groq", "github"})
#: Where Hugging Face routes a model to who serves it. Its SDK would ask for that route with a request of its own.
_HUGGING_FACE = "https://router.huggingface.co/v1"
#: Stands in for a key where an SDK wants one and the API, on this host or network, wants none. Without it the SDK
#: would take the vendor's key from the environment and send it there.
NO_KEY = "none"
#: Names of the arguments for an API's address and key; the first that a provider class has is taken.
_ADDRESS, _KEY = ("base_url", "azure_endpoint", "api_base"), ("api_key", "token")
#: Seconds by which a thread's own timeout lies behind that of the call.
SLACK_S = 10.0
#: Threads and connections for Bedrock, whose SDK blocks: each call in flight needs one. How many those are is the
#: limiter's business.
THREADS = 512


def make_model(name: str, *, key: str, base_url: str | None, clients: Clients, timeout_s: float) -> Model:
    """Return a model that sends one request per call, with our client.

    Args:
        name: `vendor:model`, in pydantic-ai's words.
        key: The API's; empty: none is needed, or (Bedrock, Google Cloud) it comes from the environment.
        base_url: Root of the API; None: the vendor's own.
        clients: What to send with.
        timeout_s: Seconds after which a thread that waits for an answer gives up; the call has given up before.

    Raises:
        ConfigurationError: When there is no such vendor, its SDK is not installed or hides its requests, or a setting
            that it wants is missing.
    """
    try:
        return infer_model(name, provider_factory=lambda vendor: _provider(vendor, key, base_url, clients, timeout_s))
    except (UserError, ValueError, ImportError) as error:
        raise ConfigurationError(f"model {quote(name)}: {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    vendor, found, _ = name.partition(":")
    if not found:
        return "expected `vendor:model`, such as `google:gemini-3-flash`, got no vendor"
    if isinstance(error, ImportError):
        return f'the SDK of {vendor} is not installed: pip install "pydantic-ai-slim[{vendor}]"'
    return f"{type(error).__name__}: {str(error)[:300]}"


def _provider(vendor: str, key: str, base_url: str | None, clients: Clients, timeout_s: float) -> Provider[Any]:
    match vendor:
        case "bedrock":
            return _bedrock(base_url, timeout_s)
        case "cohere":
            return _cohere(key, base_url, clients)
        case "huggingface":
            return _hugging_face(key, base_url, clients)
        case _:
            return _usual_provider(vendor, key, base_url, clients)


def _cohere(key: str, base_url: str | None, clients: Clients) -> Provider[Any]:
    """Return Cohere's; its class takes an address from the environment only, so the SDK's client is made here."""
    from cohere import AsyncClientV2
    from pydantic_ai.providers.cohere import CohereProvider

    client = AsyncClientV2(key or NO_KEY, base_url=base_url, httpx_client=clients.httpx, max_retries=0)
    return CohereProvider(cohere_client=client)


def _hugging_face(key: str, base_url: str | None, clients: Clients) -> Provider[Any]:
    """Return Hugging Face's; its SDK has no argument for an HTTP client."""
    from huggingface_hub import AsyncInferenceClient
    from pydantic_ai.providers.huggingface import HuggingFaceProvider

    client = AsyncInferenceClient(base_url=base_url or _HUGGING_FACE, api_key=key or NO_KEY)
    client._async_client = clients.httpx
    return HuggingFaceProvider(hf_client=client, api_key=key or NO_KEY)


def _usual_provider(vendor: str, key: str, base_url: str | None, clients: Clients) -> Provider[Any]:
    """Return the provider of a vendor whose class takes our client."""
    known = infer_provider_class(vendor)
    wanted = inspect.signature(known.__init__).parameters
    key_name = next((name for name in _KEY if name in wanted), None)
    if "http_client" not in wanted or key_name is None:
        raise ValueError(
            f"expected a vendor whose requests Fleet can see, got {vendor}: if its API speaks OpenAI's wire, use "
            "`openai-chat:MODEL` with its base_url"
        )
    given: dict[str, Any] = {"http_client": clients.httpx if vendor in _ON_HTTPX else clients.httpx2}
    if key or vendor != "google-cloud":
        given[key_name] = key or NO_KEY
    address = next((name for name in _ADDRESS if name in wanted), None)
    base_url = base_url and _in_their_form(vendor, base_url)
    if base_url and address:
        given[address] = base_url
    provider = known(**given)
    client = provider.client
    if base_url and not address:
        client.base_url = base_url
    if hasattr(client, "max_retries"):  # of OpenAI, Anthropic, Groq and their kin; others are told with each call
        client.max_retries = 0
    return provider


def _in_their_form(vendor: str, base_url: str) -> str:
    """Return an address as a vendor's SDK wants it, so that one rule holds for both roads: with `/v1` or without."""
    if vendor == "anthropic":
        return str(parse_base_url(base_url, strip_path="/v1"))
    if vendor in ("openai", "openai-chat", "openai-responses"):
        return str(parse_base_url(base_url, default_path="/v1"))
    return base_url


def _bedrock(base_url: str | None, timeout_s: float) -> Provider[Any]:
    """Return Bedrock's, which tries once. Keys, profile and region come from AWS' own variables and files."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from pydantic_ai.providers.bedrock import BedrockProvider

    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=timeout_s + SLACK_S,
        max_pool_connections=THREADS,
    )
    try:
        client = boto3.Session().client("bedrock-runtime", endpoint_url=base_url, config=config)
    except BotoCoreError as error:
        raise ValueError(f"{error} (AWS' own variables and files say where and who)") from error
    watch_botocore(client)
    _give_threads()
    return BedrockProvider(bedrock_client=client)


def _give_threads() -> None:
    """Let as many threads that wait for Bedrock run at once as there may be calls; on the loop that runs now."""
    with contextlib.suppress(anyio.NoEventLoopError):  # `fleet doctor` only makes it
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, THREADS)
