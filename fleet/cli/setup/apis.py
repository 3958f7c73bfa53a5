"""What `fleet doctor` hears from the APIs themselves: their lists of models and, with `--call`, one answer of each.

Gathered here, judged in `api_checks`. All are asked at once; none for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime

from fleet.config import PoolSettings, ProviderSettings, Settings, vendor_of
from fleet.conversation import Message
from fleet.errors import ConfigurationError, FleetError, Relearnt
from fleet.rates import RateReadings
from fleet.vault import read_key
from fleet.workers.calls import Call, Completion, Wishes
from fleet.workers.ports import Provider
from fleet.workers.providers import check_model, make_provider
from fleet.workers.providers.listing import Listing, list_models
from fleet.workers.providers.rates.headers import read_rates
from fleet.workers.providers.rates.retry_after import read_date

#: What is asked with `--call`, and the most tokens of the answer: the least that every vendor takes.
_QUESTION, _ANSWER_TOKENS = "Answer with one word: ready?", 16
#: Seconds for one answer: a model may think.
CALL_TIMEOUT_S = 60.0
#: Requests for one answer at most (count): a model may refuse what a first one carries.
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """What one real call gave.

    Args:
        ms: Until the answer, in milliseconds.
        tokens: What was used, input and output.
        rates: What the answer's headers said of the account's limits.
        ends: The day on which the answer's headers say that this is shut down (RFC 8594).
    """

    ms: int
    tokens: tuple[int, int]
    rates: RateReadings | None
    ends: date | None = None


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """What is known of one model at its API.

    Args:
        listing: What came of asking for its list; None: not asked, for want of a key.
        trouble: Why it could not be called whatever the API says: the extra, the vendor, an address.
        answer: What a real call gave; None: none was made.
    """

    listing: Listing | None = None
    trouble: str | None = None
    answer: Answered | FleetError | None = None


def ask_apis(settings: Settings, *, call: bool) -> dict[tuple[str, str], ApiFacts]:
    """Ask every configured API that pools use; return what is known by provider and model.

    Args:
        settings: The configuration.
        call: Also make one real call per provider and model.
    """
    wanted: dict[tuple[str, str], PoolSettings] = {}
    for name, pool in settings.pools.items():
        for provider, model in settings.calls_of(name):
            if _is_elsewhere(settings.providers.get(provider)):
                wanted.setdefault((provider, model), pool)
    return asyncio.run(_ask_all(settings, wanted, call)) if wanted else {}


def _is_elsewhere(provider: ProviderSettings | None) -> bool:
    """False for the local simulator, which is started when it is needed."""
    return provider is not None and (provider.kind != "simulator" or provider.base_url is not None)


async def _ask_all(
    settings: Settings, wanted: Mapping[tuple[str, str], PoolSettings], call: bool
) -> dict[tuple[str, str], ApiFacts]:
    lists: dict[tuple[str, str], asyncio.Task[Listing | None]] = {}
    found = []
    for (name, model), pool in wanted.items():
        provider, key = settings.providers[name], _key(name, settings, model)
        vendor = vendor_of(model) if provider.kind == "pydantic-ai" else ""
        if (name, vendor) not in lists:
            lists[name, vendor] = asyncio.create_task(_list(provider, model, key))
        found.append((provider, model, pool, key or "", lists[name, vendor]))
    await asyncio.gather(*lists.values())
    # Loading an SDK takes seconds in which nothing is heard: so between the lists and the calls.
    troubles = [
        await _trouble(provider, model, key) if listing.result() else None for provider, model, _, key, listing in found
    ]
    facts = [
        _facts(provider, model, pool, key, listing.result(), trouble, call)
        for (provider, model, pool, key, listing), trouble in zip(found, troubles, strict=True)
    ]
    return dict(zip(wanted, await asyncio.gather(*facts), strict=True))


def _key(name: str, settings: Settings, model: str) -> str | None:
    """Return the first key of a provider that can be read; None: none can."""
    for label in settings.provider_named(name).labels:
        with suppress(ConfigurationError):  # said by the check of the key
            return read_key(name, settings, model, label)
    return None


async def _trouble(provider: ProviderSettings, model: str, key: str) -> str | None:
    try:
        await check_model(provider, model, key=key)
    except ConfigurationError as error:
        return str(error)
    return None


async def _list(provider: ProviderSettings, model: str, key: str | None) -> Listing | None:
    return None if key is None else await list_models(provider, model, key=key)


async def _facts(
    provider: ProviderSettings,
    model: str,
    pool: PoolSettings,
    key: str,
    listed: Listing | None,
    trouble: str | None,
    call: bool,
) -> ApiFacts:
    if listed is None or trouble is not None or listed.trouble is not None or not call:
        return ApiFacts(listed, trouble)
    try:
        return ApiFacts(listed, answer=await _answer(provider, model, pool, key))
    except ConfigurationError as error:
        return ApiFacts(listed, answer=error)


async def _answer(provider: ProviderSettings, model: str, pool: PoolSettings, key: str) -> Answered | FleetError:
    """Ask what every call of the pool asks beyond an answer, too: a field or header may be what is refused."""
    wishes = Wishes(effort=pool.effort, tier=pool.tier, extra_body=pool.extra_body, extra_headers=pool.extra_headers)
    question = (Message(role="user", content=_QUESTION),)
    api = make_provider(provider)
    try:
        return await _call(
            api,
            Call(model, question, None, _ANSWER_TOKENS, CALL_TIMEOUT_S, wishes),
            key,
        )
    finally:
        await api.close()


async def _call(api: Provider, request: Call, key: str) -> Answered | FleetError:
    """Make one real call, again only where the model refuses something that it carried."""
    error: FleetError | None = None
    for _ in range(_TRIES):
        started = time.monotonic()
        try:
            return _answered(await api.complete(request, api_key=key), started)
        except Relearnt as refused:
            error = refused
        except FleetError as failed:
            return failed
    assert error is not None
    return error


def _answered(completion: Completion, started: float) -> Answered:
    used = completion.usage
    return Answered(
        round((time.monotonic() - started) * 1000),
        (used.input_tokens, used.output_tokens),
        read_rates(completion.headers, now_s=time.time()),
        None
        if (ends := read_date(completion.headers.get("sunset"))) is None
        else datetime.fromtimestamp(ends, UTC).date(),
    )
