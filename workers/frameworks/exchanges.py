"""Requests of SDKs under a grant each: sent as they are, with the pool's model and key, settled by what came.

The second way into the gateway. It retries nothing; what follows a failure is `bot/raw_asker.py`'s.
"""

from __future__ import annotations

import logging
import time

from fleet.errors import (
    ConfigurationError,
    DeadlineExceeded,
    FleetError,
    GiveUp,
    KeyRejected,
    KeySpent,
    ProviderUnavailable,
    RateLimited,
    Waits,
)
from fleet.grants import Grant
from fleet.workers.costs import Line
from fleet.workers.errands import Errand, KeySeeker
from fleet.workers.frameworks.asked import RawAsk
from fleet.workers.frameworks.outgoing import Outgoing
from fleet.workers.frameworks.passing import Passing
from fleet.workers.frameworks.raw import Onlooker, RawAnswer, RawProvider
from fleet.workers.passage import MOST_RENEWALS, Passages, is_renewed
from fleet.workers.ports import Knowledge
from fleet.workers.providers.bodies import read_said
from fleet.workers.providers.problem import read_problem
from fleet.workers.providers.verdict import error_of
from fleet.workers.rungs import Route

#: What to do about a wire that a provider does not speak.
REMEDY = {
    "openai": 'use bot.anthropic(), or give the pool a provider of kind "openai"',
    "anthropic": 'use bot.openai(), or give the pool a provider of kind "anthropic"',
    "gemini": "use bot.openai() or bot.anthropic(), whichever the pool's provider speaks",
}

logger = logging.getLogger(__name__)


class Exchanges:
    """Sends requests of SDKs: exactly one HTTP request per grant, and every grant settled exactly once.

    Args:
        passages: The ways of all calls of the process.
        lessons: What models refuse, and how they count.
    """

    def __init__(self, passages: Passages, lessons: Knowledge) -> None:
        self._passages = passages
        self._lessons = lessons

    async def ask(
        self, errand: Errand, ask: RawAsk, *, bound: int | None, passing: Passing | None, watch: Onlooker | None
    ) -> RawAnswer:
        """Send one request that asks the model; return its answer, or a refusal of it.

        Args:
            errand: Whose call it is.
            ask: What is asked.
            bound: The most output tokens that the pool or the task allows; None: neither says.
            passing: Hands on an answer in pieces; None: it is wanted whole.
            watch: Hears the answer.

        Raises:
            ConfigurationError: The provider does not speak the request's wire.
            FleetError: As `Gateway.chat`, but for refusals of this request: those are answers.
        """
        route = errand.route
        provider = speaking(route, ask)
        one = Outgoing(provider, route, ask, lessons=self._lessons, bound=bound, passing=passing)

        async def send(errand: Errand, grant: Grant, line: Line) -> tuple[RawAnswer, int]:
            with self._passages.settling(errand, grant, line, one) as settlement:
                answer = await one.send(errand.route)
                usage = one.used(answer)
                settlement.answered(usage, one.tier, answer.headers)
            return answer, usage.output_tokens

        try:
            answer, _ = await self._passages.go(errand, send, lambda sent: sent[1])
        except GiveUp:
            if one.refusal is None:
                raise
            return one.refusal
        if watch is not None:
            watch.after(one.answer_of(answer))
        if errand.deadline.left_s <= 0:
            raise DeadlineExceeded("the answer came too late")
        return one.for_client(answer)

    async def pass_on(self, route: Route, ask: RawAsk, asking: KeySeeker) -> RawAnswer:
        """Send a request that asks no model, with a key and without a grant; return its answer.

        What was made with one key may be seen by it alone: a bot's requests go with the same one, as long as it serves.

        Raises:
            ConfigurationError: The provider does not speak the request's wire.
            NotSoon: No key may be used now.
            RateLimited, ProviderUnavailable, KeyRejected, KeySpent: As the provider says; other refusals are answers.
        """
        provider = speaking(route, ask)
        refused: list[str] = []
        renewals = 0
        while True:
            key = self._passages.open_key(route, asking, refused)
            used = key.api_key
            answer = await provider.exchange(
                ask.written(route.model), api_key=used, timeout_s=route.timeout_s, on_head=lambda *_: None
            )
            logger.info(
                "request_without_model limit=%s method=%s status=%d", key.limit, ask.request.method, answer.status
            )
            if (failed := _failed(provider, used, ask, answer)) is None:
                return answer
            if not isinstance(failed, KeyRejected):
                raise failed
            if renewals < MOST_RENEWALS and await is_renewed(key, used, failed):
                renewals += 1
                continue
            refused.append(key.limit)
            if len(refused) >= len(route.limits):
                raise failed


def _failed(provider: RawProvider, key: str, ask: RawAsk, answer: RawAnswer) -> FleetError | None:
    """Return what passes by itself, or is the key's; None for an answer and for what only refuses this request."""
    is_page = answer.status < 300 and not ask.endpoint.endswith("/content") and read_said(answer.body).is_page
    if answer.status < 400 and not is_page:
        return None
    problem = read_problem(answer.body, secrets=(key,), texts=())
    error = error_of(provider.host, answer.status, problem, answer.headers, now_s=time.time())
    if is_page and not isinstance(error, Waits):
        return ProviderUnavailable(f"{provider.host}: expected JSON, got a page")
    is_the_keys = isinstance(error, KeySpent) or answer.status == 401
    return error if is_page or is_the_keys or isinstance(error, ProviderUnavailable | RateLimited) else None


def speaking(route: Route, ask: RawAsk) -> RawProvider:
    """Return the provider of a route, if it understands what is asked.

    Raises:
        ConfigurationError: It does not.
    """
    provider = route.provider
    if not isinstance(provider, RawProvider):
        raise ConfigurationError(
            f"[providers.{route.provider_name}]: expected one of kind openai, anthropic or simulator for an SDK's own "
            "requests, got one of kind pydantic-ai: use bot.chat(), or give the pool another provider"
        )
    if not provider.speaks(ask.wire):
        spoken = "anthropic" if provider.speaks("anthropic") else "openai"
        raise ConfigurationError(
            f"[providers.{route.provider_name}]: expected requests on the wire of {spoken}, got {ask.endpoint} on that "
            f"of {ask.wire}: {REMEDY[ask.wire]}"
        )
    return provider
