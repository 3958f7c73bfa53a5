"""The checks of `fleet doctor` that judge what the APIs themselves said. Pure, as all checks are."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator, Mapping
from datetime import date

from fleet.cli.setup.apis import Answered, ApiFacts
from fleet.cli.setup.check import Check, fail, ok, place_of, warn
from fleet.config import LimitSettings, ProviderSettings, Settings
from fleet.errors import BadRequest, FleetError, KeyRejected, RateLimited
from fleet.quoting import counted, listed, quote
from fleet.workers.providers.listing import ListedModel, Listing

#: What a limit of ours is called, in the order of `RateReadings`.
_LIMITS = ("rpm", "tpm", "input_tpm", "output_tpm")
#: Seconds of a reset from which a limit is not a minute's.
_MINUTE_S = 120.0


def api_checks(settings: Settings, facts: Mapping[tuple[str, str], ApiFacts], *, today: date) -> Iterator[Check]:
    """Yield what the APIs' own words show, provider by provider and pool by pool."""
    seen: set[tuple[str, str]] = set()
    for (name, _), fact in facts.items():
        if fact.listing is not None and fact.listing.url and (name, fact.listing.url) not in seen:
            seen.add((name, fact.listing.url))
            yield connection(name, settings.providers[name], fact.listing)
    for pool in settings.pools:
        for number, (name, model) in enumerate(settings.calls_of(pool)):
            if (found := facts.get((name, model))) is not None:
                yield from _call_checks(place_of(pool, number, settings), name, model, found, settings, today)


def _call_checks(
    place: str, name: str, model: str, found: ApiFacts, settings: Settings, today: date
) -> Iterator[Check]:
    """Yield what an API says of the model that a pool, or a rung of its ladder, asks."""
    if found.trouble is not None:
        yield fail(f"pool {place}: model", found.trouble, "Correct it: no worker could make a call.")
    elif found.listing is not None and found.listing.models is not None:
        provider = settings.providers[name]
        if provider.kind != "simulator":  # it takes any name
            yield model_name(place, _wire_name(provider, model), found.listing.models, today)
    if found.answer is not None:
        yield from answer_checks(place, found.answer, *settings.limit_at(name, model))
        if isinstance(found.answer, Answered) and found.answer.ends is not None:
            yield model_name(place, model, (ListedModel(model, found.answer.ends),), today)


def _wire_name(provider: ProviderSettings, model: str) -> str:
    return model.partition(":")[2] if provider.kind == "pydantic-ai" else model


def connection(name: str, provider: ProviderSettings, listing: Listing) -> Check:
    """Say whether the API answers where the configuration says, and takes the key."""
    label, setting = f"provider {name}: connection", f"base_url in [providers.{name}]"
    told = f"{listing.url} answered {listing.status}{listing.said}"
    if listing.trouble is not None:
        hint = (
            f"Correct host and port of {setting}, or start that server."
            if provider.base_url
            else ("Look at this machine's network, DNS and proxy: no call would come through.")
        )
        if listing.trouble.endswith("speaks no TLS"):
            hint = f"Use http:// in {setting}, if that network is yours alone."
        return fail(label, listing.trouble, hint)
    if listing.base_url is not None:
        return fail(label, f"{told}, so there is no API", f'Set base_url = "{listing.base_url}" in [providers.{name}].')
    if listing.models is not None:
        return ok(label, f"{listing.url} lists {counted(len(listing.models), 'model')}")
    if listing.status == 401:
        return fail(label, told, f"Use a key that lives: this one, of [providers.{name}], is not taken.")
    if listing.status == 402:
        return fail(label, told, "Add money to the account, or use the key of another.")
    if listing.status == 403:
        return warn(label, told, "This key may not list models: `fleet doctor --call` shows whether it may use them.")
    if listing.status == 429 or (listing.status or 0) >= 500:
        return warn(label, told, "The API does not serve now: look again later, or at the vendor's status page.")
    if listing.is_json:
        return ok(label, f"{told}: it has no list of models; `fleet doctor --call` tries one")
    hint = f"Correct {setting}: what answers there is no such API. `fleet doctor --call` makes sure."
    return warn(label, f"{told}, and no JSON", hint)


def model_name(pool: str, model: str, models: tuple[ListedModel, ...], today: date) -> Check:
    """Say whether the account lists a model, and until when there is one."""
    label, names = f"pool {pool}: model", [one.name for one in models]
    found = next((one for one in models if is_same(model, one.name)), None)
    if found is None:
        near = difflib.get_close_matches(model[:64], names[:5000], n=1, cutoff=0.5)
        hint = f"the nearest listed one is `{near[0]}`" if near else f"listed: {listed(names, len(names)) or 'none'}"
        return warn(label, f"{quote(model)} is not among the {counted(len(models), 'model')} that the account lists",
                    f"Correct model in [pools.{pool}]: {hint}.")  # fmt: skip
    instead = f"`{found.instead}`" if found.instead else "one that stays"
    if found.ends is not None and found.ends <= today:
        return fail(label, f"{model} was shut down on {found.ends}", f"Use {instead} in [pools.{pool}].")
    if found.ends is not None:
        return warn(label, f"{model} is shut down on {found.ends}", f"Use {instead} in [pools.{pool}] before that day.")
    if found.is_ending:
        return warn(label, f"{model} is deprecated, says its list", f"Use {instead} in [pools.{pool}].")
    return ok(label, f"{model} is listed")


def is_same(model: str, name: str) -> bool:
    """True when a listed name means this model: itself, a dated or latest version of it, a proxy's pattern for it."""
    if model == name:
        return True
    if name.startswith((f"{model}-", f"{model}@", f"{model}:")):
        version = name[len(model) + 1 :].replace("-", "")
        return version == "latest" or version.isdigit()
    head, found, _ = model.rpartition(":")  # a variant or a route behind the name: `:free`, `:groq`, `:latest`
    return (bool(found) and head == name) or ("*" in name and fnmatch.fnmatchcase(model, name))


def answer_checks(pool: str, answer: Answered | FleetError, limit_name: str, limit: LimitSettings) -> Iterator[Check]:
    """Yield what a real call showed: the answer, and limits that are typed higher than the account's."""
    label = f"pool {pool}: call"
    if isinstance(answer, FleetError):
        yield (warn if isinstance(answer, RateLimited) else fail)(label, str(answer), _advice(pool, answer))
        return
    yield ok(label, f"answered after {answer.ms:,} ms, {answer.tokens[0]} + {answer.tokens[1]} tokens")
    for name, reading in zip(_LIMITS, answer.rates or (), strict=False):
        typed, theirs = getattr(limit, name), reading.limit
        if typed is None or not theirs or (reading.reset_s or 0) > _MINUTE_S or typed <= theirs:
            continue
        yield warn(
            f"pool {pool}: limits of the account",
            f"{name} {typed:,} is set, {theirs:,.0f} is what the answer's headers say",
            f'Set {name} = {theirs:.0f} in [limits."{limit_name}"]: what goes beyond is answered with 429.',
        )


def _advice(pool: str, error: FleetError) -> str:
    """Say what to do about a call that failed, by whose fault it is."""
    if isinstance(error, RateLimited):
        return "Others use this key now, or its limits are low: look again in a minute."
    if isinstance(error, KeyRejected):
        return "Check this key, its rights and its account's money: every call would fail."
    if error.blame == "provider":
        return "Look at the address of the API and at the vendor's status page, then try again."
    if isinstance(error, BadRequest) or error.blame == "configuration":
        return f"Correct model in [pools.{pool}], or the provider's base_url: every call would fail."
    return "Correct it: every call would fail."
