"""Which models an account may use, by its API's own list: what `fleet doctor` asks before anything is paid.

One GET, and a few more only where that finds nothing, to say where the API is. Never raises for what a server answers.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import aiohttp
from yarl import URL

from fleet.config import ProviderSettings, vendor_of
from fleet.config.certificates import certificate_of
from fleet.errors import ConfigurationError
from fleet.quoting import Hidden
from fleet.workers.providers.addresses import parse_base_url, proxy_for
from fleet.workers.providers.anthropic import API_VERSION, key_headers
from fleet.workers.providers.problem import read_problem

#: Seconds for one request; a list that takes longer is none.
LIST_TIMEOUT_S = 5.0
#: Largest list that is read, in bytes.
MAX_LIST_BYTES = 16 * 1024 * 1024
#: Where vendors list their models, for those whose address is not in `base_url`.
_LISTS: Mapping[str, str] = {
    "openai": "https://api.openai.com/v1/models",
    "openai-chat": "https://api.openai.com/v1/models",
    "openai-responses": "https://api.openai.com/v1/models",
    "anthropic": "https://api.anthropic.com/v1/models?limit=1000",
    "google": "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000",
    "groq": "https://api.groq.com/openai/v1/models",
    "mistral": "https://api.mistral.ai/v1/models",
    "cohere": "https://api.cohere.com/v1/models?page_size=1000",
    "huggingface": "https://router.huggingface.co/v1/models",
    "deepseek": "https://api.deepseek.com/models",
    "openrouter": "https://openrouter.ai/api/v1/models",
}
#: Path of the list below `base_url`, by vendor; elsewhere it is `/models`, as on OpenAI's wire.
_PATHS: Mapping[str, str] = {
    "anthropic": "/v1/models?limit=1000",
    "google": "/v1beta/models?pageSize=1000",
    "groq": "/openai/v1/models",
    "mistral": "/v1/models",
    "cohere": "/v1/models",
}
#: Vendors without a list that a key of theirs opens.
_UNLISTED = frozenset({"bedrock", "google-cloud", "azure", "azure-responses"})
#: Ends of addresses that name an endpoint and no API.
_ENDPOINTS = ("/chat/completions", "/completions", "/messages", "/responses", "/models", "/chat")
#: Fields of a model's entry that tell when it is shut down; in each vendor's spelling.
_ENDS = (
    "deprecation", "deprecation_date", "shutdown_date", "shutdown_at", "shut_down_at", "retirement_date", "retires_at",
    "retired_at", "sunset", "sunset_date", "sunset_at", "expiration_date", "expires_at", "end_of_life", "eol",
    "eol_date", "deprecated_at", "deprecates_at", "discontinued_at", "decommission_date",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model of a list.

    Args:
        name: As a pool must spell it.
        ends: The day on which it is shut down, where the list tells it.
        is_ending: True when it is said to be deprecated or no longer active.
        instead: The model that the vendor proposes in its place.
    """

    name: str
    ends: date | None = None
    is_ending: bool = False
    instead: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What came of asking an API for its models.

    Args:
        url: The address that was asked; empty: nothing was.
        status: Of the answer; None: there was none.
        models: The list; None: this server has none.
        trouble: Why there was no answer, in words.
        said: What the answer said, when it was a refusal; safe to show.
        is_json: False when the answer was no JSON, as that of a server of another kind.
        base_url: Where the API was found instead, when it is not where the configuration says.
    """

    url: str = ""
    status: int | None = None
    models: tuple[ListedModel, ...] | None = None
    trouble: str | None = None
    said: str = ""
    is_json: bool = False
    base_url: str | None = None


async def list_models(settings: ProviderSettings, model: str, *, key: str) -> Listing:
    """Ask an API for its models.

    Args:
        settings: The provider's table in fleet.toml.
        model: One that is wanted there: with kind "pydantic-ai" it names the vendor.
        key: The API's; empty: none is sent.
    """
    vendor = vendor_of(model) if settings.kind == "pydantic-ai" else settings.kind
    url = _list_url(settings, vendor)
    if url is None:
        return Listing()
    headers = _headers(vendor, key, is_token=settings.exchange is not None)
    certificate = certificate_of(settings)
    shown = None if certificate is None else aiohttp.TCPConnector(ssl=certificate.context())
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=shown, proxy=proxy_for(url), cookie_jar=jar) as session:
        found = await _get(session, url, headers)
        if found.models is None and found.status is not None and settings.base_url and _is_no_api(found.status):
            for base, candidate in _candidates(settings.base_url, vendor):
                if (there := await _get(session, candidate, headers)).models or there.status in (401, 403):
                    return replace(found, base_url=base)
        return found


def _is_no_api(status: int) -> bool:
    return status in (404, 405, 410) or 200 <= status < 400


def _list_url(settings: ProviderSettings, vendor: str) -> URL | None:
    if vendor in _UNLISTED:
        return None
    if settings.base_url is None:
        return URL(_LISTS[vendor]) if vendor in _LISTS else None
    try:
        base = parse_base_url(
            settings.base_url,
            default_path="" if vendor in _PATHS else "/v1",
            strip_path="/v1" if vendor == "anthropic" else "",
        )
    except ConfigurationError:  # said by the check of the address
        return None
    return URL(f"{base}{_PATHS.get(vendor, '/models')}", encoded=True)


def _candidates(base_url: str, vendor: str) -> Iterator[tuple[str, URL]]:
    """Yield where else the API may be: without the endpoint that somebody copied with it, with `/v1`, at its root."""
    text = base_url.rstrip("/")
    bare = next((text.removesuffix(end) for end in _ENDPOINTS if text.endswith(end)), text)
    path = _PATHS.get(vendor, "/models")
    ends = ("",) if vendor in _PATHS else ("", "/v1")
    root = str(URL(base_url).origin())
    bases = [
        f"{start}{end}" for start in (bare, bare.removesuffix("/v1").removesuffix("/v1beta"), root) for end in ends
    ]
    bases += [] if vendor in _PATHS else [f"{root}/api/v1", f"{root}/openai/v1"]
    for base in dict.fromkeys(bases):
        if base not in (text, root if not ends else ""):
            yield base, URL(f"{base}{path}", encoded=True)


def _headers(vendor: str, key: str, *, is_token: bool) -> dict[str, str]:
    version = {"anthropic-version": API_VERSION} if vendor == "anthropic" else {}
    if not key:
        return version
    if vendor == "anthropic":
        return {**key_headers(key, is_token=is_token), **version}
    name, text = ("x-goog-api-key", key) if vendor == "google" else ("Authorization", f"Bearer {key}")
    return {name: Hidden(text)}


async def _get(session: aiohttp.ClientSession, url: URL, headers: Mapping[str, str]) -> Listing:
    """Ask one address."""
    shown = str(url.with_query(None))
    timeout = aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)
    try:
        async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False) as answer:
            raw = await answer.content.read(MAX_LIST_BYTES)
            while not answer.content.at_eof() and len(raw) < MAX_LIST_BYTES:
                raw += await answer.content.read(MAX_LIST_BYTES)
            models = _read(raw) if 200 <= answer.status < 300 else None
            said = "" if models is not None else str(read_problem(raw, secrets=tuple(headers.values()), texts=()))
            return Listing(shown, answer.status, models, said=said, is_json=_json(raw) is not None)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        return Listing(shown, trouble=_trouble(error, url))


def _trouble(error: BaseException, url: URL) -> str:
    """Say why there was no answer."""
    where = f"{url.host}:{url.port}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{where} shows a certificate that is not trusted here"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return f"{where} speaks no TLS"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"no host {url.host} is known"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer within {LIST_TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorError):
        return (
            f"nothing listens at {where}"
            if isinstance(error.os_error, ConnectionRefusedError)
            else f"no way to {where}"
        )
    return f"{where} cut the connection, or speaks no HTTP ({type(error).__name__})"


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _read(raw: bytes) -> tuple[ListedModel, ...] | None:
    """Return the models of a list in any vendor's shape; None when it is none."""
    body = _json(raw)
    if isinstance(body, dict):
        body = next((body[name] for name in ("data", "models") if isinstance(body.get(name), list)), None)
    if not isinstance(body, list):
        return None
    found = [model for entry in body if isinstance(entry, dict) for model in _models_of(entry)]
    return tuple(found) if found or not body else None


def _models_of(entry: Mapping[str, Any]) -> Iterator[ListedModel]:
    """Yield what one entry names: a model, and the other names it has."""
    name = entry.get("id") or entry.get("name") or entry.get("model")
    if not isinstance(name, str):
        return
    told = {**entry, **{k: v for inner in ("lifecycle", "model_info") for k, v in _dict(entry.get(inner)).items()}}
    ends = next((day for day in map(_day, map(told.get, _ENDS)) if day is not None), None)
    is_ending = (
        told.get("deprecated") is True
        or told.get("is_deprecated") is True
        or told.get("active") is False
        or str(told.get("status", told.get("lifecycle_status", ""))).lower() in ("deprecated", "legacy", "retired")
    )
    instead = told.get("deprecation_replacement_model") or told.get("replacement") or told.get("replacement_model")
    others = entry.get("aliases")
    for other in (name, *(others if isinstance(others, list) else ())):
        if isinstance(other, str):
            yield ListedModel(
                other.removeprefix("models/"), ends, is_ending, instead if isinstance(instead, str) else None
            )


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _day(value: object) -> date | None:
    """Return a day given as a date, a time or Unix seconds; None when it is none."""
    try:
        if isinstance(value, bool) or not value:
            return None
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC).date()
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
